"""The CPU backend with a real language model, in a process of its own and behind the server."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
import xllamacpp

from rkllama.backends import hardware
from rkllama.backends.base import GenerateSpec, LoadedInfo, LoadSpec, RerankSpec, RunResult
from rkllama.backends.hardware import cache_bytes
from rkllama.backends.llama_wire import adds_space
from rkllama.backends.llamacpp import CPUBackend
from rkllama.backends.llamacpp_log import load_error
from rkllama.backends.own_log import OwnOutput
from rkllama.board.telemetry import Memory
from rkllama.errors import (
    BackendMissing,
    Cancelled,
    InvalidRequest,
    LoadFailed,
    PromptTooLong,
    Unsupported,
)
from rkllama.models.gguf import read_header
from rkllama.runner import process
from rkllama.runner.lane import State
from rkllama.runner.worker import Worker
from rkllama.service import LOCAL, Caller
from rkllama.types import SamplingParams
from tests.clients.common import GUIDE_FILE, serving_guide
from tests.encoders import write_encoder
from tests.llama_server import SERVERS, command
from tests.model_files import BOOL, STRING, Pair, header
from tests.running import Server
from tests.virtual_npu import write_model
from tests.waiting import LIMIT, Task, until

pytestmark = pytest.mark.integration

GREEDY = SamplingParams(temperature=0.0)
TEXT = "Once upon a time there was a small board that wanted to speak. "


CPU = "the binding"


@pytest.fixture(scope="module", params=(CPU, *SERVERS))
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Worker, LoadedInfo]]:
    """The model in a process of its own, in which llama.cpp is a library, or starts a llama-server; the
    module's tests share it.
    """
    assert GUIDE_FILE.is_file(), "the guide is missing: python -m tools.guide.train makes it"
    words = None
    if request.param != CPU:
        words = command(request.param, tmp_path_factory.mktemp("bin"))
        if words is None:
            pytest.skip("there is no llama-server: TEST_LLAMA_SERVER names one")
    child = Worker(
        str(GUIDE_FILE),
        str(tmp_path_factory.mktemp("logs") / "guide.log"),
        external=words is not None,
    )
    spec = LoadSpec(path=str(GUIDE_FILE), context_length=512, llama_server=words or ())
    yield child, child.load(spec, timeout=LIMIT)
    child.close()


@pytest.fixture
def alone(model: Worker) -> Worker:
    """The model where it is in the child itself."""
    if model.kind.external:
        pytest.skip("it is not in the child")
    return model


@pytest.fixture
def model(loaded: tuple[Worker, LoadedInfo]) -> Worker:
    return loaded[0]


def pieces_of(model: Worker, prompt: str, caller: Caller = LOCAL, **values: Any) -> Any:
    spec = GenerateSpec(prompt=prompt, **{"sampling": GREEDY, "max_tokens": 24, **values})
    return model.generate(spec, first=LIMIT, each=LIMIT, caller=caller)


def ask(model: Worker, prompt: str, **values: Any) -> tuple[str, RunResult]:
    *pieces, last = pieces_of(model, prompt, **values)
    assert last.result is not None
    return "".join(piece.text for piece in pieces), last.result


def test_what_a_load_tells(loaded: tuple[Worker, LoadedInfo]) -> None:
    info = loaded[1]
    assert info.context_length <= 512
    assert "llama.cpp" in info.runtime
    assert info.constrains
    assert info.per_run_sampling
    assert info.counts_tokens
    if not loaded[0].kind.external:  # what a llama-server takes, and where, it does not tell
        assert info.memory is not None
        assert info.memory >= GUIDE_FILE.stat().st_size


def test_a_prefix_that_is_known_is_not_evaluated_again(model: Worker) -> None:
    ask(model, "Something else entirely", max_tokens=1)
    _, first = ask(model, TEXT * 4, max_tokens=1)
    _, second = ask(model, TEXT * 4 + "And then", max_tokens=1)
    assert first.prompt_tokens is not None
    assert second.prompt_tokens is not None
    assert second.cached_tokens is not None
    assert second.prompt_tokens - second.cached_tokens < first.prompt_tokens / 2


def test_a_control_token_is_text_where_it_is_a_marker(model: Worker) -> None:
    question = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    text, result = ask(model, question, max_tokens=200)
    assert result.reason == "stop"
    marked, _ = ask(model, question, max_tokens=200, markers=("<|im_end|>", "no such token"))
    assert (text, marked) == (text.removesuffix("<|im_end|>"), f"{text}<|im_end|>")


def test_the_same_seed_gives_the_same_answer_and_another_one_another(model: Worker) -> None:
    def drawn(seed: int) -> str:
        return ask(model, TEXT, sampling=SamplingParams(temperature=1.5, seed=seed))[0]

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("sampling", "reuses"),
    [
        (SamplingParams(temperature=1.0, seed=1), False),
        (SamplingParams(temperature=0.0, seed=1), True),
        (SamplingParams(temperature=1.0), True),
    ],
)
def test_a_seeded_answer_does_not_hang_on_what_was_asked_before(
    model: Worker, sampling: SamplingParams, reuses: bool
) -> None:
    """llama.cpp's figures differ in their last bits where a part of the prompt was in its cache."""
    for _ in range(2):
        _, result = ask(model, TEXT, sampling=sampling, max_tokens=1)
    assert bool(result.cached_tokens) is reuses


def test_an_answer_is_constrained_by_a_schema(model: Worker) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"],
        "additionalProperties": False,
    }
    text, result = ask(model, "A number, please: ", schema=schema, max_tokens=100)
    # A poor model may go on with blanks, which JSON allows, until it is stopped.
    assert re.fullmatch(r'\s*\{\s*"n"\s*:\s*\d\s*\}?\s*', text)
    assert result.reason == "length" or json.loads(text)["n"] in range(10)


@pytest.mark.parametrize(
    ("schema", "begin"),
    [
        (
            {"type": "object", "propertyNames": {"enum": ["yes", "no"]}, "minProperties": 1},
            r'\{"(yes|no)": ?',
        ),
        ({"type": "string", "pattern": "^{[0-9]{2}$"}, r'"\{[0-9]{2}"$'),
    ],
)
def test_what_the_grammar_engine_does_not_read_is_put_in_a_grammar_for_it(
    model: Worker, schema: Any, begin: str
) -> None:
    text, _ = ask(model, "Yes or no? ", schema=schema, max_tokens=40)
    assert re.match(begin, text), text


@pytest.mark.parametrize(
    ("tokenizer", "flag", "blank"),
    [("llama", None, True), ("llama", False, False), ("gpt2", None, False), ("gpt2", True, True)],
)
def test_a_tokenizer_that_puts_a_blank_before_texts_is_told(
    tmp_path: Path, tokenizer: str, flag: bool | None, blank: bool
) -> None:
    """With one, llama.cpp's grammar engine reads tokens without the blanks that they begin with."""
    pairs: list[Pair] = [("tokenizer.ggml.model", STRING, tokenizer)]
    if flag is not None:
        pairs.append(("tokenizer.ggml.add_space_prefix", BOOL, flag))
    (tmp_path / "m.gguf").write_bytes(header(pairs))
    assert adds_space(read_header(str(tmp_path / "m.gguf"))) is blank


def test_max_tokens_and_the_figures(model: Worker) -> None:
    _, result = ask(model, TEXT, max_tokens=3, schema="json")
    assert result.completion_tokens == 3
    assert result.reason == "length"
    assert result.generation_seconds is not None


@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_a_token_that_comes_again_and_again_ends_the_answer(model: Worker, penalty: float) -> None:
    sampling = SamplingParams(temperature=0.0, repeat_penalty=penalty)
    text, result = ask(model, "Once upon a time", max_tokens=60, sampling=sampling)
    assert result.repeats is (penalty < 1)
    assert result.reason == "length"
    assert result.repeats is (text == " time" * 31)


def test_log_probabilities_come_with_their_tokens(model: Worker) -> None:
    *pieces, _ = pieces_of(model, TEXT, max_tokens=3, top_logprobs=2, schema="json")
    figures = [figure for piece in pieces for figure in piece.logprobs]
    assert figures
    assert all(figure.logprob <= 0 and len(figure.top) == 2 for figure in figures)


def test_a_pattern_that_no_grammar_can_express_is_refused_or_left_to_the_check(
    model: Worker,
) -> None:
    """llguidance passes over all of such a schema; llama.cpp's own grammars refuse it."""
    try:
        text, _ = ask(model, TEXT, schema={"type": "string", "pattern": "^(?=.*x)"})
    except InvalidRequest as error:
        text = error.message
    assert "look-ahead" in text or text.startswith('"')


def test_a_schema_that_is_no_text_is_the_client_s_fault(model: Worker) -> None:
    with pytest.raises(InvalidRequest, match=r"schema cannot be used: .*surrogates"):
        ask(model, TEXT, schema={"enum": ["\ud800"]})


def test_images_are_refused(model: Worker) -> None:
    with pytest.raises(Unsupported, match="this model has no image encoder"):
        ask(model, TEXT, images=(b"x",))


def test_vectors_are_the_same_for_the_same_text(model: Worker) -> None:
    result = model.embed(("a board", "a board", "npu"), True, limits=[LIMIT])
    vectors, tokens = result.vectors, result.prompt_tokens
    assert vectors[0] == vectors[1] != vectors[2]
    assert len({len(vector) for vector in vectors}) == 1
    assert tokens is not None
    assert tokens > 0


def test_an_encoder_makes_vectors_and_says_that_it_writes_no_text(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_encoder(path)
    child = Worker(str(path), str(tmp_path / "m.log"))
    try:
        child.load(LoadSpec(path=str(path), context_length=512), timeout=LIMIT)
        with pytest.raises(Unsupported, match="embeddings"):
            ask(child, "a b")
        result = child.embed(("a b",), True, limits=[LIMIT])
        vectors, tokens = result.vectors, result.prompt_tokens
        assert (len(vectors[0]), tokens) == (32 * 4, 4)
    finally:
        child.close()


def test_an_encoder_without_pooling_gives_the_mean_of_its_tokens(tmp_path: Path) -> None:
    mean, none = (
        vector_of(tmp_path, pooling) for pooling in (gguf.PoolingType.MEAN, gguf.PoolingType.NONE)
    )
    assert mean == none


def test_a_reranker_says_that_it_makes_no_vectors(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="ranks"):
        vector_of(tmp_path, gguf.PoolingType.RANK)


@pytest.mark.parametrize("server", [CPU, *SERVERS])
def test_a_reranker_scores_documents(server: str, tmp_path: Path) -> None:
    """Its head's score has no bounds; ours is from 0 to 1, in the same order."""
    path = tmp_path / "m.gguf"
    program = () if server == CPU else command(server, tmp_path)
    if program is None:
        pytest.skip("no llama-server here")
    write_encoder(path, gguf.PoolingType.RANK)
    documents = ("a", "b b", "a b", "", "a b " * 200)
    child = Worker(str(path), str(tmp_path / "m.log"), external=bool(program))
    try:
        child.load(LoadSpec(path=str(path), context_length=64, llama_server=program), timeout=LIMIT)
        result = child.rerank(RerankSpec(query="a", documents=documents), limits=[LIMIT])
        with pytest.raises(PromptTooLong):
            child.rerank(RerankSpec(query="a", documents=documents, truncate=False), limits=[LIMIT])
        with pytest.raises(PromptTooLong):  # whatever is left out of the document
            child.rerank(RerankSpec(query="a b " * 200, documents=("a",)), limits=[LIMIT])
    finally:
        child.close()
    assert len(result.scores) == len(documents)
    assert len(set(result.scores)) > 2
    assert all(0 < score < 1 for score in result.scores)
    assert result.prompt_tokens is not None
    raw = raw_scores(path, "a", documents[:3])
    assert list(result.scores[:3]) == pytest.approx([1 / (1 + math.exp(-x)) for x in raw], abs=1e-6)


def raw_scores(path: Path, query: str, documents: tuple[str, ...]) -> list[float]:
    """What llama.cpp itself answers."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.verbosity = str(path), 64, 1
    parameters.embedding, parameters.n_gpu_layers, parameters.warmup = True, 0, False
    parameters.n_parallel, parameters.cpuparams.n_threads = 1, 1
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    reply = xllamacpp.Server(parameters).handle_rerank({"query": query, "documents": [*documents]})
    results = sorted(reply["results"], key=lambda result: result["index"])
    return [result["relevance_score"] for result in results]


def vector_of(tmp_path: Path, pooling: gguf.PoolingType) -> bytes:
    """What an encoder with this pooling makes of a text."""
    path = tmp_path / f"{pooling.name}.gguf"
    write_encoder(path, pooling)
    child = Worker(str(path), str(tmp_path / "m.log"))
    try:
        child.load(LoadSpec(path=str(path), context_length=512), timeout=LIMIT)
        return child.embed(("a b",), True, limits=[LIMIT]).vectors[0]
    finally:
        child.close()


def test_what_does_not_fit_the_context_is_said_or_cut(model: Worker) -> None:
    with pytest.raises(PromptTooLong) as caught:
        ask(model, TEXT * 100)
    assert caught.value.context_length
    with pytest.raises(PromptTooLong):
        model.embed((TEXT * 100,), False, limits=[LIMIT])
    result = model.embed((TEXT * 100,), True, limits=[LIMIT])
    vectors, tokens = result.vectors, result.prompt_tokens
    assert len(vectors) == 1
    assert tokens is not None
    assert tokens > 256, "more than a batch of a prompt, and most of the context"
    assert ask(model, "hi")[1].reason in ("stop", "length")


def test_tokens_are_counted(model: Worker) -> None:
    few, many = (model.count_tokens(TEXT * n, timeout=LIMIT) for n in (1, 5))
    assert few is not None
    assert many is not None
    assert few < many


@pytest.mark.serial
def test_an_abort_frees_the_model_at_once(model: Worker) -> None:
    answer = pieces_of(model, TEXT, max_tokens=400, schema="json")
    next(answer)
    answer.close()
    began = time.monotonic()
    model.settle()
    assert time.monotonic() - began < 1


def test_an_abort_that_came_before_the_run_ends_its_prefill() -> None:
    class Prefill:
        """A llama.cpp that reports each part of a long prompt, and goes on unless told to end."""

        parts = 0

        def handle_completions(self, _: Any, on_chunk: Callable[[Any], bool]) -> dict[str, Any]:
            while self.parts < 100 and not on_chunk({"prompt_progress": {}}):
                self.parts += 1
            return {}

    backend = CPUBackend()
    backend._server = Prefill()
    result = backend.generate(GenerateSpec(prompt=TEXT), print, cancelled=lambda: True)
    assert (result.reason, backend._server.parts) == ("cancelled", 0)


class Evaluating:
    """A llama.cpp that evaluates a token for each four characters, and tells of each 64 of them."""

    def __init__(self, others: Callable[[], None] = lambda: None) -> None:
        self.prompts: list[str] = []
        self._cached = 0
        self._others = others

    def handle_completions(self, request: Any, on_chunk: Callable[[Any], bool]) -> dict[str, Any]:
        prompt = request["prompt"]
        self.prompts.append(prompt)
        total = len(prompt) // 4
        cache = min(total, self._cached)
        for done in range(cache, total, 64):
            self._cached = min(total, done + 64)
            progress = {"total": total, "cache": cache, "processed": self._cached, "time_ms": 1000}
            self._others()
            if on_chunk({"prompt_progress": progress}):
                return {}
        figures = {"prompt_tokens": total, "prompt_tokens_details": {"cached_tokens": cache}}
        on_chunk({"choices": [{"text": "", "finish_reason": "stop"}], "usage": figures})
        return {}


def test_a_long_prompt_is_evaluated_in_steps_while_others_write() -> None:
    backend, prompt = CPUBackend(), "word " * 400
    backend._server = llama = Evaluating()
    backend._runs = 1  # another one's
    result = backend.generate(GenerateSpec(prompt=prompt), print)
    assert len(llama.prompts) > 3
    *steps, last = llama.prompts
    assert last == prompt
    assert all(map(prompt.startswith, steps))
    assert steps == sorted(steps, key=len)
    assert (result.prompt_tokens, result.cached_tokens) == (500, 0)


def test_a_long_prompt_makes_way_for_who_begins_meanwhile() -> None:
    backend, prompt = CPUBackend(), "word " * 400

    def begin() -> None:
        backend._runs = 2

    backend._server = llama = Evaluating(begin)
    result = backend.generate(GenerateSpec(prompt=prompt), print)
    assert llama.prompts[0] == llama.prompts[-1] == prompt
    assert len(llama.prompts) > 3
    assert (result.prompt_tokens, result.cached_tokens) == (500, 0)


def test_what_is_in_the_cache_stays_there() -> None:
    """llama.cpp drops what its cache holds beyond a prompt, and so beyond a step."""
    backend, prompt = CPUBackend(), "word " * 400
    backend._server = llama = Evaluating()
    llama._cached = 200
    backend._recent.append(prompt[: 200 * 4])
    backend._runs = 1
    result = backend.generate(GenerateSpec(prompt=prompt), print)
    assert min(map(len, llama.prompts)) > 200 * 4
    assert (result.prompt_tokens, result.cached_tokens) == (500, 200)


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(seed=1)])
def test_a_prompt_is_evaluated_at_once_for_one_alone(sampling: SamplingParams) -> None:
    backend = CPUBackend()
    backend._server = llama = Evaluating()
    backend._runs = (
        0 if sampling.seed is None else 1
    )  # what a seed is for cannot come out of the cache
    backend.generate(GenerateSpec(prompt="word " * 400, sampling=sampling), print)
    assert len(llama.prompts) == 1


def test_a_run_that_is_ended_has_the_figures_of_what_it_gave() -> None:
    backend = CPUBackend()
    backend.load(LoadSpec(path=str(GUIDE_FILE), context_length=512))
    given: list[str] = []

    spec = GenerateSpec(prompt=TEXT, schema="json")
    result = backend.generate(spec, given.append, cancelled=lambda: len(given) >= 5)
    whole = backend.generate(GenerateSpec(prompt=TEXT, max_tokens=1), print)
    backend.close()
    assert (result.reason, result.completion_tokens) == ("cancelled", 5)
    assert result.prompt_tokens == whole.prompt_tokens
    assert result.cached_tokens == 0
    assert result.generation_seconds


@pytest.mark.serial
def test_a_client_that_leaves_in_a_prefill_frees_the_model_within_a_second(model: Worker) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        prompt = "".join(chr(97 + n * n % 26) + " " for n in range(400))
        task = Task(
            lambda: list(pieces_of(model, prompt, caller=Caller(theirs.fileno()), max_tokens=400))
        )
        until(lambda: model.state is State.RUNNING or task.done)
        began = time.monotonic()
        ours.close()
        with pytest.raises(Cancelled):
            task.result()
        model.settle()
        assert time.monotonic() - began < 1
    assert ask(model, "hi")[1].reason in ("stop", "length")


def test_a_count_of_tokens_ends_with_its_client() -> None:
    class Prefill:
        """A llama.cpp whose prompt takes forever unless its reports are answered with an end."""

        def handle_completions(
            self, _: Any, on_chunk: Callable[[Any], bool] = lambda _: False
        ) -> dict[str, Any]:
            reports = (on_chunk({"prompt_progress": {}}) for _ in range(100))
            return {} if any(reports) else {"usage": {"prompt_tokens": 100}}

    backend = CPUBackend()
    backend._server = Prefill()
    assert backend.count_tokens(TEXT, lambda: True) is None


@pytest.mark.serial
def test_an_embedding_of_many_texts_ends_with_its_client(model: Worker) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        texts = tuple(f"{TEXT} {n}" for n in range(5000))
        task = Task(
            lambda: model.embed(texts, True, limits=[LIMIT], caller=Caller(theirs.fileno()))
        )
        until(lambda: model.state is State.RUNNING or task.done)
        ours.close()
        with pytest.raises(Cancelled):
            task.result()
        began = time.monotonic()
        model.settle()
        assert time.monotonic() - began < 1


def test_its_listener_answers_nobody_without_the_key(alone: Worker) -> None:
    ports = _listening(alone.pid)
    assert ports
    for port in ports:
        for path in ("/v1/models", "/completion", "/props", "/slots"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
            try:
                connection.request("POST", path, b'{"prompt":"hi"}')
                assert connection.getresponse().status in (401, 403, 404)
            finally:
                connection.close()


def _listening(pid: int) -> list[int]:
    """The loopback ports that a process listens on; it listens on no other address."""
    sockets = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    ports = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in sockets and fields[3] == "0A":
                address, port = fields[1].split(":")
                assert address == "0100007F", f"it listens on {address}"
                ports.append(int(port, 16))
    return ports


# --- Files that are none -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"llama", b"lhama", "unknown model architecture: 'lhama'"),
        (b"blk.0.attn_q", b"blk.0.attn_x", "tensor 'blk.0.attn_q.weight' not found"),
    ],
)
def test_why_a_model_cannot_be_loaded_is_said(
    tmp_path: Path, old: bytes, new: bytes, reason: str
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(GUIDE_FILE.read_bytes().replace(old, new, 1))
    child = Worker(str(path), str(tmp_path / "m.log"))
    with pytest.raises(LoadFailed) as caught:
        child.load(LoadSpec(path=str(path), context_length=512), timeout=LIMIT)
    assert caught.value.message.startswith("m.gguf cannot be loaded: ")
    assert caught.value.message.endswith(reason)


def test_the_reason_is_waited_for(tmp_path: Path) -> None:
    """llama.cpp has a thread of its own for its log: it may come after the exception."""
    log = tmp_path / "m.log"
    log.touch()
    output = OwnOutput(str(log))
    task = Task(lambda: output.wait_for(load_error))
    with log.open("w") as stream:
        for text in ("0.1 E error loading ", "model: it is too old", "\n"):
            stream.write(text)
            stream.flush()
    assert task.result() == "it is too old"
    output.close()


def test_a_template_that_llama_cpp_does_not_understand_is_no_reason_not_to_load(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(GUIDE_FILE.read_bytes().replace(b"{% for message", b"{% fox message"))
    child = Worker(str(path), str(tmp_path / "m.log"))
    try:
        child.load(LoadSpec(path=str(path), context_length=512), timeout=LIMIT)
        assert ask(child, TEXT)[1].reason in ("stop", "length")
    finally:
        child.close()


@pytest.mark.parametrize("kind", ["garbage", "empty", "cut", "missing"])
def test_a_broken_file_is_a_load_that_failed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.gguf"
    data = GUIDE_FILE.read_bytes()
    contents = {"garbage": b"nonsense" * 1000, "empty": b"", "cut": data[: len(data) * 3 // 4]}
    if kind in contents:
        path.write_bytes(contents[kind])
    child = Worker(str(path), str(tmp_path / "m.log"))
    with pytest.raises(LoadFailed, match=r"m\.gguf"):
        child.load(LoadSpec(path=str(path), context_length=512), timeout=LIMIT)
    assert not child.alive


def test_a_context_too_large_for_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "read_memory", lambda: Memory(available=1 << 20))
    with pytest.raises(LoadFailed, match="memory") as caught:
        CPUBackend().load(LoadSpec(path=str(GUIDE_FILE), context_length=512))
    assert "context" in caught.value.text


@pytest.mark.parametrize(("left", "kept"), [(400 << 20, 100), (1 << 20, 0), (1 << 40, 8192)])
def test_other_conversations_are_remembered_in_a_quarter_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch, left: int, kept: int
) -> None:
    """Left to itself, llama.cpp takes up to 8 GB for them."""
    made: list[Any] = []

    class Server:
        def __init__(self, parameters: Any) -> None:
            made.append(parameters.cache_ram_mib)

        def handle_completions(self, _: Any) -> dict[str, Any]:
            return {}

    needed = GUIDE_FILE.stat().st_size + cache_bytes(read_header(str(GUIDE_FILE)), 512)
    monkeypatch.setattr(hardware, "read_memory", lambda: Memory(available=needed + left))
    monkeypatch.setattr(xllamacpp, "Server", Server)
    CPUBackend().load(LoadSpec(path=str(GUIDE_FILE), context_length=512))
    assert made == [kept]


def test_without_the_package_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = "import sys; sys.modules['xllamacpp'] = None\n"
    monkeypatch.setattr(process, "_CHILD", blocked + process._CHILD)
    child = Worker(str(GUIDE_FILE), str(tmp_path / "m.log"))
    with pytest.raises(BackendMissing) as caught:
        child.load(LoadSpec(path=str(GUIDE_FILE), context_length=512), timeout=LIMIT)
    assert "pip install" in caught.value.text
    assert not child.alive


# --- Behind the server -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with room for two models: one for the NPU, one for the CPU, and one that is broken."""
    with serving_guide(tmp_path_factory.mktemp("both"), "--max-loaded", "2") as (running, models):
        (models / "broken.gguf").write_bytes(GUIDE_FILE.read_bytes()[:2000])
        write_model(models / "npu.rkllm")
        yield running


def test_models_of_both_kinds_answer_side_by_side(both: Server) -> None:
    options = {"max_tokens": 4}
    for _ in range(2):
        for name in ("npu", "guide"):
            answer = both.post("/generate", {"model": name, "messages": "hi", **options})
            assert answer.status == 200, answer.body
    loaded = {model["name"] for model in both.get("/api/ps").json["models"]}
    assert loaded == {"npu:latest", "guide:latest"}
    assert len(both.children()) == 2


def test_a_broken_model_takes_nothing_down(both: Server) -> None:
    answer = both.post("/generate", {"model": "broken", "messages": "hi"})
    assert answer.status == 500
    assert "broken.gguf" in answer.json["error"]
    assert both.post("/generate", {"model": "guide", "messages": "hi"}).status == 200
