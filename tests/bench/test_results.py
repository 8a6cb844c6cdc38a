"""What `--json` prints and `--compare` reads: one form both ways, which its schema describes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllama.bench.results import VERSION, Report, Run, Stat, read_report
from rkllama.bench.schema import Mismatch, from_json, schema_of, to_json
from rkllama.errors import InvalidRequest
from tests.bench.reports import FAILURE, POWER, make_report, make_test_run
from tests.cases import cases
from tests.waiting import Task

SCHEMA = schema_of(Report)
FULL = make_report(
    power=POWER, failures=(FAILURE,), notes=("The board is hot: soc-thermal has 85 °C.",)
)


def as_read(report: Report) -> Any:
    return json.loads(json.dumps(to_json(report)))


@pytest.mark.parametrize(
    "report", [FULL, make_report(runs=()), make_report(board=None, complete=False)]
)
def test_a_report_is_read_as_it_was_written(report: Report) -> None:
    values = as_read(report)
    jsonschema.Draft202012Validator(SCHEMA).validate(values)
    assert from_json(Report, values) == report


@given(st.builds(make_test_run, number=st.integers(1, 100), size=st.integers(1, 1 << 20)))
def test_every_run_goes_both_ways(run: Run) -> None:
    assert from_json(Run, to_json(run)) == run


def test_the_schema_is_a_valid_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def changed(path: str, value: Any) -> Any:
    """The full report with another value at "board.before.clocks.0.name"."""
    values = as_read(FULL)
    place: Any = values
    *way, last = path.split(".")
    for key in way:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if value is ...:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return values


@cases(
    ("path", "value"),
    [
        ("created", 5),
        ("created", ...),
        ("complete", "yes"),
        ("rounds", 3.5),
        ("rounds", True),
        ("board.before", None),
        ("board.before.clocks.0.current", "fast"),
        ("board.before.temperatures", {}),
        ("runtime.through", "ether"),
        ("load.seconds.median", "2"),
        ("load.seconds.count", ...),
        ("runs.0", []),
        ("runs.0.cache", "lukewarm"),
        ("sizes", None),
        ("notes.0", 1),
    ],
)
def test_what_does_not_fit_is_refused_by_both(path: str, value: Any) -> None:
    values = changed(path, value)
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(values)
    with pytest.raises(Mismatch) as caught:
        from_json(Report, values)
    assert re.sub(r"\.(\d+)", r"[\1]", path) in str(caught.value)


def test_infinities_are_not_figures() -> None:
    values = to_json(Stat(count=1, median=1.0, q1=1.0, q3=1.0, min=1.0, max=1.0))
    with pytest.raises(Mismatch, match="median is not a finite number"):
        from_json(Stat, {**values, "median": float("inf")})


def test_what_a_later_release_adds_is_passed_over() -> None:
    values = as_read(FULL)
    values["weather"] = values["board"]["weather"] = "sunny"
    assert from_json(Report, values) == FULL


def test_every_key_is_there_whether_known_or_not() -> None:
    values = as_read(make_report(board=None, power=None))
    assert values.keys() == {field.name for field in fields(Report)}
    assert values["board"] is None


# --- Files -------------------------------------------------------------------------------------


def write(directory: Path, text: str) -> str:
    path = directory / "results.json"
    path.write_text(text)
    return str(path)


def test_a_file_is_read(tmp_path: Path) -> None:
    assert read_report(write(tmp_path, json.dumps(to_json(FULL)))) == FULL


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda _: "tokens: 5", "it is not JSON"),
        (lambda _: "[" * 100_000, "it is not JSON"),
        (lambda _: "[]", "not what `rkllama bench --json` prints"),
        (lambda _: '{"format": "other"}', "not what `rkllama bench --json` prints"),
        (lambda v: json.dumps({**v, "version": VERSION + 1}), "a later release"),
        (lambda v: json.dumps({**v, "version": None}), "a later release"),
        (lambda v: json.dumps({**v, "runs": [{}]}), r"runs\[0\].round is missing"),
    ],
)
def test_other_files_are_refused(
    content: Callable[[Any], str], reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path, content(as_read(FULL)))
    with pytest.raises(InvalidRequest, match=reason) as caught:
        read_report(path)
    assert path in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"nowhere\.json cannot be used: No such file"):
        read_report(str(tmp_path / "nowhere.json"))


def test_the_version_is_that_of_what_is_written() -> None:
    assert replace(FULL).version == VERSION == as_read(FULL)["version"]


@pytest.mark.parametrize("number", [10**400, -(10**400), 10**4000])
@pytest.mark.parametrize("place", [("load", "seconds", "median"), ("model", "size")])
def test_a_number_that_no_report_has(number: int, place: tuple[str, ...], tmp_path: Path) -> None:
    values = as_read(FULL)
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = number
    (tmp_path / "then.json").write_text(json.dumps(values))
    with pytest.raises(InvalidRequest, match=r"\.(median|size) is "):
        read_report(str(tmp_path / "then.json"))


def test_a_pipe_is_no_report(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "then.json")
    with pytest.raises(InvalidRequest, match="not a file"):
        Task(lambda: read_report(str(tmp_path / "then.json"))).result()
