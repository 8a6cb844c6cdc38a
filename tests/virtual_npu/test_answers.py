"""The virtual NPU's answers, how they end, and what its KV cache saves."""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.virtual_npu import directive, read_trace, write_model
from tests.virtual_npu.caller import ERROR, FINISH, NORMAL, WAITING, Caller, Run, flush

pytestmark = pytest.mark.integration

LAYOUTS = ("1.1.4", "1.2.0", "1.2.1b1", "1.2.3", "1.3.0")


@pytest.fixture(autouse=True)
def _flushed() -> Iterator[None]:
    yield
    flush()


@pytest.fixture
def model(tmp_path: Path) -> str:
    return write_model(tmp_path / "model.rkllm")


# --- answers -----------------------------------------------------------------------------------

TEMPLATED = [
    (
        "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nold<|im_end|>\n<|im_start|>assistant\n"
        "so<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    ),
    (
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "<s>[INST] {} [/INST]",
    "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "<|user|>\n{}<|end|>\n<|assistant|>\n",
    "<|user|>\n{}</s>\n<|assistant|>\n",
    "<｜User｜>{}<｜Assistant｜><think>\n",
    "<用户>{}<AI>",
    "{}",
]


@pytest.mark.parametrize("template", TEMPLATED)
def test_echo_is_the_last_user_message(template: str, model: str) -> None:
    said = "How many Äpfel, 123456 or two?\nSay!"
    with Caller(model) as npu:
        assert npu.raw().run(template.format(said)).text == said
        assert npu.run(template.format(said + directive(mode="echo"))).text == said


@pytest.mark.parametrize("version", LAYOUTS)
def test_a_scripted_reply(version: str, model: str) -> None:
    reply = (
        '<think>\nhm\n</think>\n\n{"a": [1; 2]} \\ "é" 中 \U0001f600 <tool_call>\n{}</tool_call>'
    )
    with Caller(model, version) as npu:
        answer = npu.run(directive(tokens=3) + directive(reply=reply))
        assert (answer.result, answer.text, answer.last.state) == (0, reply, FINISH)
        assert npu.run("again").text == "again"


def test_a_count_of_tokens(model: str) -> None:
    with Caller(model) as npu:
        answer = npu.run(directive(tokens=150))
        assert len(answer.given) == 150
        assert answer.last.generate_tokens == 150
        assert npu.run(directive(tokens=150)).text == answer.text
        assert len({piece.token for piece in answer.given}) > 60
        nothing = npu.run(directive(tokens=0))
        assert [piece.state for piece in nothing.pieces] == [FINISH]


def test_the_model_says_what_it_was_given(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", mode="params")
    with Caller(path, "1.3.0", top_k=7, max_new_tokens=200) as npu:
        seen = json.loads(npu.run("x").text)
        assert (seen["top_k"], seen["temperature"], seen["max_new_tokens"]) == (7, 0.8, 200)
        assert (seen["template"], seen["enable_thinking"]) == ("own", True)
        sampling = npu.structs["RKLLMSamplingParam"](3, 0.5, 0, 1, 0, 0, 0, 5, 0.1)
        answer = npu.raw().run("x", sampling_params=ctypes.pointer(sampling), max_new_tokens=300)
        seen = json.loads(answer.text)
        assert (seen["top_k"], seen["top_p"], seen["temperature"]) == (3, 0.5, 0)
        assert (seen["max_new_tokens"], seen["template"]) == (300, "raw")
    with Caller(path, "1.1.4") as old:
        assert json.loads(old.run("x").text)["role"] is None


def test_sampling_shapes_what_is_drawn(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", random=40, seed=5)
    texts: dict[str, str] = {}
    ways: dict[str, dict[str, Any]] = {
        "a": {},
        "again": {},
        "cold": {"temperature": 0.0},
        "one": {"top_k": 1},
        "hot": {"temperature": 5.0, "top_k": 0, "top_p": 1.0},
    }
    for name, parameters in ways.items():
        with Caller(path, **parameters) as npu:
            texts[name] = npu.run("x").text
            assert npu.run("x").text == texts[name]
    assert texts["a"] == texts["again"] != texts["cold"]
    assert texts["cold"] == texts["one"] != texts["hot"]
    with Caller(write_model(path, random=40)) as npu:
        assert npu.run("x").text != npu.run("x").text


@pytest.mark.parametrize("kind", ["bytes", "held", "none"])
def test_characters_split_over_tokens(kind: str, model: str) -> None:
    with Caller(model) as npu:
        pieces = npu.run(directive(reply="aé中\U0001f600z", split=1, waiting=kind)).given
    states = [piece.state for piece in pieces]
    texts = [piece.text for piece in pieces]
    assert b"".join(text or b"" for text in texts).decode() == "aé中\U0001f600z"
    assert len(pieces) == 1 + 2 + 3 + 4 + 1
    incomplete = [False, True, False, True, True, False, True, True, True, False, False]
    assert states == [WAITING if wait and kind != "none" else NORMAL for wait in incomplete]
    if kind == "held":
        assert [text for text in texts if text] == [
            character.encode() for character in "aé中\U0001f600z"
        ]


def test_an_answer_can_end_inside_a_character(model: str) -> None:
    with Caller(model, max_new_tokens=2) as npu:
        assert [p.text for p in npu.run(directive(reply="\U0001f600")).given] == [b"\xf0", b"\x9f"]


# --- the end of an answer ----------------------------------------------------------------------


def test_special_tokens_are_skipped_or_shown(model: str) -> None:
    reply = directive(reply="a<|special|><think>b")
    with Caller(model) as npu:
        assert npu.run(reply).text == "a<think>b"
    with Caller(model, skip_special_token=False) as npu:
        answer = npu.run(reply)
        assert answer.text == "a<|special|><think>b<|im_end|>"
        assert answer.last.generate_tokens == 4


def test_the_end_of_sequence_token_ends_unless_ignored(model: str) -> None:
    reply = directive(reply="one<|im_end|>two")
    with Caller(model) as npu:
        assert npu.run(reply).text == "one"
    with Caller(model, "1.3.0", ignore_eos_token=True, max_new_tokens=9) as npu:
        answer = npu.run(reply)
        assert answer.text.startswith("onetwo")
        assert len(answer.given) == 9


def test_a_runtime_that_does_not_stop_by_itself(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.rkllm", reply="ab", no_eos=1, eos_id=7, eos="</s>")
    with Caller(path, "1.3.0", max_new_tokens=-1) as npu:
        npu.on_piece = lambda piece, _: npu.call("abort") if len(npu._pieces) == 2000 else 0
        answer = npu.run("x")
        assert [piece.token for piece in answer.given][1] == 7
        assert (len(answer.given), answer.last.state) == (2000, FINISH)


def test_max_new_tokens(model: str) -> None:
    with Caller(model, max_new_tokens=5) as npu:
        answer = npu.run(directive(tokens=50))
        assert (len(answer.given), answer.last.generate_tokens) == (5, 5)
        assert npu.cached() == 16 + 4  # the fifth was drawn, but never computed
        assert answer.last.prefill_tokens == 16


def test_an_over_long_prompt_is_an_error(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Caller(model, max_context_len=64) as npu:
        answer = npu.raw().run("word " * 64)
        flush()
        assert (answer.result, [piece.state for piece in answer.pieces]) == (-1, [ERROR])
        assert npu.run("word").result == 0
    assert re.search(r"prompt: \d+ tokens, max context: 64", capfd.readouterr().out)


def test_a_full_context_is_shifted(model: str) -> None:
    with Caller(model, max_context_len=64, max_new_tokens=-1, n_keep=8) as npu:
        answer = npu.raw().run("a b c d " + directive(tokens=500))
        assert len(answer.given) == 500
        assert 8 < npu.cached() <= 64
        assert npu.run("a b c d again").last.prefill_tokens == 1  # the first ones were kept


# --- the KV cache ------------------------------------------------------------------------------


def chatml(turns: list[str]) -> str:
    roles = ("user", "assistant")
    told = (f"<|im_start|>{roles[i % 2]}\n{t}<|im_end|>\n" for i, t in enumerate(turns))
    return "".join(told) + "<|im_start|>assistant\n"


@pytest.mark.parametrize("version", ["1.2.1", "1.3.0"])
def test_an_appended_prompt_costs_its_new_tokens_only(
    version: str, model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    turns: list[str] = []
    with Caller(model, version, max_context_len=4096) as npu:
        npu.raw()
        cached = 0
        for turn in range(10):
            turns.append(f"Äpfel and {turn} more of them, unbelievably\U0001f600")
            answer = npu.run(chatml(turns))
            new = answer.last.prefill_tokens or 0
            assert answer.text == turns[-1]
            assert turn == 0 or new == npu.cached() - cached - len(answer.given)
            assert turn == 0 or new <= 30
            turns.append(answer.text)
            cached = npu.cached()
        flush()
        matches = re.findall(r"kv cache matches (\d+) / (\d+) tokens", capfd.readouterr().out)
        assert [int(match) > 0 for match, _ in matches] == [False, *[True] * 9]
        assert int(matches[-1][1]) - int(matches[-1][0]) == new


def test_the_same_prompt_costs_one_token(model: str) -> None:
    with Caller(model) as npu:
        first = npu.raw().run("one two three").last
        assert (first.prefill_tokens, npu.run("one two three").last.prefill_tokens) == (3, 1)
        assert npu.run("one two four").last.prefill_tokens == 1
        assert npu.run("zero two four").last.prefill_tokens == 3


def test_the_oldest_runtime_has_no_reuse(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Caller(model, "1.1.4") as npu:
        npu.run("one two three")
        npu.run("one two three")
        flush()
    assert "kv cache" not in capfd.readouterr().out


def test_clearing_the_cache(model: str) -> None:
    with Caller(model) as npu:
        assert npu.call("set_chat_template", b"You are it.", b"<u>", b"<a>") == 0
        npu.run("hello")
        everything = npu.cached()
        assert npu.call("clear_kv_cache", 1, None, None) == 0
        assert 0 < npu.cached() < everything
        assert npu.call("clear_kv_cache", 0, None, None) == 0
        assert npu.cached() == 0
        npu.run("hello")
        at, to = ctypes.c_int(1), ctypes.c_int(3)
        assert npu.call("clear_kv_cache", 0, ctypes.byref(at), ctypes.byref(to)) == 0
        assert npu.cached() == everything - 2
        to.value = 1000
        assert npu.call("clear_kv_cache", 0, ctypes.byref(at), ctypes.byref(to)) == -1
        assert npu.call("clear_kv_cache", 0, ctypes.byref(at), None) == -1
        npu.raw()
        assert npu.cached() == 0


def test_kept_history_stays_until_it_is_cleared(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with Caller(write_model(tmp_path / "m.rkllm", trace=trace)) as npu:
        npu.run("first", keep_history=1)
        before = npu.cached()
        second = npu.run("second", keep_history=1)
        assert npu.cached() == before + (second.last.prefill_tokens or 0) + len(second.given)
        npu.run("third")
        npu.call("clear_kv_cache", 0, None, None)
        npu.run("fourth")
    runs = [event for event in read_trace(trace) if event["event"] == "run"]
    assert [run["history"] for run in runs] == [True, True, True, False]
    assert runs[2]["matched"] > before
    assert runs[3]["matched"] == 0


PROMPT = "Ünique system words, 17 of them \U0001f600 "


def saved(npu: Caller, path: str, prompt: str = PROMPT, **infer: Any) -> Run:
    """A run that asks for a prompt cache file."""
    cache = npu.structs["RKLLMPromptCacheParam"](1, path.encode())
    return npu.run(prompt, prompt_cache_params=ctypes.pointer(cache), **infer)


@pytest.mark.parametrize("version", ["1.2.0", "1.2.3", "1.3.0"])
def test_prompt_cache_files(model: str, tmp_path: Path, version: str) -> None:
    path = str(tmp_path / "system.cache")
    with Caller(model, version) as npu:
        whole = saved(npu.raw(), path)
        assert whole.result == 0
        held = npu.cached() if version != "1.2.0" else 0
    with Caller(model, version) as npu:
        npu.raw()
        assert npu.call("load_prompt_cache", path.encode()) == 0
        if version != "1.2.0":
            assert npu.cached() == whole.last.prefill_tokens
            assert npu.cached() < held  # the answer is not in it
        assert npu.call("load_prompt_cache", path.encode()) == -1  # not before a release
        assert npu.call("release_prompt_cache") == 0
        assert npu.call("release_prompt_cache") == -1
        assert npu.call("load_prompt_cache", model.encode()) == -1
        assert npu.call("load_prompt_cache", path.encode()) == 0
        more = npu.run(PROMPT + "more").last.prefill_tokens
        assert more == (None if version == "1.2.0" else 1)


def test_a_prompt_cache_is_written_when_the_run_has_ended(model: str, tmp_path: Path) -> None:
    path = tmp_path / "late.cache"
    seen: list[bool] = []

    def look(_piece: object, _results: object) -> int:
        seen.append(path.exists())
        return 0

    with Caller(model) as npu:
        npu.raw().on_piece = look
        run = saved(npu, str(path))
        assert run.result == 0
    assert seen == [False] * len(run.pieces)
    assert path.exists()


def test_where_a_prompt_cache_can_lie(model: str, tmp_path: Path) -> None:
    with Caller(model) as npu:
        assert saved(npu.raw(), "relative.cache").result == -1
        assert npu.call("load_prompt_cache", b"relative.cache") == -1
        assert saved(npu, str(tmp_path / "missing" / "x.cache")).result == -1


def test_a_prompt_cache_of_something_else_is_refused(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "system.cache")
    other = write_model(tmp_path / "other.rkllm", reply="else")
    with Caller(model, max_context_len=512) as npu:
        assert saved(npu.raw(), path).result == 0
    for name, version, context, complaint in (
        (other, "1.2.3", 512, "another model"),
        (model, "1.3.0", 512, "release 1.2.3"),
        (model, "1.2.3", 1024, "a context of 512"),
    ):
        with Caller(name, version, max_context_len=context) as npu:
            assert npu.call("load_prompt_cache", path.encode()) == -1
            assert npu.cached() == 0
        flush()
        assert complaint in capfd.readouterr().err


def test_the_prompt_cache_of_an_aborted_run_cannot_be_loaded(model: str, tmp_path: Path) -> None:
    path = str(tmp_path / "torn.cache")
    with Caller(model) as npu:
        npu.raw().on_piece = lambda _piece, _results: npu.call("abort") and 0
        run = saved(npu, path, PROMPT + directive(tokens=50, token_us=2000))
        assert run.result == 0
        assert len(run.given) < 50
        npu.on_piece = lambda _piece, _results: 0
        assert npu.call("load_prompt_cache", path.encode()) == -1
        assert saved(npu, path).result == 0
        assert npu.call("load_prompt_cache", path.encode()) == 0


def test_a_prompt_cache_is_as_large_as_its_tokens(tmp_path: Path) -> None:
    model, path = write_model(tmp_path / "m.rkllm", kv_bytes=4096), tmp_path / "big.cache"
    with Caller(model) as npu:
        run = saved(npu.raw(), str(path))
        tokens = run.last.prefill_tokens or 0
        assert tokens * 4096 < path.stat().st_size < tokens * 4096 + 1000
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert npu.call("load_prompt_cache", str(path).encode()) == -1


# --- faults in a reply ----------------------------------------------------------------------------

OPEN = "<|im_start|>user\n?{}<|im_end|>\n<|im_start|>assistant\n"
DOCUMENT = '{"name": "Zoë", "age": 31, "pets": ["cat", "dog"]}'


def _open_turn(**config: Any) -> str:
    return OPEN.format(directive(reply=DOCUMENT, **config))


def test_a_reply_goes_on_from_the_open_turn(model: str) -> None:
    with Caller(model) as npu:
        npu.raw()
        assert npu.run(_open_turn()).text == DOCUMENT
        assert (
            npu.run(_open_turn() + '{"name":"Zo').text == 'ë", "age": 31, "pets": ["cat", "dog"]}'
        )
        assert (
            npu.run(_open_turn() + '{"name": "Zoë", "age": 31,').text == ' "pets": ["cat", "dog"]}'
        )


def test_a_seed_has_its_faults(model: str) -> None:
    with Caller(model) as npu:
        npu.raw()
        answers = {npu.run(_open_turn(faults=30, seed=seed)).text for seed in range(20)}
        assert len(answers) > 10
        first = npu.run(_open_turn(faults=30, seed=3)).text
    with Caller(model) as npu:
        npu.raw()
        assert npu.run(_open_turn(faults=30, seed=3)).text == first != DOCUMENT


def test_all_can_be_wrong_or_nothing(model: str) -> None:
    with Caller(model) as npu:
        npu.raw()
        for seed in range(20):
            assert npu.run(_open_turn(faults=0, seed=seed)).text == DOCUMENT
            assert npu.run(_open_turn(faults=100, seed=seed)).text.startswith('{"nname"')
            wrong = npu.run(
                _open_turn(faults=100, seed=seed) + '{"name": "Zoë", "age": '
            ).text.lstrip()
            assert not wrong.startswith("31, ")


def test_a_value_is_right_when_it_was_tried_often_enough(model: str) -> None:
    prompt = _open_turn(faults=100, fault_tries=3, seed=1) + '{"name": "Zoë", "age": '
    with Caller(model) as npu:
        npu.raw()
        begins = [npu.run(prompt).text.lstrip().startswith("31, ") for _ in range(5)]
    assert begins == [False, False, True, True, True]


def test_it_goes_on_behind_a_value_that_is_another_one(model: str) -> None:
    with Caller(model) as npu:
        npu.raw()
        answer = npu.run(_open_turn(faults=1, seed=1) + '{"name": "Sure! Here')
        assert answer.text == '", "age": 31, "pets": ["cat", "dog"]}'
        answer = npu.run(_open_turn(faults=1, seed=1) + '{"name": "it is", "age": 4')
        assert answer.text == ', "pets": ["cat", "dog"]}'


def test_a_percentage_is_one(tmp_path: Path) -> None:
    for value in (-1, 101):
        path = write_model(tmp_path / "m.rkllm", faults=value)
        with Caller(path) as npu:
            assert npu.result == -1
