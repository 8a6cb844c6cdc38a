"""What follows from measured states, and the words for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rkllama.bench.cache.report import below, heading, rows, verdict
from rkllama.bench.cache.results import CacheReport, DiskFacts, Sound, StateResult, read_any
from rkllama.bench.cache.verdict import Point, break_even, expected_bytes, judge, soundness
from rkllama.bench.results import Report
from rkllama.bench.schema import schema_of, to_json
from rkllama.bench.summary import stat_of
from rkllama.console.output import table
from rkllama.errors import InvalidRequest
from rkllama.states.policy import Speeds
from rkllama.types import ModelInfo
from tests.bench.reports import make_report

SPEEDS = Speeds(read=400e6, write=100e6)
KIB = 1024


def make_state(size: int = 2048, **values: Any) -> StateResult:
    """A state of 112 KiB and 4 ms per token, which is read at 400 MB/s."""
    loaded = 0.1 + size * 112 * KIB / 400e6
    result = StateResult(
        size=size,
        skipped=None,
        failed=False,
        state_tokens=size,
        state_bytes=size * 112 * KIB,
        prompt_tokens=size + 40,
        cold_evaluated=size + 40,
        loaded_evaluated=40,
        loaded_reused=size,
        prefill_seconds=stat_of((0.004,)),
        plain_seconds=stat_of((size * 0.004 + 1,)),
        saving_seconds=stat_of((size * 0.004 + 1.2,)),
        sync_seconds=stat_of((2.3,)),
        check_seconds=stat_of((0.5,)),
        load_seconds=stat_of((0.08,)),
        cold_seconds=stat_of(((size + 40) * 0.004,)),
        loaded_seconds=stat_of((loaded + 0.16,)),
        answers=3,
        same_answers=3,
        cold_repeats=None,
    )
    return replace(result, **values)


def make_cache_report(*sizes: StateResult, speeds: Speeds = SPEEDS, **values: Any) -> CacheReport:
    other = make_report()
    states = sizes or (make_state(512), make_state(2048))
    report = CacheReport(
        created=other.created,
        complete=True,
        rounds=3,
        model=other.model,
        runtime=other.runtime,
        board=other.board,
        disk=DiskFacts(read=speeds.read, write=speeds.write, written=880_000_000),
        sizes=states,
        verdict=judge(states, speeds, 28 << 10),
        failures=(),
        notes=(),
    )
    return replace(report, **values)


# --- What follows ------------------------------------------------------------------------------


def test_sound_states_on_a_fast_disk_are_kept() -> None:
    found = judge((make_state(512), make_state(2048)), SPEEDS, 28 << 10)
    assert (found.sound, found.used, found.figures_agree, found.fast_enough) == ("yes", *[True] * 3)
    assert found.keep
    assert found.bytes_per_token == 112 * KIB
    assert found.prefill_seconds == 0.004
    # 4 ms to evaluate a token; 0.287 ms to load one, and 0.2485 s besides.
    assert found.from_tokens == 67
    # A quarter of the tokens that are evaluated while 235 MB are written at 100 MB/s.
    assert found.again_after == 147


@pytest.mark.parametrize(
    ("points", "tokens"),
    [
        ([], None),
        ([Point(1000, 4.0, 1.0)], 250),
        ([Point(1000, 4.0, 4.5)], 1125),
        ([Point(1000, 4.0, 9.0)], None),
        ([Point(500, 2.0, 0.5), Point(2000, 8.0, 0.5)], 125),
        ([Point(500, 2.0, 2.5), Point(2000, 8.0, 4.0)], 667),
        ([Point(500, 2.0, 0.1), Point(2000, 8.0, 0.1)], 25),
        ([Point(500, 2.0, 1.0), Point(2000, 8.0, 7.5)], 16),
        ([Point(500, 2.0, 3.0), Point(2000, 8.0, 9.0)], None),
        ([Point(500, 2.0, 1.0), Point(2000, 8.0, 2.0)], 200),
        ([Point(500, 2.0, 0.0), Point(2000, 8.0, 0.0)], 16),
    ],
)
def test_from_how_many_tokens_on_it_pays(points: list[Point], tokens: int | None) -> None:
    assert break_even(points) == tokens


@pytest.mark.parametrize(
    ("changes", "sound", "keep"),
    [
        ({}, "yes", True),
        ({"same_answers": 2, "cold_repeats": True}, "no", False),
        ({"same_answers": 2, "cold_repeats": False}, "unclear", None),
        ({"same_answers": 2}, "unclear", None),
        ({"answers": 0, "same_answers": 0}, "not measured", None),
        ({"loaded_reused": 2045}, "yes", False),
        ({"loaded_reused": 2046}, "yes", True),
        ({"failed": True}, "yes", False),
        ({"loaded_seconds": None}, "yes", None),
        ({"loaded_seconds": stat_of((99.0,))}, "yes", False),
    ],
)
def test_what_is_kept(changes: dict[str, Any], sound: Sound, keep: bool | None) -> None:
    states = (make_state(2048, **changes),)
    found = judge(states, SPEEDS, None)
    assert (found.sound, found.keep) == (sound, keep)
    assert soundness(states) == sound


@pytest.mark.parametrize("speeds", [Speeds(50e6, 1e9), Speeds(1e9, 20e6)])
def test_a_slow_disk_is_as_the_engine_judges_it(speeds: Speeds) -> None:
    found = judge((make_state(),), speeds, None)
    assert (found.fast_enough, found.keep) == (False, False)


def test_figures_that_do_not_add_up() -> None:
    assert judge((make_state(loaded_evaluated=43),), SPEEDS, None).figures_agree is False
    assert judge((make_state(loaded_reused=None),), SPEEDS, None).figures_agree is None


def test_nothing_measured_is_nothing_known() -> None:
    empty: dict[str, Any] = dict.fromkeys(StateResult.__slots__)
    nothing = make_state(
        **{**empty, "size": 512, "skipped": "no", "failed": False, "answers": 0, "same_answers": 0}
    )
    found = judge((nothing,), SPEEDS, None)
    assert found.keep is None
    assert (found.fast_enough, found.used, found.from_tokens, found.bytes_per_token) == (None,) * 4


def test_what_others_report_of_a_model() -> None:
    def expected(family: str | None, size: str | None) -> int | None:
        info = ModelInfo(
            name="m",
            file="m",
            path="m",
            format="rkllm",
            size=1,
            modified=0,
            family=family,
            parameter_size=size,
        )
        return expected_bytes(info)

    assert expected("qwen2.5", "1.5B") == 28 * KIB
    assert expected("qwen3", "1.7B") == 112 * KIB
    assert expected("qwen3", None) is None
    assert expected(None, "1.7B") is None


# --- In words ----------------------------------------------------------------------------------


def test_the_table() -> None:
    head, *cells = rows(make_cache_report())
    assert table(head, cells).splitlines() == [
        "PROMPT    FILE   EVALUATED    COLD    LOADED     SAVING  ANSWER",
        "   512   59 MB   40 of 552  2.21 s  406.8 ms  +200.0 ms  the same",
        "  2048  235 MB  40 of 2088  8.35 s  847.2 ms  +200.0 ms  the same",
    ]
    assert heading(make_cache_report()).startswith("qwen, w8a8, 1.7 GB\n")


def test_the_sentences() -> None:
    report = make_cache_report()
    assert [*below(report)][1:] == [
        "A token of the prompt takes 4.00 ms to evaluate.",
        "It takes 112.0 KiB in a file (expected: 28.00 KiB).",
        "Disk: reads 400 MB/s, writes 100 MB/s; 880 MB were written.",
        (
            "The longest state: on the disk 2.30 s after its run, read and checked in 500.0 ms, loaded in "
            "80.00 ms."
        ),
        "The length of the KV cache agrees with the tokens of the prompt after a load.",
    ]
    assert [*verdict(report)] == [
        "With the loaded state the model answered the same as without it.",
        (
            "Conversations on disk pay off from 67 tokens on, and are written again when they are 147 "
            "tokens longer."
        ),
        "Nothing has to be done: RKLLama keeps conversations by itself.",
    ]


OFF = "`rkllama config set state_budget 0` switches them off."


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"same_answers": 2, "cold_repeats": True}, "Such states spoil answers."),
        ({"failed": True}, "The runtime failed when it saved a state"),
        ({"loaded_reused": 0}, "The runtime did not use the whole of what it had loaded."),
        ({"loaded_seconds": stat_of((99.0,))}, "Loading a state took longer than evaluating"),
    ],
)
def test_what_to_do_otherwise(changes: dict[str, Any], first: str) -> None:
    sentences = [*verdict(make_cache_report(make_state(**changes)))]
    assert first in " ".join(sentences)
    assert sentences[-1] == f"Conversations on disk are of no use here: {OFF}"
    if changes.keys() & {"cold_repeats", "failed", "loaded_reused"}:
        assert not any("pay off" in sentence for sentence in sentences)


def test_what_is_not_known_is_said() -> None:
    report = make_cache_report(make_state(same_answers=0, cold_repeats=False))
    assert "that shows nothing" in next(verdict(report))
    assert [*verdict(report)][-1] == f"Whether conversations should be kept is not known. {OFF}"
    slow = make_cache_report(speeds=Speeds(50e6, 1e9))
    assert "The disk is too slow for this model" in " ".join(verdict(slow))
    report = make_cache_report(
        make_state(skipped="there is no room"), complete=False, failures=("It broke.",)
    )
    assert [*below(report)][-3:] == [
        "Left out: there is no room.",
        "It broke.",
        "Interrupted: this is what had been measured.",
    ]


# --- As JSON -----------------------------------------------------------------------------------


def test_json_and_back(tmp_path: Path) -> None:
    report = make_cache_report()
    values = to_json(report)
    jsonschema.Draft202012Validator(schema_of(Report | CacheReport)).validate(values)
    file = tmp_path / "cache.json"
    file.write_text(json.dumps(values))
    assert read_any(str(file)) == report
    file.write_text(json.dumps(to_json(make_report())))
    assert read_any(str(file)) == make_report()
    file.write_text(json.dumps({**values, "version": 2}))
    with pytest.raises(InvalidRequest, match="later release"):
        read_any(str(file))
    del values["verdict"]["keep"]
    file.write_text(json.dumps(values))
    with pytest.raises(InvalidRequest, match=r"verdict\.keep is missing"):
        read_any(str(file))
