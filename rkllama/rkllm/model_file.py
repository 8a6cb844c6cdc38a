"""What a .rkllm file is when it is no model: told before the runtime is asked, which may die of it."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from ..types import Diagnosis

_UNFINISHED = (".aria2", ".st")
"""What downloaders keep beside a file of full length as long as they are not through (aria2, axel)."""
_TAIL = 1 << 20
"""Bytes at the end that no model has all zero."""
_LARGEST_LORA = 256 << 20
_AGAIN = "Download it again; a clone of a repository needs `git lfs pull`."

_ADAPTER = "Make a model of both with a Modelfile: FROM the model that it was trained for, ADAPTER this file."


def what_else(path: str) -> Diagnosis | None:
    """What the file at `path` is instead of a model; None: it may be one. Raises OSError."""
    with open(path, "rb") as stream:
        head, size = stream.read(512), os.fstat(stream.fileno()).st_size
        lacks_end = _ends_in_zeros(stream, size)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return Diagnosis(message="an empty file", hint=_AGAIN)
    if head.startswith(b"version https://git-lfs"):
        return Diagnosis(message="a Git LFS pointer, which stands for the file", hint=_AGAIN)
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return Diagnosis(
            message="a web page", hint="Download the file itself, not the page that shows it."
        )
    if head.startswith(b"GGUF"):
        return Diagnosis(
            message="a GGUF model", hint="Give its name the ending .gguf: it runs on the CPU."
        )
    if not head.strip(b"\0"):
        return Diagnosis(message="a file of zeros: its download or copy broke off", hint=_AGAIN)
    if lacks_end or any(os.path.exists(path + ending) for ending in _UNFINISHED):
        return Diagnosis(message="a part of one: its download or copy broke off", hint=_AGAIN)
    if size <= _LARGEST_LORA and re.search(r"(?i)[._-]lora\.rkllm$", path):
        return Diagnosis(message="a LoRA adapter", hint=_ADAPTER)
    return None


def _ends_in_zeros(stream: BinaryIO, size: int) -> bool:
    """Return whether room for the end was made, but nothing written there."""
    if size < 2 * _TAIL:
        return False
    stream.seek(size - _TAIL)
    return not stream.read(_TAIL).strip(b"\0")
