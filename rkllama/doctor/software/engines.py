"""What runs models in .gguf format: the CPU backend, or a llama-server of the user's."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

from ...backends.llama_program import find_program
from ...board.installation import installer
from ...clib.elf import machine_of, own_machine
from ...errors import RKLLamaError
from ...models.guide import NAME as GUIDE
from ...runner.environment import without_secrets
from ..finding import Check, Finding, Subject
from .inventory import name_some, read_models, verb

_PACKAGE = "xllamacpp"
_TIMEOUT = 1.0
"""Seconds that a llama-server may take to tell its version."""


def check_cpu_backend(subject: Subject) -> Iterator[Finding]:
    """Is the CPU backend installed, where a model needs it?"""
    if subject.settings.llama_server:
        return
    models = [one.name for one in read_models(subject).of_format("gguf") if one.name != GUIDE]
    version = _installed_version()
    if version is not None:
        yield Finding(
            check="cpu-backend",
            status="good",
            title="CPU backend",
            found=f"{_PACKAGE} {version}",
            source=sys.prefix,
        )
    elif models:
        yield Finding(
            check="cpu-backend",
            status="broken",
            title="CPU backend",
            found=f"not installed, and {name_some(models)} {verb(models, 'needs', 'need')} it",
            advice="Install llama.cpp as a package for this Python.",
            cure=(pip_line(_requirement()),),
            source=sys.prefix,
        )


def _installed_version() -> str | None:
    """Return its version; None where it cannot be imported. It is not imported: that takes a second."""
    try:
        if importlib.util.find_spec(_PACKAGE) is None:
            return None
        return importlib.metadata.version(_PACKAGE)
    except (ImportError, ValueError):  # PackageNotFoundError is one of the first
        return None


def _requirement() -> str:
    """Return what our own extra `cpu` asks for."""
    try:
        declared = importlib.metadata.requires("rkllama") or []
    except importlib.metadata.PackageNotFoundError:
        declared = []
    match = next((text for text in declared if text.startswith(_PACKAGE)), _PACKAGE)
    return match.partition(";")[0].strip()


def pip_line(*requirements: str) -> str:
    """Return the line that installs packages for this Python, as root where its folder is not ours.

    A Debian package has no pip in it, and is whole again when it is installed once more.
    """
    if installer() == "debian":
        package = "rkllama-cpu" if requirements[0].startswith(_PACKAGE) else "rkllama"
        return f"sudo apt install --reinstall ./{package}_*.deb"
    words = [sys.executable, "-m", "pip", "install"]
    if importlib.util.find_spec("pip") is None:  # as uv makes environments
        words = ["uv", "pip", "install", "--python", sys.executable]
    command = shlex.join([*words, *requirements])
    return command if os.access(sys.prefix, os.W_OK) else f"sudo {command}"


def check_llama_server(subject: Subject) -> Iterator[Finding]:
    """Is the llama-server of the settings there, and does it run here?"""
    words = subject.settings.llama_server
    if not words:
        return
    try:
        program = find_program(words[0])
    except RKLLamaError as error:
        yield _broken(error.message, error.hint, words[0])
        return
    reason = _why_not(program)
    if reason is not None:
        hint = "Use one that was built for this machine, with its libraries, or unset llama_server."
        yield _broken(f"{program} does not run here: {reason}", hint, program)
        return
    yield Finding(
        check="llama-server", status="good", title="llama-server", found=program, source=program
    )


def _broken(found: str, advice: str | None, source: str) -> Finding:
    return Finding(
        check="llama-server",
        status="broken",
        title="llama-server",
        found=found,
        advice=advice,
        source=source,
    )


def _why_not(program: str) -> str | None:
    """Return why a program cannot be run; None: it can, as far as a moment tells."""
    made_for, ours = machine_of(program), own_machine()
    if made_for is not None and ours is not None and made_for != ours:
        return f"it was made for {made_for}, and this machine is {ours}"
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
            env=without_secrets(),
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        return error.strerror or str(error)
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    missing = re.search(r"loading shared libraries: ([^\s:]+)", text)
    return f"{missing[1]} is missing" if missing and done.returncode else None


CHECKS: tuple[Check, ...] = (check_cpu_backend, check_llama_server)
