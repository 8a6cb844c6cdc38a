"""Who gets which model, and when: the scheduler alone, with strings for models."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from rkllama.engine.memory import scheduler as scheduling
from rkllama.engine.memory.scheduler import Scheduler, Slot, Swaps
from rkllama.errors import Cancelled, QueueFull, ServerStopping
from rkllama.service import LOCAL, Caller, Signs
from tests.waiting import LIMIT, Task, until


def use(scheduler: Scheduler[str], key: str, caller: Caller = LOCAL) -> None:
    """What a request does: load what is not there, evict what has to go."""
    with scheduler.lease(key, caller=caller) as slot:
        occupy(scheduler, slot)


def occupy(scheduler: Scheduler[str], slot: Slot[str]) -> None:
    if slot.evicted is not None:
        slot.evicted.resident = None
        scheduler.evicted_is_closed(slot)
    slot.resident = slot.resident or slot.key


def keys(scheduler: Scheduler[str]) -> list[str]:
    return [slot.key for slot in scheduler.slots()]


class Holder:
    """A request that holds a model until it is told to leave."""

    def __init__(self, scheduler: Scheduler[str], key: str) -> None:
        self.holds, self._leave = threading.Event(), threading.Event()
        self._scheduler, self._key = scheduler, key
        self.task = Task(self._run)

    def _run(self) -> None:
        with self._scheduler.lease(self._key) as slot:
            occupy(self._scheduler, slot)
            self.holds.set()
            assert self._leave.wait(LIMIT)

    def wait(self) -> Holder:
        """Until it holds the model."""
        assert self.holds.wait(LIMIT)
        return self

    def leave(self) -> None:
        """Give the model back."""
        self._leave.set()
        self.task.result()


@pytest.fixture
def client() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: the client's end and the server's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_requests_for_one_model_are_served_in_the_order_of_asking() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    served: list[int] = []

    def ask(number: int) -> None:
        with scheduler.lease("a") as slot:
            occupy(scheduler, slot)
            served.append(number)

    first = Holder(scheduler, "a").wait()
    tasks = []
    for number in range(20):
        tasks.append(Task(lambda number=number: ask(number)))  # type: ignore[misc]
        until(lambda number=number: scheduler.waiting == number + 1)  # type: ignore[misc]
    first.leave()
    for task in tasks:
        task.result()
    assert served == list(range(20))
    assert scheduler.waiting == 0


def test_a_request_for_another_loaded_model_does_not_wait_for_a_busy_one() -> None:
    scheduler: Scheduler[str] = Scheduler(2, 64)
    use(scheduler, "b")
    busy = Holder(scheduler, "a").wait()
    queued = Holder(scheduler, "a")
    until(lambda: scheduler.waiting == 1)
    use(scheduler, "b")
    assert not queued.holds.is_set()
    busy.leave()
    queued.wait().leave()


def served(scheduler: Scheduler[str], first: str, queue: str) -> str:
    """The order in which those who wait while the model `first` is in use are served."""
    order: list[str] = []

    def note(key: str) -> None:
        with scheduler.lease(key) as slot:
            occupy(scheduler, slot)
            order.append(key)

    busy = Holder(scheduler, first).wait()
    tasks = []
    for number, key in enumerate(queue):
        tasks.append(Task(lambda key=key: note(key)))  # type: ignore[misc]
        until(lambda number=number: scheduler.waiting == number + 1)  # type: ignore[misc]
    busy.leave()
    for task in tasks:
        task.result()
    return "".join(order)


def test_those_who_wait_for_the_loaded_model_go_first() -> None:
    """Else two models in turn would be loaded anew for each request."""
    assert served(Scheduler(1, 64), "a", "babab") == "aabbb"
    assert served(Scheduler(1, 64), "a", "cbaba") == "aacbb"


def test_one_who_needs_a_place_is_overtaken_by_so_many_only() -> None:
    order = served(Scheduler(1, 64), "a", "b" + "a" * 20)
    assert order == "a" * 8 + "b" + "a" * 12


def test_one_who_needs_a_place_is_overtaken_for_so_long_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduling, "_LONGEST_PASSING", 0.0)
    assert served(Scheduler(1, 64), "a", "baba") == "baba"


def test_of_two_idle_models_the_one_that_nobody_wants_goes() -> None:
    scheduler: Scheduler[str] = Scheduler(2, 64)
    use(scheduler, "a")
    use(scheduler, "b")
    first, second = Holder(scheduler, "a").wait(), Holder(scheduler, "b").wait()
    third, again = Holder(scheduler, "c"), None
    until(lambda: scheduler.waiting == 1)
    again = Holder(scheduler, "a")
    until(lambda: scheduler.waiting == 2)
    first.leave()
    again.wait()
    assert not third.holds.is_set()
    second.leave()
    third.wait()
    assert sorted(keys(scheduler)) == ["a", "c"]
    third.leave()
    again.leave()


def test_models_that_change_places_often_are_told_of_now_and_then() -> None:
    swaps = Swaps()
    assert [swaps.note(float(now)) for now in range(0, 100, 25)] == [None] * 4
    told = [swaps.note(now) for now in range(1000, 1400, 10)]
    assert [count for count in told if count] == [4, 6]


def test_the_least_recently_used_idle_model_gives_its_place() -> None:
    scheduler: Scheduler[str] = Scheduler(3, 64)
    for key in "abcab":
        use(scheduler, key)
    busy = Holder(scheduler, "c").wait()
    use(scheduler, "d")
    assert sorted(keys(scheduler)) == ["b", "c", "d"]
    busy.leave()


def test_a_model_is_not_loaded_again_before_its_eviction_is_over() -> None:
    scheduler: Scheduler[str] = Scheduler(2, 64)
    use(scheduler, "a")
    use(scheduler, "b")
    with scheduler.lease("c") as slot:
        assert slot.evicted is not None
        assert slot.evicted.key == "a"
        again = Holder(scheduler, "a")
        until(lambda: scheduler.waiting == 1)
        assert keys(scheduler) == ["b", "c"]
        occupy(scheduler, slot)
        again.wait()
    again.leave()
    assert sorted(keys(scheduler)) == ["a", "c"]


def test_a_model_whose_taker_goes_stays_loaded() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    use(scheduler, "a")
    with pytest.raises(Cancelled), scheduler.lease("b"):
        raise Cancelled
    (slot,) = scheduler.slots()
    assert (slot.key, slot.resident, slot.held) == ("a", "a", False)
    use(scheduler, "a")


def test_a_grant_to_a_client_that_has_gone_in_the_same_moment_costs_no_model(
    client: tuple[socket.socket, socket.socket],
) -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    ours, theirs = client
    busy = Holder(scheduler, "a").wait()

    class Leaver(Caller):
        def waiter(
            self, fd: int, before: Callable[[], int] = lambda: 0
        ) -> Callable[[float | None], bool]:
            ours.close()
            busy.leave()  # grants the place: now both are ready
            return super().waiter(fd, before)

    with pytest.raises(Cancelled):
        use(scheduler, "b", caller=Leaver(theirs.fileno()))
    (slot,) = scheduler.slots()
    assert (slot.key, slot.resident, slot.held) == ("a", "a", False)
    use(scheduler, "b")
    assert keys(scheduler) == ["b"]


def test_a_client_that_goes_while_it_waits_makes_room_for_those_behind(
    client: tuple[socket.socket, socket.socket],
) -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    ours, theirs = client
    busy = Holder(scheduler, "a").wait()
    leaver = Task(lambda: use(scheduler, "b", caller=Caller(theirs.fileno())))
    until(lambda: scheduler.waiting == 1)
    behind = Task(lambda: use(scheduler, "a"))
    until(lambda: scheduler.waiting == 2)
    ours.close()
    with pytest.raises(Cancelled):
        leaver.result()
    busy.leave()
    behind.result()
    assert keys(scheduler) == ["a"]


def test_a_full_queue_refuses_and_counts_no_one_who_closes() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 1)
    busy = Holder(scheduler, "a").wait()
    overdue = threading.Event()

    def close() -> None:
        with scheduler.lease_to_close("a", patience=0.0, overdue=overdue.set) as slot:
            if slot is not None:
                slot.resident = None

    closing = Task(close)
    assert overdue.wait(LIMIT)  # it waits
    waiting = Holder(scheduler, "a")
    until(lambda: scheduler.waiting == 1)
    with pytest.raises(QueueFull):
        use(scheduler, "a")
    assert scheduler.waiting == 1
    busy.leave()
    closing.result()
    waiting.wait().leave()


def test_closing_goes_before_those_who_wait() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    order: list[str] = []
    busy = Holder(scheduler, "a").wait()

    def ask() -> None:
        use(scheduler, "a")
        order.append("use")

    waiting = Task(ask)
    until(lambda: scheduler.waiting == 1)
    overdue = threading.Event()

    def close() -> None:
        with scheduler.lease_to_close("a", patience=0.0, overdue=overdue.set) as slot:
            assert slot is not None
            slot.resident = None
            order.append("close")

    closing = Task(close)
    assert overdue.wait(LIMIT)  # it is in the queue by now, and its patience over
    busy.leave()
    closing.result()
    waiting.result()
    assert order == ["close", "use"]
    with scheduler.lease_to_close("b") as none:
        assert none is None


def test_a_slot_without_a_model_is_given_up() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    with pytest.raises(OSError, match="load"), scheduler.lease("a"):
        raise OSError("the load failed")
    assert keys(scheduler) == []
    use(scheduler, "b")


def test_no_descriptor_for_the_wait_leaves_no_ticket_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    busy = Holder(scheduler, "a").wait()

    def none_left(*_: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "eventfd", none_left)
        with pytest.raises(OSError, match="Too many"):
            use(scheduler, "a")
    assert scheduler.waiting == 0
    busy.leave()
    use(scheduler, "a")


def test_closing_the_scheduler_sends_everybody_away() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    busy = Holder(scheduler, "a").wait()
    tasks = [Task(lambda: use(scheduler, "a")) for _ in range(5)]
    until(lambda: scheduler.waiting == 5)
    scheduler.close()
    for task in tasks:
        with pytest.raises(ServerStopping):
            task.result()
    with pytest.raises(ServerStopping):
        use(scheduler, "a")
    assert not scheduler.wait_idle(0.0)
    busy.leave()
    assert scheduler.wait_idle(0.0)


def test_an_idle_slot_is_taken_by_one_at_a_time() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    use(scheduler, "a")
    slot = scheduler.take_idle(lambda _: True)
    assert slot is not None
    assert scheduler.take_idle(lambda _: True) is None
    waiting = Holder(scheduler, "a")
    until(lambda: scheduler.waiting == 1)
    scheduler.put_back(slot)
    waiting.wait().leave()


def test_whatever_happens_no_model_is_held_twice_nor_too_many_are_there() -> None:
    most = 2
    scheduler: Scheduler[str] = Scheduler(most, 64)
    guards = {key: threading.Lock() for key in "abcd"}
    present: set[int] = set()
    before = len(os.listdir("/proc/self/fd"))

    def client(seed: int) -> None:
        choices = random.Random(seed)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for _ in range(150):
                key = choices.choice("abcd")
                kind = choices.randrange(10)
                try:
                    if kind == 0:
                        with scheduler.lease_to_close(key) as held:
                            if held is not None:
                                leave(held)
                        continue
                    with scheduler.lease(key, caller=Caller(theirs.fileno())) as slot:
                        assert guards[key].acquire(blocking=False), "held twice"
                        try:
                            if kind == 1:
                                raise Cancelled
                            if slot.evicted is not None:
                                leave(slot.evicted)
                                scheduler.evicted_is_closed(slot)
                            if slot.resident is None:
                                slot.resident = key
                                present.add(id(slot))
                            assert len(present) <= most
                        finally:
                            guards[key].release()
                except (Cancelled, QueueFull):
                    pass

    def leave(slot: Slot[str]) -> None:
        if slot.resident is not None:
            slot.resident = None
            present.discard(id(slot))

    for task in [Task(lambda seed=seed: client(seed)) for seed in range(8)]:  # type: ignore[misc]
        task.result()
    slots = scheduler.slots()
    assert scheduler.waiting == 0
    assert {id(slot) for slot in slots} == present
    assert not any(slot.held or slot.evicted for slot in slots)
    assert scheduler._leaving == set()
    assert len(os.listdir("/proc/self/fd")) == before


# --- Place in the queue ------------------------------------------------------------------------


class Watcher:
    """A request whose client wants to know how many are before it."""

    def __init__(self, scheduler: Scheduler[str], key: str, watching: bool = True) -> None:
        self.told: list[int] = []
        self.caller = Caller(signs=Signs(self.told.append, watching=watching))
        self.task = Task(lambda: use(scheduler, key, caller=self.caller))


def test_a_client_that_watches_is_told_each_change_of_its_place() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    busy = Holder(scheduler, "a").wait()
    second = Holder(scheduler, "a")
    until(lambda: scheduler.waiting == 1)
    watcher = Watcher(scheduler, "a")
    until(lambda: watcher.told)
    busy.leave()
    second.wait()
    until(lambda: len(watcher.told) == 2)
    second.leave()
    watcher.task.result()
    assert watcher.told == [2, 1, 0]


def test_the_place_moves_up_when_somebody_before_goes(
    client: tuple[socket.socket, socket.socket],
) -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    ours, theirs = client
    busy = Holder(scheduler, "a").wait()
    leaver = Task(lambda: use(scheduler, "b", caller=Caller(theirs.fileno())))
    until(lambda: scheduler.waiting == 1)
    watcher = Watcher(scheduler, "a")
    until(lambda: watcher.told == [2])
    ours.close()
    with pytest.raises(Cancelled):
        leaver.result()
    until(lambda: watcher.told == [2, 1])
    busy.leave()
    watcher.task.result()


def test_who_does_not_watch_or_wait_is_told_nothing() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    Watcher(scheduler, "a").task.result()
    busy = Holder(scheduler, "a").wait()
    plain = Watcher(scheduler, "a", watching=False)
    until(lambda: scheduler.waiting == 1)
    watcher = Watcher(scheduler, "a")
    until(lambda: watcher.told)
    busy.leave()
    watcher.task.result()
    plain.task.result()
    assert plain.told == []
    assert watcher.told[0] == 2
    assert watcher.told[-1] == 0


def test_a_client_that_watches_is_sent_away_when_the_server_stops() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    busy = Holder(scheduler, "a").wait()
    watcher = Watcher(scheduler, "a")
    until(lambda: watcher.told)
    scheduler.close()
    with pytest.raises(ServerStopping):
        watcher.task.result()
    busy.leave()


def test_a_client_that_finds_the_queue_full_is_told_only_that() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 1)
    busy = Holder(scheduler, "a").wait()
    queued = Holder(scheduler, "a")
    until(lambda: scheduler.waiting == 1)
    watcher = Watcher(scheduler, "a")
    with pytest.raises(QueueFull):
        watcher.task.result()
    assert watcher.told == []
    busy.leave()
    queued.wait().leave()


def test_a_sign_tells_the_place_as_it_is() -> None:
    scheduler: Scheduler[str] = Scheduler(1, 64)
    busy = Holder(scheduler, "a").wait()
    told: list[int] = []
    waits = Task(lambda: use(scheduler, "a", caller=Caller(signs=Signs(told.append, 0.001))))
    until(lambda: len(told) > 2)
    busy.leave()
    waits.result()
    assert told[:3] == [1, 1, 1]
