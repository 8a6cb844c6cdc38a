"""When a server is in a crash loop, and how the model that is to stay comes back; no process is started."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from rkllama.engine.health.crashes import LOOP, MEMORY, Crashes
from rkllama.engine.health.keeper import Keeper
from rkllama.engine.memory.scheduler import Scheduler
from rkllama.errors import LoadFailed, ServerStopping
from rkllama.server.status.drain import Drain
from tests.waiting import until


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_only_crashes_in_a_row_are_a_loop() -> None:
    crashes = Crashes(Clock())
    for _ in range(LOOP - 1):
        crashes.note_crash("m")
    crashes.note_use("m")
    crashes.note_crash("m")
    assert not crashes.is_loop("m")
    for _ in range(LOOP - 1):
        crashes.note_crash("m")
    assert crashes.is_loop("m")
    assert crashes.is_loop()
    assert not crashes.is_loop("other")
    crashes.note_use("other")
    assert crashes.is_loop("m"), "another model's answer says nothing of this one"
    assert not crashes.is_loop(), "but not all models crash"


def test_a_loop_is_forgotten_so_that_it_is_tried_again() -> None:
    clock = Clock()
    crashes = Crashes(clock)
    for _ in range(LOOP):
        crashes.note_crash("m")
    clock.now += MEMORY
    assert crashes.is_loop("m")
    clock.now += 1
    assert not crashes.is_loop("m")
    crashes.note_crash("m")
    assert not crashes.is_loop("m"), "it counts anew"


# --- The model that is to stay -----------------------------------------------------------------


class Loads:
    """Loads that the test lets end, one after the other."""

    def __init__(self) -> None:
        self.begun = 0
        self.count = 0
        self.failures = 0
        self.may_end = threading.Semaphore(0)

    def __call__(self) -> None:
        self.begun += 1
        self.may_end.acquire()
        self.count += 1
        if self.failures:
            self.failures -= 1
            raise LoadFailed("no")


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def keeper(loads: Loads) -> Iterator[Keeper]:
    made = Keeper("m", "/m", loads)
    made.start()
    yield made
    made.end()
    loads.may_end.release()


def test_a_model_that_is_lost_is_loaded_again(keeper: Keeper, loads: Loads) -> None:
    assert keeper.missing
    loads.may_end.release()
    until(lambda: not keeper.missing)
    keeper.note_lost("/other")
    assert not keeper.missing
    keeper.note_lost("/m")
    assert keeper.missing
    loads.may_end.release()
    until(lambda: not keeper.missing)
    assert loads.count == 2


def test_a_model_that_is_lost_while_it_is_being_loaded_stays_missing(
    keeper: Keeper, loads: Loads
) -> None:
    until(lambda: loads.begun == 1)
    keeper.note_lost("/m")
    loads.may_end.release()
    until(lambda: loads.begun == 2)
    assert keeper.missing
    loads.may_end.release()
    until(lambda: not keeper.missing)


def test_a_load_that_failed_is_tried_again(
    keeper: Keeper, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rkllama.engine.health.keeper._FIRST", 0.0)
    loads.failures = 1
    loads.may_end.release(2)
    until(lambda: not keeper.missing)
    assert loads.count == 2


def test_a_model_that_its_user_unloads_is_left_alone(keeper: Keeper, loads: Loads) -> None:
    keeper.end("/other")
    assert keeper.missing
    keeper.end("/m")
    assert not keeper.missing
    keeper.note_lost("/m")
    assert not keeper.missing


# --- The queue ---------------------------------------------------------------------------------


def test_a_queue_is_full_when_the_next_request_would_be_sent_away() -> None:
    scheduler: Scheduler[str] = Scheduler(max_loaded=1, max_queue=0)
    assert not scheduler.is_full()
    with scheduler.lease("m") as slot:
        slot.resident = "loaded"
        assert scheduler.is_full()
        assert scheduler.is_full("m")
        assert scheduler.is_full("other"), "its place is taken"
        scheduler.share(slot, 2)
        assert not scheduler.is_full("m")
        assert not scheduler.is_full()
        assert scheduler.is_full("other")
        assert scheduler.places == 2
    assert not scheduler.is_full("other")


def test_who_comes_while_it_drains_is_sent_away_and_who_had_a_turn_is_not() -> None:
    scheduler: Scheduler[str] = Scheduler(max_loaded=1, max_queue=1)
    with scheduler.lease("m"):
        scheduler.drain()
        assert scheduler.draining
        with pytest.raises(ServerStopping), scheduler.lease("m"):
            pass
    with scheduler.lease("m", alone=True):
        pass


# --- Draining ----------------------------------------------------------------------------------


class Listening:
    """A caller that waits until what it waits for can be read, a second at most."""

    def wait(self, fd: int) -> None:
        assert select.select([fd], [], [], 1)[0]


class Refusing:
    """A service that is told to take nothing more."""

    drained = False

    def drain(self) -> None:
        self.drained = True


class Idle:
    """A transport on which nothing goes on."""

    def busy(self) -> int:
        return 0

    def has_news(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("ends", "asked"), [(True, ()), (True, ("10.0.0.1",)), (False, ("10.0.0.1", "10.0.0.1"))]
)
def test_without_balancers_or_a_loop_nothing_is_taken_at_once(
    ends: bool, asked: tuple[str, ...]
) -> None:
    service = Refusing()
    drain = Drain(cast(Any, service))
    drain.ends = ends
    for address in asked:
        assert not drain.note_question(address)
    drain.begin()
    assert service.drained
    assert drain.look(Idle(), time.monotonic()) is None


def test_every_balancer_has_to_be_told_and_none_is_waited_for_for_long() -> None:
    service = Refusing()
    drain = Drain(cast(Any, service), 100.0)
    drain.ends = True
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        drain.note_question(address)
    for address in ("10.0.0.1", "10.0.0.2"):  # the third has looked once
        drain.note_question(address)
    drain.begin()
    now = time.monotonic()
    for address in ("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.9", "10.0.0.2", "10.0.0.2"):
        assert drain.note_question(address)
        left = drain.look(Idle(), now)
        assert left is not None
        assert left <= 10
        assert not service.drained
    drain.note_question("10.0.0.2")
    assert drain.look(Idle(), now) is None
    assert service.drained


def test_a_balancer_that_asks_no_more_is_not_waited_for_for_ever() -> None:
    service = Refusing()
    drain = Drain(cast(Any, service), 4.0)
    drain.ends = True
    drain.note_question("10.0.0.1")
    drain.note_question("10.0.0.1")
    drain.begin()
    began = time.monotonic()
    assert drain.look(Idle(), began + 1) is not None
    assert drain.look(Idle(), began + 2) is None, "half of the time is for what was taken"
    assert service.drained


def test_who_comes_to_wait_when_the_time_is_over_does_not_wait() -> None:
    drain = Drain(cast(Any, Refusing()))
    drain.ends = True
    drain.begin(0.0)
    busy = Idle()
    busy.busy = lambda: 1  # type: ignore[method-assign]
    assert drain.look(busy, time.monotonic()) is None
    assert not drain.wait(cast(Any, Listening()))
    assert not drain.done
