"""What `rkllama top` shows: the board, the models in memory and the requests, as one picture."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ..board.telemetry import core_loads, core_ranges, megahertz
from ..types import BoardState, Clock, LoadedModel
from .output import human_size, use_colour
from .show import until_text
from .streams import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table

_WIDE = 60
"""Columns that all of a table needs; on fewer the lesser columns are left out."""
_MOST_CLUSTERS = 4
"""A PC has a clock for each core: more than these are told together where they are alike."""
_PLAIN = 120
"""Columns where there is no terminal."""


class Snapshot(NamedTuple):
    """What was read at one moment."""

    board: BoardState
    models: Sequence[LoadedModel] = ()
    waiting: int | None = None
    """Requests that wait for their turn; None without a server."""
    note: str = ""
    """Where this was read, or why nothing could be."""
    failed: bool = False

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return sum(model.state == "busy" for model in self.models)


def summary(board: BoardState) -> str:
    """Return how a board is doing in a line: "NPU 1000 MHz, 47 °C, 15.2 GB of memory free"."""
    parts = [
        f"{clock.name.upper()} {_megahertz(clock.current)}"
        for clock in (board.npu, board.ddr)
        if clock is not None and clock.current is not None
    ]
    if board.hottest is not None:
        parts.append(f"{board.hottest.celsius:.0f} °C")
    if board.memory.available is not None:
        parts.append(f"{human_size(board.memory.available)} of memory free")
    if board.throttled:
        parts.append("slowed by heat")
    return ", ".join(parts)


def plain(now: Snapshot) -> str:
    """Return a picture as text, for what is not a terminal."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=_PLAIN, color_system=None)
    with console.capture() as capture:
        console.print(picture(now, None, _PLAIN))
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


@contextmanager
def live_screen() -> Iterator[Live]:
    """The terminal's other screen, to draw on; what was there before comes back at the end."""
    from rich.console import Console
    from rich.live import Live

    # A stream of its own: stdout lets no control sequence pass (see .streams).
    with open(
        os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding, errors="replace"
    ) as stream:
        console = (
            Console(file=stream)
            if use_colour(sys.stdout)
            else Console(file=stream, color_system=None)
        )
        with Live(console=console, screen=True, auto_refresh=False) as live:
            yield live


def draw(live: Live, now: Snapshot, before: Snapshot | None) -> None:
    """Draw a picture in the terminal's present size."""
    from rich.console import Group
    from rich.text import Text

    shown = picture(now, before, live.console.width)
    live.update(Group(shown, Text("\nq quits", style="dim")), refresh=True)


def picture(now: Snapshot, before: Snapshot | None, columns: int) -> RenderableType:
    """Return all that is known; the load of the CPU needs the reading `before`."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(printable(now.note), style="yellow" if now.failed else "dim")
    ]
    if now.failed:
        return Group(*parts)
    board, wide = now.board, columns >= _WIDE
    loads = core_loads(before.board.core_times if before else (), now.board.core_times)
    rows = [_clock_row(clock, loads) for clock in _rows(board)]
    if rows:
        parts += [Text(), _table(("CLOCK", "LOAD", "NOW", "MAX", "GOVERNOR"), rows, wide, (3, 4))]
    parts += [Text(), _facts(board)]
    if now.waiting is not None:
        models = [_model_row(model) for model in now.models]
        head = ("MODEL", "STATE", "SIZE", "TOKENS/S", "UNTIL")
        if models:
            parts += [Text(), _table(head, models, wide, (2, 3))]
        busy = f"{now.running} running, {now.waiting} waiting"
        none = "" if models else "No model is loaded. "
        parts += [Text(), Text(f"{none}Requests: {busy}")]
    return Group(*parts)


def _rows(board: BoardState) -> list[Clock]:
    """Return the clocks to show: of a PC's many those together that are alike, and cores without one."""
    cpus = list(board.cpus)
    if len(cpus) > _MOST_CLUSTERS:
        alike: dict[object, list[Clock]] = {}
        for clock in cpus:
            alike.setdefault((clock.highest, clock.limit, clock.governor), []).append(clock)
        cpus = [_together(clocks) for clocks in alike.values()]
    if not cpus and board.core_times:
        cores = tuple(time.core for time in board.core_times)
        cpus = [Clock(name=f"cpu{core_ranges(cores)}", cores=cores)]
    return [*(clock for clock in (board.npu, board.ddr) if clock is not None), *cpus]


def _together(clocks: Sequence[Clock]) -> Clock:
    cores = tuple(sorted(core for clock in clocks for core in clock.cores))
    fastest = max((clock.current or 0 for clock in clocks), default=0)
    return replace(clocks[0], name=f"cpu{core_ranges(cores)}", cores=cores, current=fastest or None)


def _clock_row(clock: Clock, loads: dict[int, float]) -> tuple[str, ...]:
    highest = clock.limit if clock.is_limited else clock.highest
    name = clock.name if clock.cores else clock.name.upper()
    limited = " (limited)" if clock.is_limited else ""
    return (
        name,
        _load(clock, loads),
        _megahertz(clock.current),
        _megahertz(highest) + limited,
        clock.governor or "-",
    )


def _load(clock: Clock, loads: dict[int, float]) -> str:
    known = [loads[core] for core in clock.cores if core in loads]
    if known:
        return f"{100 * sum(known) / len(known):.0f} %"
    return f"{' '.join(map(str, clock.load))} %" if clock.load else "-"


def _megahertz(frequency: int | None) -> str:
    return "-" if frequency is None else megahertz(frequency)


def _facts(board: BoardState) -> Table:
    """Return temperatures and memory, a line each or more."""
    from rich.table import Table
    from rich.text import Text

    memory = board.memory
    sensors = [
        f"{sensor.zone.removesuffix('-thermal')} {sensor.celsius:.0f}"
        for sensor in board.temperatures
    ]
    facts = [
        ("SoC", board.soc or ""),
        ("Degrees C", "  ".join(sensors)),
        ("Memory", _free(memory.available, memory.total)),
        ("CMA", _free(memory.cma_free, memory.cma_total)),
    ]
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, value in facts:
        if value:
            grid.add_row(Text(name, style="bold"), Text(printable(value)))
    if board.throttled:
        grid.add_row(Text("Heat", style="bold"), Text("slows the clocks", style="red"))
    return grid


def _free(free: int | None, total: int | None) -> str:
    if free is None or total is None:
        return ""
    return f"{human_size(free)} free of {human_size(total)}"


def _model_row(model: LoadedModel) -> tuple[str, ...]:
    speed = model.tokens_per_second
    return (
        model.info.name,
        model.state,
        human_size(model.info.size if model.memory is None else model.memory),
        "-" if speed is None else f"{speed:.1f}",
        until_text(model),
    )


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], wide: bool, lesser: Sequence[int]
) -> Table:
    """Return a table, without its `lesser` columns where there is little room; the first one is cut."""
    from rich.table import Table
    from rich.text import Text

    shown = [number for number in range(len(head)) if wide or number not in lesser]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for number in shown:
        table.add_column(head[number], no_wrap=number > 0)  # what may wrap is made narrow first
    for row in rows:
        cells = (printable(row[number]) for number in shown)
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
    return table
