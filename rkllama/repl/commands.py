"""The commands of the chat, but for `/set`. Each is a function of the conversation and what was typed
after its name.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..console.inputs import completed_path, completed_picture
from ..console.output import human_size, print_note, write_styled
from ..console.pictures.files import read_picture, shell_path
from ..console.show import details_text, part_text, two_columns
from ..errors import RKLLamaError
from .attachments import pictures_of, read_text_file
from .conversation import Conversation, beginning, show_typed
from .settings import CHOICES, set_option

_HELP: tuple[tuple[str, str], ...] = (
    ("/set system TEXT", 'set the system message; "" removes it'),
    (
        "/set parameter NAME VALUE",
        "temperature, top_k, top_p, seed, num_predict, num_ctx, stop …",
    ),
    ("/set verbose | quiet", "show or hide counts and timings after each answer"),
    ("/set think | nothink", "turn thinking before the answer on or off"),
    ("/set history | nohistory", "turn the history of typed lines on or off"),
    ("/set markdown | nomarkdown", "draw answers as Markdown, or show them as they are"),
    ("/set wordwrap | nowordwrap", "turn line breaks between words on or off"),
    ("/set format json|noformat", "have the answers be JSON, or not"),
    ("/show [PART]", "info, system, parameters, modelfile, license or template"),
    ("/set images | noimages", "draw pictures small, where the terminal can, or not"),
    ("/read FILE", "send a text file along with your next message"),
    ("/image FILE", "show a picture to the model with your next message"),
    ("/retry", "have your last message answered anew"),
    ("/edit [new]", "change your last message in your editor, or write a new one"),
    ("/undo", "take back your last message and its answer"),
    ("/copy", "copy the last answer to the terminal's clipboard"),
    ("/chat save [NAME]", "save this chat; also /chat list, resume NAME and rm NAME"),
    ("/load MODEL", "switch to another model"),
    ("/save NAME", "save this chat and its settings as a model"),
    ("/clear", "forget the conversation"),
    ("/bye", "leave (also Ctrl-D)"),
    ("/?", "show this help"),
)
_HELP_TAIL = """
Put \"\"\" around a text of several lines.
TAB completes commands, names and files.
Ctrl-C stops an answer.
"""


def _show_help(_chat: Conversation, _rest: str) -> None:
    sys.stderr.write(two_columns(_HELP, indent="", stream=sys.stderr) + _HELP_TAIL)


def _clear(chat: Conversation, _rest: str) -> None:
    chat.clear()
    sys.stderr.write("Cleared the conversation.\n")


# --- The last message --------------------------------------------------------------------------


def _read(chat: Conversation, path: str) -> None:
    if not path:
        sys.stderr.write("Which file? /read FILE\n")
        return
    file = read_text_file(shell_path(path))
    chat.files.append(file)
    size = human_size(len(file.text.encode(errors="replace")))
    sys.stderr.write(f"{file.name} ({size}) goes along with your next message.\n")


def _image(chat: Conversation, path: str) -> None:
    if not path:
        sys.stderr.write("Which picture? /image FILE\n")
        return
    chat.attach([read_picture(shell_path(path))])


def _retry(chat: Conversation, _rest: str) -> None:
    last = chat.last()
    if last is None:
        sys.stderr.write("There is no message yet that could be answered anew.\n")
    else:
        chat.ask_again(last[1])


def _undo(chat: Conversation, _rest: str) -> None:
    message = chat.undo()
    if message is None:
        sys.stderr.write("There is no message to take back.\n")
    else:
        count = len(pictures_of(message))
        along = f" and its {'picture' if count == 1 else f'{count} pictures'}" if count else ""
        sys.stderr.write(f'Took back "{beginning(message.text)}"{along}.\n')


def _edit(chat: Conversation, rest: str) -> None:
    from .editor import edited

    if rest not in ("", "new"):
        sys.stderr.write("/edit changes your last message; /edit new writes a new one.\n")
        return
    last = None if rest == "new" else chat.last()
    before = "" if last is None else last[1].text.strip()
    text = edited(before)
    if not text or text == before:
        reason = "is empty" if not text else "is as it was"
        sys.stderr.write(f"The text {reason}; nothing was changed.\n")
        return
    show_typed(text, sys.stderr)
    if last is None:
        chat.ask(text)
    else:
        chat.ask_instead(text, last[1])


def _copy(chat: Conversation, _rest: str) -> None:
    from .clipboard import copy_text

    answers = [message.text for message in chat.messages if message.role == "assistant"]
    if not answers:
        sys.stderr.write("There is no answer yet.\n")
        return
    copy_text(answers[-1])
    sys.stderr.write("Sent the last answer to the terminal's clipboard.\n")


# --- The model ---------------------------------------------------------------------------------


def _show(chat: Conversation, what: str) -> None:
    details = chat.service.show(chat.model)
    if what in ("", "info"):
        write_styled(f"{details_text(details)}\n")
        return
    if what == "system":
        own = chat.options.system
        text = (details.system if own is None else own) or "(none)"
    elif what == "parameters":
        from ..models.modelfile import merge_parameters

        merged = merge_parameters(details.parameters, chat.options.parameters())
        text = "\n".join(f"{name:<18}{value}" for name, value in merged) or "(none)"
    elif what in ("modelfile", "license", "template"):
        text = part_text(details, what).rstrip("\n") or "(none)"
    else:
        sys.stderr.write("/show takes info, system, parameters, modelfile, license or template.\n")
        return
    sys.stdout.write(text + "\n")


def _load(chat: Conversation, name: str) -> None:
    if not name:
        sys.stderr.write("Which model? /load MODEL\n")
        return
    chat.switch(name)
    sys.stderr.write(f"Chat with {chat.model}.\n")


def _save(chat: Conversation, name: str) -> None:
    if not name:
        sys.stderr.write("Under which name? /save NAME\n")
        return
    saved = chat.service.create(name, _modelfile(chat)).name
    if any(map(pictures_of, chat.messages)):
        print_note("a model keeps no pictures; /chat save does.")
    sys.stderr.write(f"Saved. To continue later: rkllama run {saved}\n")


def _modelfile(chat: Conversation) -> str:
    """Return the model's Modelfile, with the settings and messages of this chat."""
    from ..models.modelfile import (
        merge_parameters,
        parse_modelfile,
        render_modelfile,
        without_program,
    )

    details = chat.service.show(chat.model)
    own = without_program(parse_modelfile(details.modelfile))  # it is not taken over HTTP
    system = chat.options.system
    return render_modelfile(
        replace(
            own,
            source=details.parent or details.info.name,
            system=own.system if system is None else system,
            parameters=merge_parameters(own.parameters, chat.options.parameters()),
            messages=(*own.messages, *chat.messages),
        )
    )


COMMANDS: dict[str, Callable[[Conversation, str], None]] = {
    "/set": set_option,
    "/show": _show,
    "/read": _read,
    "/image": _image,
    "/retry": _retry,
    "/edit": _edit,
    "/undo": _undo,
    "/copy": _copy,
    "/load": _load,
    "/save": _save,
    "/clear": _clear,
    "/?": _show_help,
    "/help": _show_help,
}
_CHOICES = {
    **CHOICES,
    "/show": ("info", "system", "parameters", "modelfile", "license", "template"),
    "/edit": ("new",),
}


def completions(chat: Conversation, typed: str) -> Iterable[str]:
    """Return what the word at the end of a command may be; text for the model is not completed."""
    words = typed.split(" ")
    if words[:-1] == ["/load"]:
        with contextlib.suppress(RKLLamaError):
            return [info.name for info in chat.service.models()]
    if words[:-1] == ["/read"]:
        return completed_path(words[-1])
    if words[:-1] == ["/image"]:
        return completed_picture(words[-1])
    return _CHOICES.get(" ".join(words[:-1]), ())
