"""A search of the Hub as rows: each model under the shortest name that leads to just it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..types import FoundModel, FoundModels
from .api import Hub
from .choice import Candidate, choose, fits_name, judge
from .find import Library
from .offers import Board, Offer
from .reading import Reading, billions
from .search import questions, search
from .wanted import Wanted, parse_wanted

_JOINED_NAMES = frozenset(
    {"coder", "vl", "math", "embedding", "reranker", "omni", "audio", "guard"}
)
"""Words that belong to a model's name and not to its variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An offer, what to type for it, and how it was judged."""

    name: str
    candidate: Candidate
    is_short: bool
    """Whether the name is a short one; else it is the whole reference."""
    is_plain: bool = False
    """Whether the name leaves the quantization and the context open."""

    @property
    def offer(self) -> Offer:
        """The offer."""
        return self.candidate.offer


class Asked(NamedTuple):
    """A step of a search: which of how many questions is asked now."""

    number: int
    questions: int
    label: str


class Listing(NamedTuple):
    """What a search has found, and which of its questions were not answered, and why."""

    rows: tuple[Row, ...]
    failures: tuple[str, ...]


def look_up(
    hub: Hub,
    text: str,
    board: Board,
    where: Library,
    *,
    format: str | None = None,
    refresh: bool = False,
) -> Generator[Asked, None, Listing]:
    """Search the Hub for what was typed, models of the board's own format or of another one. Raises PullError
    where no question is answered, InvalidRequest for what is the name of no model.
    """
    _wanted(text)
    asked = questions(text, format or board.format, board.soc)
    steps = search(hub, asked, cache=where.cache, refresh=refresh, models=where.models)
    for number in range(1, len(asked) + 2):
        try:
            label = next(steps)
        except StopIteration as stop:
            found = stop.value
            break
        yield Asked(number, len(asked), label)
    return Listing(rows(text, found.offers, board), found.failures)


def _wanted(text: str) -> Wanted:
    return parse_wanted(text.replace(" ", "-"))


def rows(text: str, offers: Iterable[Offer], board: Board) -> tuple[Row, ...]:
    """Return the offers that fit the words of a search: what fits the board first, by model and size."""
    wanted = _wanted(text)
    known = [offer for offer in offers if _is_meant(wanted.reading, offer)]
    chosen: dict[str, Offer | None] = {}
    named = [_row(offer, known, board, chosen) for offer in known]
    return tuple(sorted(named, key=_order))


def _is_meant(asked: Reading, offer: Offer) -> bool:
    """Return whether an offer is what the words say, as far as they say it."""
    if asked.brand is None:
        return True  # the Hub has looked for the words
    loose = Reading(
        brand=asked.brand,
        version=asked.version,
        size=asked.size,
        words=offer.reading.words | asked.words,
    )
    return fits_name(loose, offer.reading)


def _row(
    offer: Offer, offers: Sequence[Offer], board: Board, chosen: dict[str, Offer | None]
) -> Row:
    for step, name in enumerate(_names(offer.reading)):
        if name not in chosen:
            chosen[name] = choose(parse_wanted(name), offers, board).chosen
        if chosen[name] == offer:
            candidate = judge(parse_wanted(name).reading, offer, board)
            return Row(name=name, candidate=candidate, is_short=True, is_plain=step == 0)
    candidate = judge(offer.reading.wish(), offer, board)
    return Row(name=offer.reference, candidate=candidate, is_short=False)


def _names(reading: Reading) -> Iterator[str]:
    """Yield what people type for a model, the shortest first."""
    if reading.brand is None or reading.rest:
        return
    joined = sorted(reading.words & _JOINED_NAMES)
    base = "-".join((f"{reading.brand}{reading.version or ''}", *joined))
    tags = [reading.size.lower()] if reading.size else []
    tags += sorted(reading.words - _JOINED_NAMES)
    tags += (
        [reading.variant] if reading.variant == "base" or (reading.variant and reading.date) else []
    )
    tags += [reading.date] if reading.date else []
    if not tags:
        return
    name = f"{base}:{'-'.join(tags)}"
    yield name
    if reading.quantization:
        name = f"{name}-{reading.quantization}"
        yield name
    if reading.context_length and reading.context_length % 1024 == 0:
        yield f"{name}-{reading.context_length // 1024}k"


def _order(row: Row) -> tuple[object, ...]:
    reading, candidate = row.offer.reading, row.candidate
    return (
        candidate.obstacle is not None,
        candidate.doubt is not None,
        reading.brand or "~",
        reading.version or "",
        sorted(reading.words),
        billions(reading.size) or 0.0,
        not row.is_plain,
        -candidate.score,
        row.name,
    )


# --- For programs ------------------------------------------------------------------------------

PAGE = 50
"""Models on a page."""
_CAPABILITIES = {
    "text": ("completion",),
    "vision": ("completion", "vision"),
    "embedding": ("embedding",),
    "reranker": ("rerank",),
}
_SPEECH = "it is for speech, which is not served here"


def page_of(listing: Listing, page: int, *, by_name: bool) -> FoundModels:
    """Return a page of a listing, the first is 1. The models have their short names as references where
    `by_name` says that `pull` here takes those for the same files.
    """
    first = (page - 1) * PAGE
    models = tuple(_found_model(row, by_name) for row in listing.rows[first : first + PAGE])
    missed = "; ".join(listing.failures)
    return FoundModels(
        models=models,
        total=len(listing.rows),
        more=len(listing.rows) > first + PAGE,
        warning=f"Not answered: {missed}" if missed else None,
    )


def _found_model(row: Row, by_name: bool) -> FoundModel:
    offer, candidate = row.offer, row.candidate
    problem = candidate.obstacle or (_SPEECH if offer.kind == "speech" else None)
    return FoundModel(
        reference=row.name if by_name else offer.reference,
        repository=offer.repo,
        file=offer.file,
        size=offer.size,
        estimated_size=offer.guessed_size(),
        quantization=offer.reading.quantization,
        context_length=offer.reading.context_length,
        platform=offer.reading.platform,
        capabilities=_CAPABILITIES.get(offer.kind, ()),
        downloads=offer.downloads,
        likes=offer.likes,
        updated=offer.updated,
        gated=offer.gated,
        problem=problem,
        doubt=candidate.doubt,
        best=row.is_plain and not problem and not candidate.doubt,
        here=offer.here,
    )
