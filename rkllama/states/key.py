"""What a state belongs to: everything that decides which KV a text gives."""

from __future__ import annotations

import hashlib
import os
from dataclasses import astuple, dataclass

_VERSION = "1"
"""Of the rules by which a prompt becomes tokens here: complete texts, without the runtime's template, whose
first token the runtime adds by itself or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A loaded model, as far as its KV goes."""

    runtime: str
    """Name and release."""
    platform: str
    toolkit: str
    context_length: int
    lora: str = ""
    """The adapter's file, see `file_identity`."""
    state_format: str = ""
    """What else decides what a state holds: how many slots there are, and the types of their caches."""


def file_identity(path: str | None) -> str:
    """Return what tells a file from what it was before: it changes with everything that is done to it.

    Raises OSError.
    """
    if path is None:
        return ""
    about = os.stat(path)
    stamp = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    return f"{os.path.realpath(path)}\0{stamp}"


def state_key(identity: Identity, digest: str, owner: str) -> str:
    """Return 64 hex digits: the key of the states of a model file (its sha256) that `owner` may use."""
    parts = (_VERSION, digest, owner, *map(str, astuple(identity)))
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def identity_key(identity: Identity) -> str:
    """Return 64 hex digits that stand for a runtime with a model of some kind, whosever its states are."""
    return state_key(identity, "", "")


def owner_of(api_key: str) -> str:
    """Return what stands for a client's key, "" for none."""
    return hashlib.sha256(api_key.encode()).hexdigest() if api_key else ""
