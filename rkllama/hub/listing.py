"""What a search found as rows for people: each under the shortest name that leads to just it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .choice import Candidate, choose, fits_name, judge
from .offers import Board, Offer
from .reading import Reading, billions
from .wanted import parse_wanted

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


def rows(text: str, offers: Iterable[Offer], board: Board) -> tuple[Row, ...]:
    """Return the offers that fit the words of a search: what fits the board first, by model and size."""
    wanted = parse_wanted(text.replace(" ", "-"))
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
