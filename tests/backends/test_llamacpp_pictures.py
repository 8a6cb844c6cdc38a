"""Runs with pictures on llama.cpp, as a library and as a program: their figures, their form and their end."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.backends.base import GenerateSpec, LoadedInfo, LoadSpec, RunResult
from rkllama.chat.messages import IMAGE_PLACE as HERE
from rkllama.errors import Cancelled, InvalidRequest, LoadFailed, PromptTooLong, Unsupported
from rkllama.runner.lane import Lane, State
from rkllama.runner.worker import Worker
from rkllama.service import LOCAL, Caller
from rkllama.types import SamplingParams
from tests.backends.vision.pictures import encoded, halves
from tests.llama_server import WHEEL, command
from tests.seeing_gguf import colour, write_mmproj, write_seeing
from tests.waiting import LIMIT, Task, until

pytestmark = pytest.mark.integration

GREEDY = SamplingParams(temperature=0.0)
CPU = "the binding"
LONG = {"type": "array", "items": {"const": "again"}, "minItems": 150, "maxItems": 150}
TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def photo(left: str, right: str) -> bytes:
    return encoded(halves((64, 64), colour(left), colour(right)))


class Seer:
    """A model that sees in a process of its own."""

    def __init__(self, directory: Path, words: tuple[str, ...], **encoder: Any) -> None:
        model, self.encoder = directory / "seer.gguf", directory / "mmproj.gguf"
        write_seeing(model)
        write_mmproj(self.encoder, **encoder)
        self.states = directory / "states"
        self.states.mkdir()
        external = bool(words)
        self.worker = Worker(str(model), str(directory / "log"), external=external, lanes=2)
        self.spec = LoadSpec(
            path=str(model),
            context_length=2048,
            parallel=2,
            encoder=str(self.encoder),
            llama_server=words,
            states=str(self.states),
        )
        self.info: LoadedInfo = self.worker.load(self.spec, timeout=LIMIT)

    def pieces(
        self, prompt: str, *images: bytes, lane: int = 0, caller: Caller = LOCAL, **values: Any
    ) -> Any:
        spec = GenerateSpec(prompt=prompt, images=images, **{"sampling": GREEDY, **values})
        return self.worker.lanes[lane].generate(spec, first=LIMIT, each=LIMIT, caller=caller)

    def ask(self, prompt: str, *images: bytes, **values: Any) -> tuple[str, RunResult]:
        *pieces, last = self.pieces(prompt, *images, **values)
        return "".join(piece.text for piece in pieces), last.result

    @property
    def first(self) -> Lane:
        return self.worker.lanes[0]


@pytest.fixture(scope="module", params=[CPU, WHEEL])
def words(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    if request.param == CPU:
        return ()
    return command(WHEEL, tmp_path_factory.mktemp("bin")) or ()


@pytest.fixture(scope="module")
def seer(words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seer]:
    one = Seer(tmp_path_factory.mktemp("seer"), words)
    yield one
    one.worker.close()


def test_what_a_load_tells(seer: Seer) -> None:
    assert seer.info.image_tokens == 1
    assert seer.info.notices == ()
    assert seer.info.parallel == 2


def test_the_figures_count_the_picture(seer: Seer) -> None:
    question = TURN.format(f"{HERE}Figures?")
    text, result = seer.ask(question, photo("red", "cyan"))
    assert text == "red cyan"
    plain = seer.ask(TURN.format("Figures?"), lane=1)[1]
    assert plain.prompt_tokens is not None
    assert result.prompt_tokens == plain.prompt_tokens + 1
    assert (result.completion_tokens, result.reason) == (3, "stop")
    again = seer.ask(question, photo("red", "cyan"))[1]
    assert again.cached_tokens is not None
    assert again.cached_tokens >= plain.prompt_tokens - 1


def test_log_probabilities_come_with_the_words(seer: Seer) -> None:
    *pieces, _ = seer.pieces(TURN.format(HERE), photo("green", "red"), top_logprobs=2)
    (token, *_) = pieces[0].logprobs
    assert (pieces[0].text, token.token) == ("green", "green")
    assert len(token.top) == 2


def test_an_answer_is_held_to_a_schema_and_to_its_length(seer: Seer) -> None:
    text, result = seer.ask(TURN.format(HERE), photo("red", "red"), schema=LONG)
    assert json.loads(text) == ["again"] * 150
    assert result.cached_tokens is not None
    assert seer.ask(TURN.format(HERE), photo("red", "red"), max_tokens=1)[1].reason == "length"


def test_a_prompt_that_is_too_long_tells_how_long(seer: Seer) -> None:
    with pytest.raises(PromptTooLong) as caught:
        seer.ask(TURN.format(HERE * 2 + "word " * 1000), photo("red", "red"), photo("red", "red"))
    assert caught.value.context_length == 2048
    assert (caught.value.prompt_tokens or 0) > 5000


def test_a_run_that_is_given_up_leaves_the_lane_to_others(seer: Seer) -> None:
    run = seer.pieces(TURN.format(HERE), photo("red", "red"), schema=LONG)
    other = seer.pieces(TURN.format(HERE), photo("blue", "red"), schema=LONG, lane=1)
    next(run)
    next(other)
    run.close()
    seer.first.settle()
    assert seer.ask(TURN.format(HERE), photo("blue", "green"))[0] == "blue green"
    assert list(other)[-1].result.reason == "stop"


def test_slots_are_written_and_read_beside_an_encoder(seer: Seer) -> None:
    assert seer.info.slots
    text = TURN.format("Some words that are kept " * 10)
    tokens = seer.ask(text)[1].prompt_tokens
    path = str(seer.states / "a.part")
    saved = seer.first.save(path, timeout=LIMIT)
    assert saved is not None
    assert saved >= (tokens or 0)
    seer.ask(TURN.format(HERE), photo("blue", "green"))
    assert seer.first.restore(path, saved, timeout=LIMIT, caller=LOCAL)
    again = seer.ask(text)[1]
    assert again.cached_tokens is not None
    assert again.cached_tokens >= (tokens or 0) - 1


def test_what_is_no_picture_leaves_the_model_as_it_was(seer: Seer) -> None:
    with pytest.raises(InvalidRequest, match="it is no picture of a kind"):
        seer.ask(TURN.format(HERE), b"none")
    assert seer.ask(TURN.format(HERE), photo("white", "red"))[0] == "white red"


def test_a_client_that_goes_while_a_picture_is_encoded(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """The encoder goes on for a moment, and nobody waits for it but the next run."""
    slow = Seer(tmp_path, words, patches=24, blocks=60)
    try:
        assert slow.info.image_tokens == 576
        ours, theirs = socket.socketpair()
        with ours, theirs:
            prompt = TURN.format(HERE)
            caller = Caller(theirs.fileno())
            task = Task(lambda: list(slow.pieces(prompt, photo("red", "red"), caller=caller)))
            until(lambda: slow.first.state is State.RUNNING or task.done)
            ours.close()
            with pytest.raises(Cancelled):
                task.result()
        slow.first.settle()
        assert slow.ask(TURN.format(HERE), photo("cyan", "blue"))[0] == "cyan blue"
    finally:
        slow.worker.close()


@pytest.mark.parametrize("damage", ["cut", "other", "gone"])
def test_an_encoder_that_cannot_be_loaded_leaves_the_text(
    words: tuple[str, ...], tmp_path: Path, damage: str
) -> None:
    whole = tmp_path / "whole.gguf"
    write_mmproj(whole)
    broken = tmp_path / "mmproj-broken.gguf"
    if damage == "cut":
        broken.write_bytes(whole.read_bytes()[:-20_000])
    elif damage == "other":
        write_mmproj(broken, width=64)
    model = tmp_path / "seer.gguf"
    write_seeing(model)
    worker = Worker(str(model), str(tmp_path / "log"), external=bool(words))
    spec = LoadSpec(path=str(model), context_length=256, encoder=str(broken), llama_server=words)
    try:
        (notice,) = worker.load(spec, timeout=LIMIT).notices
        assert notice.startswith("mmproj-broken.gguf could not be loaded, so this model sees no")
        run = GenerateSpec(prompt=TURN.format(HERE), images=(photo("red", "red"),))
        with pytest.raises(Unsupported, match=r"mmproj-broken\.gguf could not be loaded"):
            list(worker.lanes[0].generate(run, first=LIMIT, each=LIMIT, caller=LOCAL))
        text = GenerateSpec(prompt=TURN.format("?"), sampling=GREEDY)
        pieces = list(worker.lanes[0].generate(text, first=LIMIT, each=LIMIT, caller=LOCAL))
        assert "".join(piece.text for piece in pieces[:-1]) == "black black"
    finally:
        worker.close()


def test_an_encoder_is_no_language_model(words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_mmproj(path)
    worker = Worker(str(path), str(tmp_path / "log"), external=bool(words))
    try:
        spec = LoadSpec(path=str(path), context_length=256, llama_server=words)
        with pytest.raises(LoadFailed, match="is no language model but the image encoder of one"):
            worker.load(spec, timeout=LIMIT)
    finally:
        worker.close()
