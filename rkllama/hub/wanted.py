"""How people name the model that they want: a short name as Ollama has it, or a reference to the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InvalidRequest
from ..models.filename import EXTENSIONS
from ..models.reference import Reference, parse_reference
from .reading import Reading, read_words

_TYPED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}(?::[A-Za-z0-9][A-Za-z0-9._+-]{0,127})?")
_LIBRARY = re.compile(r"(?:https?://)?(?:(?:www\.|registry\.)?ollama\.(?:com|ai)/)?library/", re.I)
_HUB = re.compile(r"(?:https?://)?(?:hf|hf\.co|huggingface\.co)/", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody asked for: a model by its `reading`, or a `reference` to the Hub.

    `name` is what the model shall be called here, None for the name of its file.
    """

    text: str
    reading: Reading
    reference: Reference | None = None
    name: str | None = None


def parse_wanted(text: str) -> Wanted:
    """Return what `qwen3:4b`, `library/NAME`, `[hf/]USER/REPO[:QUANT]`, `USER/REPO/FILE[/NAME]` or the
    address of a page mean. Raises InvalidRequest.
    """
    typed = _LIBRARY.sub("", text.strip())
    if "/" in typed:
        return _referenced(typed)
    if not _TYPED.fullmatch(typed):
        raise InvalidRequest(
            f"{text[:100]!r} is not the name of a model",
            param="model",
            hint="Write it like qwen3:4b, or as USER/REPO/FILE.rkllm on Hugging Face.",
        )
    name = typed.removesuffix(":latest")
    return Wanted(text=name, reading=read_words(name), name=name)


def _referenced(text: str) -> Wanted:
    """Return a reference; the name behind the file is what the older RKLLama's users wrote."""
    bare = _HUB.sub("", text)
    segments = bare.split("/")
    name = None
    if len(segments) >= 4 and segments[-2].lower().endswith(EXTENSIONS):
        *_, name = segments
        if name.lower().endswith(EXTENSIONS) or "@" in segments[-2]:
            name = None
        else:
            text = text[: -len(name) - 1]
            if not _TYPED.fullmatch(name):
                raise InvalidRequest(f"{name[:100]!r} is not a name for a model", param="model")
    reference = parse_reference(text)
    quantization = read_words(reference.tag) if reference.tag else Reading()
    return Wanted(text=text, reading=quantization, reference=reference, name=name)
