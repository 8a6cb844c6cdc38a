"""`/chat`: this conversation as a saved chat, and those that were saved."""

from __future__ import annotations

import sys

from ..console.output import human_time, print_note, table, write_styled
from ..console.terminal import agreed, can_ask
from ..errors import InvalidRequest
from .conversation import Conversation, beginning
from .saved import SavedChat, SavedChats

ACTIONS = ("save", "list", "resume", "rm")
_USAGE = "/chat save [NAME] | list | resume NAME | rm NAME\n"


def chat_command(chats: SavedChats, chat: Conversation, rest: str) -> None:
    """Do what follows `/chat`. Raises RKLLamaError."""
    action, _, name = (part.strip() for part in rest.partition(" "))
    if action == "save":
        _save(chats, chat, name)
    elif action == "list" and not name:
        print_chats(chats)
    elif action == "resume" and name:
        _resume(chats, chat, name)
    elif action == "rm" and name:
        chats.remove(name)
        sys.stderr.write(f"Deleted the chat {name}.\n")
    else:
        sys.stderr.write(_USAGE)


def print_chats(chats: SavedChats) -> None:
    """Print the saved chats as a table on stdout."""
    found, passed_over = chats.all()
    if found:
        head = ("NAME", "MODEL", "MESSAGES", "SAVED", "TITLE")
        rows = [
            (
                chat.name,
                chat.model,
                str(len(chat.messages)),
                human_time(chat.saved),
                beginning(chat.title, 30),
            )
            for chat in found
        ]
        write_styled(table(head, rows, right="MESSAGES", lesser=("TITLE", "MODEL", "MESSAGES")))
        sys.stdout.flush()
    elif not passed_over:
        sys.stderr.write("No saved chats yet. In a chat, /chat save keeps it.\n")
    for text in passed_over:
        print_note(f"passed over: {text}.")


def offer_to_save(chats: SavedChats, chat: Conversation) -> None:
    """Ask whether what a saved chat has become is to be saved, too, before it is left."""
    if chat.name is None or chat.messages in ((), chat.kept) or not can_ask():
        return
    if agreed(f"Save the chat {chat.name} as it is now?", default=True):
        _write(chats, chat, chat.name)


def _save(chats: SavedChats, chat: Conversation, name: str) -> None:
    if not chat.messages:
        sys.stderr.write("Nothing was said yet.\n")
        return
    name = name or chat.name or chats.free_name(beginning(chat.messages[0].text))
    if name != chat.name and name in chats.names():
        raise InvalidRequest(
            f"there is a saved chat '{name}' already",
            hint=f"Choose another name, or delete it first: /chat rm {name}",
        )
    _write(chats, chat, name)


def _write(chats: SavedChats, chat: Conversation, name: str) -> None:
    from ..console.one_file import lasting_name  # lists of chats do without the engine

    chats.save(
        SavedChat(
            name=name,
            model=lasting_name(chat.service, chat.model),
            messages=chat.messages,
            options=chat.options,
            title=beginning(chat.messages[0].text),
        )
    )
    chat.name, chat.kept = name, chat.messages
    sys.stderr.write(f"Saved. To continue later: rkllama chats resume {name}\n")


def _resume(chats: SavedChats, chat: Conversation, name: str) -> None:
    saved = chats.get(name)
    chat.switch(saved.model, chat.options.looks().over(saved.options))
    sys.stderr.write(f"Chat with {chat.model}.\n")
    chat.resume(saved)
