"""The NPU's library: librkllmrt, in each release that is here.

Nothing is loaded: the files tell what has to be known.
"""

from __future__ import annotations

import ctypes
import os
import shlex
from collections.abc import Iterator, Sequence

from ...board.soc import read_soc, runs_llm
from ...board.sysroot import system_path
from ...clib.elf import Machine, machine, machine_of, needed_by, own_machine
from ...clib.finding import PACKAGES, SYSTEM_FOLDERS, defect_of
from ...config import Settings
from ...models.scan import Entry
from ...rkllm.abi import RELEASES
from ...rkllm.installed import UNKNOWN, Installed
from ...rkllm.library import FILE
from ...rkllm.releases import (
    SIGILL_RISK,
    default_release,
    is_doubtful,
    numbers,
    published_for,
)
from ..finding import Check, Finding, Subject
from .inventory import Use, installed_releases, name_some, npu_models, read_models, read_uses, verb

_TITLE = "NPU runtime"
_INSTALL = "rkllama runtime install"
_OF_BOARDS = (Machine(64, 0xB7), Machine(32, 0x28))
_LIBRARY_FOLDERS = (
    *SYSTEM_FOLDERS,
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/lib/aarch64-linux-gnu",
    "/lib/arm-linux-gnueabihf",
)


def check_runtime(subject: Subject) -> Iterator[Finding]:
    """Is there a librkllmrt that can be loaded here, and is its layout known?"""
    settings = subject.settings
    models = read_models(subject).of_format("rkllm")
    if subject.model is not None and not models:
        return  # it runs on the CPU
    found = installed_releases(settings)
    if not found:
        yield from _none(subject, models)
        return
    uses = read_uses(settings, models, found) if subject.model is not None else ()
    found = [use.first for use in uses if use.first is not None] or found
    findings = [_library(one, settings.rkllm_abi) for one in found]
    order = ("broken", "warning", "good")
    yield from sorted(findings, key=lambda finding: order.index(finding.status))


def _none(subject: Subject, models: Sequence[Entry]) -> Iterator[Finding]:
    named, soc = subject.settings.rkllm_lib, read_soc()
    names = name_some(entry.name for entry in models)
    if named is not None:
        yield Finding(
            check="runtime",
            status="broken",
            title=_TITLE,
            found=f"the setting rkllm_lib names {named}, where there is none",
            advice="Correct RKLLAMA_RKLLM_LIB or rkllm_lib in config.toml, or unset it.",
            source="the settings",
        )
    elif soc is not None and not runs_llm(soc):
        return  # no library helps there, as the SoC's check has said
    elif soc is not None or models:
        yield Finding(
            check="runtime",
            status="broken" if models and _can_have_one() else "warning",
            title=_TITLE,
            found="no librkllmrt.so"
            + (f", which {names} {verb(models, 'needs', 'need')}" if models else ""),
            good="a release that fits the models",
            advice="Fetch the vendor's library, or let `rkllama run` do it with the first model."
            if _can_have_one()
            else "The vendor publishes none for this CPU. Use models in .gguf format here.",
            cure=(_INSTALL,) if _can_have_one() else (),
            source=os.path.join(subject.settings.home, "lib"),
        )


def _is_elsewhere() -> bool:
    """Return whether the files of another board are looked at, on which nothing can be tried."""
    return bool(os.environ.get("RKLLAMA_SYSROOT"))


def _can_have_one() -> bool:
    return _is_elsewhere() or bool(published_for(machine()))


def vendor_machine() -> str:
    """Return the machine whose libraries the vendor publishes that is meant here."""
    here = machine()
    return here if here is not None and published_for(here) else "aarch64"


def _library(library: Installed, abi: str | None) -> Finding:
    """Tell of a library; `abi` is the release whose layout the user says that it has."""
    path, release = library.path, library.release
    defect = find_defect(path)
    if defect is not None:
        return _unusable(library, defect)
    missing = missing_packages(path)
    if missing:
        return _without_needed(library, missing)
    if release not in RELEASES and abi is None:
        known = f"{RELEASES[0]} to {RELEASES[-1]}"
        return Finding(
            check="runtime",
            status="warning",
            title=_TITLE,
            found=f"{path} does not tell its release"
            if release == UNKNOWN
            else f"librkllmrt {release}, which RKLLama does not know",
            good=f"one of {known}",
            advice="Its layout is compared with the known ones when a model is loaded, and refused if it "
            "is like none of them.",
            cure=(_INSTALL,),
            source=path,
        )
    return Finding(
        check="runtime",
        status="good",
        title=_TITLE,
        found=f"librkllmrt {release}",
        source=path,
    )


def find_defect(path: str) -> str | None:
    """Return why a library cannot be loaded on this board, or on the one whose files are looked at."""
    try:
        if not _is_elsewhere():
            ours = own_machine()
            return defect_of(path, None if ours is None else (ours,))
        found = machine_of(path)
        if found is not None and read_soc() is not None and found not in _OF_BOARDS:
            return f"made for {found}, but the board is {_OF_BOARDS[0]}"
        return defect_of(path, None)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def usable_releases(settings: Settings) -> list[Installed]:
    """Return the releases that can be loaded here, as far as their files tell; newest first."""
    return [one for one in installed_releases(settings) if find_defect(one.path) is None]


def _unusable(library: Installed, defect: str) -> Finding:
    path = library.path
    if library.managed:
        cure: tuple[str, ...] = (f"{_INSTALL} {library.release}",)
    elif path.startswith(system_path("/usr/")):
        cure = (f"sudo rm {shlex.quote(path)}", _INSTALL)
    else:
        cure = (f"mv {shlex.quote(path)} {shlex.quote(path + '.unusable')}", _INSTALL)
    return Finding(
        check="runtime",
        status="broken",
        title=_TITLE,
        found=f"{path} cannot be used: {defect}",
        good=f"a {FILE} for this machine",
        advice="Replace it.",
        cure=cure,
        source=path,
    )


def _without_needed(library: Installed, missing: Sequence[tuple[str, str]]) -> Finding:
    names = ", ".join(name for name, _ in missing)
    packages = " ".join(sorted({package for _, package in missing}))
    return Finding(
        check="runtime-needs",
        status="broken",
        title="Needed libraries",
        found=f"{names} {verb(missing, 'is', 'are')} missing",
        advice=f"librkllmrt {library.release} cannot be loaded without it.",
        cure=("sudo apt-get update", f"sudo apt-get install -y {packages}"),
        source=library.path,
    )


def missing_packages(path: str) -> list[tuple[str, str]]:
    """Return what a library needs and is not here: its name and that of the package that has it.

    Only of what is known to be missing on boards now and then; the C library is there.
    """
    try:
        needed = needed_by(path)
    except OSError:
        return []
    wanted = (
        (name, package) for name in needed for key, package in PACKAGES.items() if key in name
    )
    return [(name, package) for name, package in wanted if not _is_there(name)]


def _is_there(name: str) -> bool:
    folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    paths = [os.path.join(folder, name) for folder in folders]
    paths += (system_path(f"{folder}/{name}") for folder in _LIBRARY_FOLDERS)
    if any(map(os.path.exists, paths)):
        return True
    if _is_elsewhere():
        return False
    try:
        ctypes.CDLL(name)  # the system's own, wherever its loader finds it
    except OSError:
        return False
    return True


def check_sigill(subject: Subject) -> Iterator[Finding]:
    """Would a release be used that has been seen to die on this SoC?"""
    settings, soc = subject.settings, read_soc()
    installed = usable_releases(settings)
    doubtful = next((one for one in installed if is_doubtful(one.release, soc)), None)
    if doubtful is None:
        return
    uses = read_uses(settings, npu_models(subject), installed)
    risky = [use for use in uses if use.first is doubtful and use.proven != doubtful.release]
    is_next = not uses and subject.model is None and installed[0] is doubtful
    if risky or is_next:
        yield _risk(doubtful, risky, soc, installed)


def _risk(
    doubtful: Installed, risky: Sequence[Use], soc: str | None, installed: Sequence[Installed]
) -> Finding:
    users = name_some(use.model.name for use in risky)
    needed = [use for use in risky if use.toolkit and numbers(use.toolkit) >= numbers("1.3.0")]
    safe = default_release(soc, vendor_machine())
    here = any(one.release == safe for one in installed)
    cure = () if here else (f"{_INSTALL} {safe}",)
    advice = f"If a model's process is killed by SIGILL, use {safe}."
    if risky and len(needed) == len(risky):
        cure, advice = (), "If it is killed by SIGILL, use a model made by an older toolkit."
    else:
        cure = (*cure, f"rkllama runtime use {safe}")
    return Finding(
        check="runtime-sigill",
        status="warning",
        title="NPU runtime",
        found=f"librkllmrt {doubtful.release}" + (f", used by {users}" if users else ""),
        good=safe,
        advice=f"{SIGILL_RISK} {advice}",
        cure=cure,
        source=doubtful.path,
    )


CHECKS: tuple[Check, ...] = (check_runtime, check_sigill)
