"""From runs to medians: what counts, and what is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rkllama.bench.plan import Plan, make_plan
from rkllama.bench.results import Speeds, Stat
from rkllama.bench.summary import evaluated, size_results, spread_of, stat_of
from tests.bench.reports import make_test_run


def speeds(*runs: object, **values: object) -> tuple[Speeds | None, Speeds | None]:
    (result,) = size_results(Plan(sizes=(128,)), runs, {})  # type: ignore[arg-type]
    return result.cold, result.warm


def test_medians_and_quartiles() -> None:
    assert stat_of([5.0, 1.0, None, 2.0, 4.0, 3.0]) == Stat(
        count=5, median=3.0, q1=2.0, q3=4.0, min=1.0, max=5.0
    )
    assert stat_of([7.0]) == Stat(count=1, median=7.0, q1=7.0, q3=7.0, min=7.0, max=7.0)
    assert stat_of([None]) is None
    assert stat_of([]) is None


def test_one_slow_round_moves_neither_median_nor_spread() -> None:
    quiet, disturbed = stat_of([10, 10.1, 10.2, 10.3, 10.4]), stat_of([10, 10.1, 10.2, 10.3, 90])
    assert quiet is not None
    assert disturbed is not None
    assert quiet.median == disturbed.median
    assert spread_of(quiet) == pytest.approx(spread_of(disturbed)) == pytest.approx(0.2 / 10.2)


def test_two_figures_have_no_spread() -> None:
    stat = stat_of([1.0, 2.0])
    assert stat is not None
    assert spread_of(stat) is None


def test_rates_are_what_was_evaluated_by_the_time() -> None:
    cold, warm = speeds(
        make_test_run(prompt_tokens=129, cached_tokens=1, runtime_prompt_seconds=1.0),
        make_test_run(cache="warm", first_token_seconds=0.05),
    )
    assert cold is not None
    assert warm is not None
    assert cold.runtime_prompt_rate is not None
    assert cold.runtime_prompt_rate.median == 128.0
    assert cold.prompt_rate is not None
    assert cold.prompt_rate.median == pytest.approx(100.0)
    assert cold.runtime_answer_rate is not None
    assert cold.runtime_answer_rate.median == pytest.approx(10.0)
    # The client counts the 63 tokens after the first, and their time.
    assert cold.answer_rate is not None
    assert cold.answer_rate.median == pytest.approx(10.0)
    assert warm.first_token_seconds is not None
    assert warm.first_token_seconds.median == 0.05
    assert warm.cached_tokens == 127
    assert warm.prompt_rate is None, "one token is no speed"
    assert warm.runtime_prompt_rate is None


def test_what_the_runtime_does_not_report_is_not_known() -> None:
    cold, _ = speeds(make_test_run(runtime_prompt_seconds=None, runtime_answer_seconds=None))
    assert cold is not None
    assert cold.runtime_prompt_rate is None
    assert cold.runtime_answer_rate is None
    assert cold.prompt_rate is not None
    blind, _ = speeds(make_test_run(prompt_tokens=None, cached_tokens=None, answer_tokens=None))
    assert blind is not None
    assert (blind.prompt_rate, blind.runtime_prompt_rate, blind.answer_rate) == (None, None, None)
    assert blind.first_token_seconds is not None
    assert evaluated(make_test_run(prompt_tokens=None)) is None


def test_only_runs_that_count_are_in_it() -> None:
    good = make_test_run()
    short = make_test_run(answer_tokens=3, answer_counts=False, runtime_answer_seconds=0.1)
    cold, _ = speeds(good, short)
    assert cold is not None
    assert cold.first_token_seconds is not None
    assert cold.first_token_seconds.count == 2
    assert cold.runtime_answer_rate is not None
    assert cold.runtime_answer_rate.count == 1
    spoilt = replace(good, prompt_counts=False, answer_counts=False)
    assert speeds(spoilt) == (None, None)


def test_energy_is_told_where_it_was_measured() -> None:
    cold, _ = speeds(
        make_test_run(prompt_joules=64.0, answer_joules=320.0), make_test_run(number=2)
    )
    assert cold is not None
    assert cold.prompt_joules_per_token == stat_of([0.5])
    assert cold.answer_joules_per_token == stat_of([5.0])


def test_plans() -> None:
    assert make_plan(quick=False, rounds=None, context_length=None) == Plan()
    quick = make_plan(quick=True, rounds=None, context_length=None)
    assert (quick.sizes, quick.rounds) == ((128, 512), 3)
    assert make_plan(quick=True, rounds=9, context_length=1024).rounds == 9
    plan = Plan()
    assert plan.obstacle(2048, 4096) is None
    assert plan.obstacle(2048, None) is None
    assert plan.obstacle(2048, 2048 + 64) is not None
    assert "2048 tokens in and 64 out do not fit into its context of 1024" in str(
        plan.obstacle(2048, 1024)
    )
