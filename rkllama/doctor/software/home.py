"""RKLLama's own directory and its settings, and what in it is secret."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator
from difflib import get_close_matches

from ...board.proc import user_name
from ...config import SETTINGS, Settings, usable_settings
from ..finding import Check, Finding, Subject
from .hub import token_file
from .inventory import name_some

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
    closed = [path for path in paths or [existing(home)] if not os.access(path, os.W_OK)]
    if not closed:
        yield Finding(check="home", status="good", title="Home directory", found=home, source=home)
        return
    advice, cure = _way_to_write(closed[0])
    yield Finding(
        check="home",
        # Models elsewhere may be looked after by others.
        status="broken" if any(path.startswith(home) for path in closed) else "warning",
        title="Home directory",
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


def existing(path: str) -> str:
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


CHECKS: tuple[Check, ...] = (check_settings, check_home, check_secrets)
