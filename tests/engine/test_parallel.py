"""Several requests at a time on one model: the guide, on the CPU backend."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from rkllama.backends.base import GenerateSpec, RunResult
from rkllama.engine.memory.pool import Pool
from rkllama.engine.memory.resident import Turn
from rkllama.errors import Cancelled, WorkerCrashed
from rkllama.runner.lane import Piece
from rkllama.service import LOCAL, Caller
from rkllama.types import SamplingParams
from tests.engine.test_pool import House
from tests.waiting import LIMIT, Task, until

pytestmark = pytest.mark.integration

GREEDY = SamplingParams(temperature=0)
LONG = 700
"""Tokens of an answer that is still being written when another one has come."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "models", str(tmp_path / "lock"), parallel=3)
    yield house
    house.pool.close()


def begin(
    turn: Turn, prompt: str, tokens: int, caller: Caller = LOCAL
) -> Generator[Piece, None, None]:
    schema = {"type": "string", "minLength": 4 * LONG} if tokens == LONG else None
    spec = GenerateSpec(prompt=prompt, sampling=GREEDY, max_tokens=tokens, schema=schema)
    return turn.lane.generate(spec, first=LIMIT, each=LIMIT, caller=caller)


def whole(house: House, prompt: str, tokens: int) -> tuple[str, RunResult | None]:
    with house.pool.use(house.model("guide")) as turn:
        pieces = list(begin(turn, prompt, tokens))
    return "".join(piece.text for piece in pieces), pieces[-1].result


def test_all_write_at_the_same_time_what_each_writes_alone(house: House) -> None:
    prompts = ["How do I", "Which boards", "What is"]
    alone = [whole(house, prompt, 60)[0] for prompt in prompts]
    with ExitStack() as stack:
        turns = [stack.enter_context(house.pool.use(house.model("guide"))) for _ in range(3)]
        runs = [begin(turn, prompt, 60) for turn, prompt in zip(turns, prompts, strict=True)]
        texts = [next(run).text for run in runs]  # each has begun, and none has ended
        texts = [
            text + "".join(piece.text for piece in run)
            for text, run in zip(texts, runs, strict=True)
        ]
    assert texts == alone
    assert len({turn.lane for turn in turns}) == 3
    assert len({turn.resident.worker.pid for turn in turns}) == 1


def test_one_more_waits_for_its_turn(house: House) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(house.pool.use(house.model("guide")))
        fourth = Task(lambda: whole(house, "How", 5))
        until(lambda: house.pool.scheduler.waiting == 1)
        assert not fourth.done
    assert fourth.result()[0]


def test_who_leaves_takes_no_other_answer_along(house: House) -> None:
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        house.pool.use(house.model("guide")) as one,
        house.pool.use(house.model("guide")) as other,
    ):
        leaving = begin(one, "How do I", LONG, Caller(theirs.fileno()))
        staying = begin(other, "Which boards", LONG)
        next(leaving), next(staying)
        ours.shutdown(socket.SHUT_RDWR)
        with pytest.raises(Cancelled):
            list(leaving)
        result = list(staying)[-1].result
    assert result is not None
    assert result.reason == "length"


def test_a_longer_context_waits_until_the_others_have_left(house: House) -> None:
    with house.pool.use(house.model("guide"), context_length=256) as turn:
        pid = turn.resident.worker.pid
        longer = Task(lambda: context_of(house.pool, house, 512))
        until(lambda: house.pool.scheduler.waiting == 1)
        later = Task(lambda: context_of(house.pool, house, 256))
        until(lambda: house.pool.scheduler.waiting == 2)  # it does not go before the other for ever
        assert list(begin(turn, "How", 20))[-1].result
    assert longer.result() == 512
    assert later.result() == 512
    assert house.pid("guide") != pid


def context_of(pool: Pool, house: House, wanted: int) -> int:
    with pool.use(house.model("guide"), context_length=wanted) as turn:
        return turn.resident.ready.context_length


def test_a_crash_is_told_to_all_and_the_next_request_loads_the_model(house: House) -> None:
    with house.pool.use(house.model("guide")) as one, house.pool.use(house.model("guide")) as two:
        runs = [begin(one, "How do I", LONG), begin(two, "Which boards", LONG)]
        for run in runs:
            next(run)
        os.kill(one.resident.worker.pid, signal.SIGKILL)
        for run in runs:
            with pytest.raises(WorkerCrashed, match="SIGKILL"):
                list(run)
    assert whole(house, "How", 5)[0]
    assert house.pool.restarts == 1


def test_an_unload_ends_all_answers(house: House) -> None:
    model = house.model("guide")
    with house.pool.use(model) as one, house.pool.use(model) as two:
        runs = [begin(one, "How do I", LONG), begin(two, "Which boards", LONG)]
        for run in runs:
            next(run)
        unloading = Task(lambda: house.pool.unload(model.info))
        results = [list(run)[-1].result for run in runs]
        assert [result and result.reason for result in results] == ["cancelled"] * 2
    unloading.result()
    assert not house.pool.loaded()


def test_a_run_that_was_given_up_keeps_nobody_waiting(house: House) -> None:
    with house.pool.use(house.model("guide")) as turn, closing(begin(turn, "How", LONG)) as run:
        next(run)
    with house.pool.use(house.model("guide")) as one, house.pool.use(house.model("guide")) as two:
        assert list(begin(one, "How", 5))[-1].result
        assert list(begin(two, "How", 5))[-1].result


def test_each_run_has_a_schema_of_its_own(house: House) -> None:
    def constrained(value: str) -> str:
        spec = GenerateSpec(prompt="Say", max_tokens=40, schema={"const": value})
        with house.pool.use(house.model("guide")) as turn:
            pieces = turn.lane.generate(spec, first=LIMIT, each=LIMIT)
            return "".join(piece.text for piece in pieces)

    tasks = [Task(lambda value=value: constrained(value)) for value in ("one", "two", "three")]  # type: ignore[misc]
    assert [task.result().strip() for task in tasks] == ['"one"', '"two"', '"three"']


def test_places_follow_from_the_memory() -> None:
    from rkllama.backends.hardware import cache_bytes, slots_for
    from rkllama.models.gguf import read_header
    from tests.clients.common import GUIDE_FILE

    header = read_header(str(GUIDE_FILE))
    cache = cache_bytes(header, 1024)
    assert slots_for(4, header, 1024, 1 << 40) == 4
    assert slots_for(4, header, 1024, 8 * cache) == 3
    assert slots_for(4, header, 1024, 0) == 1
