"""Regular expressions as automata, beside Python's."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllama.schema.regex.automata import Spot, compile_pattern, intersection, matches
from rkllama.schema.regex.formats import FORMATS, format_automaton, has_format
from rkllama.schema.regex.patterns import PatternError
from tests.cases import cases
from tests.fuzzing import examples

_ATOMS = ("a", "b", ".", "1", "\\d", "\\w", "\\s", "[ab]", "[^a]", "[a-b1]", "\\S", "[^\\d]")
_SEEDS = st.integers(0, 2**32)
_TEXTS = st.text(alphabet="ab1 -\n", max_size=8)


def _pattern(rng: random.Random, depth: int = 3) -> str:
    kind = rng.randrange(9 if depth else 4)
    if kind < 3:
        return rng.choice(
            ["a", "b", ".", "1", "\\d", "\\w", "\\s", "[ab]", "[^a]", "[a-b1]", "\\S", "[^\\d]"]
        )
    if kind == 3:
        return rng.choice(["^", "$", ""])
    if kind == 4:
        return f"(?:{_pattern(rng, depth - 1)}|{_pattern(rng, depth - 1)})"
    if kind == 5:
        inner = _pattern(rng, depth - 1)
        return f"(?:{inner}){rng.choice(['*', '+', '?', '{2}', '{1,2}', '{0,}', '*?'])}"
    return _pattern(rng, depth - 1) + _pattern(rng, depth - 1)


@settings(max_examples=examples(2))
@given(_SEEDS, st.lists(_TEXTS, max_size=8))
def test_an_automaton_matches_what_python_does(seed: int, texts: list[str]) -> None:
    rng = random.Random(seed)
    pattern = _pattern(rng)
    spot = compile_pattern(pattern)
    # Python's $ matches before a line's end, too.
    expected = re.compile(pattern.replace("$", "\\Z"), re.ASCII)
    for text in texts:
        assert matches(spot, text) == bool(expected.search(text)), (pattern, text)


@settings(max_examples=examples(1))
@given(_SEEDS, st.lists(_TEXTS, max_size=8))
def test_an_intersection_has_the_texts_of_both(seed: int, texts: list[str]) -> None:
    rng = random.Random(seed)
    first, second = compile_pattern(_pattern(rng)), compile_pattern(_pattern(rng))
    if first is None or second is None:
        return
    both, _ = intersection(first, second, 1_000)
    for text in texts:
        assert matches(both, text) == (matches(first, text) and matches(second, text))


@settings(max_examples=examples(1))
@given(_SEEDS)
def test_no_spot_is_a_dead_end(seed: int) -> None:
    rng = random.Random(seed)
    spot = compile_pattern(_pattern(rng))
    for _ in range(6):
        if spot is None or not (edges := spot.edges()):
            break
        spot = edges[rng.randrange(len(edges))][2]
        _assert_shortest(spot)


def _assert_shortest(spot: Spot) -> None:
    """The number of characters to an end is right, so there is one."""
    left = spot.shortest
    assert spot.longest >= left
    while left:
        spot = min((edge[2] for edge in spot.edges()), key=lambda each: each.shortest)
        left -= 1
        assert spot.shortest == left
    assert spot.accepting


@cases(
    "pattern",
    [
        *("(", ")", "a)", "[", "[]", "[^]", "*", "a**", "^*", "a{2,1}", "a{,3}", "(?=a)", "(?!a)"),
        *("(?<=a)", "(?i)a", "\\1", "\\b", "\\p{L}", "\\A", "\\Z", "[b-a]", "[a-\\d]", "a\\"),
        *("\\ud800", "\\u{110000}", "x" * 20_000),
    ],
    ids=lambda pattern: pattern[:20],
)
def test_what_is_not_understood_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        compile_pattern(pattern)


def test_classes_hold_what_all_engines_agree_on() -> None:
    arabic = "٣"
    for pattern in ("^\\d$", "^\\D$", "^[^\\d]$", "^\\w$", "^\\W$"):
        assert not matches(compile_pattern(pattern), arabic)
    assert matches(compile_pattern("^[^\\D]$"), "3")
    assert matches(compile_pattern("^\\D$"), "é")
    assert matches(compile_pattern("^\\S$"), "日")
    assert not matches(compile_pattern("^\\S$"), "\ufeff")


def test_an_automaton_tells_how_far_it_is() -> None:
    spot = compile_pattern("^ab{2,5}c?$")
    assert spot is not None
    assert (spot.shortest, spot.longest) == (3, 7)
    endless = compile_pattern("^a+$")
    assert endless is not None
    assert (endless.shortest, endless.longest) == (1, float("inf"))
    assert compile_pattern("a^b") is None


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_s_automaton_is_small_enough(name: str) -> None:
    spot = format_automaton(name)
    assert spot is not None
    assert not has_format("", name)


def test_other_formats_say_nothing() -> None:
    assert has_format("anything", "colour")
    assert has_format("", "hostname")
