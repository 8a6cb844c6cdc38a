"""That a test of many cases fails with any of them, and says which."""

from __future__ import annotations

import pytest

from tests.cases import cases


def test_a_failure_names_the_cases_and_shows_the_first() -> None:
    tried = []

    @cases("number, word", [(1, "one"), pytest.param(2, "two", id="second"), (3, "three")])
    @cases("flag", [True, False], ids=["yes", "no"])
    def check(number: int, word: str, flag: bool) -> None:
        tried.append((number, word, flag))
        assert number == 1 or flag, "wrong"

    with pytest.raises(AssertionError) as failure:
        check()  # type: ignore[call-arg]
    assert str(failure.value) == "2 of 3 cases:\n  second\n  (3, 'three')"
    assert str(failure.value.__cause__) == "1 of 2 cases:\n  no"
    assert "wrong" in str(failure.value.__cause__.__cause__)  # type: ignore[union-attr]
    assert len(tried) == 6


def test_what_pytest_itself_calls_a_failure_is_one() -> None:
    @cases("number", [1])
    def check(number: int) -> None:
        pytest.fail("no")

    with pytest.raises(AssertionError, match="1 of 1 cases"):
        check()  # type: ignore[call-arg]


def test_no_case_at_all_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="no case"):
        cases("number", [])


@cases("number", [1, 2])
def test_fixtures_come_beside_the_cases(tmp_path: object, number: int) -> None:
    assert tmp_path
    assert number
