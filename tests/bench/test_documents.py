"""The documents on measuring: what they show is what the program prints of real measurements."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from rkllama.bench.cache.results import CacheReport
from rkllama.bench.report import markdown_head, markdown_row
from rkllama.bench.results import Report, read_report
from rkllama.bench.schema import schema_of
from tests import prepared
from tests.running import LIMIT

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FILES = sorted((DOCS / "results").glob("*.json"))
RENEW = "run: python tools/bench_pages.py"


def shown() -> str:
    """The example in the README."""
    (text,) = re.findall(
        r"<!-- bench -->\n```\n((?:.*\n)*?)```\n", (ROOT / "README.md").read_text()
    )
    return str(text)


def run(*arguments: str) -> str:
    done = prepared.run(
        [sys.executable, "-m", "rkllama", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=4 * LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.integration
def test_the_readme_shows_a_measurement_that_was_kept() -> None:
    example = DOCS / "results" / "x86-64-smollm2-135m.json"
    assert shown() == run(str(example)), RENEW
    assert all(len(line) <= 80 for line in shown().splitlines())


def form(text: str) -> list[str]:
    """The lines of a table of results, and the first words of the sentences below it, without figures."""
    table = [line for line in text.splitlines() if re.match(r"PROMPT | +\d+ +(cold|warm) ", line)]
    # A spread is there where three answers were long enough.
    masked = [re.sub(r" +>?[\d.]+%", "", line) for line in table]
    masked = [re.sub(r"\d[\d.]*( ms| s)?|(?<= )-(?= )", "0", line) for line in masked]
    sentences = re.findall(r"(?m)^(?:Load|Medians of)\b", text)
    return [" ".join(line.split()) for line in masked[:3]] + sentences


@pytest.mark.integration
def test_the_readme_shows_what_is_printed_today() -> None:
    assert form(shown()) == form(run("guide", "--quick", "--rounds", "3"))


def test_the_results_page_has_a_row_for_each_file() -> None:
    expected = markdown_head() + "".join(markdown_row(read_report(str(file))) for file in FILES)
    page = (DOCS / "results.md").read_text()
    assert "".join(re.findall(r"(?m)^\|.*\n", page)) == expected, RENEW
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_only_whole_measurements_are_published(file: Path) -> None:
    report = read_report(str(file))
    assert report.complete
    assert report.rounds >= 5
    assert not report.failures
    assert report.board is not None
    assert report.model.digest is not None


def test_the_schema_in_the_documents_is_the_programs() -> None:
    documented = json.loads((DOCS / "bench.schema.json").read_text())
    assert documented == schema_of(Report | CacheReport), RENEW


def names(kind: Any) -> set[str]:
    """The names of all fields of a dataclass and those in it."""
    found: set[str] = set()
    for field in fields(kind):
        found.add(field.name)
        for part in parts(get_type_hints(kind)[field.name]):
            found |= names(part)
    return found


def parts(hint: Any) -> set[Any]:
    inner = {part for one in get_args(hint) for part in parts(one)}
    return inner | ({hint} if is_dataclass(hint) else set())


def test_every_key_is_documented() -> None:
    text = (DOCS / "bench.md").read_text()
    documented = set(re.findall(r"`(\w+)`", text.partition("## The JSON")[2]))
    assert names(Report) | names(CacheReport) <= documented
