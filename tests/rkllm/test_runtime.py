"""The binding's owning object over every release of the virtual NPU, which checks what it is given."""

from __future__ import annotations

import array
import ctypes
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from rkllama.errors import InvalidRequest, LoadFailed, RuntimeFailed, Unsupported
from rkllama.rkllm.abi import RELEASES
from rkllama.rkllm.callback import BatchResults, Rows
from rkllama.rkllm.inputs import (
    EmbedInput,
    Input,
    MultimodalInput,
    Pictures,
    PromptInput,
    TokenInput,
)
from rkllama.rkllm.library import open_library
from rkllama.rkllm.runtime import RunOptions, Runtime, sampling_values
from rkllama.types import SamplingParams
from tests.virtual_npu import VERSIONS, directive, library, read_trace, write_model

pytestmark = pytest.mark.integration

EMBED = 16


def since(release: str) -> list[str]:
    return [v for v in VERSIONS if RELEASES.index(v) >= RELEASES.index(release)]


def before(release: str) -> list[str]:
    return [v for v in VERSIONS if v not in since(release)]


class Model:
    """A runtime with a model of the virtual NPU."""

    def __init__(self, version: str, directory: Path) -> None:
        self.directory = directory
        self.trace_file = directory / "trace.jsonl"
        self.runtime = Runtime(open_library(library(version), environ={}))

    def load(self, config: dict[str, Any], parameters: dict[str, Any]) -> None:
        path = write_model(
            self.directory / "modèle.rkllm",
            embd_size=EMBED,
            vocab_size=2048,
            eos_id=2000,
            trace=self.trace_file,
            trace_prompt=1,
            **config,
        )
        if self.runtime.has("enabled_cpus_mask"):
            parameters = {"enabled_cpus_mask": 3, "enabled_cpus_num": 2, **parameters}
        self.runtime.init(
            path,
            **{"max_context_len": 512, "max_new_tokens": 400, "skip_special_token": True}
            | parameters,
        )

    def ask(self, given: Input | str, **options: Any) -> str:
        texts: list[str] = []
        one = PromptInput(text=given) if isinstance(given, str) else given
        results = self.runtime.run(one, texts.append, RunOptions(**options))
        assert not results.failed
        return "".join(texts)

    def last_run(self) -> dict[str, Any]:
        return [event for event in read_trace(self.trace_file) if event["event"] == "run"][-1]


@contextmanager
def loaded(
    version: str, directory: Path, config: dict[str, Any] | None = None, **parameters: Any
) -> Iterator[Model]:
    model = Model(version, directory)
    model.load(config or {}, parameters)
    try:
        yield model
    finally:
        model.runtime.destroy()


def floats(rows: int, value: float = 0.25) -> bytes:
    return array.array("f", [value] * rows * EMBED).tobytes()


# --- Every release -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_parameters_arrive_as_what_they_are(version: str, tmp_path: Path) -> None:
    sampling = SamplingParams(
        temperature=0.625,
        top_k=17,
        top_p=0.75,
        repeat_penalty=1.25,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        mirostat=1,
        mirostat_tau=4.5,
        mirostat_eta=0.125,
    )
    with loaded(version, tmp_path, {"mode": "params"}, sampling=sampling) as model:
        seen = json.loads(model.ask("x"))
    wanted = sampling_values(sampling)
    assert {key: seen[key] for key in wanted} == wanted
    assert len(wanted) == 9
    assert (seen["max_context_len"], seen["max_new_tokens"]) == (512, 400)
    assert seen["keep_history"] is False


@pytest.mark.parametrize("version", VERSIONS)
def test_a_prompt_is_answered_and_reported(version: str, tmp_path: Path) -> None:
    texts: list[str] = []
    with loaded(version, tmp_path, {"tokens": 20}) as model:
        results = model.runtime.run(PromptInput(text="hello"), texts.append)
        assert not model.runtime.is_running()
    assert len(texts) == results.tokens == 20
    assert results.finished
    assert (results.stopped, results.failed) == (None, False)
    if version in since("1.2.1"):
        assert results.perf is not None
        assert results.perf.generate_tokens == 20
        assert results.perf.prefill_tokens == model.last_run()["evaluated"] > 0
        assert results.perf.memory >= 512 << 20
        assert results.perf.prefill_seconds > 0
    else:
        assert results.perf is None


@pytest.mark.parametrize("waiting", ["bytes", "held", "none"])
@pytest.mark.parametrize("version", ["1.1.4", "1.2.0", "1.3.0"])
def test_characters_split_over_tokens_come_whole(
    version: str, waiting: str, tmp_path: Path
) -> None:
    text = "Grüße, 你好 🦙🎉 e\u0301 — ça va?"
    texts: list[str] = []
    with loaded(version, tmp_path, {"waiting": waiting, "split": 1}) as model:
        model.runtime.run(PromptInput(text="x " + directive(reply=text)), texts.append)
    assert "".join(texts) == text
    assert all("\ufffd" not in piece for piece in texts)
    assert "🦙" in texts


def test_a_character_that_never_becomes_whole_is_replaced(tmp_path: Path) -> None:
    texts: list[str] = []
    with loaded("1.2.3", tmp_path) as model:
        prompt = PromptInput(text="x " + directive(reply="ab 你", split=1))
        model.runtime.run(prompt, texts.append, RunOptions(limit=4))
        assert "".join(texts) == "ab \ufffd"
        texts.clear()
        model.runtime.run(PromptInput(text="again"), texts.append)
    assert "".join(texts) == "again"


@pytest.mark.parametrize("version", VERSIONS)
def test_token_input(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"tokens": 3}) as model:
        assert model.ask(TokenInput(ids=[5, 6, 7, 8]))
        assert model.last_run()["prompt_tokens"] == 4


@pytest.mark.parametrize("version", VERSIONS)
def test_embedding_input(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"tokens": 3}) as model:
        assert model.ask(EmbedInput(embed=floats(6), tokens=6))
        assert model.last_run()["prompt_tokens"] == 6


@pytest.mark.parametrize("version", VERSIONS)
def test_images(version: str, tmp_path: Path) -> None:
    markers: dict[str, Any] = {"start": "<img>", "end": "</img>", "content": "<pad>"}
    picture = Pictures(embed=floats(8), tokens=8, width=32, height=16, **markers)
    parameters = {} if version == "1.3.0" else {f"img_{k}": v for k, v in markers.items()}
    with loaded(version, tmp_path, {"tokens": 3}, **parameters) as model:
        plain = model.ask("what is it?")
        size = model.last_run()["prompt_tokens"]
        answer = model.ask(MultimodalInput(prompt="<image>what is it?", images=picture))
        assert answer == plain
        assert model.last_run()["prompt_tokens"] == size + 8


@pytest.mark.parametrize("version", VERSIONS)
def test_several_images(version: str, tmp_path: Path) -> None:
    markers: dict[str, Any] = {"start": "s", "end": "e", "content": "c"}
    pictures = Pictures(embed=floats(8), tokens=4, count=2, width=8, height=8, **markers)
    given = MultimodalInput(prompt="<image>and?", images=pictures)
    with loaded(version, tmp_path, {"tokens": 3}) as model:
        if version in since("1.2.1b1"):
            assert model.ask(given)
        else:
            with pytest.raises(Unsupported, match=r"1\.2\.1b1 takes several"):
                model.ask(given)


@pytest.mark.parametrize("version", VERSIONS)
def test_videos(version: str, tmp_path: Path) -> None:
    markers: dict[str, Any] = {"start": "s", "end": "e", "content": "c"}
    video = Pictures(embed=floats(6), tokens=2, frames=3, width=8, height=8, **markers)
    given = MultimodalInput(prompt="<video>what happens?", videos=video)
    with loaded(version, tmp_path, {"tokens": 3}) as model:
        if version == "1.3.0":
            assert model.ask(given)
        else:
            with pytest.raises(Unsupported, match=r"takes no videos, 1\.3\.0 does"):
                model.ask(given)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_hidden_layer(version: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept: list[tuple[int, int, bytes]] = []

    def keep(rows: Rows) -> None:
        kept.append((rows.height, rows.width, rows.row(-1)))

    with loaded(version, tmp_path) as model:
        for _ in range(2):
            prompt = PromptInput(text="some words to embed")
            results = model.runtime.run(prompt, options=RunOptions(mode="hidden"), rows=keep)
            assert not results.failed
    (height, width, row), again = kept
    assert (height, width) == (model.last_run()["prompt_tokens"], EMBED)
    values = struct.unpack(f"{EMBED}f", row)
    assert sum(value * value for value in values) == pytest.approx(1.0, abs=1e-3)
    assert again[2] == row
    assert "never released" not in capfd.readouterr().out


@pytest.mark.parametrize("version", VERSIONS)
def test_logits(version: str, tmp_path: Path) -> None:
    kept: list[tuple[int, bytes]] = []
    with loaded(version, tmp_path, {"tokens": 3}) as model:
        options = RunOptions(mode="logits", limit=1)

        def keep(rows: Rows) -> None:
            kept.append((rows.width, rows.row(-1)))

        if version == "1.1.4":
            with pytest.raises(
                Unsupported, match=r"1\.1\.4 has no RKLLM_INFER_GET_LOGITS"
            ) as caught:
                model.runtime.run(PromptInput(text="x"), options=options, rows=keep)
            assert caught.value.hint == "It was added in 1.2.0."
            return
        results = model.runtime.run(PromptInput(text="x"), options=options, rows=keep)
        assert results.stopped == "length"  # it would go on generating
        first = model.runtime.run(PromptInput(text="x"), options=RunOptions(limit=1))
        assert first.tokens == 1
    ((width, row),) = kept
    assert width == 2048
    values = struct.unpack("2048f", row)
    assert max(values) > 0


@pytest.mark.parametrize("version", VERSIONS)
def test_the_chat_template(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"mode": "prompt"}) as model:
        own = model.ask("hi")
        if version == "1.1.4":
            assert own == "hi"
            with pytest.raises(Unsupported, match=r"1\.1\.4 has no rkllm_set_chat_template"):
                model.runtime.set_chat_template("", "", "")
            return
        assert own != "hi"
        model.runtime.set_chat_template("", "", "")
        assert model.ask("hi") == "hi"
        model.runtime.set_chat_template("Sei höflich. ", "<u>", "</u>")
        assert model.ask("hi") == "Sei höflich. <u>hi</u>"


@pytest.mark.parametrize("version", VERSIONS)
def test_roles_thinking_and_tools(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"mode": "params"}) as model:
        tools = '[{"name": "f"}]'
        if version in before("1.2.1"):
            with pytest.raises(Unsupported, match="has no rkllm_set_function_tools"):
                model.runtime.set_function_tools("", tools, "tool_response")
            return
        model.runtime.set_function_tools("Be brief.", tools, "tool_response")
        seen = json.loads(model.ask(PromptInput(text="x", role="tool", think=False)))
        assert (seen["role"], seen["enable_thinking"], seen["tools"]) == ("tool", False, True)
        seen = json.loads(model.ask("x"))
        assert (seen["role"], seen["enable_thinking"]) == ("user", True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kv_cache(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"tokens": 5}) as model:
        runtime = model.runtime
        if version == "1.1.4":
            with pytest.raises(Unsupported, match=r"1\.1\.4 has no rkllm_clear_kv_cache"):
                runtime.clear_kv_cache()
            return
        runtime.set_chat_template("", "", "")
        model.ask("one two three")
        model.ask("one two three four")
        assert model.last_run()["matched"] == 3
        runtime.clear_kv_cache()
        model.ask("one two three")
        assert model.last_run()["matched"] == 0
        runtime.clear_kv_cache(keep_system_prompt=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kv_caches_size_and_parts(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"tokens": 5}) as model:
        runtime = model.runtime
        if version in before("1.2.1"):
            with pytest.raises(Unsupported, match="has no rkllm_get_kv_cache_size"):
                runtime.get_kv_cache_size()
            if version != "1.1.4":
                with pytest.raises(Unsupported, match="cannot clear a part"):
                    runtime.clear_kv_cache(ranges=[(0, 1)])
            return
        assert runtime.get_kv_cache_size() == [0]
        model.ask("one two three")
        (size,) = runtime.get_kv_cache_size()
        assert size > 5
        runtime.clear_kv_cache(ranges=[(1, 4)])
        assert runtime.get_kv_cache_size() == [size - 3]
        runtime.clear_kv_cache()
        assert runtime.get_kv_cache_size() == [0]


@pytest.mark.parametrize("version", VERSIONS)
def test_keeping_the_history(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"mode": "params"}) as model:
        if version == "1.1.4":
            with pytest.raises(Unsupported, match=r"has no RKLLMInferParam\.keep_history"):
                model.ask("x", keep_history=True)
            return
        assert json.loads(model.ask("x", keep_history=True))["keep_history"] is True
        assert model.last_run()["history"] is True


@pytest.mark.parametrize("version", VERSIONS)
def test_a_prompt_cache_file(version: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cäche.bin")
    with loaded(version, tmp_path, {"tokens": 3}) as model:
        model.ask("a long system prompt", save_prompt_cache=cache)
        assert Path(cache).stat().st_size > 0
        model.runtime.load_prompt_cache(cache)
        with pytest.raises(RuntimeFailed, match="rkllm_load_prompt_cache failed with code -1"):
            model.runtime.load_prompt_cache(cache)
        model.runtime.release_prompt_cache()
        model.runtime.load_prompt_cache(cache)
        if version != "1.1.4":
            model.ask("a long system prompt")
            assert model.last_run()["matched"] > 3


@pytest.mark.parametrize("version", VERSIONS)
def test_a_lora_adapter(version: str, tmp_path: Path) -> None:
    adapter = write_model(tmp_path / "lora.rkllm", reply="tuned")
    with loaded(version, tmp_path) as model:
        model.runtime.load_lora(adapter, "style", 0.5)
        assert model.ask("plain") == "plain"
        assert model.ask("plain", lora="style") == "tuned"
        with pytest.raises(RuntimeFailed, match="rkllm_load_lora failed with code -1"):
            model.runtime.load_lora(str(tmp_path / "none"), "other")


@pytest.mark.parametrize("version", VERSIONS)
def test_cross_attention(version: str, tmp_path: Path) -> None:
    arguments: Any = (floats(4), floats(4), floats(1), [0, 1, 2, 3], 4)
    if version in before("1.2.1"):
        with (
            loaded(version, tmp_path) as model,
            pytest.raises(Unsupported, match="has no rkllm_set_cross_attn_params"),
        ):
            model.runtime.set_cross_attn_params(*arguments)
        with (
            pytest.raises(Unsupported, match="has no use_cross_attn"),
            loaded(version, tmp_path, use_cross_attn=1),
        ):
            pass
        return
    with loaded(version, tmp_path, {"tokens": 2}, use_cross_attn=1) as model:
        results = model.runtime.run(PromptInput(text="x"))
        assert results.failed  # it takes the parameters first
        model.runtime.set_cross_attn_params(*arguments)
        assert model.ask("x")


@pytest.mark.parametrize("version", VERSIONS)
def test_sampling_for_one_run(version: str, tmp_path: Path) -> None:
    sampling = SamplingParams(temperature=0.5, top_k=3)
    init = SamplingParams(top_p=0.5)
    with loaded(version, tmp_path, {"mode": "params"}, sampling=init) as model:
        if version != "1.3.0":
            with pytest.raises(
                Unsupported, match=r"has no RKLLMInferParam\.sampling_params"
            ) as caught:
                model.ask("x", sampling=sampling)
            assert caught.value.hint == "It was added in 1.3.0."
            with pytest.raises(
                Unsupported, match=r"has no RKLLMInferParam\.max_new_tokens"
            ) as caught:
                model.ask("x", max_new_tokens=5)
            assert caught.value.hint == "It was added in 1.3.0."
            return
        seen = json.loads(model.ask("x", sampling=sampling, max_new_tokens=333))
        assert (seen["temperature"], seen["top_k"], seen["top_p"]) == (0.5, 3, 0.5)
        assert seen["repeat_penalty"] == 1.1
        assert seen["max_new_tokens"] == 333
        assert json.loads(model.ask("x"))["top_k"] == 40


@pytest.mark.parametrize("version", since("1.2.1"))
def test_a_batch(version: str, tmp_path: Path) -> None:
    texts = ["", "", ""]

    def take(index: int, text: str) -> None:
        texts[index] += text

    with loaded(version, tmp_path, {"split": 1}, n_batch=3) as model:
        results = model.runtime.results
        assert isinstance(results, BatchResults)
        results.emit_at = take
        inputs = [PromptInput(text=text) for text in ("one", "zwei und drei", "你好 🦙")]
        model.runtime.run(inputs)
        assert len(model.runtime.get_kv_cache_size()) == 3
        with pytest.raises(RuntimeFailed, match="1 inputs for a batch of 3"):
            model.runtime.run(PromptInput(text="alone"))
    assert texts == ["one", "zwei und drei", "你好 🦙"]


@pytest.mark.parametrize("version", since("1.2.1"))
@pytest.mark.parametrize("mode", ["hidden", "logits"])
def test_the_rows_of_a_batch(
    version: str,
    mode: Literal["hidden", "logits"],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Each input has its own, as many as it has tokens, and the same as alone."""
    texts = ("one", "zwei und drei", "a b c d e f g")

    def rows_of(directory: Path, *texts: str, n_batch: int) -> dict[int, tuple[int, bytes]]:
        kept: dict[int, tuple[int, bytes]] = {}

        def keep(rows: Rows) -> None:
            kept[rows.number] = (rows.height, rows.row(-1))

        directory.mkdir()
        with loaded(version, directory, n_batch=n_batch) as model:
            options = RunOptions(mode=mode, limit=1)
            results = model.runtime.run(
                [PromptInput(text=t) for t in texts], options=options, rows=keep
            )
            assert [perf.prefill_tokens for perf in results.perfs] == [h for h, _ in kept.values()]
        return kept

    together = rows_of(tmp_path / "all", *texts, n_batch=3)
    for index, text in enumerate(texts):
        assert together[index] == rows_of(tmp_path / f"{index}", text, n_batch=1)[0]
    assert "never released" not in capfd.readouterr().out


def test_logits_go_on_until_max_new_tokens(tmp_path: Path) -> None:
    """So does the real runtime: whoever wants the first ones says so, or aborts."""
    heights: list[int] = []
    with loaded("1.3.0", tmp_path, {"tokens": 9}) as model:
        for most in (1, 4):
            heights.clear()
            options = RunOptions(mode="logits", max_new_tokens=most)
            model.runtime.run(
                PromptInput(text="some words"),
                options=options,
                rows=lambda r: heights.append(r.height),
            )
            assert heights[1:] == [1] * (most - 1)


@pytest.mark.parametrize("wrong", [101, 255])
def test_a_batch_too_large_is_refused_as_the_runtime_does(
    wrong: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LoadFailed), loaded("1.3.0", tmp_path, n_batch=wrong):
        pass
    ctypes.CDLL(None).fflush(None)
    assert f"n_batch must be between 1 and 100, but got {wrong}" in capfd.readouterr().out


@pytest.mark.parametrize("temperature", [0, 0.0, 1.4e-45, 1e-300])
def test_greedy_is_one_candidate_not_a_division_by_zero(temperature: float) -> None:
    values = sampling_values(SamplingParams(temperature=temperature, top_k=40, seed=3, min_p=0.1))
    assert values == {"temperature": 1.0, "top_k": 1, "top_p": 1.0, "mirostat": 0}


def test_no_penalty_for_repetition_is_no_division_by_zero() -> None:
    assert sampling_values(SamplingParams(repeat_penalty=0)) == {"repeat_penalty": 1.0}


@pytest.mark.parametrize("version", ["1.1.4", "1.3.0"])
def test_numbers_too_small_for_a_float32_are_nought(version: str, tmp_path: Path) -> None:
    names = ("top_p", "temperature", "frequency_penalty", "presence_penalty", "mirostat_tau")
    numbers: dict[str, Any] = dict.fromkeys(names, 1e-45)
    tiny = SamplingParams(**numbers, top_k=1 << 40)
    with loaded(version, tmp_path, {"reply": "Yes."}, sampling=tiny) as model:
        assert model.ask("x") == "Yes."


# --- Failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.1.4", "1.2.3", "1.3.0"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"init_error": 1}, "rkllm_init failed with code -1"),
        ({"init_null": 1}, "reported success but returned no model"),
        ({"max_context": 256}, "failed with code -1"),
    ],
)
def test_every_way_to_fail_at_init(
    version: str, fault: dict[str, object], words: str, tmp_path: Path
) -> None:
    model = Model(version, tmp_path)
    with pytest.raises(LoadFailed, match=words):
        model.load(fault, {})
    with pytest.raises(RuntimeFailed, match="without a loaded model"):
        model.runtime.run(PromptInput(text="x"))
    assert not model.runtime.is_running()
    model.load({"tokens": 2}, {})  # the same object can try again
    assert model.ask("x")
    model.runtime.destroy()


def test_parameters_out_of_range_are_refused_by_the_runtime(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed), loaded("1.2.3", tmp_path, enabled_cpus_num=3):
        pass
    with (
        pytest.raises(Unsupported, match="has no no_such_thing"),
        loaded("1.2.3", tmp_path, no_such_thing=3),
    ):
        pass


@pytest.mark.parametrize("version", ["1.1.4", "1.2.3", "1.3.0"])
@pytest.mark.parametrize("fault", [{"run_error": 1}, {"run_fail": 1}, {"error_at": 3}])
def test_every_way_to_fail_in_a_run(version: str, fault: dict[str, object], tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"tokens": 5}) as model:
        results = model.runtime.run(PromptInput(text="x " + directive(**fault)))
        assert results.failed
        assert results.tokens == (3 if "error_at" in fault else 0)
        assert model.ask("still there")


def test_what_the_receiver_raises_ends_the_run_and_is_raised(tmp_path: Path) -> None:
    seen: list[str] = []

    def receiver(text: str) -> None:
        seen.append(text)
        if len(seen) == 3:
            raise BrokenPipeError("nobody reads")

    with loaded("1.2.3", tmp_path, {"tokens": 90, "token_us": 1000}) as model:
        with pytest.raises(BrokenPipeError, match="nobody reads"):
            model.runtime.run(PromptInput(text="x"), receiver)
        assert len(seen) == 3
        assert read_trace(model.trace_file)[-1]["reason"] == "abort"
        assert read_trace(model.trace_file)[-1]["generated"] < 90
        assert len(model.ask("next").split()) == 90


def test_text_that_c_cannot_hold_is_refused(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path) as model:
        with pytest.raises(InvalidRequest, match=r"U\+0000"):
            model.ask("a\0b")
        assert model.ask("lone \ud800 surrogate") == "lone ? surrogate"
        with pytest.raises(InvalidRequest, match="not an array of 32-bit floats"):
            model.ask(EmbedInput(embed=b"abc", tokens=1))
        with pytest.raises(InvalidRequest, match="needs an image"):
            model.ask(MultimodalInput(prompt="x"))


def test_two_runtimes_do_not_share_their_types(tmp_path: Path) -> None:
    opened = open_library(library("1.2.3"), environ={})
    first, second = Runtime(opened), Runtime(opened)
    path = write_model(tmp_path / "m.rkllm", tokens=3)
    for runtime in (first, second):
        runtime.init(path, enabled_cpus_mask=1, enabled_cpus_num=1, skip_special_token=True)
    assert first.run(PromptInput(text="x")).tokens == 3
    assert second.run(PromptInput(text="x")).tokens == 3
    first.destroy()
    second.destroy()
    second.destroy()


def test_a_second_model_is_refused(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path) as model, pytest.raises(RuntimeFailed, match="loaded already"):
        model.load({}, {})


# --- Stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_an_end_of_sequence_id_that_the_runtime_ignores_is_watched(
    version: str, tmp_path: Path
) -> None:
    with loaded(version, tmp_path, {"no_eos": 1, "token_us": 500}) as model:
        prompt = "x " + directive(reply="the answer")
        texts: list[str] = []
        results = model.runtime.run(
            PromptInput(text=prompt), texts.append, RunOptions(eos={7, 2000})
        )
        assert "".join(texts) == "the answer"
        assert (results.stopped, results.failed) == ("eos", False)
        assert read_trace(model.trace_file)[-1]["reason"] == "abort"
        assert model.ask("next" + directive(no_eos=0)) == "next"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_limit_counts_tokens_with_any_release(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"tokens": 90, "token_us": 5000}) as model:
        texts: list[str] = []
        results = model.runtime.run(PromptInput(text="x"), texts.append, RunOptions(limit=4))
        assert (results.tokens, len(texts), results.stopped) == (4, 4, "length")
        assert read_trace(model.trace_file)[-1]["generated"] < 20
        assert len(model.ask("x").split()) == 90


@pytest.mark.parametrize(
    ("reply", "tokens", "stopped"),
    [
        ("&" * 40, 31, "repeats"),
        ("so it is" + "aaaaaaaa" * 40, 34, "repeats"),
        ("&" * 30 + "so" + "&" * 30, 61, None),
        ("a" + "\n" * 40 + "b", 42, None),
        ("a" + " " * 40 + "b", 41, None),
    ],
)
def test_a_token_that_comes_again_and_again_ends_the_answer(
    reply: str, tokens: int, stopped: str | None, tmp_path: Path
) -> None:
    with loaded("1.2.3", tmp_path, {"token_us": 1000}) as model:
        results = model.runtime.run(PromptInput(text="x " + directive(reply=reply)))
        assert (results.tokens, results.stopped) == (tokens, stopped)
        assert results.perf is not None
        assert model.ask("next" + directive(reply="& &")) == "& &"


@pytest.mark.parametrize("finish", [0, 1])
def test_abort_from_inside_the_callback(finish: int, tmp_path: Path) -> None:
    texts: list[str] = []
    config: dict[str, object] = {"tokens": 90, "token_us": 5000, "abort_finish": finish}
    with loaded("1.2.3", tmp_path, config) as model:

        def take(text: str) -> None:
            texts.append(text)
            model.runtime.abort()

        results = model.runtime.run(PromptInput(text="x"), take)
        assert (len(texts), results.stopped) == (1, "cancelled")
        assert results.finished == bool(finish)
        assert read_trace(model.trace_file)[-1]["generated"] < 20


def test_abort_without_a_run_does_nothing(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 20}) as model:
        model.runtime.abort()
        assert len(model.ask("x").split()) == 20
        model.runtime.abort()
        assert len(model.ask("x").split()) == 20
        assert all(event["event"] != "abort" for event in read_trace(model.trace_file))


def test_a_run_that_is_cancelled_before_it_begins_is_not_begun(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 20}) as model:
        results = model.runtime.run(PromptInput(text="x"), cancelled=lambda: True)
        assert (results.tokens, results.stopped) == (0, "cancelled")
        assert all(event["event"] != "run" for event in read_trace(model.trace_file))
        assert len(model.ask("x").split()) == 20
