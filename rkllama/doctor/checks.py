"""All checks, in the order in which they are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from . import clocks, devices, limits, machine
from .finding import Check, Finding, Subject
from .software import (
    disk,
    engines,
    home,
    hub,
    libraries,
    model_files,
    model_needs,
    pictures,
    serving,
    surroundings,
)
from .software.inventory import read_models

_MOST = 1.1
"""Seconds that all the checks which wait for others may take together."""


Scope = Literal["npu", "model", "machine"]
"""What checks are about: the NPU and the models for it, any model, or the machine whatever its models."""


class Group(NamedTuple):
    """Checks that are told together."""

    title: str
    checks: tuple[Check, ...]
    scope: Scope = "machine"
    waits: bool = False
    """Whether its checks wait for a disk, a program or a server: those are done at the same time."""


BOARD = (
    Group("Board", machine.CHECKS, "npu"),
    Group("NPU devices", devices.CHECKS, "npu"),
    Group("Speed", clocks.CHECKS, "npu"),
    Group("Memory and limits", limits.CHECKS, "model"),
)
"""What the files of the kernel decide alone."""
GROUPS = (
    *BOARD,
    Group("Libraries", (*libraries.CHECKS, *pictures.CHECKS), "npu", waits=True),
    Group("Engines for .gguf", engines.CHECKS, "model", waits=True),
    Group("Models", (*model_files.CHECKS, *model_needs.CHECKS), "model"),
    Group("Server", serving.CHECKS, waits=True),
    Group("Home and disk", (*home.CHECKS, *disk.CHECKS), waits=True),
    Group("Python", surroundings.CHECKS),
    Group("Hugging Face", hub.CHECKS, waits=True),
)


class Told(NamedTuple):
    """A finding and the title of its group."""

    group: str
    finding: Finding


def examine(subject: Subject, groups: Sequence[Group] | None = None) -> list[Told]:
    """Return what the checks of all groups, or of these, have found, in their order.

    A check that fails, or that takes too long, is told as one whose matter is unseen.
    """
    groups = GROUPS if groups is None else groups
    scopes = _scopes(subject)
    chosen = [group for group in groups if group.scope in scopes]
    waiting = {
        check: _Waiting(check, subject) for group in chosen if group.waits for check in group.checks
    }
    until = time.monotonic() + _MOST
    told = []
    for group in (*[g for g in chosen if not g.waits], *[g for g in chosen if g.waits]):
        for check in group.checks:
            result = waiting[check].result(until) if group.waits else _run(check, subject)
            told += [Told(group.title, finding) for finding in result]
    order = {group.title: number for number, group in enumerate(chosen)}
    return sorted(told, key=lambda entry: order[entry.group])


def _scopes(subject: Subject) -> tuple[Scope, ...]:
    """What is looked at: everything, or what the one model needs."""
    if subject.model is None:
        return "npu", "model", "machine"
    return ("npu", "model") if read_models(subject).of_format("rkllm") else ("model",)


class _Waiting:
    """A check in a thread of its own, which does not keep the program from ending."""

    def __init__(self, check: Check, subject: Subject) -> None:
        self._check = check
        self._findings: list[Finding] | None = None
        self._thread = threading.Thread(target=self._work, args=(subject,), daemon=True)
        self._thread.start()

    def _work(self, subject: Subject) -> None:
        self._findings = _run(self._check, subject)

    def result(self, until: float) -> list[Finding]:
        """Return what it has found, at that time of the monotonic clock at the latest."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._findings is None:
            return [_unseen(self._check, f"not known: it took longer than {_MOST:g} s")]
        return self._findings


def _run(check: Check, subject: Subject) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(check(subject))
    except Exception as error:  # a fault of ours must not hide what the other checks find
        findings.append(_unseen(check, f"the check failed: {type(error).__name__}: {error}"))
    return findings


def _unseen(check: Check, found: str) -> Finding:
    name = name_of(check)
    return Finding(check=name, status="unseen", title=name, found=found)


def name_of(check: Check) -> str:
    """Return the name of a check's function as a word: "check_npu_clock" is "npu-clock"."""
    name: str = getattr(check, "__name__", "check")
    return name.removeprefix("check_").replace("_", "-")


def sort_by_weight(told: Sequence[Told]) -> Iterator[Finding]:
    """Yield what is wrong, in the order in which it should be cured: what is broken first."""
    for status in ("broken", "warning"):
        yield from (entry.finding for entry in told if entry.finding.status == status)
