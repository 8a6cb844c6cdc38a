"""When a server is in a crash loop, and how the model that is to stay comes back; no process is started."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from rkllama.engine.health.crashes import LOOP, MEMORY, Crashes
from rkllama.engine.health.keeper import Keeper
from rkllama.engine.memory.scheduler import Scheduler
from rkllama.errors import LoadFailed, ServerStopping
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
        self.count = 0
        self.failures = 0
        self.may_end = threading.Semaphore(0)

    def __call__(self) -> None:
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
    keeper.note_lost("/m")
    until(lambda: loads.may_end.release() is None and loads.count >= 1)
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
