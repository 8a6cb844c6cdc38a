"""How checks are run: one that fails or waits too long does not end or delay the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from rkllama.config import load_settings
from rkllama.doctor import checks
from rkllama.doctor.checks import GROUPS, Group, examine, name_of
from rkllama.doctor.finding import Finding, Subject


def check_well(_subject: Subject) -> Iterator[Finding]:
    yield Finding(check="well", status="good", title="Well", found="yes")


def check_fails_later(_subject: Subject) -> Iterator[Finding]:
    yield Finding(check="fails-later", status="broken", title="Half", found="seen before")
    raise ValueError("no such thing")


def _found(*groups: Group) -> list[tuple[str, str, str]]:
    told = examine(Subject(settings=load_settings()), groups)
    return [(entry.group, entry.finding.check, entry.finding.status) for entry in told]


def test_a_check_that_fails_is_named_and_ends_nothing() -> None:
    found = _found(Group("One", (check_fails_later,)), Group("Two", (check_well,)))
    assert found == [
        ("One", "fails-later", "broken"),
        ("One", "fails-later", "unseen"),
        ("Two", "well", "good"),
    ]


def test_a_check_that_waits_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_MOST", 0.05)
    end = threading.Event()

    def check_waits(_subject: Subject) -> Iterator[Finding]:
        end.wait(60)
        yield Finding(check="waits", status="good", title="Waits", found="at last")

    try:
        found = _found(
            Group("First", (check_waits, check_well), waits=True), Group("Then", (check_well,))
        )
    finally:
        end.set()
    assert found == [
        ("First", "waits", "unseen"),
        ("First", "well", "good"),
        ("Then", "well", "good"),
    ]


def test_checks_that_wait_do_so_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def check_meets(_subject: Subject) -> Iterator[Finding]:
        both.wait(30)
        yield Finding(check="meets", status="good", title="Meets", found="the other")

    found = _found(Group("Both", (check_meets, check_meets), waits=True))
    assert found == [("Both", "meets", "good")] * 2


def test_every_check_has_a_name_of_its_own_and_says_what_it_looks_at() -> None:
    every = [check for group in GROUPS for check in group.checks]
    assert len({name_of(check) for check in every}) == len(every) >= 35
    assert all("?" in (check.__doc__ or "") for check in every)
