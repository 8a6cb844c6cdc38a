"""What a .rkllm file is when it is no model: told before the runtime is asked, which may die of it."""

from __future__ import annotations

from ..types import Diagnosis

_AGAIN = "Download it again; a clone of a repository needs `git lfs pull`."


def what_else(path: str) -> Diagnosis | None:
    """What the file at `path` is instead of a model; None: it may be one. Raises OSError."""
    with open(path, "rb") as stream:
        head = stream.read(512)
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
    return None
