"""RKLLama's own directory and its settings, what in it is secret, and the disk below it."""

from __future__ import annotations

import mmap
import os
import re
import shlex
import stat
import time
from collections.abc import Iterator
from difflib import get_close_matches

from ...board.proc import user_name
from ...config import SETTINGS, Settings, usable_settings
from ...files import RESERVE, free_space
from ..finding import Check, Finding, Status, Subject
from .hub import token_file
from .inventory import gigabytes, name_some, read_models

_LITTLE = 2 << 30
"""Bytes of room below which a usual model does not fit."""
_MOST_READ = 64 << 20
_CHUNK = 1 << 20
_MOST_TIME = 0.4
"""Seconds that reading may take."""
_SLOW = 25e6
"""Bytes a second below which a model takes minutes to load."""


# --- Settings ----------------------------------------------------------------------------------


def check_settings(subject: Subject) -> Iterator[Finding]:
    """Can the settings be used, and are there variables that mean nothing?"""
    file = os.path.join(subject.settings.home, "config.toml")
    _, faults = usable_settings()
    for fault in faults:
        yield Finding(
            check="settings",
            status="broken",
            title="Settings",
            found=fault.message,
            advice=f"Correct it: until then nothing but this command works. {fault.hint or ''}".strip(),
            source=file if file in fault.message else "the environment",
        )
    yield from _unknown_variables()
    if not faults:
        found = file if os.path.isfile(file) else "the defaults and the environment; no config.toml"
        yield Finding(check="settings", status="good", title="Settings", found=found, source=file)


def _unknown_variables() -> Iterator[Finding]:
    known = {setting.variable for setting in SETTINGS} | {"RKLLAMA_SYSROOT"}
    unknown = sorted(
        name for name in os.environ if name.startswith("RKLLAMA_") and name not in known
    )
    for name in unknown:
        near = get_close_matches(name, known, n=1)
        yield Finding(
            check="settings",
            status="warning",
            title="Settings",
            found=f"the variable {name} is set, which means nothing to RKLLama",
            good=near[0] if near else None,
            advice=f"Is {near[0]} meant?" if near else "Unset it.",
            source="the environment",
        )


# --- Whose the files are -----------------------------------------------------------------------


def check_home(subject: Subject) -> Iterator[Finding]:
    """May RKLLama write where its models, logs and choices are?"""
    home = subject.settings.home
    paths = [path for path in _own_paths(subject.settings) if os.path.lexists(path)]
    closed = [path for path in paths or [_existing(home)] if not os.access(path, os.W_OK)]
    if not closed:
        yield Finding(
            check="home", status="good", title="RKLLama's directory", found=home, source=home
        )
        return
    advice, cure = _way_to_write(closed[0])
    yield Finding(
        check="home",
        status="broken",
        title="RKLLama's directory",
        found=f"this user may not write {name_some(closed)}",
        advice=advice,
        cure=cure,
        source=home,
    )


def _own_paths(settings: Settings) -> list[str]:
    names = ("config.toml", "runtimes.json", "history", "logs", "cache", "lib", "models")
    inside = (os.path.join(settings.home, name) for name in names)
    return list(dict.fromkeys((settings.home, *inside, settings.models)))


def _way_to_write(path: str) -> tuple[str, tuple[str, ...]]:
    """Return what to do so that a path that is there can be written: in words, and as lines."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        advice = (
            "Its disk is mounted so that nothing can be written. If the system did that by itself, the "
            "disk has errors: see `dmesg`."
        )
        return advice, (f"sudo mount -o remount,rw {shlex.quote(_mount_point(path))}",)
    owner = os.stat(path).st_uid
    if owner in (0, os.geteuid()):
        line = f'sudo chown -R "$(id -u):$(id -g)" {shlex.quote(path)}'
        return "It seems that a command was run with sudo. Make it yours again.", (line,)
    advice = (
        f"It belongs to {user_name(owner)}. Use the server of that user, or another directory: see "
        "RKLLAMA_HOME and RKLLAMA_MODELS."
    )
    return advice, ()


def _mount_point(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def _existing(path: str) -> str:
    """Return where a path is, or the nearest directory above it that is there."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def check_secrets(subject: Subject) -> Iterator[Finding]:
    """Can others read what is nobody's business: keys, the token, logs, what was typed?"""
    home = subject.settings.home
    files = [
        *(os.path.join(home, name) for name in ("history", "logs", "chats")),
        *_files_with_keys(subject.settings),
        token_file(),
    ]
    open_to_all = [path for path in dict.fromkeys(files) if _is_open(path)]
    if not open_to_all:
        yield Finding(
            check="secrets",
            status="good",
            title="Secrets",
            found="keys, logs and history are this user's alone",
            source=home,
        )
        return
    yield Finding(
        check="secrets",
        status="warning",
        title="Secrets",
        found=f"other users may read {name_some(open_to_all)}",
        good="for their owner alone",
        advice="Keys, prompts or a token may stand there.",
        cure=tuple(
            f"chmod {'700' if os.path.isdir(path) else '600'} {shlex.quote(path)}"
            for path in open_to_all
        ),
        source=open_to_all[0],
    )


def _files_with_keys(settings: Settings) -> Iterator[str]:
    file = os.path.join(settings.home, "config.toml")
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            text = stream.read(1 << 20)
    except OSError:
        text = ""
    line = re.search(r"(?m)^\s*api_keys\s*=\s*(.*)$", text)
    if line:
        yield file
    named = f"{line[1] if line else ''} {os.environ.get('RKLLAMA_API_KEY', '')}"
    yield from map(os.path.expanduser, re.findall(r"@([^\s,\"'\]]+)", named))


def _is_open(path: str) -> bool:
    """Return whether others than its owner may read a file, or look into a directory, of this user's."""
    try:
        about = os.lstat(path)
    except OSError:
        return False
    if about.st_uid != os.geteuid() or stat.S_ISLNK(about.st_mode):
        return False
    return bool(about.st_mode & (0o055 if stat.S_ISDIR(about.st_mode) else 0o044))


# --- The disk ----------------------------------------------------------------------------------


def check_disk_room(subject: Subject) -> Iterator[Finding]:
    """Is there room for models?"""
    directory = subject.settings.models
    try:
        free = free_space(directory)
    except OSError:
        return
    status: Status = "broken" if free < RESERVE else "warning" if free < _LITTLE else "good"
    yield Finding(
        check="disk-room",
        status=status,
        title="Room on the disk",
        found=f"{gigabytes(free)} free",
        good=None if status == "good" else f"{gigabytes(_LITTLE)}, or what the next model needs",
        advice=None
        if status == "good"
        else "Remove models with `rkllama rm`, or set RKLLAMA_MODELS to a directory on another disk.",
        cure=() if status == "good" else (f"du -xh -d 2 {shlex.quote(_existing(directory))}",),
        source=directory,
    )


def check_disk_speed(subject: Subject) -> Iterator[Finding]:
    """How fast are models read? The largest one is read in part, not from memory."""
    entries = [one for one in read_models(subject).entries if one.format]
    largest = max(entries, key=lambda entry: entry.size, default=None)
    if largest is None or largest.size < _CHUNK:
        return
    try:
        speed = read_speed(largest.path)
    except OSError:
        return  # that it cannot be read is told where its content is looked at
    slow = speed < _SLOW
    seconds = largest.size / speed
    loads = f"; {largest.name} takes {seconds:.0f} s" if seconds >= 1 else ""
    yield Finding(
        check="disk-speed",
        status="warning" if slow else "good",
        title="Speed of the disk",
        found=f"{speed / 1e6:.0f} MB a second{loads}",
        good=f"{_SLOW / 1e6:.0f} MB a second or more" if slow else None,
        advice="Models load slowly. Put them on an eMMC or NVMe disk, or a faster card."
        if slow
        else None,
        source=largest.path,
    )


def read_speed(path: str) -> float:
    """Return the bytes a second with which a file comes from its disk. Raises OSError.

    What lies in the page cache is dropped from it first, as far as no process has it mapped.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = min(os.fstat(fd).st_size, _MOST_READ)
        os.posix_fadvise(fd, 0, size, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(-1, _CHUNK) as buffer:  # no new memory for each chunk
            done, start = 0, time.perf_counter()
            taken = 1e-9
            while done < size and taken < _MOST_TIME:
                count = os.preadv(fd, [buffer], done)
                if not count:
                    break
                done += count
                taken = max(1e-9, time.perf_counter() - start)
        os.posix_fadvise(fd, 0, size, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    return done / taken


CHECKS: tuple[Check, ...] = (
    check_settings,
    check_home,
    check_secrets,
    check_disk_room,
    check_disk_speed,
)
