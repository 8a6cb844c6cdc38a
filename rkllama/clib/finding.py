"""Finding one of the vendor's libraries: in RKLLama's home, in the system, or where a setting names it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..board.sysroot import system_path
from ..errors import LibraryNotFound, see_doctor
from .elf import Machine, machine_of, own_machine, size_of


class Sought(NamedTuple):
    """A library that is looked for."""

    file: str
    setting: str
    """The setting that may name it, and be the variable RKLLAMA_..., too."""
    stranger: str
    """What to say of one that lacks functions."""
    hint: str
    """What to do when there is none; {home} is where RKLLama's own lie."""


def find_library(
    sought: Sought,
    functions: Sequence[str],
    explicit: str | None,
    environ: Mapping[str, str],
) -> tuple[str, ctypes.CDLL]:
    """Return the first usable library of the places where it may be, loaded. One that lacks `functions` is
    not usable. Raises LibraryNotFound.
    """
    tried: list[tuple[str, str]] = []
    for place, path in _places(sought, explicit, environ):
        try:
            return _load(sought, functions, path)
        except _Unusable as error:
            tried.append((f"{place} ({path})" if place else path, str(error)))
    hint = see_doctor(sought.hint.format(home=_home(environ)))
    raise LibraryNotFound(tuple(tried), hint=hint, file=sought.file)


SYSTEM_FOLDERS = (
    "/usr/local/lib",
    "/usr/lib",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/arm-linux-gnueabihf",
)
"""Where the loader of a board looks, as far as the vendor's libraries are put there."""


def look_for_library(
    sought: Sought, explicit: str | None, environ: Mapping[str, str]
) -> str | None:
    """Return the file that `find_library` would most likely load, without loading it; None for none."""
    named = filter(None, environ.get("LD_LIBRARY_PATH", "").split(":"))
    by_name = [os.path.join(folder, sought.file) for folder in named]
    by_name += (system_path(f"{folder}/{sought.file}") for folder in SYSTEM_FOLDERS)
    for _, path in _places(sought, explicit, environ):
        for file in [path] if os.sep in path else by_name:
            if os.path.isfile(file):
                return file
    return None


class _Unusable(Exception):
    """The reason why a file cannot be used."""


def _places(
    sought: Sought, explicit: str | None, environ: Mapping[str, str]
) -> list[tuple[str, str]]:
    """(setting or "", path) of each place, in order; a bare name is for the loader to find."""
    if explicit:
        # One of our own directory is a release that was chosen for the model.
        ours = explicit.startswith(_home(environ) + os.sep)
        return [("" if ours else f"the setting {sought.setting}", _file(sought, explicit))]
    variable = f"RKLLAMA_{sought.setting.upper()}"
    if named := environ.get(variable):
        return [(variable, _file(sought, named))]
    own = os.path.join(_home(environ), sought.file)
    return [("", own), ("the system's library paths", sought.file)]


def _home(environ: Mapping[str, str]) -> str:
    """Return where RKLLama's own home has it."""
    return os.path.join(os.path.expanduser(environ.get("RKLLAMA_HOME") or "~/RKLLAMA"), "lib")


def _file(sought: Sought, path: str) -> str:
    path = os.path.expanduser(path)
    return os.path.join(path, sought.file) if os.path.isdir(path) else path


def _load(sought: Sought, functions: Sequence[str], path: str) -> tuple[str, ctypes.CDLL]:
    if os.sep in path:
        _check_file(path)
    try:
        handle = ctypes.CDLL(path)
    except OSError as error:
        raise _Unusable(_loader_says(sought, error, path)) from None
    if missing := [name for name in functions if not hasattr(handle, name)]:
        raise _Unusable(f"it lacks {', '.join(missing)}, so {sought.stranger}")
    return (path if os.sep in path else _mapped(path)), handle


PACKAGES = {
    "libgomp.so": "libgomp1",
    "libomp.so": "libomp5",
    "libstdc++.so": "libstdc++6",
    "libgcc_s.so": "libgcc-s1",
}
"""Where a library that the vendor's need is, in Debian's and Ubuntu's words."""


def _loader_says(sought: Sought, error: OSError, path: str) -> str:
    text = str(error)
    if path == sought.file and text.startswith(f"{path}: cannot open shared object"):
        return "not found"
    missing = os.path.basename(text.partition(": cannot open shared object")[0])
    package = next((p for name, p in PACKAGES.items() if missing.startswith(name)), None)
    cure = (
        f" (install the package {package}, not another {sought.file.removesuffix('.so')})"
        if package
        else ""
    )
    return text.removeprefix(f"{path}: ") + cure


def _mapped(name: str) -> str:
    """Return the file behind a library that the loader found by its name."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if path.endswith("/" + name):
                return "/" + path
    return name


def _check_file(path: str) -> None:
    """Raise _Unusable if the file is missing, not a library, or for another machine."""
    ours = own_machine()
    try:
        defect = defect_of(path, None if ours is None else (ours,))
    except OSError as error:
        reason = "not found" if isinstance(error, FileNotFoundError) else error.strerror
        raise _Unusable(str(reason)) from None
    if defect is not None:
        raise _Unusable(defect)


def defect_of(path: str, machines: Sequence[Machine] | None) -> str | None:
    """Return why a file is no library for one of these machines (None: for any); None: it may be one.

    Raises OSError.
    """
    library = machine_of(path)
    if library is None:
        return "not an ELF shared library (perhaps a Git LFS pointer or a web page)"
    if machines is not None and library not in machines:
        return f"made for {library}, but this Python is {machines[0]}"
    if os.path.getsize(path) < size_of(path):
        return "incomplete: a copy or download was interrupted"  # loading it would crash
    return None
