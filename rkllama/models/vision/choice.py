"""Which of the files beside a model, or in its repository, is its image encoder: told by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from ..filename import EXTENSIONS, is_mmproj, parse_platform, parse_quantization, strip_extension

RKNN = ".rknn"
_WORDS = ("vision", "vit", "encoder", "visual")
_PREFERRED = ("Q8_0", "F16", "BF16", "F32")
"""Of encoders of one model for llama.cpp: half the size of F16 and as good; few boards compute in BF16."""


def find_encoder(file: str, files: Iterable[str], platform: str | None) -> str | None:
    """Return the image encoder that goes with the model `file`: the only one of its repository, of several
    the one that is named so, is for the platform and lies nearest. None where there is none to be sure of.
    """
    files = list(files)
    if file.lower().endswith(EXTENSIONS[1]):
        return _find_mmproj(file, files)
    found = _narrowed(
        [name for name in files if name.lower().endswith(RKNN)],
        lambda name: any(word in name.lower() for word in _WORDS),
        lambda name: platform is not None and platform in name.lower(),
        lambda name: _folder(name) == _folder(file),
    )
    foreign = len(found) == 1 and parse_platform(found[0]) not in (None, platform)
    return found[0] if len(found) == 1 and not foreign else None


def _find_mmproj(file: str, files: list[str]) -> str | None:
    """Return the encoder for llama.cpp: named like the model, or like none that lies there."""
    own = _words(file)
    models = [name for name in files if name.lower().endswith(EXTENSIONS[1])]
    others = {_words(name) for name in models if not is_mmproj(name)} - {own}
    found = [name for name in models if is_mmproj(name) and _words(name) not in others]
    found = _narrowed(
        found, lambda name: _folder(name) == _folder(file), lambda name: _words(name) == own
    )
    kinds = {parse_quantization(name): name for name in found}
    best = next((kinds[kind] for kind in _PREFERRED if kind in kinds), None)
    if best is None:
        return found[0] if len(found) == 1 else None
    is_sure = len({_words(name) for name in found}) == 1
    return best if is_sure else None


def _narrowed(found: list[str], *narrower: Callable[[str], bool]) -> list[str]:
    """Return those that fit, condition by condition, as long as there are several."""
    for fits in narrower:
        if len(found) > 1:
            found = [name for name in found if fits(name)] or found
    return found


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


@lru_cache(maxsize=1024)
def _words(name: str) -> str:
    """Return what is left of a file's name without its kind and its quantization: the model's name."""
    text = strip_extension(name.rpartition("/")[2]).lower().replace("mmproj", "")
    if (quantization := parse_quantization(text)) is not None:
        text = text.replace(quantization.lower(), "").replace("fp16", "").replace("fp32", "")
    words = re.split(r"[^a-z0-9]+", re.sub(r"-\d{5}-of-\d{5}$", "", text))
    return "-".join(word for word in words if word not in ("", "ud", "model", "gguf", "vision"))


def is_named_for(encoder: str, file: str) -> bool:
    """Return whether an encoder for llama.cpp has the name of the model `file`."""
    return is_mmproj(encoder) and _words(encoder) == _words(file)


def is_encoder(name: str) -> bool:
    """Return whether a file of this name is an image encoder of either kind."""
    return name.lower().endswith(RKNN) or is_mmproj(name)
