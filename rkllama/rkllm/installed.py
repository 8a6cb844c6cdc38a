"""The releases of librkllmrt that are on this machine, and which model is to have which.

A release lies in `<home>/lib/<release>/librkllmrt.so`. A single `<home>/lib/librkllmrt.so` counts as the
release that it says it is, and so does what the system's loader finds. What the user chose and what worked
is kept in `<home>/runtimes.json`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..errors import LoadFailed
from ..files import write_file
from .library import FILE, look_for_library
from .releases import age, in_order, is_release

UNKNOWN = "unknown"
"""The release of a library that does not say which it is."""


class Installed(NamedTuple):
    """A usable release: its number, its file, and whether it is one of RKLLama's own folder."""

    release: str
    path: str
    managed: bool


class Choice(NamedTuple):
    """What is known of a model's runtime: the release and whether the user chose it or it just worked, and
    the toolkit that made the model, as the runtime's log told.
    """

    release: str | None = None
    chosen: bool = False
    toolkit: str | None = None


class Candidates(NamedTuple):
    """The releases to load a model with, in order; `toolkit` is the one that made it, where that is known.

    `binding` is whether the user demanded the one there is.
    """

    installed: tuple[Installed, ...]
    toolkit: str | None
    binding: bool = False


class Runtimes:
    """The releases below one home directory."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._library = os.path.join(home, "lib")
        self._file = os.path.join(home, "runtimes.json")

    # --- What is there ---------------------------------------------------------------------------

    def folder(self, release: str) -> str:
        """Return the directory of a release, which need not be there."""
        return os.path.join(self._library, release)

    def installed(self) -> list[Installed]:
        """Return the releases that are here, newest first, each once."""
        found: dict[str, Installed] = {}
        for name in _names(self._library):
            path = os.path.join(self._library, name, FILE)
            if is_release(name) and os.path.isfile(path):
                found[name] = Installed(name, path, managed=True)
        environ = {**os.environ, "RKLLAMA_HOME": self._home, "RKLLAMA_RKLLM_LIB": ""}
        elsewhere, version = look_for_library(None, environ)
        if elsewhere is not None and (release := version or UNKNOWN) not in found:
            found[release] = Installed(release, elsewhere, managed=False)
        return sorted(found.values(), key=lambda one: age(one.release), reverse=True)

    # --- Which one a model gets ------------------------------------------------------------------

    def candidates(self, model: str, toolkit: str | None) -> Candidates:
        """Return the releases to load the file `model` with, in order; `toolkit` is what its name tells.

        Raises LoadFailed where the one that the user chose for it is not here.
        """
        choices = self._read()
        choice = _choice(choices, model)
        installed = {one.release: one for one in self.installed()}
        toolkit = choice.toolkit or toolkit
        if choice.chosen:
            return Candidates((self._chosen(choice, model, installed),), toolkit, binding=True)
        first = [name for name in (choice.release, choices.get("release")) if isinstance(name, str)]
        order = in_order(installed, toolkit=toolkit, first=first)
        return Candidates(tuple(installed[name] for name in order), toolkit)

    @staticmethod
    def _chosen(choice: Choice, model: str, installed: Mapping[str, Installed]) -> Installed:
        """Return what the user chose for a model. Raises LoadFailed where it is not here any more."""
        if choice.release is not None and choice.release in installed:
            return installed[choice.release]
        raise LoadFailed(
            f"{os.path.basename(model)} is to use librkllmrt {choice.release}, which is not installed",
            hint=f"Run `rkllama runtime install {choice.release}`, or choose another with "
            "`rkllama runtime use`.",
        )

    def choices(self, models: Iterable[str]) -> dict[str, Choice]:
        """Return what is known of each model's runtime."""
        choices = self._read()
        return {model: _choice(choices, model) for model in models}

    def default(self) -> str | None:
        """Return the release that the user wants for all models."""
        release = self._read().get("release")
        return release if isinstance(release, str) else None

    def choose(self, release: str | None, model: str | None = None) -> None:
        """Have `model`, or all models, use `release`; None leaves it to RKLLama again. Raises OSError."""
        with self._changing() as choices:
            if model is None:
                choices["release"] = release
            else:
                toolkit = _choice(choices, model).toolkit
                _models(choices)[model] = _entry(model, release, toolkit, chosen=bool(release))

    def remember(self, model: str, release: str | None, toolkit: str | None) -> None:
        """Note the release that has loaded a model, and what made the model. Raises OSError."""
        known = _choice(self._read(), model)
        if known.chosen or known == Choice(release, toolkit=toolkit or known.toolkit):
            return
        with self._changing() as choices:
            _models(choices)[model] = _entry(model, release, toolkit or known.toolkit)

    # --- The file ----------------------------------------------------------------------------------

    def _read(self) -> dict[str, Any]:
        try:
            with open(self._file, "rb") as stream:
                choices = json.loads(stream.read(1 << 20))
        except (OSError, ValueError, RecursionError):
            return {}
        return choices if isinstance(choices, dict) else {}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The choices, which are written when the block ends; other processes wait."""
        os.makedirs(os.path.dirname(self._file), exist_ok=True)
        lock = os.open(self._file + ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            choices = self._read()
            yield choices
            write_file(self._file, json.dumps(choices, indent=1).encode())
        finally:
            os.close(lock)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _models(choices: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(choices.get("models"), dict):
        choices["models"] = {}
    models: dict[str, Any] = choices["models"]
    for path in [path for path in models if not os.path.exists(path)]:
        del models[path]
    return models


def _entry(
    model: str, release: str | None, toolkit: str | None, *, chosen: bool = False
) -> dict[str, Any]:
    return {"release": release, "chosen": chosen, "toolkit": toolkit, **_identity(model)}


def _identity(model: str) -> dict[str, int]:
    """Return what tells whether a file is still the one that was looked at."""
    try:
        found = os.stat(model)
    except OSError:
        return {}
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _choice(choices: dict[str, Any], model: str) -> Choice:
    models = choices.get("models")
    entry = models.get(model) if isinstance(models, dict) else None
    if not isinstance(entry, dict):
        return Choice()
    known = _identity(model).items() <= entry.items()
    release, toolkit = entry.get("release"), entry.get("toolkit")
    if not known and not entry.get("chosen"):
        return Choice()
    return Choice(
        release if isinstance(release, str) else None,
        chosen=entry.get("chosen") is True,
        toolkit=toolkit if isinstance(toolkit, str) and known else None,
    )
