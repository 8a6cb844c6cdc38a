"""What RKLLama runs in: Python and its packages, and the machine's clock."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from ... import __version__
from ..finding import Check, Finding, Subject
from .engines import pip_line

_OLDEST = (3, 10)
_NEWEST = (3, 13)
"""Of the versions that pyproject.toml names."""
_LONG_AGO = 1_735_689_600
"""2025-01-01: no clock that is right tells an earlier time."""
_OPERATORS = re.compile(r"(>=|<=|==|!=|<|>|~=)\s*([\w.]+)")


def check_python(_subject: Subject) -> Iterator[Finding]:
    """Is this Python one that RKLLama is made for?"""
    known = sys.version_info[:2] <= _NEWEST
    yield Finding(
        check="python",
        status="good" if known else "warning",
        title="Python",
        found=f"{platform.python_version()}, RKLLama {__version__}",
        good=None if known else f"{_text(_OLDEST)} to {_text(_NEWEST)}",
        advice=None if known else "It has not been tried with this one; most likely it works.",
        source=sys.executable,
    )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


class Requirement(NamedTuple):
    """A package that is needed, and which versions of it: (">=", "1.8"), …"""

    name: str
    bounds: tuple[tuple[str, str], ...]
    text: str

    def accepts(self, version: str) -> bool:
        """Return whether a version is within the bounds, as far as its numbers tell."""
        return all(_within(version, operator, bound) for operator, bound in self.bounds)


def _within(version: str, operator: str, bound: str) -> bool:
    ours, theirs = _numbers(version), _numbers(bound)
    if operator == ">=":
        return ours >= theirs
    if operator == "<":
        return ours < theirs
    return True  # RKLLama's own requirements have no others


def _numbers(version: str) -> tuple[int, ...]:
    """Return what orders versions; zeros at the end do not count."""
    release = re.match(r"(\d+(?:\.\d+)*)", version)
    numbers = [int(part) for part in release[1].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def parse_requirement(text: str) -> Requirement | None:
    """Return a requirement of a package's metadata; None for one of an extra, or not for this Python."""
    wish, _, marker = text.partition(";")
    if "extra" in marker or not _is_meant(marker):
        return None
    name = re.match(r"[\w.-]+", wish.strip())
    if name is None:
        return None
    bounds = tuple((operator, bound) for operator, bound in _OPERATORS.findall(wish))
    return Requirement(name[0], bounds, wish.strip().replace(" ", ""))


def _is_meant(marker: str) -> bool:
    match = re.search(r"python_version\s*(>=|<)\s*['\"]([\d.]+)['\"]", marker)
    if match is None:
        return True
    return _within(platform.python_version(), match[1], match[2])


def check_packages(_subject: Subject) -> Iterator[Finding]:
    """Are the packages here that RKLLama needs, in versions that it works with?"""
    try:
        declared = importlib.metadata.requires("rkllama") or []
    except importlib.metadata.PackageNotFoundError:
        yield _packages(
            "unseen", "RKLLama is not installed as a package, so its needs are not known"
        )
        return
    wrong, wishes, count = [], [], 0
    for text in declared:
        requirement = parse_requirement(text)
        if requirement is None:
            continue
        count += 1
        version = _installed(requirement.name)
        if version is None or not requirement.accepts(version):
            wrong.append(f"{requirement.name} {version or 'is missing'}")
            wishes.append(requirement.text)
    if not wrong:
        yield _packages("good", f"all {count} are installed")
        return
    yield Finding(
        check="packages",
        status="broken",
        title="Packages",
        found=", ".join(wrong),
        good=", ".join(wishes),
        advice="Install them for the Python that RKLLama runs in.",
        cure=(pip_line(*wishes),),
        source=sys.prefix,
    )


def _packages(status: str, found: str) -> Finding:
    return Finding(
        check="packages",
        status="good" if status == "good" else "unseen",
        title="Packages",
        found=found,
        source=sys.prefix,
    )


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_clock(_subject: Subject) -> Iterator[Finding]:
    """Is the clock set? Boards without a battery begin in 1970, and then no certificate is valid."""
    yield from judge_clock(time.time())


def judge_clock(now: float) -> Iterator[Finding]:
    """Yield what is to be said of a clock that tells `now`, in seconds since the epoch."""
    date = time.strftime("%Y-%m-%d %H:%M", time.localtime(now))
    wrong = now < _LONG_AGO
    yield Finding(
        check="clock",
        status="broken" if wrong else "good",
        title="Clock",
        found=date,
        good="today" if wrong else None,
        advice="No certificate is valid then, so nothing can be downloaded. Have the clock set by the "
        "network."
        if wrong
        else None,
        cure=("sudo timedatectl set-ntp true",) if wrong else (),
        source="date",
    )


CHECKS: tuple[Check, ...] = (check_python, check_packages, check_clock)
