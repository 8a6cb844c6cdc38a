"""The NPU backend over the virtual NPU, in this process and, where it crashes, in a child."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rkllama.backends.base import (
    GenerateSpec,
    LoadedInfo,
    LoadSpec,
    RankResult,
    RerankSpec,
    RunResult,
)
from rkllama.board.soc import cpus, read_soc, require_llm
from rkllama.errors import LibraryNotFound, LoadFailed, PromptTooLong, RuntimeFailed, Unsupported
from rkllama.npu import NPUBackend
from rkllama.rkllm.log import diagnose
from rkllama.rkllm.model_file import what_else
from rkllama.types import NPUParams, SamplingParams
from tests.cases import cases
from tests.virtual_npu import VERSIONS, directive, library, read_trace, write_model
from tests.waiting import until

pytestmark = pytest.mark.integration

WITH_TEMPLATES = [version for version in VERSIONS if version != "1.1.4"]
WITH_PERF = [version for version in VERSIONS if version in ("1.2.1", "1.2.2", "1.2.3", "1.3.0")]


class Model:
    """A backend, and what the virtual NPU saw of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.trace_file = directory / "trace.jsonl"
        self.backend = NPUBackend(compatible=str(directory / "none"))
        self.info: LoadedInfo
        self.path = str(directory / "modèle.rkllm")

    def load(self, version: str, config: dict[str, Any], **spec: Any) -> None:
        settings = {"embd_size": 16, "trace": self.trace_file, "trace_prompt": 1, **config}
        write_model(self.path, **settings)
        self.info = self.backend.load(
            LoadSpec(
                path=self.path,
                library=library(version),
                **{"context_length": 512, **spec},
            )
        )

    def run(self, prompt: str, **spec: Any) -> tuple[str, RunResult]:
        texts: list[str] = []
        result = self.backend.generate(GenerateSpec(prompt=prompt, **spec), texts.append)
        return "".join(texts), result

    def runs(self) -> list[dict[str, Any]]:
        return [event for event in read_trace(self.trace_file) if event["event"] == "run"]

    def ends(self) -> list[str]:
        return [e["reason"] for e in read_trace(self.trace_file) if e["event"] == "finish"]


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Standard output in a file, as a worker has it."""
    saved = os.dup(1)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


@contextmanager
def loaded(
    version: str, directory: Path, config: dict[str, Any] | None = None, **spec: Any
) -> Iterator[Model]:
    with to_file(directory / "log"):
        model = Model(directory)
        try:
            model.load(version, config or {}, **spec)
            yield model
        finally:
            model.backend.close()


# --- Loading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_learned_by_loading(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path) as model:
        assert model.info == LoadedInfo(
            context_length=512,
            runtime=f"librkllmrt {version}",
            platform="RK3588",
            toolkit=version,
            dtype="W8A8",
            # Before 1.2 the runtime is not told which CPUs to use.
            threads=None if version.startswith("1.1") else cpus("RK3588")[1],
            per_run_sampling=version == "1.3.0",
            keeps_states=version in WITH_PERF,
            counts_tokens=True,
        )


@pytest.mark.parametrize("version", VERSIONS)
def test_the_context_is_clamped_to_the_models_limit(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"max_context": 128, "tokens": 3}) as model:
        assert model.info.context_length == 128
        (notice,) = model.info.notices
        assert "128 tokens instead of 512" in notice
        assert model.run("hello")[1].completion_tokens == 3
    (init,) = [event for event in read_trace(model.trace_file) if event["event"] == "init"]
    assert init["max_context_len"] == 128


def test_warnings_become_notices(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"driver": "0.8.2"}) as model:
        assert ["0.8.2 is older than 0.9.7" in notice for notice in model.info.notices] == [True]


def test_an_unknown_release_is_a_notice(tmp_path: Path) -> None:
    with to_file(tmp_path / "log"):
        model = Model(tmp_path)
        path = write_model(model.path)
        spec = LoadSpec(path=path, context_length=512, library=library("1.3.0", reported="1.3.1"))
        info = model.backend.load(spec)
        model.backend.close()
    assert info.runtime == "librkllmrt 1.3.1"
    assert "looks like 1.3.0" in info.notices[0]


@pytest.mark.parametrize("version", ["1.1.4", "1.2.3", "1.3.0"])
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"init_error": 1}, "rkllm_init failed with code -1"),
        ({"init_null": 1}, "reported success but returned no model"),
        ({"magic_bad": 1}, "does not know the model's file format"),
        ({"magic_bad": 2}, "does not know the model's file format"),
        ({"init_error": 1, "log": "load"}, "could not read the model's file"),
        ({"init_error": 1, "log": "rknn_init"}, "could not be started"),
        ({"toolkit": "1.9.0"}, "toolkit 1.9.0 is newer than the runtime"),
        ({"platform": "RK3576"}, "another SoC"),
    ],
)
def test_a_failed_load_says_why(
    version: str, config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(LoadFailed, match=words) as caught, loaded(version, tmp_path, config):
        pass
    assert "modèle.rkllm could not be loaded" in caught.value.message
    assert caught.value.hint
    assert "loading rkllm model" in caught.value.log


def test_a_failed_load_that_nothing_explains_leads_to_doctor(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed) as caught, loaded("1.2.3", tmp_path, {"init_error": 1}):
        pass
    assert caught.value.hint is not None
    assert "`rkllama doctor`" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"GGUF\x03\0\0\0", "a GGUF model"),
        (bytes(4096), "a file of zeros"),
        (b"model" * 500_000 + bytes(1 << 20), "a part of one"),
    ],
)
def test_a_file_that_is_no_model_is_told_before_the_runtime_is_asked(
    content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "m.rkllm").write_bytes(content)
    backend = NPUBackend(compatible="/nowhere")
    spec = LoadSpec(path=str(tmp_path / "m.rkllm"), context_length=512, library="/nowhere")
    with pytest.raises(LoadFailed, match=f"is no .rkllm model but {words}") as caught:
        backend.load(spec)
    assert caught.value.hint
    backend.close()


def test_a_warning_about_an_older_model_fails_no_load(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"log": "W rkllm: The model version is too old"}) as model:
        assert model.run("hi")[0] == "hi"


@pytest.mark.parametrize(
    ("name", "beside", "words"),
    [
        ("m.rkllm", "m.rkllm.aria2", "a part of one"),
        ("qwen_lora.rkllm", "m", "a LoRA adapter"),
        ("Qwen-LoRA.RKLLM", "m", "a LoRA adapter"),
        ("flora.rkllm", "flora.rkllm.part", None),
        ("lora-merged.rkllm", "m", None),
    ],
)
def test_names_tell_a_part_or_an_adapter(
    name: str, beside: str, words: str | None, tmp_path: Path
) -> None:
    write_model(tmp_path / name)
    (tmp_path / beside).touch()
    found = what_else(str(tmp_path / name))
    assert (found and found.message.partition(":")[0]) == words


def test_out_of_npu_memory_is_found_on_standard_error_too(tmp_path: Path) -> None:
    log = run_child(tmp_path, {"init_null": 1, "log": "malloc"}, "")
    assert (
        "OutOfMemory: modèle.rkllm could not be loaded: the NPU does not have enough memory" in log
    )


def test_a_model_file_that_is_not_there(tmp_path: Path) -> None:
    backend = NPUBackend(compatible="/nowhere")
    missing = str(tmp_path / "none.rkllm")
    with pytest.raises(LoadFailed, match=r"none\.rkllm cannot be read"):
        backend.load(LoadSpec(path=missing, context_length=512, library=library("1.2.3")))
    backend.close()


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    backend = NPUBackend(compatible="/nowhere")
    path = write_model(tmp_path / "m.rkllm")
    with pytest.raises(LibraryNotFound):
        backend.load(LoadSpec(path=path, context_length=512, library="/nowhere/lib.so"))
    backend.close()


@pytest.mark.parametrize("version", ["1.1.4", "1.2.3", "1.3.0"])
def test_a_lora_adapter_is_used_for_every_run(version: str, tmp_path: Path) -> None:
    adapter = write_model(tmp_path / "adapter.rkllm", reply="tuned")
    with loaded(version, tmp_path, lora=adapter) as model:
        assert model.run("x")[0] == "tuned"
    missing = str(tmp_path / "none.rkllm")
    with (
        pytest.raises(LoadFailed, match=r"none\.rkllm could not be loaded"),
        loaded(version, tmp_path, lora=missing),
    ):
        pass


# --- The SoC -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "soc"),
    [
        (["radxa,rock-5b", "rockchip,rk3588"], "RK3588"),
        (["xunlong,orangepi-5", "rockchip,rk3588s"], "RK3588S"),
        (["rockchip,rv1126b-evb1-v10", "rockchip,rv1126b"], "RV1126B"),
        (["rockchip,rk3568-evb", "rockchip,rk3568"], "RK3568"),
        (["raspberrypi,5-model-b", "brcm,bcm2712"], None),
    ],
)
def test_the_soc_is_read_from_the_device_tree(
    entries: list[str], soc: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "compatible"
    path.write_bytes("\0".join([*entries, ""]).encode())
    assert read_soc(str(path)) == soc


def test_a_machine_without_a_device_tree_has_no_soc(tmp_path: Path) -> None:
    assert read_soc(str(tmp_path / "none")) is None
    require_llm(None)


@pytest.mark.parametrize("soc", ["RK3566", "RK3568"])
def test_a_soc_that_cannot_run_language_models_is_refused_at_once(soc: str, tmp_path: Path) -> None:
    path = tmp_path / "compatible"
    path.write_bytes(f"pine64,quartz64\0rockchip,{soc.lower()}\0".encode())
    backend = NPUBackend(compatible=str(path))
    with pytest.raises(LoadFailed, match=f"{soc} cannot run language models"):
        backend.load(LoadSpec(path="m.rkllm", context_length=512))
    backend.close()


@cases(
    ("soc", "available", "expected"),
    [
        ("RK3588", set(range(8)), (0xF0, 4)),
        ("RK3588S", set(range(8)), (0xF0, 4)),
        ("RK3576", set(range(8)), (0xF0, 4)),
        ("RK3562", set(range(4)), (0x0F, 4)),
        ("RV1126B", set(range(4)), (0x0F, 4)),
        ("RK3588", {0, 1, 4, 5}, (0x33, 4)),  # three NPU cores want three CPUs
        ("RK3588", {1, 4, 5, 6}, (0x70, 3)),
        ("RK3576", {0, 1, 4, 5}, (0x30, 2)),
        ("RK3588", {0, 1}, (0x03, 2)),
        (None, set(range(2)), (0x03, 2)),
        (None, set(range(16)), (0xF0, 4)),
        (None, {12, 13}, (0x01, 1)),
    ],
)
def test_cpus(soc: str | None, available: set[int], expected: tuple[int, int]) -> None:
    mask, count = cpus(soc, available)
    assert (mask, count) == expected
    assert mask.bit_count() == count


@pytest.mark.parametrize(
    ("mask", "number", "expected"),
    [
        (0x3C, None, (0x3C, 4)),
        (0x3C, 2, (0x30, 2)),
        (0x80, 4, (0x80, 1)),
        (None, 3, (0xE0, 3)),
        (None, 6, (0xFC, 6)),
    ],
)
def test_cpus_that_the_user_wants(
    mask: int | None, number: int | None, expected: tuple[int, int]
) -> None:
    assert cpus("RK3588", set(range(8)), mask=mask, number=number) == expected


def test_a_parameter_that_the_release_lacks_is_told(tmp_path: Path) -> None:
    wanted = NPUParams(embed_flash=True)
    with (
        pytest.raises(Unsupported, match=r"1\.1\.4 has no embed_flash"),
        loaded("1.1.4", tmp_path, {}, npu=wanted),
    ):
        pass


# --- Generating --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_raw_prompt_goes_in_as_written(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"tokens": 2}) as model:
        for prompt in ("<|im_start|>user\nhi<|im_end|>\n", " zweite, größere\n"):
            assert model.run(prompt)[1].reason == "stop"
            assert model.runs()[-1]["prompt"] == prompt


@pytest.mark.parametrize("version", WITH_TEMPLATES)
def test_a_prompt_that_is_not_raw_goes_through_the_runtimes_template(
    version: str, tmp_path: Path
) -> None:
    with loaded(version, tmp_path, {"mode": "params"}) as model:
        seen = json.loads(model.run("hi", raw=False)[0])
        assert seen["template"] == "own"
        assert seen["keep_history"] is False
        assert model.runs()[-1]["prompt"] != "hi"
        assert json.loads(model.run("hi", raw=True)[0])["template"] == "raw"
        with pytest.raises(Unsupported, match="removed the runtime's own template"):
            model.run("hi", raw=False)


@pytest.mark.parametrize("think", [True, False, None])
def test_thinking_is_passed_on(think: bool | None, tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"mode": "params"}) as model:
        seen = json.loads(model.run("hi", raw=False, think=think)[0])
        assert seen["enable_thinking"] is (think is not False)


@pytest.mark.parametrize("version", WITH_PERF)
def test_a_run_is_reported_in_the_runtimes_figures(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"tokens": 20, "token_us": 1000}) as model:
        _, first = model.run("one two three")
        _, second = model.run("one two three four five")
    assert (first.prompt_tokens, first.cached_tokens, first.completion_tokens) == (3, 0, 20)
    assert (second.prompt_tokens, second.cached_tokens) == (5, 3)
    assert first.generation_seconds is not None
    assert first.prompt_seconds is not None
    assert 0.018 < first.generation_seconds < 1
    assert 0 < first.prompt_seconds < 1
    assert first.memory is not None
    assert first.memory >= 512 << 20


def test_figures_that_a_release_does_not_have_are_unknown(tmp_path: Path) -> None:
    with loaded("1.1.4", tmp_path, {"tokens": 20}) as model:
        assert model.run("one two")[1] == RunResult(reason="stop", completion_tokens=20)
    with loaded("1.2.0", tmp_path, {"tokens": 20}) as model:
        expected = RunResult(
            reason="stop",
            completion_tokens=20,
            prompt_tokens=2,
            cached_tokens=0,
            reused_tokens=0,
        )
        assert model.run("one two")[1] == expected


@pytest.mark.parametrize("version", WITH_PERF)
def test_without_a_log_the_kv_cache_tells_the_prompts_size(version: str, tmp_path: Path) -> None:
    model = Model(tmp_path)
    model.backend = NPUBackend("/dev/null", compatible="/nowhere")
    model.load(version, {"tokens": 20})
    figures = [
        (result.prompt_tokens, result.cached_tokens, result.reason)
        for result in (
            model.run("one two three")[1],
            model.run("one two three four five")[1],
            model.run("one two three four five six", max_tokens=5)[1],
        )
    ]
    model.backend.close()
    # How much of an answer that reached its limit is in the cache has not been seen yet.
    assert figures == [(3, 0, "stop"), (5, 3, "stop"), (None, None, "length")]


@pytest.mark.parametrize("version", WITH_PERF)
def test_the_runtimes_own_figures_count_more_than_its_log(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path) as model:
        prompt = "one two three " + directive(run_log="kv cache matches 70 / 99 tokens")
        _, result = model.run(prompt)
        (run,) = model.runs()
    assert (result.prompt_tokens, result.cached_tokens) == (run["prompt_tokens"], 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_ends_at_max_tokens(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"tokens": 50, "token_us": 500}) as model:
        text, result = model.run("hi", max_tokens=7)
        assert (result.reason, result.completion_tokens, len(text.split())) == ("length", 7, 7)
        text, result = model.run("hi", max_tokens=1)
        assert (result.reason, result.completion_tokens) == ("length", 1)
        text, result = model.run("hi")
        assert (result.reason, result.completion_tokens) == ("stop", 50)
        text, result = model.run("hi", max_tokens=51)
        assert (result.reason, result.completion_tokens) == ("stop", 50)


@pytest.mark.parametrize("version", WITH_TEMPLATES)
def test_a_run_ends_where_the_context_is_full(version: str, tmp_path: Path) -> None:
    config = {"tokens": 5000, "token_us": 20_000}
    with loaded(version, tmp_path, config, context_length=64) as model:
        _, result = model.run("a b c d e f g h i j")
        assert result.prompt_tokens == 10
        assert (result.reason, result.completion_tokens) == ("length", 50)
    assert "the context is full" not in (tmp_path / "log").read_text()


def test_a_full_context_ends_a_run_of_a_release_that_tells_no_size(tmp_path: Path) -> None:
    with loaded("1.1.4", tmp_path, {"tokens": 5000}, context_length=64) as model:
        _, result = model.run("a b c d")
        assert (result.reason, result.completion_tokens) == ("length", 64)


@pytest.mark.parametrize("version", VERSIONS)
def test_sampling_follows_the_load_and_where_it_can_the_run(version: str, tmp_path: Path) -> None:
    defaults = SamplingParams(temperature=0.5, top_k=7)
    with loaded(version, tmp_path, {"mode": "params"}, sampling=defaults) as model:
        seen = json.loads(model.run("hi", sampling=SamplingParams(top_k=9, top_p=0.25))[0])
    if version == "1.3.0":
        assert (seen["temperature"], seen["top_k"], seen["top_p"]) == (0.5, 9, 0.25)
    else:
        assert (seen["temperature"], seen["top_k"], seen["top_p"]) == (0.5, 7, 0.9)


@pytest.mark.parametrize("version", VERSIONS)
def test_end_of_sequence_ids_are_watched(version: str, tmp_path: Path) -> None:
    config = {"no_eos": 1, "token_us": 300}
    with loaded(version, tmp_path, config, eos_tokens=(151645,)) as model:
        text, result = model.run("x " + directive(reply="the answer"))
        assert (text, result.reason, result.completion_tokens) == ("the answer", "stop", 2)


@pytest.mark.parametrize(
    ("version", "toolkit", "eos", "told"),
    [
        ("1.3.0", "1.2.3", (), True),
        ("1.3.0", "1.2.3", (151645,), False),
        ("1.3.0", "1.3.0", (), False),
        ("1.2.3", "1.2.3", (), False),
    ],
)
def test_a_model_that_may_not_end_is_told_once(
    version: str, toolkit: str, eos: tuple[int, ...], told: bool, tmp_path: Path
) -> None:
    with loaded(version, tmp_path, {"toolkit": toolkit}, eos_tokens=eos) as model:
        found = ["generation_config.json" in notice for notice in model.info.notices]
        assert found == ([True] if told else [])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_prompt_that_is_too_long(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, context_length=64) as model:
        with pytest.raises(PromptTooLong) as caught:
            model.run("word " * 100)
        assert caught.value.prompt_tokens is not None
        assert caught.value.prompt_tokens >= 100
        assert caught.value.context_length == 64
        assert model.run("short")[0] == "short"


@pytest.mark.parametrize(
    "line", ["E rkllm: matmul(w8a8) run failed", "E RKNN: failed to submit!, op id: 0"]
)
def test_a_run_that_succeeds_without_computing_is_an_error(line: str, tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 5}) as model:
        with pytest.raises(RuntimeFailed, match="failed to compute, so the answer is worthless"):
            model.run("x " + directive(run_log=line))
        assert model.run("x")[1].reason == "stop"
        model.backend.embed(("x",), False)
        with pytest.raises(RuntimeFailed, match="failed to compute"):
            model.backend.embed(("x " + directive(run_log=line),), False)


@pytest.mark.parametrize("fault", [{"run_error": 1}, {"run_fail": 1}, {"error_at": 2}])
@pytest.mark.parametrize("version", ["1.1.4", "1.2.3", "1.3.0"])
def test_an_error_of_the_runtime_is_an_error(
    version: str, fault: dict[str, Any], tmp_path: Path
) -> None:
    with loaded(version, tmp_path, {"tokens": 5}) as model:
        with pytest.raises(RuntimeFailed, match="the runtime reported an error"):
            model.run("x " + directive(**fault))
        assert model.run("x")[1].reason == "stop"


def test_log_probabilities_are_not_to_be_had(tmp_path: Path) -> None:
    with loaded("1.3.0", tmp_path) as model, pytest.raises(Unsupported):
        model.run("x", top_logprobs=2)


def test_nothing_is_done_without_a_model() -> None:
    backend = NPUBackend()
    with pytest.raises(RuntimeFailed, match="no model is loaded"):
        backend.generate(GenerateSpec(prompt="x"), lambda _: None)
    with pytest.raises(RuntimeFailed, match="no model is loaded"):
        backend.embed(("x",), True)
    backend.abort()
    backend.close()


# --- Aborting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_an_abort_from_another_thread_ends_the_run(version: str, tmp_path: Path) -> None:
    begun = threading.Event()
    with loaded(version, tmp_path, {"tokens": 400, "token_us": 5000}) as model:

        def abort() -> None:
            begun.wait(10)
            model.backend.abort()

        other = threading.Thread(target=abort)
        other.start()
        result = model.backend.generate(GenerateSpec(prompt="x"), lambda _: begun.set())
        other.join()
        assert result.reason == "cancelled"
        assert result.completion_tokens is not None
        assert 0 < result.completion_tokens < 50
        assert model.ends() == ["abort"]
        assert model.run("x " + directive(tokens=4, token_us=0))[1].reason == "stop"


def test_an_abort_in_prefill_takes_effect_at_its_end(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 400, "token_us": 5000}) as model:
        running = threading.Event()

        def abort() -> None:
            running.wait(10)
            until(lambda: model.backend._loaded().is_running())
            model.backend.abort()

        other = threading.Thread(target=abort)
        other.start()
        running.set()
        text, result = model.run("one two three " + directive(prefill_us=30_000))
        other.join()
        assert (text, result.reason, result.completion_tokens) == ("", "cancelled", 0)


def test_an_abort_between_the_call_and_the_runtimes_start_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 50}) as model:
        set_template = model.backend._loaded().set_chat_template

        def abort_meanwhile(*parts: str) -> None:
            set_template(*parts)
            model.backend.abort()

        monkeypatch.setattr(model.backend._loaded(), "set_chat_template", abort_meanwhile)
        text, result = model.run("x")
        assert (text, result.reason, model.runs()) == ("", "cancelled", [])
        assert model.run("x")[1].completion_tokens == 50


def test_an_abort_that_came_before_the_call_is_not_lost(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 50}) as model:
        spec = GenerateSpec(prompt="x")
        result = model.backend.generate(spec, print, cancelled=lambda: True)
        assert (result.reason, model.runs()) == ("cancelled", [])


def test_an_abort_after_the_end_does_not_touch_the_next_run(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 10}) as model:
        for _ in range(50):
            assert model.run("x")[1].completion_tokens == 10
            model.backend.abort()
        assert set(model.ends()) == {"stop"}


def test_aborts_at_any_moment_end_their_own_run_only(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 30}) as model:
        for last in range(1, 31):
            seen: list[str] = []

            def take(text: str, seen: list[str] = seen, last: int = last) -> None:
                seen.append(text)
                if len(seen) == last:
                    model.backend.abort()

            result = model.backend.generate(GenerateSpec(prompt="x"), take)
            assert (len(seen), result.reason) == (last, "cancelled")
            assert model.run("x")[1].completion_tokens == 30


def test_what_emit_raises_comes_out_of_generate(tmp_path: Path) -> None:
    def emit(_text: str) -> None:
        raise ZeroDivisionError

    with loaded("1.2.3", tmp_path, {"tokens": 30}) as model:
        with pytest.raises(ZeroDivisionError):
            model.backend.generate(GenerateSpec(prompt="x"), emit)
        assert model.run("x")[1].completion_tokens == 30


# --- Embedding ---------------------------------------------------------------------------------


def cosine(one: bytes, other: bytes) -> float:
    a, b = (struct.unpack(f"{len(data) // 4}f", data) for data in (one, other))
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return float(sum(x * y for x, y in zip(a, b, strict=True)) / length)


@pytest.mark.parametrize("version", VERSIONS)
def test_embeddings(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, {"embd_size": 64}) as model:
        texts = ("the cat sat", "the cat sits", "stock prices fell", "the cat sat")
        result = model.backend.embed(texts, True)
        assert [len(vector) for vector in result.vectors] == [256] * 4
        assert result.prompt_tokens == sum(run["evaluated"] for run in model.runs())
        assert result.vectors[0] == result.vectors[3]
        near, far = (cosine(result.vectors[0], result.vectors[i]) for i in (1, 2))
        assert near > far
        assert model.run("and now an answer")[0] == "and now an answer"
    log = (tmp_path / "log").read_text()
    assert "never released" not in log


WITH_BATCHES = WITH_PERF
RERANKER = {"yes_id": 1500, "no_id": 1501, "vocab_size": 2048, "eos_id": 2000}
QUERY = "capital of France?"
DOCUMENTS = ("Paris is the capital of France.", "Bananas", "The capital city", "", "of France")

TEXTS = tuple(document or "nothing" for document in DOCUMENTS)


def spec(*documents: str, **values: Any) -> RerankSpec:
    return RerankSpec(
        **{"query": QUERY, "documents": documents or DOCUMENTS, "yes_no_tokens": (1500, 1501)}
        | values
    )


def passes(model: Model) -> int:
    """How often the NPU has run, whatever it had in a run."""
    return sum(run["slot"] == 0 for run in model.runs())


def scores_of(result: RankResult) -> list[float]:
    return [round(score, 3) for score in result.scores]


@pytest.mark.parametrize("version", WITH_TEMPLATES)
def test_documents_are_ranked_by_the_logits_of_yes_and_no(version: str, tmp_path: Path) -> None:
    slow = {"tokens": 1000, "token_us": 20_000}
    with loaded(version, tmp_path, RERANKER | slow) as model:
        result = model.backend.rerank(spec())
        assert scores_of(result) == [0.982, 0.018, 0.209, 0.018, 0.791]
        # Nothing is written after them: the runtime ends by itself from 1.3 on, else it is stopped.
        assert set(model.ends()) == ({"vectors"} if version == "1.3.0" else {"abort"})
        evaluated = sum(run["evaluated"] for run in model.runs())
        assert result.prompt_tokens == (evaluated if version in WITH_PERF else None)
        assert model.runs()[0]["prompt"].endswith(
            f"<Query>: {QUERY}\n<Document>: {DOCUMENTS[0]}<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )
    assert "never released" not in (tmp_path / "log").read_text()


def test_a_runtime_without_logits_cannot_rank(tmp_path: Path) -> None:
    with (
        loaded("1.1.4", tmp_path) as model,
        pytest.raises(Unsupported, match=r"1\.1\.4 has no RKLLM_INFER_GET_LOGITS"),
    ):
        model.backend.rerank(spec())


@pytest.mark.parametrize("version", WITH_BATCHES)
def test_a_batch_gives_what_one_by_one_gives_in_fewer_runs(version: str, tmp_path: Path) -> None:
    found = []
    for size in (1, 3, 8):
        directory = tmp_path / f"{size}"
        directory.mkdir()
        with loaded(version, directory, RERANKER, npu=NPUParams(n_batch=size)) as model:
            assert (model.info.n_batch, model.info.notices) == (size, ())
            assert model.info.counts_tokens == model.info.keeps_states == (size == 1)
            found.append((model.backend.embed(TEXTS, True), model.backend.rerank(spec())))
            assert passes(model) == 2 * -(-len(DOCUMENTS) // size)
        assert "never released" not in (directory / "log").read_text()
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("version", ["1.1.4", "1.2.0", "1.2.1b1"])
def test_a_runtime_without_batches_takes_one_text_and_says_so(version: str, tmp_path: Path) -> None:
    with loaded(version, tmp_path, npu=NPUParams(n_batch=4)) as model:
        assert model.info.n_batch == 1
        assert model.info.notices[-1].startswith(f"n_batch is 1 instead of 4: librkllmrt {version}")
        assert len(model.backend.embed(DOCUMENTS[:3], True).vectors) == 3
        assert passes(model) == 3


@pytest.mark.parametrize("n_batch", [1, 3])
def test_a_document_too_long_is_cut_or_refused_and_those_beside_it_are_not(
    n_batch: int, tmp_path: Path
) -> None:
    documents = ("Paris, the capital of France", "France " * 400, DOCUMENTS[2])
    with loaded(
        "1.3.0", tmp_path, RERANKER, context_length=200, npu=NPUParams(n_batch=n_batch)
    ) as model:
        result = model.backend.rerank(spec(*documents))
        assert scores_of(result) == [0.982, 0.209, 0.209]
        with pytest.raises(PromptTooLong):
            model.backend.rerank(spec(*documents, truncate=False))
        with pytest.raises(PromptTooLong):
            model.backend.rerank(spec("x", query="word " * 400))
        again = model.backend.rerank(spec(*documents))
        assert again == result


@pytest.mark.parametrize("fault", [{"run_error": 1}, {"run_fail": 1}, {"error_at": 0}])
def test_an_error_of_one_is_one_of_its_run_and_the_next_one_works(
    fault: dict[str, object], tmp_path: Path
) -> None:
    texts = ("one", "two " + directive(**fault), "three")
    with loaded("1.2.3", tmp_path, RERANKER, npu=NPUParams(n_batch=3)) as model:
        with pytest.raises(RuntimeFailed):
            model.backend.embed(texts, True)
        with pytest.raises(RuntimeFailed):
            model.backend.rerank(spec(*texts))
        assert scores_of(model.backend.rerank(spec(*DOCUMENTS[:3]))) == [0.982, 0.018, 0.209]


def test_the_tokens_for_yes_and_no_are_the_users_the_tokenizers_or_the_familys(
    tmp_path: Path,
) -> None:
    with loaded("1.3.0", tmp_path, RERANKER) as model:
        with pytest.raises(Unsupported, match="not known which tokens") as caught:
            model.backend.rerank(spec(yes_no_tokens=()))
        assert "tokenizer.json" in str(caught.value.hint)
        usual = model.backend.rerank(spec(yes_no_tokens=(), usual_yes_no_tokens=(1500, 1501)))
        assert usual == model.backend.rerank(spec())
        with pytest.raises(Unsupported, match="2048 tokens, but not 9693"):
            model.backend.rerank(spec(yes_no_tokens=(9693, 2152)))
    (tmp_path / "tokenizer.json").write_text(tokenizer(yes=1500, no=1501))
    with loaded("1.3.0", tmp_path, RERANKER) as model:
        assert model.backend.rerank(spec(yes_no_tokens=(), usual_yes_no_tokens=(1, 2))) == usual
        swapped = model.backend.rerank(spec(yes_no_tokens=(1501, 1500)))
        assert swapped.scores[0] == pytest.approx(1 - usual.scores[0])


def tokenizer(**ids: int) -> str:
    vocabulary = {"[UNK]": 0, **ids}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_text_too_long_to_embed_is_cut_or_refused(version: str, tmp_path: Path) -> None:
    long = "word " * 300
    with loaded(version, tmp_path, context_length=64) as model:
        with pytest.raises(PromptTooLong):
            model.backend.embed(("short", long), False)
        result = model.backend.embed(("short", long), True)
        assert len(result.vectors) == 2
        assert result.prompt_tokens is not None
        assert 32 < result.prompt_tokens < 70


@pytest.mark.parametrize("long", [False, True])
def test_a_text_to_embed_gets_its_end_even_where_it_is_cut(long: bool, tmp_path: Path) -> None:
    end = "<|endoftext|>"
    text = "word " * 300 if long else "short"
    with loaded("1.3.0", tmp_path, context_length=64, text_end=end) as model:
        first = model.backend.embed((text, text + end), True)
        assert first.vectors[0] == first.vectors[1]
        prompts = [run["prompt"] for run in model.runs() if "prompt" in run]
        assert prompts
        assert all(prompt.endswith(end) for prompt in prompts)


def test_embedding_leaves_the_runtimes_template_where_it_is_in_use(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"mode": "params"}) as model:
        model.run("hi", raw=False)
        model.backend.embed(("text",), True)
        assert json.loads(model.run("hi", raw=False)[0])["template"] == "own"


def test_tokens_are_counted_by_evaluating_them_once(tmp_path: Path) -> None:
    with loaded("1.3.0", tmp_path) as model:
        counted = model.backend.count_tokens("some text to be counted")
        _, result = model.run("some text to be counted")
        assert counted is not None
        assert counted == result.prompt_tokens
        assert result.cached_tokens is not None
        assert result.cached_tokens >= counted - 1


def test_a_prompt_that_is_too_long_is_counted_too(tmp_path: Path) -> None:
    with loaded("1.3.0", tmp_path, {"max_context": 64}, context_length=64) as model:
        count = model.backend.count_tokens("word " * 500)
        assert count is not None
        assert count > 64


# --- Crashes, in a child -----------------------------------------------------------------------

CHILD = """
import sys
from rkllama.backends.base import GenerateSpec, LoadSpec
from rkllama.errors import RKLLamaError
from rkllama.npu import NPUBackend
backend = NPUBackend(compatible="/nowhere")
try:
    backend.load(LoadSpec(path=sys.argv[1], context_length=512, library=sys.argv[2]))
    backend.generate(GenerateSpec(prompt=sys.argv[3]), lambda text: None)
except RKLLamaError as error:
    print(f"{type(error).__name__}: {error}")
"""


def run_child(directory: Path, config: dict[str, Any], prompt: str) -> str:
    """What a process that loads and runs a model leaves in its log."""
    log = directory / "child.log"
    model = write_model(directory / "modèle.rkllm", **config)
    with log.open("ab") as stream:
        subprocess.run(
            [sys.executable, "-c", CHILD, model, library("1.2.3"), prompt],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            timeout=60,
            check=False,
        )
    return log.read_text()


def test_the_log_survives_a_crash_in_init(tmp_path: Path) -> None:
    log = run_child(tmp_path, {"crash_in_init": 1, "log": "malloc"}, "")
    assert "loading rkllm model from" in log
    known = diagnose(log)
    assert known is not None
    assert "4059037696" in known.message


def test_the_log_survives_a_crash_in_a_run(tmp_path: Path) -> None:
    log = run_child(tmp_path, {"abort_at": 2, "tokens": 5}, "hello")
    assert "kv cache matches 0 /" in log
    known = diagnose(log)
    assert known is not None
    assert "GGML_ASSERT" in known.message


def test_where_the_runtime_does_not_tell_the_tokenizer_beside_the_model_counts(
    tmp_path: Path,
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model = Model(tmp_path)
    model.load("1.1.4", {})
    assert model.run("hello big world")[1].prompt_tokens is None
    model.backend.close()
    words.save(str(Path(model.path).with_name("tokenizer.json")))
    model.load("1.1.4", {})
    assert model.run("hello big world")[1].prompt_tokens == 3
    Path(model.path).with_name("tokenizer.json").write_text("{")
    model.backend.close()
    model.load("1.1.4", {})
    assert model.run("hello big world")[1].prompt_tokens is None


# --- States ------------------------------------------------------------------------------------

BEGINNING = "one two three four five six seven eight nine ten"


def written(model: Model, prompt: str = BEGINNING, **spec: Any) -> RunResult:
    """A run that saves its state to `state` beside the model."""
    return model.run(prompt, save_state=str(model.directory / "state"), **spec)[1]


@pytest.mark.parametrize("version", WITH_PERF)
@pytest.mark.parametrize("log", [None, "/dev/null"])
def test_a_state_is_used_in_another_process_of_the_model(
    version: str, log: str | None, tmp_path: Path
) -> None:
    with loaded(version, tmp_path, {"tokens": 5}) as model:
        saved = written(model)
        assert (saved.saved, saved.prompt_tokens, saved.evaluated_tokens) == (True, 10, 10)
    model.backend = NPUBackend(log, compatible="/nowhere")
    model.load(version, {"tokens": 5})
    assert model.backend.restore(str(tmp_path / "state"), 10)
    result = model.run(f"{BEGINNING} more and more")[1]
    assert result.evaluated_tokens == 3
    assert abs((result.reused_tokens or 0) - 10) <= 2  # the constant is not known without a log
    assert model.backend.restore(str(tmp_path / "state"), 10)  # another time, whatever is loaded
    assert model.run(f"{BEGINNING} else")[1].evaluated_tokens == 1
    assert model.run("something new")[1].reused_tokens in (0, 1, 2)
    model.backend.close()


def test_what_an_aborted_run_leaves_is_not_saved(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 50}) as model:
        assert not written(model, max_tokens=3).saved  # before 1.3.0 by an abort
    with loaded("1.3.0", tmp_path, {"tokens": 50}) as model:
        assert written(model, max_tokens=3).saved
    with loaded("1.3.0", tmp_path, {"reply": "word " * 40}) as model:
        assert not written(model).saved  # one token again and again


@pytest.mark.parametrize("tokens", [9, 11])
def test_a_state_that_has_not_the_tokens_that_it_should_is_not_used(
    tmp_path: Path, tokens: int
) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 5}) as model:
        written(model)
        model.run("something else that is in memory now")
        assert not model.backend.restore(str(tmp_path / "state"), tokens)
        result = model.run(f"{BEGINNING} more")[1]
        assert (result.prompt_tokens, result.cached_tokens) == (11, 0)


def test_a_file_that_the_runtime_refuses(tmp_path: Path) -> None:
    with loaded("1.2.3", tmp_path, {"tokens": 5}) as model:
        written(model)
        (tmp_path / "state").write_bytes(b"torn")
        assert not model.backend.restore(str(tmp_path / "state"), 10)
        assert not model.backend.restore(str(tmp_path / "missing"), 10)
        assert model.run(BEGINNING)[1].cached_tokens == 0
        written(model)
        assert model.backend.restore(str(tmp_path / "state"), 10)


@pytest.mark.parametrize("version", ["1.1.4", "1.2.0"])
def test_releases_that_do_not_tell_what_they_reuse_restore_nothing(
    version: str, tmp_path: Path
) -> None:
    with loaded(version, tmp_path, {"tokens": 5}) as model:
        assert not model.backend.restore(str(tmp_path / "state"), 10)
