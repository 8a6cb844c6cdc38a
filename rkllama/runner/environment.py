"""The environment of child processes: what they need, and none of this process's secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_SECRET_WORDS = {
    "AUTH", "AUTHORIZATION", "COOKIE", "CREDENTIAL", "CREDENTIALS", "KEY", "KEYS", "PASS", "PASSPHRASE",
    "PASSWD", "PASSWORD", "PASSWORDS", "PAT", "PIN", "PRIVATE", "PW", "SECRET", "SECRETS", "TOKEN",
    "TOKENS",
}  # fmt: skip
_SECRET_ENDS = ("APIKEY", "KEY", "PASSWORD", "PASSWD", "SECRET", "TOKEN")
"""Of words that are written together, such as PGPASSWORD."""
LOGIN = re.compile(r"://[^/\s'\"]+@")
"""The name and password in a URL: of a proxy, a database, a package index."""
_INTERPRETER = re.compile(r"PATH|HOME|LANG|LC_[A-Z]+|TZ|LD_LIBRARY_PATH|PYTHON[A-Z0-9_]*")
"""What Python needs to find itself, its packages and the language of its texts."""


def without_secrets(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a model's process, which runs libraries of others over files of others.

    This is a list of what is left out: the runtime and llama.cpp read variables of which no list is
    complete (LD_LIBRARY_PATH, RKLLM_LOG_LEVEL, GGML_…, OMP_…), and a missing one would only be noticed
    on boards.
    """
    given = os.environ if environ is None else environ
    return {
        name: value
        for name, value in given.items()
        if not is_secret(name) and not LOGIN.search(value)
    }


def for_interpreter(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a process of Python's alone, such as one that renders foreign templates.

    What such a process needs is known: this is a list of what is let through.
    """
    safe = without_secrets(environ)
    return {name: value for name, value in safe.items() if _INTERPRETER.fullmatch(name)}


def is_secret(name: str) -> bool:
    """Return whether the name of a variable speaks of a secret."""
    words = re.split(r"[^A-Z0-9]+", name.upper())
    return any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) for word in words)
