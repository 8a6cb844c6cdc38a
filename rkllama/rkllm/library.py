"""Finding librkllmrt.so, and telling which release it is before any of its structs is touched.

There is no version function: the file's bytes carry the version as text. It is confirmed by what
`rkllm_createDefaultParam` writes, and how far, because a wrong layout corrupts memory silently.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..clib import finding
from ..clib.ctypes_types import CTypes
from ..errors import UnknownRuntime
from .abi import RELEASES, header

FILE = "librkllmrt.so"
_SOUGHT = finding.Sought(
    file=FILE,
    setting="rkllm_lib",
    stranger="it is not librkllmrt, or it is older than 1.1",
    hint="Run `rkllama runtime install` to fetch it, or copy librkllmrt.so for this machine to "
    "{home}, or set RKLLAMA_RKLLM_LIB to it. Models in .gguf format run without it.",
)


class Library(NamedTuple):
    """A loaded library: its file, the release whose header fits it, and what to tell the user."""

    path: str
    handle: ctypes.CDLL
    release: str
    version: str | None
    """What the file says of itself."""
    notices: tuple[str, ...] = ()


def open_library(
    explicit: str | None = None,
    abi: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Library:
    """Find, load and identify the runtime. Raises LibraryNotFound or UnknownRuntime.

    `explicit` (or else RKLLAMA_RKLLM_LIB) is the only place looked at where it is set; `abi` (or
    else RKLLAMA_RKLLM_ABI) is believed without a check.
    """
    env = os.environ if environ is None else environ
    path, handle = find_library(explicit, env)
    version = read_version(path)
    release, notices = identify(handle, path, version, abi or env.get("RKLLAMA_RKLLM_ABI"))
    return Library(path, handle, release, version, notices)


# --- Finding -----------------------------------------------------------------------------------


def find_library(explicit: str | None, environ: Mapping[str, str]) -> tuple[str, ctypes.CDLL]:
    """Return the first usable library of the places where it may be, loaded. Raises LibraryNotFound."""
    functions = header(RELEASES[0]).functions  # those of every release
    return finding.find_library(_SOUGHT, tuple(functions), explicit, environ)


def look_for_library(
    explicit: str | None, environ: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """Return the file that `find_library` would most likely load and the version in it, without loading
    it; (None, None) for none.
    """
    path = finding.look_for_library(_SOUGHT, explicit, environ)
    return path, None if path is None else read_version(path)


# --- Identifying -------------------------------------------------------------------------------

_MARKERS = (b"RKLLM SDK (version: ", b"rknn llm lib version: ")
_VERSION = re.compile(rb"v?(\d+\.\d+\.\d+(?:b\d+)?)")


def read_version(path: str) -> str | None:
    """Return the version that the library's file carries as text, None where it carries none."""
    try:
        with open(path, "rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    with content:
        for marker in _MARKERS:
            start = content.find(marker)
            while start >= 0:
                start += len(marker)
                if match := _VERSION.match(content[start : start + 32]):
                    return match[1].decode()
                start = content.find(marker, start)
    return None


def identify(
    handle: ctypes.CDLL, path: str, version: str | None, abi: str | None
) -> tuple[str, tuple[str, ...]]:
    """(release, notices): whose header to use for a library. Raises UnknownRuntime."""
    if abi:
        return _chosen(abi, path), ()
    defaults = Defaults.of(handle)
    if version in RELEASES:
        if _fits(version, handle, defaults) or _fits_but_for_reserved(version, handle, defaults):
            return version, ()
        raise _unknown(
            f"{path} says that it is {version}, but its parameters are not laid out like that "
            f"({defaults.size} bytes)",
            version,
        )
    fitting = [release for release in reversed(RELEASES) if _fits(release, handle, defaults)]
    if not fitting:
        name = f"of version {version}" if version else "of a version that it does not name"
        raise _unknown(
            f"{path} is {name} and has an unknown layout ({defaults.size} bytes)", version
        )
    notice = (
        f"{path} is version {version or 'unknown'}, which RKLLama does not know; it looks like "
        f"{fitting[0]} and is used as such."
    )
    return fitting[0], (notice,)


def _chosen(abi: str, path: str) -> str:
    if abi not in RELEASES:
        raise UnknownRuntime(
            f"RKLLAMA_RKLLM_ABI is {abi!r}, which is not a known version, for {path}",
            version=abi,
            hint=f"Use one of {', '.join(RELEASES)}.",
        )
    return abi


def _unknown(message: str, version: str | None) -> UnknownRuntime:
    return UnknownRuntime(
        message,
        version=version,
        hint=f"Install one of the releases {RELEASES[0]} to {RELEASES[-1]}, or name the one that it "
        "is compatible with in RKLLAMA_RKLLM_ABI: a wrong one corrupts memory.",
    )


def _fits(release: str, handle: ctypes.CDLL, defaults: Defaults) -> bool:
    """Return whether the library exports what `release` declares and fills its RKLLMParam to the end."""
    struct_type = CTypes(header(release)).structs["RKLLMParam"]
    size, padding = ctypes.sizeof(struct_type), ctypes.alignment(struct_type)
    return _agrees(release, handle, defaults, size - padding + 1)


def _fits_but_for_reserved(release: str, handle: ctypes.CDLL, defaults: Defaults) -> bool:
    """Return whether the library fits but for the reserved bytes at the end, which C++ may leave alone.

    Only for the release that the file itself names: what tells the layouts apart lies before those bytes,
    except that another whole layout may end among them.
    """
    if any(_fits(other, handle, defaults) for other in RELEASES):
        return False
    types = CTypes(header(release)).structs
    extend, struct_type = types["RKLLMExtendParam"], types["RKLLMParam"]
    least = struct_type.extend_param.offset + extend.reserved.offset
    if not _agrees(release, handle, defaults, least):
        return False
    values = struct_type.from_buffer_copy(defaults.content).extend_param
    # In another layout a pointer lies here.
    return values.base_domain_id == 0 and 0 <= getattr(values, "enabled_cpus_mask", 0) < 1 << 8


def _agrees(release: str, handle: ctypes.CDLL, defaults: Defaults, least: int) -> bool:
    """Return whether functions and defaults are those of `release`, and `least` bytes are written."""
    if any(not hasattr(handle, name) for name in header(release).functions):
        return False
    struct_type = CTypes(header(release)).structs["RKLLMParam"]
    if not least <= defaults.size <= ctypes.sizeof(struct_type):
        return False
    param = struct_type.from_buffer_copy(defaults.content)
    defaults_of_all = {"top_p": 0.9, "temperature": 0.8, "repeat_penalty": 1.1}
    return all(abs(getattr(param, name) - v) < 1e-4 for name, v in defaults_of_all.items())


_ROOM = 1024
_SENTINELS = (0xA5, 0x5A)


class Defaults(NamedTuple):
    """What rkllm_createDefaultParam wrote: the bytes, and up to where."""

    content: bytes
    size: int

    @classmethod
    def of(cls, handle: ctypes.CDLL) -> Defaults:
        """Let the library write into an oversized buffer, twice over different bytes."""
        function = ctypes.cast(handle.rkllm_createDefaultParam, ctypes.c_void_p).value or 0
        first, second = (_written(function, sentinel) for sentinel in _SENTINELS)
        touched = [
            offset
            for offset, pair in enumerate(zip(first, second, strict=True))
            if pair != _SENTINELS
        ]
        return cls(first, touched[-1] + 1 if touched else 0)


def _written(function: int, sentinel: int) -> bytes:
    buffer = ctypes.create_string_buffer(bytes([sentinel]) * _ROOM, _ROOM)
    _call_into(function, ctypes.addressof(buffer))
    return buffer.raw


def _call_into(function: int, buffer: int) -> None:
    """Call `function`, which returns a big struct by value, with `buffer` as the place for it.

    ctypes has no way to say where such a result goes, but the machine's calling convention has: the
    address is a hidden first argument, on aarch64 the register x8.
    """
    if os.uname().machine == "aarch64" and sys.maxsize > 1 << 32:
        _call_with_x8(function, buffer)
    else:
        ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(function)(buffer)


# mov x8, x0; mov x16, x1; br x16 (by x16, as guarded pages allow): (buffer, function) -> function()
_MOVE_TO_X8 = bytes.fromhex("e80300aa f00301aa 00021fd6")


def _call_with_x8(function: int, buffer: int) -> None:
    with mmap.mmap(
        -1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE
    ) as page:
        page.write(_MOVE_TO_X8)
        # Kept in no variable: a page that something refers to cannot be closed.
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        _protect(address, mmap.PROT_READ | mmap.PROT_EXEC)
        jump: Callable[..., Any] = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)
        jump(buffer, function)


def _protect(address: int, protection: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if libc.mprotect(address, mmap.PAGESIZE, protection):
        raise UnknownRuntime(
            f"the library's layout cannot be checked: {os.strerror(ctypes.get_errno())}",
            version=None,
            hint="Set RKLLAMA_RKLLM_ABI to its version.",
        )
