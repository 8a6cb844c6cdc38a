"""What is wrong in a fleet: checks that yield findings, as those of `rkllama doctor` do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..doctor.checks import Told
from ..doctor.finding import Finding, Topic
from ..systemd.steps import is_edited, read
from .balancer import Balancer, fingerprint_of
from .boards import Fleet
from .files import find_haproxy, start_line
from .haproxy import CONFIGURATION
from .reports import Report

LARGEST_SKEW = 30.0
"""Seconds that a board's clock may differ: certificates and logs bear that."""
_NAMED = 5
"""Boards that a finding names."""
_MOST_MODELS = 20
"""Models of which it is told that not all boards have them."""
_UPDATE = ("rkllama fleet update",)


class Fleetwide(NamedTuple):
    """All that the checks look at."""

    directory: str
    fleet: Fleet
    reports: Sequence[Report]
    balancer: Balancer | None
    expected: str
    """The configuration that the boards as they are now ask for."""

    @property
    def alive(self) -> list[Report]:
        """The boards that have told how they are."""
        return [report for report in self.reports if report.error is None]


def examine_fleet(subject: Fleetwide) -> list[Told]:
    """Return what all checks have found, by their groups."""
    return [
        Told(group, finding)
        for group, checks in _GROUPS.items()
        for check in checks
        for finding in check(subject)
    ]


def check_boards(subject: Fleetwide) -> Iterator[Finding]:
    """Which boards answer, and would serve a request."""
    for report in subject.reports:
        board = report.board
        topic = Topic(check="board", title=board.name, source=board.url)
        if report.refused:
            yield topic.tell(
                "broken",
                report.error or "it asks for another API key",
                advice="Through the balancer, too, only requests with one of its keys are served. Give all "
                "boards the same keys, and set RKLLAMA_API_KEY to @FILE with one of them here.",
            )
        elif report.error is not None:
            yield topic.tell(
                "broken",
                f"no answer: {report.error}",
                advice="HAProxy leaves it out until it is ready. A server that others are to reach is "
                "started with --host 0.0.0.0 and an API key.",
            )
        elif report.unready is not None:
            yield topic.tell(
                "warning", f"not ready: {report.unready}", good="ready", source=f"{board.url}/ready"
            )
        elif report.throttled:
            yield topic.tell(
                "warning", f"slowed by heat{_degrees(report)}", advice="Give it a fan or more air."
            )
        else:
            yield topic.tell("good", f"{report.version}{_degrees(report)}")


def check_versions(subject: Fleetwide) -> Iterator[Finding]:
    """Whether all boards run the same release."""
    yield from _same(
        subject.alive,
        Topic(check="versions", title="Versions", good="one release on all boards"),
        lambda report: report.version,
        "Names and answers may differ between releases: install the newest one on each board.",
    )
    if any(not report.tells_ready for report in subject.alive):
        names = _named(r.board.name for r in subject.alive if not r.tells_ready)
        yield Topic(check="ready", title="Readiness").tell(
            "warning",
            f"no /ready on {names}",
            advice="Of such releases HAProxy only sees whether they run: it asks /health of all boards.",
        )


def check_models(subject: Fleetwide) -> Iterator[Finding]:
    """Whether all boards have the same models under the same names."""
    topic = Topic(check="models", title="Models", good="the same names on all boards")
    holders = _holders(subject.alive)
    all_boards = {report.board.name for report in subject.alive}
    everywhere = [name for name, boards in holders.items() if len(boards) == len(subject.alive)]
    if not subject.alive:
        return
    if not holders:
        yield topic.tell("warning", "no board has a model", cure=("rkllama fleet pull MODEL",))
        return
    which = "all boards" if len(subject.alive) == len(subject.reports) else "all that answer"
    yield topic.tell("good", f"{len(everywhere)} on {which}")
    partly = [name for name, boards in holders.items() if len(boards) < len(subject.alive)]
    for name in partly[:_MOST_MODELS]:
        boards = holders[name]
        yield topic.tell(
            "warning",
            f"{name} is on {_named(boards)}, and not on {_named(all_boards - boards)}",
            advice="Requests for it go there alone, if they name it as the board lists it.",
        )
    if len(partly) > _MOST_MODELS:
        yield topic.tell(
            "warning", f"{len(partly) - _MOST_MODELS} more are on some boards, and not on all"
        )
    yield from _check_digests(subject)


def _check_digests(subject: Fleetwide) -> Iterator[Finding]:
    """Yield models of one name that are other files on boards with the same SoC."""
    found: dict[str, dict[tuple[str | None, str], list[str]]] = {}
    for report in subject.alive:
        for model in report.models:
            if model.digest is not None:
                files = found.setdefault(model.name, {})
                files.setdefault((report.soc, model.digest), []).append(report.board.name)
    for name, files in sorted(found.items()):
        socs = [soc for soc, _ in files]
        if len(socs) > len(set(socs)):
            parts = [f"{digest[:12]} on {_named(on)}" for (_, digest), on in files.items()]
            yield Topic(check="digests", title="Digests", good="the same file").tell(
                "warning",
                f"{name}: {'; '.join(parts)}",
                advice="Answers depend on the board, and so does what its caches hold.",
            )


def check_clocks(subject: Fleetwide) -> Iterator[Finding]:
    """Whether the boards' clocks agree with this machine's."""
    topic = Topic(check="clocks", title="Clocks", good=f"within {LARGEST_SKEW:g} s of this machine")
    wrong = [r for r in subject.alive if r.clock is not None and abs(r.clock) > LARGEST_SKEW]
    for report in wrong:
        assert report.clock is not None
        side = "ahead" if report.clock > 0 else "behind"
        yield topic.tell(
            "warning",
            f"{report.board.name} is {abs(report.clock):.0f} s {side}",
            advice="A board without a battery needs the time from the network.",
            cure=("sudo timedatectl set-ntp true  # on that board",),
        )
    if subject.alive and not wrong:
        yield topic.tell("good", "they agree")


def check_haproxy(subject: Fleetwide) -> Iterator[Finding]:
    """Whether HAProxy runs here, with the configuration that the boards ask for."""
    topic = Topic(check="haproxy", title="HAProxy", source=f"http://{subject.fleet.statistics}")
    path = os.path.join(subject.directory, CONFIGURATION)
    content = read(path)
    if content is None:
        yield topic.tell("broken", f"{path} is missing", cure=_UPDATE)
        return
    if find_haproxy() is None:
        yield topic.tell(
            "broken", "not installed on this machine", cure=("sudo apt install haproxy",)
        )
    elif subject.balancer is None:
        yield topic.tell(
            "broken",
            f"not running, or it has another configuration than {path}",
            advice="Start it, as a service or with this line.",
            cure=(start_line(path, running=False),),
        )
    else:
        yield from _check_running(subject, topic, path, content)
    yield from _check_written(subject, path, content)


def _check_running(
    subject: Fleetwide, topic: Topic, path: str, content: bytes
) -> Iterator[Finding]:
    balancer = subject.balancer
    assert balancer is not None
    wanted = fingerprint_of(content.decode("utf-8", "replace"))
    if balancer.fingerprint != wanted:
        yield topic.tell(
            "warning",
            "it runs an older configuration than the file has",
            cure=(start_line(path, running=True),),
        )
    else:
        yield topic.tell("good", f"running, {balancer.waiting} waiting")
    for report in subject.alive:
        if report.unready is None and balancer.up.get(report.board.name) is False:
            yield topic.tell(
                "broken",
                f"it does not reach {report.board.name}, which answers here",
                advice="It may be a name that HAProxy could not look up when it was started.",
            )


def _check_written(subject: Fleetwide, path: str, content: bytes) -> Iterator[Finding]:
    topic = Topic(check="configuration", title="Configuration", source=path)
    now = fingerprint_of(content.decode("utf-8", "replace"))
    if is_edited(content):
        yield topic.tell(
            "warning",
            "it was edited",
            advice="It stays as it is. --force takes ours instead and keeps it as haproxy.cfg.old.",
        )
    elif now != fingerprint_of(subject.expected):
        yield topic.tell(
            "warning", "the boards or their models have changed since it was written", cure=_UPDATE
        )
    else:
        yield topic.tell("good", "as the boards are now")


def _same(
    reports: Sequence[Report], topic: Topic, value: Callable[[Report], str | None], advice: str
) -> Iterator[Finding]:
    """Yield a finding on whether all boards tell the same."""
    groups: dict[str, list[str]] = {}
    for report in reports:
        groups.setdefault(value(report) or "unknown", []).append(report.board.name)
    if len(groups) == 1:
        yield topic.tell("good", next(iter(groups)))
    elif groups:
        parts = [f"{each} on {_named(on)}" for each, on in sorted(groups.items())]
        yield topic.tell("warning", "; ".join(parts), advice=advice)


def _holders(reports: Iterable[Report]) -> dict[str, set[str]]:
    """Return which boards have each name, models and aliases alike."""
    found: dict[str, set[str]] = {}
    for report in reports:
        for name in report.names:
            found.setdefault(name, set()).add(report.board.name)
    return dict(sorted(found.items()))


def _named(boards: Iterable[str]) -> str:
    """Return the names of some boards, or of the first ones."""
    first, rest = sorted(boards)[:_NAMED], sorted(boards)[_NAMED:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")


def _degrees(report: Report) -> str:
    return "" if report.celsius is None else f", {report.celsius:.0f} °C"


_GROUPS: dict[str, tuple[Callable[[Fleetwide], Iterator[Finding]], ...]] = {
    "Boards": (check_boards,),
    "Agreement": (check_versions, check_models, check_clocks),
    "Balancer": (check_haproxy,),
}
