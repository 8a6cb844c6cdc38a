"""How people name the model that they want: a short name as Ollama has it, or a reference to the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InvalidRequest
from ..models.filename import without_registry
from ..models.reference import Reference, parse_reference
from .reading import Reading, read_words

_TYPED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}(?::[A-Za-z0-9][A-Za-z0-9._+-]{0,127})?")
_URL = re.compile(r"https?://(?:www\.)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody asked for: a model by its `reading`, or a `reference` to the Hub.

    `name` is what the model shall be called here, None for the name of its file.
    """

    text: str
    reading: Reading
    reference: Reference | None = None
    name: str | None = None


def parse_wanted(text: str, endpoint: str | None = None) -> Wanted:
    """Return what `qwen3:4b`, `library/NAME`, `[hf/]USER/REPO[:QUANT]`, `USER/REPO/FILE[/NAME]` or the
    address of a page of the Hub, or of `endpoint`, its mirror, mean. Raises InvalidRequest.
    """
    typed = without_registry(_URL.sub("", text.strip()))
    if "/" in typed:
        reference = parse_reference(text, endpoint)
        tag = read_words(reference.tag) if reference.tag else Reading()
        return Wanted(text=text.strip(), reading=tag, reference=reference, name=reference.name)
    if not _TYPED.fullmatch(typed):
        raise InvalidRequest(
            f"{text[:100]!r} is not the name of a model",
            param="model",
            hint="Write it like qwen3:4b, or as USER/REPO/FILE.rkllm on Hugging Face.",
        )
    name = typed.removesuffix(":latest")
    return Wanted(text=name, reading=read_words(name), name=name)
