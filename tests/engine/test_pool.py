"""Models in memory, over real processes of the virtual NPU: who stays, who goes, and what comes back."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rkllama.backends.base import GenerateSpec
from rkllama.board.lock import NPULock
from rkllama.config import load_settings
from rkllama.engine import template_process
from rkllama.engine.memory import pool as module
from rkllama.engine.memory import scheduler
from rkllama.engine.memory.pool import Pool
from rkllama.engine.memory.resident import Resident
from rkllama.errors import (
    Cancelled,
    LoadFailed,
    NoModelLoaded,
    NPUBusy,
    OutOfMemory,
    QueueFull,
    ServerStopping,
    WorkerCrashed,
)
from rkllama.models.authoring import WritableStore
from rkllama.models.metadata import StoredModel
from rkllama.runner import growth, worker
from rkllama.runner.lane import State
from rkllama.service import LOCAL, Caller
from tests import prepared
from tests.virtual_npu import directive, read_trace, write_model
from tests.waiting import LIMIT, Task, until

pytestmark = pytest.mark.integration


class House:
    """The models in memory, with a store beside them."""

    def __init__(self, models: Path, lock: str, **flags: object) -> None:
        self.models = models
        self.store = WritableStore(str(models))
        shares_npu = bool(flags.pop("shares_npu", False))
        settings = load_settings(flags)
        self.lock = NPULock(lock, "test")
        self.pool = Pool(settings, self.lock, shares_npu=shares_npu)

    def model(self, name: str) -> StoredModel:
        return self.store.resolve(name)

    def ask(self, name: str, prompt: str = "hi", **wants: Any) -> str:
        """One answer."""
        with self.pool.use(self.model(name), **wants) as turn:
            resident = turn.resident
            return answer(resident, prompt, wants.get("caller", LOCAL))

    def load(self, name: str, **wants: Any) -> int:
        """Load a model until it is unloaded; its process."""
        with self.pool.use(self.model(name), **wants) as turn:
            resident = turn.resident
            self.pool.pin(resident, wants.get("keep_alive"))
            return resident.worker.pid

    @property
    def names(self) -> set[str]:
        return {model.info.name for model in self.pool.loaded()}

    def pid(self, name: str) -> int | None:
        """The process of a model."""
        found = [m.pid for m in self.pool.loaded() if m.info.name == name]
        return found[0] if found else None

    def unload(self, name: str) -> None:
        self.pool.unload(self.model(name).info)


def answer(resident: Resident, prompt: str, caller: Caller = LOCAL) -> str:
    run = resident.worker.generate(
        GenerateSpec(prompt=prompt), first=LIMIT, each=LIMIT, caller=caller
    )
    *pieces, last = run
    assert last.result is not None
    return "".join(piece.text for piece in pieces)


def children() -> set[int]:
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children") as stream:
                found |= {int(pid) for pid in stream.read().split()}
        except FileNotFoundError:  # the thread has ended meanwhile
            continue
    return found - prepared.own_processes()


def assert_goes(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(LIMIT * 1000)
    finally:
        os.close(handle)


@pytest.fixture(autouse=True)
def _no_other_children() -> None:
    """Other tests leave processes that render templates."""
    template_process.end_idle()


@pytest.fixture
def lock_path(tmp_path: Path) -> str:
    return str(tmp_path / "npu.lock")


@pytest.fixture
def house(models: Path, npu: str, lock_path: str) -> Iterator[House]:
    """A place for one model; nothing is left of it at the end."""
    with_one = House(models, lock_path)
    yield with_one
    close(with_one)


@pytest.fixture
def roomy(models: Path, npu: str, lock_path: str) -> Iterator[House]:
    """A place for two models."""
    with_two = House(models, lock_path, max_loaded=2)
    yield with_two
    close(with_two)


def close(house: House) -> None:
    house.pool.close()
    assert children() == set()
    assert house.pool.loaded() == []
    other = NPULock(str(house.lock._path), "other")
    other.acquire()
    other.release()


# --- Loading -----------------------------------------------------------------------------------


def test_two_who_want_the_same_model_share_one_load(house: House, tmp_path: Path) -> None:
    write_model(house.models / "m.rkllm", load_ms=100, trace=tmp_path / "trace")
    tasks = [Task(lambda: house.load("m")) for _ in range(4)]
    assert len({task.result() for task in tasks}) == 1
    assert [event["event"] for event in read_trace(tmp_path / "trace")].count("init") == 1


def test_two_first_models_at_once_take_the_lock_once(roomy: House) -> None:
    for name in "ab":
        write_model(roomy.models / f"{name}.rkllm", load_ms=50)
    barrier = threading.Barrier(2)

    def load(name: str) -> int:
        barrier.wait(LIMIT)
        return roomy.load(name)

    tasks = [Task(lambda: load("a")), Task(lambda: load("b"))]
    assert {task.result() for task in tasks} == children()


@pytest.mark.parametrize("fault", ["init_error", "crash_in_init", "init_null"])
def test_a_failed_load_leaves_no_place_taken(house: House, fault: str) -> None:
    write_model(house.models / "bad.rkllm", **{fault: 1})
    write_model(house.models / "good.rkllm")
    for _ in range(2):
        with pytest.raises(LoadFailed):
            house.load("bad")
        assert house.pool.scheduler.slots() == []
        assert children() == set()
    assert house.ask("good") == "hi"
    with pytest.raises(LoadFailed):
        house.load("bad")
    assert house.names == set()
    assert house.pool.restarts == 0


def test_somebody_elses_npu_is_named_and_leaves_no_place_taken(
    house: House, lock_path: str
) -> None:
    write_model(house.models / "m.rkllm")
    other = NPULock(lock_path, "rkllama serve")
    other.acquire()
    with pytest.raises(NPUBusy, match="`rkllama serve`"):
        house.load("m")
    assert house.pool.scheduler.slots() == []
    other.release()
    house.load("m")


def test_a_log_that_cannot_be_written_is_a_warning(
    house: House, home: Path, npu: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(house.models / "m.rkllm")
    (home / "RKLLAMA" / "logs").write_text("in the way")
    assert house.ask("m") == "hi"
    assert any("m.log" in record.getMessage() for record in caplog.records)


def test_names_longer_than_a_file_s_have_logs_of_their_own(house: House, home: Path) -> None:
    folder = house.models / ("a" * 200)
    folder.mkdir()
    for name in "bc":
        write_model(folder / f"{name * 200}.rkllm")
        house.load(f"{folder.name}/{name * 200}")
    assert len(list((home / "RKLLAMA" / "logs").iterdir())) == 2


def test_a_client_that_left_during_the_load_is_not_answered(house: House, tmp_path: Path) -> None:
    write_model(house.models / "m.rkllm", load_ms=200, trace=tmp_path / "trace")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        task = Task(lambda: house.ask("m", caller=Caller(theirs.fileno())))
        until(lambda: house.pool.loaded())
        ours.close()
        with pytest.raises(Cancelled):
            task.result()
    assert "run" not in [event["event"] for event in read_trace(tmp_path / "trace")]
    (model,) = house.pool.loaded()
    assert model.state == "ready"
    assert model.expires is not None


# --- Who goes ----------------------------------------------------------------------------------


def test_a_model_is_closed_before_another_takes_its_place(house: House, tmp_path: Path) -> None:
    for name in "ab":
        write_model(house.models / f"{name}.rkllm", trace=tmp_path / "trace")
    house.load("a")
    house.load("b")
    events = [event["event"] for event in read_trace(tmp_path / "trace")]
    assert events == ["init", "destroy", "init"]
    assert house.names == {"b"}
    assert len(children()) == 1


def test_models_that_keep_changing_places_are_told_of(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        write_model(house.models / f"{name}.rkllm")
    for name in "ababab":
        house.ask(name)
    told = [r.getMessage() for r in caplog.records if "took each other's place" in r.getMessage()]
    assert len(told) == 1
    assert "raise max_loaded" in told[0]


def test_a_model_whose_last_answer_was_left_goes_in_order(house: House, tmp_path: Path) -> None:
    for name in "ab":
        write_model(house.models / f"{name}.rkllm", tokens=100, trace=tmp_path / "trace")
    with house.pool.use(house.model("a")) as turn:
        resident = turn.resident
        # An abort takes effect when the next token is due: it drains until then.
        prompt = f"hi {directive(token_us=300_000)}"
        run = resident.worker.generate(GenerateSpec(prompt=prompt), first=LIMIT, each=LIMIT)
        next(run)
        run.close()
        assert resident.worker.state is State.DRAINING
    assert house.ask("b", directive(reply="fine")) == "fine"
    events = [event["event"] for event in read_trace(tmp_path / "trace")]
    assert events.index("destroy") < [n for n, e in enumerate(events) if e == "init"][1]


def test_a_keep_alive_begins_anew_with_each_use(house: House) -> None:
    write_model(house.models / "m.rkllm")
    until_when = []
    for keep_alive in (100.0, None, 200.0, None, -1.0, None, 50.0):
        house.ask("m", keep_alive=keep_alive)
        expires = house.pool.loaded()[0].expires
        until_when.append(None if expires is None else round(expires - time.time(), -1))
    assert until_when == [100, 100, 200, 200, None, None, 50]


def test_the_time_of_a_model_that_is_used_does_not_run(house: House) -> None:
    write_model(house.models / "m.rkllm")

    def seconds_left() -> int | None:
        expires = house.pool.loaded()[0].expires
        return None if expires is None else round(expires - time.time())

    with house.pool.use(house.model("m"), keep_alive=0.01):
        assert seconds_left() == 300
    house.load("m", keep_alive=-1.0)
    with house.pool.use(house.model("m")):
        assert seconds_left() is None


@pytest.mark.parametrize("keep_alive", [0.0, 0.05])
def test_a_model_goes_when_its_keep_alive_is_over(house: House, keep_alive: float) -> None:
    write_model(house.models / "m.rkllm")
    with house.pool.use(house.model("m"), keep_alive=keep_alive) as turn:
        resident = turn.resident
        pid = resident.worker.pid
        assert answer(resident, "hi") == "hi"
    assert_goes(pid)
    until(lambda: house.names == set())
    with pytest.raises(NoModelLoaded):
        house.pool.current()


def test_of_several_the_one_whose_time_is_over_goes(roomy: House) -> None:
    for name in "ab":
        write_model(roomy.models / f"{name}.rkllm")
    roomy.ask("a")
    roomy.ask("b", keep_alive=0.05)
    until(lambda: roomy.names == {"a"})


def test_a_busy_model_does_not_expire(house: House) -> None:
    write_model(house.models / "m.rkllm")
    house.ask("m", keep_alive=0.2)
    with house.pool.use(house.model("m"), keep_alive=100.0) as turn:
        resident = turn.resident
        over = threading.Event()
        assert not over.wait(0.4)  # the time itself is what is tested
        assert answer(resident, "hi") == "hi"
    assert house.names == {"m"}


def test_an_unload_ends_a_load(house: House) -> None:
    write_model(house.models / "m.rkllm", load_ms=20_000)
    task = Task(lambda: house.load("m"))
    until(lambda: house.pool.loaded())
    house.unload("m")
    with pytest.raises(LoadFailed, match="unloaded"):
        task.result()
    assert house.pool.restarts == 0
    with pytest.raises(NoModelLoaded):
        house.pool.current()
    with pytest.raises(NoModelLoaded):
        house.unload("m")


def test_an_unload_waits_for_no_prefill_for_ever(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNLOAD_GRACE", 0.2)
    trace = tmp_path / "trace"
    write_model(house.models / "m.rkllm", trace=trace)
    task = Task(lambda: house.ask("m", "a b c d e " + directive(prefill_us=5_000_000)))
    until(lambda: trace.exists() and "run" in [event["event"] for event in read_trace(trace)])
    house.unload("m")
    with pytest.raises(WorkerCrashed, match="unloaded"):
        task.result()
    assert house.pool.restarts == 0
    with pytest.raises(NoModelLoaded):
        house.pool.current()


def test_an_unload_between_two_runs_of_an_answer_ends_it(house: House) -> None:
    write_model(house.models / "m.rkllm", tokens=100_000, token_us=1000)
    with house.pool.use(house.model("m")) as turn:
        resident = turn.resident
        task = Task(lambda: house.unload("m"))
        until(lambda: resident.worker.retired)
        run = resident.worker.generate(GenerateSpec(prompt="hi"), first=LIMIT, each=LIMIT)
        *_, last = run
        assert last.result is not None
        assert last.result.reason == "cancelled"
    task.result()
    assert children() == set()


def test_nobody_gets_a_model_that_is_about_to_be_unloaded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(house.models / "m.rkllm")
    running = Task(lambda: house.ask("m", directive(tokens=100_000, token_us=1000)))
    until(lambda: [m for m in house.pool.loaded() if m.state == "busy"])
    waiting = Task(lambda: house.ask("m", "and I?"))
    until(lambda: house.pool.scheduler.waiting == 1)
    retire = worker.Worker.retire

    def and_let_the_answer_end(self: worker.Worker) -> None:
        retire(self)
        running.result()

    monkeypatch.setattr(worker.Worker, "retire", and_let_the_answer_end)
    house.unload("m")
    assert waiting.result() == "and I?"


def test_an_unload_that_is_refused_leaves_the_model_as_it_was(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_MAX_CLOSING", 0)
    write_model(house.models / "m.rkllm")
    long = directive(tokens=100, token_us=1000)
    with house.pool.use(house.model("m")) as turn:
        resident = turn.resident
        whole = answer(resident, long)
        with pytest.raises(QueueFull):
            house.unload("m")
        assert answer(resident, long) == whole
    assert house.ask("m", long) == whole


def test_unloads_while_it_comes_and_goes_are_done_or_find_nothing(house: House) -> None:
    write_model(house.models / "m.rkllm")
    over = threading.Event()

    def unload() -> int:
        done = 0
        while not over.is_set():
            try:
                house.unload("m")
                done += 1
            except (NoModelLoaded, QueueFull):
                pass
        return done

    tasks = [Task(unload) for _ in range(2)]
    for _ in range(8):
        with contextlib.suppress(LoadFailed):
            house.ask("m", keep_alive=0.0)
    over.set()
    assert sum(task.result() for task in tasks) > 0


def npu_is_free(path: str) -> bool:
    other = NPULock(path, "other")
    try:
        other.acquire()
    except NPUBusy:
        return False
    other.release()
    return True


def test_the_npu_is_given_back_when_no_model_is_on_it(
    models: Path, npu: str, lock_path: str
) -> None:
    house = House(models, lock_path, max_loaded=2, shares_npu=True)
    for name in "ab":
        write_model(models / f"{name}.rkllm")
    write_model(models / "bad.rkllm", init_error=1)
    house.ask("a", keep_alive=-1.0)
    house.ask("b", keep_alive=0.0)
    until(lambda: house.names == {"a"})
    assert not npu_is_free(lock_path)
    house.unload("a")
    until(lambda: npu_is_free(lock_path))  # b's process may still be on its way out
    with pytest.raises(LoadFailed):
        house.load("bad")
    assert npu_is_free(lock_path)
    with pytest.raises(WorkerCrashed):
        house.ask("a", directive(segv_at=0))
    assert npu_is_free(lock_path)
    house.ask("a", keep_alive=0.0)
    until(lambda: npu_is_free(lock_path))
    close(house)


def test_a_server_keeps_the_npu(house: House, lock_path: str) -> None:
    write_model(house.models / "a.rkllm")
    house.ask("a", keep_alive=0.0)
    until(lambda: house.names == set() and not children())
    assert not npu_is_free(lock_path)


# --- Memory ------------------------------------------------------------------------------------


@pytest.fixture
def hall(models: Path, npu: str, lock_path: str) -> Iterator[House]:
    """A place for four models."""
    with_four = House(models, lock_path, max_loaded=4)
    yield with_four
    close(with_four)


def of_memory(house: House, board: Path, **megabytes: int) -> None:
    """Models of so many MB on a board with 4000."""
    for name, size in megabytes.items():
        path = house.models / f"{name}.rkllm"
        write_model(path, npu=board / "npu", npu_mb=4000, memory_mb=size)


def test_idle_models_go_one_by_one_for_a_load_that_lacks_memory(
    hall: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of_memory(hall, tmp_path, oldest=900, middle=900, newest=900, big=2500)
    for name in ("middle", "oldest", "middle", "newest"):
        hall.load(name, keep_alive=-1.0)
    with caplog.at_level("INFO", "rkllama"):
        assert hall.ask("big") == "hi"
    assert hall.names == {"big", "newest"}
    told = [r.getMessage() for r in caplog.records]
    assert [text for text in told if text.startswith("unloaded")] == [
        "unloaded oldest",
        "unloaded middle",
    ]
    assert hall.pool.restarts == 0


def test_a_load_that_lacks_memory_fails_when_no_idle_model_is_left(
    hall: House, tmp_path: Path
) -> None:
    of_memory(hall, tmp_path, busy=2000, idle=1000, big=3500)
    hall.load("idle")
    with (
        hall.pool.use(hall.model("busy")) as turn,
        pytest.raises(OutOfMemory, match="memory"),
    ):
        hall.load("big")
    assert hall.names == {"busy"}
    assert turn.resident.worker.alive
    hall.load("idle")
    hall.load("big")
    assert hall.names == {"big"}


def domains(trace: Path) -> list[int]:
    return [event["base_domain_id"] for event in read_trace(trace) if event["event"] == "init"]


def test_models_fit_side_by_side_in_domains_of_their_own(hall: House, tmp_path: Path) -> None:
    npu, trace = tmp_path / "npu", tmp_path / "trace"
    for name in "abc":
        write_model(hall.models / f"{name}.rkllm", npu=npu, memory_mb=2500, trace=trace)
    for name in "abc":
        hall.load(name)
    hall.unload("b")
    hall.load("b")
    assert domains(trace) == [0, 1, 2, 1]
    assert hall.names == {"a", "b", "c"}


def test_a_large_model_takes_domains_in_a_row(hall: House, tmp_path: Path) -> None:
    npu, trace, gibi = tmp_path / "npu", tmp_path / "trace", 1 << 30
    for name, size in (("a", 2), ("big", 7), ("b", 1), ("c", 3)):
        path = hall.models / f"{name}.rkllm"
        write_model(path, size=size * gibi, npu=npu, memory_mb=size * 1024, trace=trace)
        hall.load(name)
    hall.unload("big")
    hall.unload("b")
    hall.load("b")
    assert domains(trace) == [0, 1, 3, 4, 1]


def test_a_modelfile_and_a_setting_name_domain_and_cpus(
    models: Path, npu: str, lock_path: str, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    write_model(models / "m.rkllm", trace=trace)
    house = House(models, lock_path, base_domain_id=3, enabled_cpus_mask="0x0F")
    settings = "embed_flash true\nPARAMETER enabled_cpus_num 3\nPARAMETER base_domain_id 9"
    house.store.create("own", f"FROM m\nPARAMETER {settings}")
    for name in ("m", "m", "own", "m"):
        house.load(name)
    close(house)
    names = ("base_domain_id", "embed_flash", "enabled_cpus_mask", "enabled_cpus_num")
    found = [tuple(e[n] for n in names) for e in read_trace(trace) if e["event"] == "init"]
    assert found == [(3, 0, 0x0F, 4), (9, 1, 0x0E, 3), (3, 0, 0x0F, 4)]


@pytest.mark.parametrize("fault", [{"init_error": 1}, {"crash_in_init": 1}])
def test_only_want_of_memory_costs_idle_models(hall: House, fault: dict[str, int]) -> None:
    write_model(hall.models / "idle.rkllm")
    write_model(hall.models / "bad.rkllm", **fault)
    hall.load("idle")
    with pytest.raises(LoadFailed):
        hall.load("bad")
    assert hall.names == {"idle"}
    write_model(hall.models / "bad.rkllm", log="malloc", **fault)
    with pytest.raises(OutOfMemory):
        hall.load("bad")
    assert hall.names == set()


# --- What comes back ---------------------------------------------------------------------------


def test_a_crashed_model_stays_the_current_one_and_comes_back_as_it_was(house: House) -> None:
    write_model(house.models / "m.rkllm")
    first = house.load("m", keep_alive=-1.0)
    with pytest.raises(WorkerCrashed):
        house.ask("m", directive(segv_at=0))
    assert house.names == set()
    assert children() == set()
    assert house.pool.current().name == "m"
    assert house.pool.restarts == 1
    assert house.ask("m", keep_alive=5.0) == "hi"
    assert house.pid("m") != first
    assert house.pool.loaded()[0].expires is None, "it is not pinned any more"


def test_a_crashed_model_that_is_unloaded_does_not_come_back(house: House) -> None:
    write_model(house.models / "m.rkllm")
    house.load("m", keep_alive=-1.0)
    with pytest.raises(WorkerCrashed):
        house.ask("m", directive(segv_at=0))
    house.unload("m")
    with pytest.raises(NoModelLoaded):
        house.pool.current()


def test_a_crashed_models_time_goes_on(house: House) -> None:
    write_model(house.models / "m.rkllm")
    with pytest.raises(WorkerCrashed):
        house.ask("m", directive(segv_at=0), keep_alive=0.05)

    def forgotten() -> bool:
        try:
            house.pool.current()
        except NoModelLoaded:
            return True
        return False

    until(forgotten)
    house.ask("m")
    expires = house.pool.loaded()[0].expires
    assert expires is not None
    assert expires > time.time() + 60, "it came back with a time that was over"


def test_a_process_that_died_idle_is_replaced(house: House) -> None:
    write_model(house.models / "m.rkllm")
    first = house.load("m", keep_alive=-1.0)
    os.kill(first, signal.SIGKILL)
    assert_goes(first)
    assert house.ask("m") == "hi"
    assert children() == {house.pid("m")}
    assert house.pool.restarts == 1
    assert house.pool.loaded()[0].expires is None


def test_a_hung_abort_costs_the_process_and_not_the_next_answer(
    house: House,
) -> None:
    write_model(house.models / "m.rkllm")
    with house.pool.use(house.model("m")) as turn:
        resident = turn.resident
        resident.worker.kind = replace(resident.worker.kind, abort_grace=0.2)
        prompt = directive(tokens=100_000, token_us=1000)
        run = resident.worker.generate(GenerateSpec(prompt=prompt), first=LIMIT, each=LIMIT)
        next(run)
        os.kill(resident.worker.pid, signal.SIGSTOP)
        run.close()
    assert house.ask("m", directive(reply="next")) == "next"
    assert house.pool.restarts == 1


def test_a_file_that_changed_is_loaded_again(house: House) -> None:
    path = house.models / "m.rkllm"
    write_model(path, reply="old")
    assert house.ask("m") == "old"
    first = house.pid("m")
    assert house.ask("m") == "old"
    assert house.pid("m") == first
    write_model(path, reply="new one")
    assert house.ask("m") == "new one"
    assert house.pid("m") != first
    assert house.pool.restarts == 0


def test_an_alias_shares_its_models_process(house: House) -> None:
    path = house.models / "m.rkllm"
    write_model(path)
    pid = house.load("m")
    for system in ("Be brief.", "Be kind."):
        house.store.create("poet", f"FROM m\nSYSTEM {system}")
        for name in ("poet", "m", "poet"):
            assert house.load(name) == pid
            assert house.names == {name}, "the name that was asked for last"
    assert children() == {pid}
    write_model(path, reply="changed")
    assert house.ask("poet") == "changed"
    assert house.pid("poet") != pid


def test_a_longer_context_is_a_new_load_and_keeps_what_was_wanted(house: House) -> None:
    write_model(house.models / "m.rkllm", max_context=4096)
    first = house.load("m", keep_alive=-1.0, context_length=512)
    house.ask("m", context_length=256)
    assert house.pid("m") == first
    house.ask("m", context_length=8192)
    second = house.pid("m")
    assert second != first
    house.ask("m", context_length=8192)
    assert house.pid("m") == second, "what was clamped once is not tried again"
    (model,) = house.pool.loaded()
    assert (model.context_length, model.expires) == (4096, None)


def test_a_load_without_a_keep_alive_unpins_nothing(house: House) -> None:
    write_model(house.models / "m.rkllm")
    house.load("m", keep_alive=-1.0)
    house.load("m")
    house.ask("m", keep_alive=0.0)
    assert house.pool.loaded()[0].expires is None


@pytest.mark.parametrize(("leak", "renewed"), [(24, True), (0, False)])
def test_an_idle_model_whose_memory_has_grown_is_loaded_anew(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    leak: int,
    renewed: bool,
) -> None:
    monkeypatch.setattr(growth, "FLOOR", 64 << 20)
    monkeypatch.setattr(growth, "USES", 5)
    write_model(house.models / "m.rkllm", leak_mb=leak)
    first = house.load("m", keep_alive=-1.0)
    for _ in range(3):
        house.ask("m")
    with house.pool.use(house.model("m")) as turn:
        resident = turn.resident
        assert answer(resident, "hi") == "hi"
        assert resident.worker.pid == first, "it is busy"
    if not renewed:
        assert house.ask("m") == "hi"
        assert house.pid("m") == first
        return
    until(lambda: house.pid("m") not in (first, None))
    until(lambda: house.pool.loaded()[0].state == "ready")
    assert house.pool.loaded()[0].expires is None
    assert "m: its process takes twice the memory" in caplog.text
    assert house.ask("m") == "hi"
    assert house.pool.restarts == 0


def test_a_grown_model_that_cannot_be_loaded_anew_is_none(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "FLOOR", 64 << 20)
    monkeypatch.setattr(growth, "USES", 1)
    path = house.models / "m.rkllm"
    write_model(path, leak_mb=128)
    with house.pool.use(house.model("m")) as turn:
        resident = turn.resident
        assert answer(resident, "hi") == "hi"
        write_model(path, init_error=1)
    until(lambda: not house.pool.loaded() and not house.pool.scheduler.slots())
    assert house.pool.current().name == "m"
    write_model(path, reply="well")
    assert house.ask("m") == "well"


# --- The end -----------------------------------------------------------------------------------


def test_closing_ends_answers_loads_and_those_who_wait(roomy: House) -> None:
    write_model(roomy.models / "a.rkllm", tokens=100_000, token_us=1000)
    write_model(roomy.models / "b.rkllm", load_ms=20_000)
    running = Task(lambda: roomy.ask("a"))
    until(lambda: [m for m in roomy.pool.loaded() if m.state == "busy"])
    waiting = Task(lambda: roomy.ask("a"))
    loading = Task(lambda: roomy.ask("b"))
    until(lambda: len(roomy.pool.loaded()) == 2 and roomy.pool.scheduler.waiting == 1)
    roomy.pool.close()
    assert children() == set()
    running.result()  # what it has said so far
    with pytest.raises(ServerStopping):
        waiting.result()
    with pytest.raises(LoadFailed, match="stopping"):
        loading.result()
    with pytest.raises(ServerStopping):
        roomy.ask("a")


def test_closing_during_an_eviction_starts_no_new_process(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CLOSE_GRACE", 1.0)
    for name in "ab":
        write_model(house.models / f"{name}.rkllm")
    stuck = house.load("a")
    os.kill(stuck, signal.SIGSTOP)  # closing it takes until it is killed
    task = Task(lambda: house.load("b"))
    until(lambda: house.pool.scheduler.slots()[0].key.endswith("b.rkllm"))
    house.pool.close()
    with pytest.raises(ServerStopping):
        task.result()
    assert children() == set()
