"""A report in words: rows of a table, the lines below it, a comparison, and a row of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..board.telemetry import megahertz
from ..files import gigabytes
from .compare import Difference, Ratio
from .results import (
    BoardFacts,
    Cache,
    ModelFacts,
    Report,
    RuntimeFacts,
    SizeResult,
    Speeds,
    Stat,
)
from .summary import spread_of

Row = tuple[str, ...]
_UNKNOWN = "-"
_COLUMNS = 80


# --- The table ---------------------------------------------------------------------------------


def heading(report: Report) -> str:
    """Return what was measured where, in one or two lines."""
    return heading_of(report.model, report.runtime, report.board)


def heading_of(model: ModelFacts, runtime: RuntimeFacts, board: BoardFacts | None) -> str:
    """Return the lines on a model, what runs it, and where."""
    file = [model.name, model.quantization, _bytes(model.size)]
    program = [runtime.runtime, _threads(runtime), _context(runtime), _release(runtime)]
    place = [board.board, board.soc, board.kernel] if board else []
    lines = (", ".join(filter(None, words)) for words in (file, program, place))
    return "".join(f"{_cut(line, _COLUMNS)}\n" for line in lines if line)


def _threads(runtime: RuntimeFacts) -> str | None:
    number = runtime.threads
    kind = "CPU" if runtime.backend == "npu" else "thread"
    return None if number is None else f"{number} {kind}{'' if number == 1 else 's'}"


def _context(runtime: RuntimeFacts) -> str | None:
    length = runtime.context_length
    return None if length is None else f"context {length}"


def _release(runtime: RuntimeFacts) -> str | None:
    return f"RKLLama {runtime.rkllama}" if runtime.rkllama else None


HEAD: Row = ("PROMPT", "CACHE", "FIRST TOKEN", "PROMPT tokens/s", "ANSWER tokens/s", "OUT")


def rows(report: Report) -> list[Row]:
    """Return the rows below HEAD, already aligned."""
    return aligned([HEAD, *_cells(report)], left=(1,))


def aligned(cells: Sequence[Row], left: Sequence[int]) -> list[Row]:
    """Return rows whose columns are aligned to the right, but for those in `left`."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        tuple(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def _cells(report: Report) -> Iterator[Row]:
    for result in report.sizes:
        yield from _size_cells(result)


def _size_cells(result: SizeResult) -> Iterator[Row]:
    caches: tuple[tuple[Cache, Speeds | None], ...] = (("cold", result.cold), ("warm", result.warm))
    for cache, speeds in caches:
        if speeds is None:
            continue
        tokens = result.size if speeds.prompt_tokens is None else speeds.prompt_tokens
        yield (
            str(tokens) if speeds.prompt_tokens is not None else f"~{tokens}",
            cache,
            _figure(speeds.first_token_seconds, seconds),
            _figure(_prompt_rate(speeds)),
            _figure(_answer_rate(speeds)),
            _UNKNOWN if speeds.answer_tokens is None else str(speeds.answer_tokens),
        )


def significant(value: float) -> str:
    """Return a figure with three or four digits that mean something."""
    for limit, digits in ((1, 3), (100, 2), (1000, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"


def seconds(value: float) -> str:
    """Return a time, with its unit."""
    return f"{significant(value)} s" if value >= 1 else f"{significant(value * 1000)} ms"


def _figure(stat: Stat | None, text: Callable[[float], str] = significant) -> str:
    """Return a median and its spread, the latter in a column of its own: "68.31   0.8%"."""
    if stat is None:
        return _UNKNOWN
    spread = spread_of(stat)
    shown = "" if spread is None else f"{spread:.1%}" if spread < 9.995 else ">999%"
    return f"{text(stat.median)}{shown:>7}"


def below(report: Report) -> Iterator[str]:
    """Yield the sentences below the table."""
    yield _load_and_memory(report)
    if report.board is not None:
        yield from _clocks(report.board)
    yield from _energy(report)
    for result in report.sizes:
        if result.skipped:
            yield f"Left out: {result.skipped}."
    yield _how(report)
    if any(run.prompt_counts and run.cached_tokens is None for run in report.runs):
        yield "What is reused of a prompt is not reported here; no two of them begin alike."
    yield from _left_out(report)
    yield from (
        f"Round {one.round}{_of_size(one.size, one.cache)} failed: {one.message}"
        for one in report.failures
    )
    if not report.complete:
        yield "Interrupted: this is what had been measured."


def _load_and_memory(report: Report) -> str:
    parts = []
    if report.load.seconds is not None:
        parts.append(f"load {_figure(report.load.seconds, seconds)}")
    if report.load.first_seconds is not None:
        parts.append(f"the first {seconds(report.load.first_seconds)}")
    if report.memory.peak is not None:
        parts.append(f"peak memory {_bytes(report.memory.peak)}")
    if report.memory.runtime is not None:
        parts.append(f"as the runtime reports {_bytes(report.memory.runtime)}")
    text = ", ".join(" ".join(part.split()) for part in parts) or "load time and memory not known"
    return f"{text[:1].upper()}{text[1:]}."


def _clocks(board: BoardFacts) -> Iterator[str]:
    """Yield a line on the clocks at the end of the last run, and on heat."""
    clocks = [
        f"{clock.name} {megahertz(clock.current)} ({clock.governor})"
        for clock in board.after.clocks
        if clock.current is not None
    ]
    heat = [] if board.hottest is None else [f"hottest sensor {board.hottest:.0f} °C"]
    throttled = ["throttled"] if board.throttled else []
    if clocks or heat:
        yield f"At the end: {', '.join((*clocks, *heat, *throttled))}."


def _energy(report: Report) -> Iterator[str]:
    if report.power is None:
        return
    known = False
    for result in report.sizes:
        prompt = result.cold.prompt_joules_per_token if result.cold else None
        answers = [one.answer_joules_per_token for one in (result.cold, result.warm) if one]
        answer = next((one for one in answers if one is not None), None)
        texts = [
            f"{name} {significant(stat.median)} J"
            for name, stat in (("prompt", prompt), ("answer", answer))
            if stat is not None
        ]
        if texts:
            known = True
            yield f"Energy per token, {result.size} in: {', '.join(texts)}"
    if not known:
        yield "Energy: the runs were too short for this power meter."
    yield f"Measured by {report.power.source}."


def _how(report: Report) -> str:
    own = all(
        one.runtime_answer_rate is not None
        for result in report.sizes
        for one in (result.cold, result.warm)
        if one is not None
    )
    clock = "as the runtime reports" if own else "as the client sees it"
    count = f"{report.rounds} round{'' if report.rounds == 1 else 's'}"
    spread = ", each with its interquartile range" if report.rounds > 2 else ""
    return f"Medians of {count}{spread}. Tokens/s {clock}."


def _left_out(report: Report) -> Iterator[str]:
    """Say how many runs do not count, by reason."""
    reasons: dict[str, int] = {}
    for run in report.runs:
        if run.remark is not None:
            kind = "its answer ended early" if run.prompt_counts else run.remark
            reasons[kind] = reasons.get(kind, 0) + 1
    for reason, count in reasons.items():
        yield f"Not counted: {count} of {len(report.runs)} runs ({reason})."


def _of_size(size: int | None, cache: Cache | None) -> str:
    return f", {size} tokens, {cache}," if size is not None else ""


# --- A comparison ------------------------------------------------------------------------------

RATIO_HEAD: Row = ("FIGURE", "THEN", "NOW", "NOW/THEN", "")
DIFFERENCE_HEAD: Row = ("FACT", "THEN", "NOW")
_WIDEST = 28
"""Columns of a fact's value."""


def ratio_rows(ratios: Sequence[Ratio]) -> list[Row]:
    """Return the rows of the figures, head first."""
    cells = [
        RATIO_HEAD,
        *(
            (
                one.name,
                _with_unit(one.then, one.unit),
                _with_unit(one.now, one.unit),
                f"{one.value:.3f}",
                one.verdict,
            )
            for one in ratios
        ),
    ]
    return aligned(cells, left=(0, 4))


def _with_unit(stat: Stat, unit: str) -> str:
    return seconds(stat.median) if unit == "s" else f"{significant(stat.median)} tok/s"


def difference_rows(found: Sequence[Difference]) -> list[Row]:
    """Return the rows of the facts that differ, head first."""
    return [
        DIFFERENCE_HEAD,
        *((one.name, _cut(one.then, _WIDEST), _cut(one.now, _WIDEST)) for one in found),
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


# --- Markdown ----------------------------------------------------------------------------------

_TITLES = (
    "board", "kernel, driver", "model", "runtime", "in", "prompt tokens/s", "first token, cold / warm",
    "answer tokens/s", "load", "memory", "RKLLama, date",
)  # fmt: skip


def markdown_head() -> str:
    """Return the head of the results page's table."""
    return f"| {' | '.join(_TITLES)} |\n|{' --- |' * len(_TITLES)}\n"


def markdown_row(report: Report) -> str:
    """Return a row of the results page; in its cells, one figure for each size of prompts."""
    board, runtime, model = report.board, report.runtime, report.model
    sizes = [one for one in report.sizes if one.cold or one.warm]
    cold = [one.cold for one in sizes]
    cells = (
        _words(board.board, board.soc) if board else _UNKNOWN,
        _words(board.kernel, board.npu_driver and f"rknpu {board.npu_driver}") if board else "-",
        _words(model.name, model.quantization),
        _words(runtime.runtime, _threads(runtime), _context(runtime)),
        _each(str(one.size) for one in sizes),
        _each(_median(_prompt_rate(one)) for one in cold),
        _each(_first_tokens(one) for one in sizes),
        _each(_median(_answer_rate(one)) for one in cold),
        _time(report.load.seconds),
        _bytes(report.memory.peak) or _UNKNOWN,
        _words(runtime.rkllama, report.created[:10]),
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


def _first_tokens(result: SizeResult) -> str:
    return " / ".join(
        _time(one.first_token_seconds if one else None) for one in (result.cold, result.warm)
    )


def _prompt_rate(speeds: Speeds | None) -> Stat | None:
    """Return it by the runtime's clock, which others publish, and by ours where there is no other."""
    return None if speeds is None else speeds.runtime_prompt_rate or speeds.prompt_rate


def _answer_rate(speeds: Speeds | None) -> Stat | None:
    return None if speeds is None else speeds.runtime_answer_rate or speeds.answer_rate


def _median(stat: Stat | None) -> str:
    return _UNKNOWN if stat is None else significant(stat.median)


def _time(stat: Stat | None) -> str:
    return _UNKNOWN if stat is None else seconds(stat.median)


def _each(texts: Iterator[str]) -> str:
    return "<br>".join(texts) or _UNKNOWN


def _words(*texts: str | None) -> str:
    return ", ".join(filter(None, texts)) or _UNKNOWN


def _bytes(size: int | None) -> str | None:
    return None if size is None else gigabytes(size)
