"""The table of the formats. A new family is a file beside this one and its row here."""

from __future__ import annotations

from .deepseek import FORMAT as DEEPSEEK
from .granite import FORMAT as GRANITE
from .hermes import FORMAT as HERMES
from .llama3 import FORMAT as LLAMA3
from .mistral import FORMAT as MISTRAL

FORMATS = {format.name: format for format in (HERMES, MISTRAL, DEEPSEEK, GRANITE, LLAMA3)}
"""By name, in the order in which a template's source is searched for their signs."""

MARKED = tuple(form for format in FORMATS.values() for form in format.forms)
"""Forms whose opener says that a call begins; they are read whatever the model's family is."""

MARKERS = (
    *(marker for form in MARKED for marker in (form.opener, *form.closers)),
    *(separator for format in FORMATS.values() for separator in format.separators),
)
"""What is looked for in an answer that may hold calls."""


def find_format(source: str) -> str:
    """The name of the format in which a chat template writes calls; "json" where nothing tells it."""
    for format in FORMATS.values():
        if any(sign in source for sign in format.signs):
            return format.name
    return "json"
