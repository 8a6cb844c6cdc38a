"""`/set`: how the next answers are asked for, and how they look."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from ..console.options import PARAMETERS
from ..console.pictures.graphics import PROTOCOLS, check_shows, find_protocol
from .conversation import Conversation

SWITCHES: dict[str, dict[str, Any]] = {
    "verbose": {"verbose": True},
    "quiet": {"verbose": False},
    "think": {"think": True},
    "nothink": {"think": False},
    "markdown": {"markdown": True},
    "nomarkdown": {"markdown": False},
    "wordwrap": {"wordwrap": True},
    "nowordwrap": {"wordwrap": False},
    "noformat": {"format": None},
    "noimages": {"show_images": False},
}
CHOICES: dict[str, tuple[str, ...]] = {
    "/set": (*SWITCHES, "format", "images", "history", "nohistory", "parameter", "system"),
    "/set parameter": PARAMETERS,
    "/set format": ("json",),
    "/set images": PROTOCOLS,
}
"""What may follow the words of a command."""
_USAGE = """\
/set system TEXT
/set parameter NAME VALUE
/set format json
/set verbose | quiet | think | nothink | history | nohistory | noformat
/set markdown | nomarkdown | wordwrap | nowordwrap
/set images | noimages
"""


def set_option(chat: Conversation, rest: str) -> None:
    """Change one of the options by what follows `/set`. Raises InvalidRequest."""
    name, _, value = (part.strip() for part in rest.partition(" "))
    if name in SWITCHES and not value:
        chat.options = replace(chat.options, **SWITCHES[name])
        sys.stderr.write(f"Set {name}.\n")
    elif name in ("history", "nohistory") and not value:
        chat.keep_history = name == "history"
        sys.stderr.write(f"Set {name}.\n")
    elif name == "format" and value == "json":
        chat.options = replace(chat.options, format="json")
        sys.stderr.write("Set format to json.\n")
    elif name == "images" and value in ("", *PROTOCOLS):
        _set_images(chat, value)
    elif name == "system" and value:
        chat.options = replace(chat.options, system=_unquoted(value))
        sys.stderr.write("Set the system message.\n")
    elif name == "parameter" and " " in value:
        _set_parameter(chat, *value.split(None, 1))
    elif name in PARAMETERS and value:  # many leave the word "parameter" out
        _set_parameter(chat, name, value)
    else:
        sys.stderr.write(_USAGE)


def _set_images(chat: Conversation, value: str) -> None:
    """Have pictures drawn, by a protocol that is named or the one of the terminal. Raises RKLLamaError."""
    protocol = next((name for name in PROTOCOLS if name == value), None)
    check_shows(protocol or find_protocol())
    chat.options = replace(chat.options, show_images=protocol or True)
    sys.stderr.write("Set images.\n")


def _set_parameter(chat: Conversation, name: str, text: str) -> None:
    chat.options = chat.options.with_parameter(name, _unquoted(text))
    sys.stderr.write(f"Set {name} to {text}.\n")


def _unquoted(text: str) -> str:
    for quote in ('"""', '"', "'"):
        if len(text) >= 2 * len(quote) and text.startswith(quote) and text.endswith(quote):
            return text[len(quote) : -len(quote)]
    return text
