"""Reports in words: everything fits 80 columns, and says what it does not know."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rkllama.bench.compare import differences, ratios
from rkllama.bench.plan import Plan
from rkllama.bench.report import (
    DIFFERENCE_HEAD,
    RATIO_HEAD,
    below,
    difference_rows,
    heading,
    markdown_head,
    markdown_row,
    ratio_rows,
    rows,
    seconds,
    significant,
)
from rkllama.bench.results import Report
from rkllama.bench.summary import size_results, stat_of
from rkllama.console.output import table
from tests.bench.reports import BOARD, CACHES, FAILURE, POWER, make_report, make_test_run


def lines(report: Report) -> list[str]:
    head, *cells = rows(report)
    return table(head, cells).splitlines()


def test_the_table() -> None:
    runs = tuple(
        make_test_run(number, size, cache, runtime_answer_seconds=6.4 + 0.064 * number)
        for number in (1, 2, 3)
        for size in (128, 2048)
        for cache in CACHES
    )
    sizes = size_results(Plan(sizes=(128, 2048)), runs, {})
    assert lines(make_report(runs=runs, sizes=sizes)) == [
        "PROMPT  CACHE     FIRST TOKEN  PROMPT tokens/s  ANSWER tokens/s  OUT",
        "   128  cold    1.28 s   0.0%     100.0   0.0%      9.80   1.0%   64",
        "   128  warm    1.28 s   0.0%                -      9.80   1.0%   64",
        "  2048  cold   20.48 s   0.0%     100.0   0.0%      9.80   1.0%   64",
        "  2048  warm   20.48 s   0.0%                -      9.80   1.0%   64",
    ]


def test_what_stands_above_and_below_it() -> None:
    report = make_report()
    assert heading(report) == (
        "qwen, w8a8, 1.7 GB\n"
        "librkllmrt 1.2.3, 4 CPUs, context 4096, RKLLama 1.0.0\n"
        "Orange Pi 5 Plus, RK3588, 6.1.84\n"
    )
    assert [*below(report)] == [
        "Load 2.10 s 4.8%, the first 3.50 s, peak memory 500 MB, as the runtime reports 1.9 GB.",
        (
            "At the end: npu 1000 MHz (rknpu_ondemand), cpu0-3 1800 MHz (performance), "
            "hottest sensor 48 °C."
        ),
        "Medians of 3 rounds, each with its interquartile range. Tokens/s as the runtime reports.",
    ]


def test_what_is_not_known_is_not_told() -> None:
    run = make_test_run(
        prompt_tokens=None,
        cached_tokens=None,
        runtime_answer_seconds=None,
        runtime_prompt_seconds=None,
    )
    report = make_report(runs=(run,), board=None, rounds=1)
    assert lines(report)[1].split() == ["~128", "cold", "1.28", "s", "-", "10.00", "64"]
    told = "\n".join(below(report))
    assert "as the client sees it" in told
    assert "What is reused of a prompt is not reported here" in told
    assert "At the end" not in told
    assert "None" not in heading(report) + told


def test_what_went_wrong_is_told() -> None:
    early = make_test_run(
        answer_tokens=3, answer_counts=False, remark="its answer ended after 3 tokens"
    )
    waited = make_test_run(
        prompt_counts=False, answer_counts=False, remark="it waited for another request"
    )
    report = make_report(runs=(early, waited), failures=(FAILURE,), complete=False)
    told = [*below(report)]
    assert "Not counted: 1 of 2 runs (its answer ended early)." in told
    assert "Not counted: 1 of 2 runs (it waited for another request)." in told
    assert "Round 2, 512 tokens, cold, failed: it crashed" in told
    assert "Interrupted: this is what had been measured." in told


def test_a_size_that_was_left_out() -> None:
    plan = Plan(sizes=(128, 2048))
    skipped = {2048: plan.obstacle(2048, 1024) or ""}
    report = make_report(sizes=size_results(plan, (make_test_run(),), skipped))
    assert len(lines(report)) == 2
    assert "Left out: 2048 tokens in and 64 out do not fit into its context of 1024." in below(
        report
    )


def test_energy() -> None:
    report = make_report(
        runs=(make_test_run(prompt_joules=64.0, answer_joules=320.0),), power=POWER
    )
    told = [*below(report)]
    assert "Energy per token, 128 in: prompt 0.500 J, answer 5.00 J" in told
    assert "Measured by a plug." in told
    too_short = [*below(make_report(power=POWER))]
    assert "Energy: the runs were too short for this power meter." in too_short


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.012"), (0.5, "0.500"), (68.314, "68.31"), (310.23, "310.2"), (2761.4, "2761")],
)
def test_figures_have_as_many_digits_as_mean_something(value: float, text: str) -> None:
    assert significant(value) == text


def test_times_have_the_unit_that_fits() -> None:
    assert seconds(0.00686) == "6.86 ms"
    assert seconds(0.4512) == "451.2 ms"
    assert seconds(12.5) == "12.50 s"


def test_long_names_do_not_widen_the_table() -> None:
    long = make_report(board=replace(BOARD, board="x" * 200))
    assert all(len(line) <= 80 for line in (*heading(long).splitlines(), *lines(long)))


# --- Comparisons -------------------------------------------------------------------------------


def faster(factor: float, spread: float = 0.0) -> Report:
    """A report whose answers are so many times as fast as the usual one's."""
    runs = tuple(
        make_test_run(number, runtime_answer_seconds=6.4 / factor * (1 + spread * (number - 2)))
        for number in (1, 2, 3)
    )
    return make_report(runs=runs)


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (faster(1.5), "faster"),
        (faster(0.5), "slower"),
        (faster(1.0), "within the spread"),
        (faster(1.02, spread=0.05), "within the spread"),
        (faster(1.2, spread=0.05), "faster"),
        (faster(1.02), "less than 3 %"),
        (faster(0.98), "less than 3 %"),
        (make_report(runs=(make_test_run(runtime_answer_seconds=3.2),)), "spread not known"),
    ],
)
def test_a_difference_below_the_spread_is_none(now: Report, verdict: str) -> None:
    found = {one.name: one for one in ratios(make_report(), now)}
    assert found["128 answer"].verdict == verdict


def test_shorter_times_are_faster() -> None:
    then = make_report()
    now = replace(then, load=replace(then.load, seconds=stat_of((1.0, 1.0, 1.0))))
    load = next(ratios(then, now))
    assert (load.name, load.verdict) == ("load", "faster")
    assert load.value == pytest.approx(1 / 2.1)


def test_different_clocks_are_not_compared() -> None:
    old = make_report(runs=tuple(make_test_run(n, runtime_answer_seconds=None) for n in (1, 2, 3)))
    found = {one.name: one for one in ratios(old, faster(2.0))}
    # The runtime says it is twice as fast, the client's clock says otherwise: only that both have.
    assert found["128 answer"].value == pytest.approx(1.0)


def test_what_only_one_has_is_left_out() -> None:
    small = make_report(runs=(make_test_run(),))
    names = [one.name for one in ratios(small, make_report())]
    assert "128 prompt" in names
    assert not any("512" in name or "warm" in name for name in names)


def test_the_facts_that_differ() -> None:
    then = make_report()
    other = replace(BOARD.after, clocks=(replace(BOARD.after.clocks[0], governor="performance"),))
    now = replace(
        then,
        runtime=replace(then.runtime, runtime="librkllmrt 1.3.0"),
        board=replace(BOARD, npu_driver=None, after=other, hottest=71.0),
        model=replace(then.model, digest=None),
    )
    found = {one.name: (one.then, one.now) for one in differences(then, now)}
    assert found == {
        "sha256": ("abababababab", "not known"),
        "runtime": ("librkllmrt 1.2.3", "librkllmrt 1.3.0"),
        "npu driver": ("0.9.8", "not known"),
        "npu governor": ("rknpu_ondemand", "performance"),
        "cpu0-3 governor": ("performance", "not known"),
        "cpu0-3 MHz at most": ("1800", "not known"),
        "hottest": ("48 °C", "71 °C"),
    }
    assert [*differences(then, then)] == []


def test_comparisons_fit_the_terminal() -> None:
    then = make_report()
    now = replace(then, model=replace(then.model, name="a-very-long-name-of-a-model" * 3))
    head, *cells = ratio_rows([*ratios(then, now)])
    assert [cell.strip() for cell in head] == [*RATIO_HEAD]
    facts, *others = difference_rows([*differences(then, now)])
    assert facts == DIFFERENCE_HEAD
    for text in (table(head, cells), table(facts, others)):
        assert all(len(line) <= 80 for line in text.splitlines())


# --- Markdown ----------------------------------------------------------------------------------


def test_a_row_for_the_results_page() -> None:
    head, rule = markdown_head().splitlines()
    row = markdown_row(make_report(board=replace(BOARD, board="a|b"))).rstrip("\n")
    assert head.count("|") == rule.count("|") == row.count("|")
    assert row == (
        "| a/b, RK3588 | 6.1.84, rknpu 0.9.8 | qwen, w8a8 | librkllmrt 1.2.3, 4 CPUs, context 4096 "
        "| 128<br>512 | 100.0<br>100.0 | 1.28 s / 1.28 s<br>5.12 s / 5.12 s | 10.00<br>10.00 | 2.10 s "
        "| 500 MB | 1.0.0, 2026-11-28 |"
    )
    assert markdown_row(make_report(runs=(), board=None)).count("| - ") >= 5
