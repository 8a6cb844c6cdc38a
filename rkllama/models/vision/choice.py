"""Which of the files beside a model, or in its repository, is its image encoder: told by their names."""

from __future__ import annotations

from collections.abc import Iterable

from ..filename import EXTENSIONS, parse_platform

RKNN = ".rknn"
_WORDS = ("vision", "vit", "encoder", "visual")


def find_encoder(file: str, files: Iterable[str], platform: str | None) -> str | None:
    """Return the image encoder that goes with the model `file`: the only one of its repository, of several
    the one that is named so, is for the platform and lies nearest. None where there is none to be sure of.
    """
    folder = file.rpartition("/")[0]
    found = [name for name in files if is_encoder(name)]
    if file.lower().endswith(EXTENSIONS[1]):
        found = [name for name in found if is_mmproj(name)]
        return found[0] if found else None
    found = [name for name in found if not is_mmproj(name)]
    for narrower in (
        lambda name: any(word in name.lower() for word in _WORDS),
        lambda name: platform is not None and platform in name.lower(),
        lambda name: name.rpartition("/")[0] == folder,
    ):
        if len(found) > 1:
            found = [name for name in found if narrower(name)] or found
    foreign = len(found) == 1 and parse_platform(found[0]) not in (None, platform)
    return found[0] if len(found) == 1 and not foreign else None


def is_encoder(name: str) -> bool:
    """Return whether a file of this name is an image encoder of either kind."""
    return name.lower().endswith(RKNN) or is_mmproj(name)


def is_mmproj(name: str) -> bool:
    """Return whether a file of this name is llama.cpp's kind of encoder."""
    return name.rpartition("/")[2].lower().startswith("mmproj") and name.lower().endswith(".gguf")
