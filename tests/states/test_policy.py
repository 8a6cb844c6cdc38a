"""Where a token surely ends, and when a state is worth its bytes."""

from __future__ import annotations

from rkllama.states.policy import (
    FIRST_TOKENS,
    LEAST_TOKENS,
    Speeds,
    common_length,
    is_border,
    is_usable,
    least_growth,
    pays_to_load,
)
from tests.cases import cases

CONTROL = ("<|im_start|>", "<|im_end|>")
DISK = Speeds(read=200e6, write=100e6)


@cases(
    ("prefix", "rest", "sure"),
    [
        ("<|im_start|>assistant\n", "Hello", True),
        ("<|im_start|>assistant\n", "<think>", True),
        ("<|im_start|>assistant\n", "\nHello", False),  # "\n\n" is one token
        ("<|im_start|>assistant\n", " Hello", False),
        ("<|im_start|>assistant\n", "\t", False),
        ("</think>\n\n", "Hello", False),  # with some models "\n\n" is cut in two then
        ("be brief \n", "Hello", False),
        ("<think>\n\n</think>", "Hello", False),  # no control token here
        ("<|im_start|>assistant\n", "\u0301e", True),  # of the line before it is no part
        ("be brief.<|im_end|>", "\n", True),
        ("be brief.", "<|im_end|>", True),
        ("be brief", ".", False),
        ("be ", "brief", False),
        ("be", "", True),
    ],
)
def test_borders(prefix: str, rest: str, sure: bool) -> None:
    assert is_border(prefix + rest, len(prefix), CONTROL) is sure


def test_a_border_that_the_runtime_has_shown() -> None:
    text = "</think>\n\nHello"
    assert is_border(text, len("</think>\n\n"), CONTROL, {"\n\n"})
    assert not is_border(text, len("</think>\n"), CONTROL, {"\n\n"})
    assert not is_border(text, len("</think>\n\nHel"), CONTROL, {"\n\n", ""})


def test_common_length() -> None:
    assert common_length("", "abc") == 0
    assert common_length("abc", "abc") == 3
    assert common_length("abc", "abcd") == 3
    assert common_length("abXd", "abYd") == 2
    assert common_length("x" * 10_000 + "a", "x" * 10_000 + "b") == 10_000


def test_a_state_is_loaded_where_it_is_read_sooner_than_evaluated() -> None:
    size, prefill = 2000 * 112 << 10, 0.004  # read in 1.15 s
    assert pays_to_load(2000, size, DISK, prefill)
    assert not pays_to_load(280, size, DISK, prefill)
    assert not pays_to_load(LEAST_TOKENS - 1, 1, DISK, prefill)


def test_a_slow_disk_is_not_used() -> None:
    token = 112 << 10
    assert is_usable(token, DISK, 0.004)
    assert not is_usable(token, Speeds(read=40e6, write=100e6), 0.004)
    assert not is_usable(token, Speeds(read=200e6, write=20e6), 0.004)


def growth(
    tokens: int,
    saved: int,
    *,
    competing: bool,
    prefill: float | None = 0.004,
    has_farewell: bool = True,
) -> int:
    return least_growth(
        tokens,
        saved,
        bytes_per_token=112 << 10,
        speeds=DISK,
        prefill=prefill,
        competing=competing,
        has_farewell=has_farewell,
    )


def test_how_much_a_state_has_to_grow() -> None:
    assert (
        growth(2000, 0, competing=True) == 144
    )  # a quarter of what is evaluated in the 2.3 s of writing
    assert growth(2000, 1900, competing=True) == 144
    assert growth(20, 0, competing=True) == LEAST_TOKENS
    assert growth(2000, 1000, competing=False) == 1000  # twice the saved one
    assert growth(2000, 1000, competing=False, has_farewell=False) == 333
    assert growth(2000, 0, competing=False) == 144
    assert growth(2000, 0, competing=True, prefill=None) == FIRST_TOKENS
