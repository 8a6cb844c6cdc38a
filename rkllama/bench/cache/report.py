"""A report in words: the rows of a table, the sentences below it, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator

from ...files import gigabytes
from ..report import Row, aligned, heading_of, seconds, significant
from ..results import Stat
from .results import CacheReport, StateResult, Verdict

_UNKNOWN = "-"
_OFF = "`rkllama config set state_budget 0` switches them off."

HEAD: Row = ("PROMPT", "FILE", "EVALUATED", "COLD", "LOADED", "SAVING", "ANSWER")


def heading(report: CacheReport) -> str:
    """Return what was measured where, in a few lines."""
    return heading_of(report.model, report.runtime, report.board)


def rows(report: CacheReport) -> list[Row]:
    """Return the rows of the table, head first and aligned."""
    return aligned([HEAD, *(_cells(one) for one in report.sizes if one.state_bytes)], left=(6,))


def _cells(result: StateResult) -> Row:
    evaluated = _UNKNOWN
    if result.loaded_evaluated is not None and result.prompt_tokens is not None:
        evaluated = f"{result.loaded_evaluated} of {result.prompt_tokens}"
    return (
        str(result.state_tokens),
        gigabytes(result.state_bytes or 0),
        evaluated,
        _time(result.cold_seconds),
        _time(result.loaded_seconds),
        _saving(result),
        _answer(result),
    )


def _time(stat: Stat | None) -> str:
    return _UNKNOWN if stat is None else seconds(stat.median)


def _saving(result: StateResult) -> str:
    """Return how much longer the run takes that saves."""
    if result.plain_seconds is None or result.saving_seconds is None:
        return _UNKNOWN
    more = result.saving_seconds.median - result.plain_seconds.median
    return f"{'-' if more < 0 else '+'}{seconds(abs(more))}"


def _answer(result: StateResult) -> str:
    if not result.answers:
        return _UNKNOWN
    if result.same_answers == result.answers:
        return "the same"
    return f"{result.answers - result.same_answers} of {result.answers} differ"


def below(report: CacheReport) -> Iterator[str]:
    """Yield the sentences between the table and the verdict."""
    yield (
        "COLD and LOADED: the next turn's first token without its state, and in a new process with "
        "reading, checking and loading it."
    )
    yield from _per_token(report.verdict)
    yield (
        f"Disk: reads {gigabytes(report.disk.read)}/s, writes {gigabytes(report.disk.write)}/s; "
        f"{gigabytes(report.disk.written)} were written."
    )
    yield from _parts(report)
    yield from _figures(report)
    for result in report.sizes:
        if result.skipped:
            yield f"Left out: {result.skipped}."
    yield from report.failures
    if not report.complete:
        yield "Interrupted: this is what had been measured."


def _per_token(verdict: Verdict) -> Iterator[str]:
    if verdict.prefill_seconds is not None:
        yield f"A token of the prompt takes {seconds(verdict.prefill_seconds)} to evaluate."
    if verdict.bytes_per_token is None:
        return
    expected = "no other measurement of this model is known"
    if verdict.expected_bytes_per_token is not None:
        expected = f"expected: {_kibibytes(verdict.expected_bytes_per_token)}"
    yield f"It takes {_kibibytes(verdict.bytes_per_token)} in a file ({expected})."


def _kibibytes(size: float) -> str:
    return f"{significant(size / 1024)} KiB"


def _parts(report: CacheReport) -> Iterator[str]:
    """Yield what a load of the longest state consists of."""
    longest = next((one for one in reversed(report.sizes) if one.load_seconds), None)
    if longest is not None:
        yield (
            f"The longest state: on the disk {_time(longest.sync_seconds)} after its run, read and "
            f"checked in {_time(longest.check_seconds)}, loaded in {_time(longest.load_seconds)}."
        )


def _figures(report: CacheReport) -> Iterator[str]:
    if report.verdict.figures_agree is None:
        return
    words = "agrees" if report.verdict.figures_agree else "does not agree"
    yield f"The length of the KV cache {words} with the tokens of the prompt after a load."


def verdict(report: CacheReport) -> Iterator[str]:
    """Yield what follows, and what to do."""
    found = report.verdict
    if any(one.failed for one in report.sizes):
        yield "The runtime failed when it saved a state, or loaded one that it had saved."
    elif found.used is False:
        yield (
            "The runtime did not use the whole of what it had loaded. RKLLama notices that, and keeps no "
            "conversations for this model and runtime."
        )
    else:
        yield from _soundness(found)
        yield from _worth(found) if found.sound != "no" else ()
    if found.keep:
        yield "Nothing has to be done: RKLLama keeps conversations by itself."
    elif found.keep is False:
        yield f"Conversations on disk are of no use here: {_OFF}"
    else:
        yield f"Whether conversations should be kept is not known. {_OFF}"


def _soundness(found: Verdict) -> Iterator[str]:
    if found.sound == "yes":
        yield "With the loaded state the model answered the same as without it."
    elif found.sound == "no":
        yield (
            "With the loaded state the model answered something else than without it, and without one "
            "it repeats itself. Such states spoil answers."
        )
    elif found.sound == "unclear":
        yield (
            "With the loaded state the model answered something else; but it does not repeat itself "
            "without one either, so that shows nothing."
        )
    else:
        yield "No answer was made from a loaded state."


def _worth(found: Verdict) -> Iterator[str]:
    if found.fast_enough is False:
        yield "The disk is too slow for this model, and RKLLama keeps none of its conversations."
    elif found.fast_enough and found.from_tokens is not None:
        again = ""
        if found.again_after is not None:
            again = f", and are written again when they are {found.again_after} tokens longer"
        yield f"Conversations on disk pay off from {found.from_tokens} tokens on{again}."
    elif found.fast_enough and found.sound != "not measured":
        yield "Loading a state took longer than evaluating the prompt."
