"""A chat on the terminal: what is typed is a command or goes to the model."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ..console.options import ChatOptions
from ..console.output import print_error
from ..errors import RKLLamaError
from ..service import Service
from ..types import SentImage
from .commands import COMMANDS, completions
from .conversation import Conversation
from .keeping import ACTIONS, chat_command, offer_to_save
from .line_reader import LineReader
from .saved import SavedChat, SavedChats

_LEAVE = ("/bye", "/exit")


class Chat:
    """A conversation, and the lines that are typed for it; `home` has the history and the saved chats."""

    def __init__(
        self,
        service: Service,
        model: str,
        options: ChatOptions,
        home: str,
        saved: SavedChat | None = None,
        pictures: Sequence[SentImage] = (),
    ) -> None:
        self._conversation = Conversation(service, model, options, pictures)
        self._saved = saved
        self._chats = SavedChats(os.path.join(home, "chats"))
        self._lines = LineReader(os.path.join(home, "history"), self._complete)
        self._commands: dict[str, Callable[[Conversation, str], None]] = {
            **COMMANDS,
            "/chat": partial(chat_command, self._chats),
        }

    def loop(self) -> None:
        """Read, answer, until /bye or Ctrl-D."""
        chat = self._conversation
        if self._saved is not None:
            chat.resume(self._saved)  # it can be read while the model is loaded
        chat.preload(chat.service.show(chat.model))
        sys.stderr.write(f"Chat with {chat.model}. /? for help, /bye to leave.\n")
        chat.announce(chat.pictures)
        while (text := self._lines.read()) is not None and text.strip() not in _LEAVE:
            try:
                self._heed(text)
            except RKLLamaError as error:
                print_error(error)
            except KeyboardInterrupt:
                sys.stderr.write("(stopped)\n")
        offer_to_save(self._chats, chat)

    def _heed(self, text: str) -> None:
        word, _, rest = text.strip().partition(" ")
        if self._is_command(word, text):
            self._command(word, rest.strip())
        elif text.strip():
            self._conversation.ask(text)

    def _is_command(self, word: str, text: str) -> bool:
        """Return whether a text is a command; a path at its beginning, or a pasted comment, is not."""
        if word in self._commands:
            return True
        return word.startswith("/") and "/" not in word[1:] and "\n" not in text.strip()

    def _command(self, word: str, rest: str) -> None:
        command = self._commands.get(word)
        if command is None:
            sys.stderr.write(f"Unknown command {word}. /? lists the commands.\n")
        else:
            command(self._conversation, rest)
            self._lines.keep_history(self._conversation.keep_history)

    def _complete(self, typed: str) -> Iterable[str]:
        words = typed.split(" ")
        if len(words) == 1:
            return [*self._commands, _LEAVE[0]] if typed.startswith("/") else []
        if words[0] == "/chat":
            if len(words) == 2:
                return ACTIONS
            return self._chats.names() if words[1:-1] in (["resume"], ["rm"]) else ()
        return completions(self._conversation, typed)
