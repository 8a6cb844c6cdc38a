"""`rkllama search`: which models there are for this board."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common import JSONFlag, print_json, settings_of

if TYPE_CHECKING:
    from ...config import Settings
    from ...hub.listing import Asked, Listing, Row
    from ...hub.offers import Board


_WIDE = 92
"""Columns of a terminal that has room for all columns of the table."""
_KINDS = {"vision": "vision", "embedding": "embed", "reranker": "rerank", "speech": "speech"}


def search(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="WORDS...", help="A model's name, such as qwen3 or qwen3:4b."),
    ],
    as_json: JSONFlag = False,
    soc: Annotated[
        str | None, typer.Option(metavar="SOC", help="Search for another board, such as RK3576.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="List also what does not fit, and why.")
    ] = False,
    gguf: Annotated[
        bool, typer.Option("--gguf", help="Search for .gguf models, for the CPU.")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask the Hub even if it was asked within the hour.")
    ] = False,
) -> None:
    """Search Hugging Face for models that run on this board."""
    text, board = " ".join(words), _board(soc, gguf=gguf)
    listed, failures = _listing(text, board, settings_of(context), refresh=refresh)
    for failure in failures:
        sys.stderr.write(f"Not answered: {failure}\n")
    if as_json:
        print_json([_object(row) for row in listed])
        return
    shown = listed if everything else _worth_showing(listed)
    from ...console.output import write_styled

    write_styled(_table(shown, remarks=everything))
    sys.stdout.flush()
    _tell(text, listed, shown, board)


def _board(soc: str | None, *, gguf: bool) -> "Board":
    from ...board.soc import read_soc
    from ...hub.offers import Board, this_board

    here = this_board(read_soc())
    if gguf:
        return here.without_npu()
    if soc is None:
        return here
    import re

    if not re.fullmatch(r"r[kv]\d{4}[a-z]?", soc.lower()):
        raise typer.BadParameter(f"{soc!r} is no SoC such as RK3588", param_hint="--soc")
    return Board(soc=soc.upper(), memory=None, release=here.release)


def _listing(text: str, board: "Board", settings: "Settings", *, refresh: bool) -> "Listing":
    from ...console.terminal import Spinner
    from ...hub.api import Hub
    from ...hub.find import Library
    from ...hub.listing import look_up
    from ...hub.search import finish

    where = Library(cache=settings.cache, models=settings.models)
    steps = look_up(Hub(), text, board, where, refresh=refresh)
    with Spinner("Asking the Hub…") as spinner:

        def tell(asked: "Asked") -> None:
            progress = f"{asked.number} of {asked.questions}"
            spinner.text = f"Asking the Hub ({progress}): {asked.label}"

        return finish(steps, tell)


def _worth_showing(listed: "tuple[Row, ...]") -> "tuple[Row, ...]":
    """Return the best of each model, and what has to be asked about."""
    return tuple(
        row
        for row in listed
        if row.candidate.obstacle is None
        and row.offer.kind != "speech"
        and (row.is_plain or row.candidate.doubt is not None)
    )


def _tell(text: str, listed: "tuple[Row, ...]", shown: "tuple[Row, ...]", board: "Board") -> None:
    place = board.soc or "the CPU"
    if not any(row.offer.format == board.format for row in listed):
        hint = "" if board.format == "gguf" else f" For the CPU: rkllama search {text} --gguf"
        sys.stderr.write(f"The Hub has no .{board.format} model of that name.{hint}\n")
    elif not shown:
        sys.stderr.write(f"None of {len(listed)} files fits {place}: --all tells why.\n")
    elif hidden := len(listed) - len(shown):
        sys.stderr.write(f"For {place}; {hidden} more with --all. Fetch one: rkllama pull NAME\n")
    else:
        sys.stderr.write(f"For {place}. Fetch one: rkllama pull NAME\n")


# --- Rows --------------------------------------------------------------------------------------


def _table(shown: "tuple[Row, ...]", *, remarks: bool) -> str:
    from ...console.output import columns_of, table

    if not shown:
        return ""
    head = ["NAME", "PARAMS", "QUANT", "CTX", "KIT", "SIZE", "LOADS", "BY", ""]
    cells = [_cells(row, remarks=remarks) for row in shown]
    if 0 < columns_of(sys.stdout) < _WIDE:  # the name has them, too
        head, cells = _without(head, 1), [_without(row, 1) for row in cells]
    return table(head, cells)


def _without(cells: list[str], column: int) -> list[str]:
    return cells[:column] + cells[column + 1 :]


def _cells(row: "Row", *, remarks: bool) -> list[str]:
    offer = row.offer
    reading = offer.reading
    marks = [
        "here" if offer.here else "",
        _KINDS.get(offer.kind, ""),
        "gated" if offer.gated else "",
        row.candidate.remark if remarks else "?" if row.candidate.doubt else "",
    ]
    return [
        row.name,
        reading.size or "-",
        reading.quantization or "-",
        _thousands(reading.context_length, 1024),
        reading.toolkit or "-",
        _size(offer.guessed_size()) if offer.size is None else _size(offer.size),
        _thousands(offer.downloads, 1000),
        offer.repo.partition("/")[0][:11],
        " ".join(mark for mark in marks if mark),
    ]


def _size(size: int | None) -> str:
    """Return a size that was reckoned, hence without a digit more than it is worth."""
    return "-" if size is None else f"{size / 1e9:.1f}G"


def _thousands(number: int | None, unit: int) -> str:
    if number is None:
        return "-"
    return str(number) if number < unit else f"{number // unit}k"


def _object(row: "Row") -> dict[str, Any]:
    offer, reading = row.offer, row.offer.reading
    return {
        "name": row.name,
        "repo": offer.repo,
        "file": offer.file,
        "format": offer.format,
        "kind": offer.kind,
        "encoder": offer.encoder,
        "family": reading.brand,
        "version": reading.version,
        "parameter_size": reading.size,
        "quantization": reading.quantization,
        "platform": reading.platform,
        "context_length": reading.context_length,
        "toolkit": reading.toolkit,
        "size": offer.size,
        "estimated_size": offer.guessed_size(),
        "downloads": offer.downloads,
        "gated": offer.gated,
        "here": offer.here,
        "fits": row.candidate.obstacle is None and row.candidate.doubt is None,
        "remark": row.candidate.remark or None,
    }
