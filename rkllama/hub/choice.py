"""Which of the offered files is meant, and best for this board; never one for another SoC.

Every offer of the wanted model is judged. An *obstacle* keeps it from running here; a *doubt* keeps it from
being chosen without being asked about (its platform or size is not named, a fine-tune, a base model); the
rest is a score, whose steps are the preferences in their order. What sizes or generations leave open is
ambiguous: then the candidates are listed, and nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..rkllm.releases import numbers
from .offers import Board, Offer
from .reading import Reading, billions, same_size
from .wanted import Wanted

_CHATS_UNNAMED = frozenset(
    {("qwen", "3"), ("qwen", "3.5"), ("smollm", "3"), ("gemma", "3n"), ("deepseek-r1", None)}
    | {("minicpm", "3"), ("minicpm", "4"), ("qwq", None), ("tinyllama", None), ("chatglm", "3")}
)
"""Models whose plain name is that of the one that chats; of others it may be the base model's."""
_ASKED_ABOUT = frozenset({"thinking", "abliterated", "distill"})
"""Words of a model that is nearly what was asked for; any other makes it another model."""
_WITHOUT_W4 = frozenset({"rk3588"})
_QUANTIZATIONS = {
    "Q4_K_M": 300, "Q4_K_XL": 290, "Q5_K_M": 280, "Q4_K_S": 270, "Q4_0": 260, "Q5_K_S": 255,
    "Q6_K": 250, "Q8_0": 240, "IQ4_XS": 230, "IQ4_NL": 230, "Q4_1": 220, "Q5_0": 215,
    "Q3_K_L": 160, "Q3_K_M": 150, "Q3_K_S": 140, "Q2_K": 60, "F16": 20, "BF16": 20, "F32": 5,
}  # fmt: skip
_MINOR = 400
"""What each minor version counts that a model's toolkit is behind the runtime."""
SHOWN = 10
"""Candidates that an answer lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An offer as it was judged: a higher `score` is better."""

    offer: Offer
    score: int = 0
    obstacle: str | None = None
    doubt: str | None = None

    @property
    def remark(self) -> str:
        """Why it is none for this board, or what is not sure of it, or "" for one that fits."""
        return self.obstacle or self.doubt or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The offer to take, or None with the reason; the candidates are in order, those that fit first.

    Without `chosen` it is ambiguous where there is a candidate without an obstacle.
    """

    chosen: Offer | None
    reason: str
    candidates: tuple[Candidate, ...] = ()

    @property
    def usable(self) -> tuple[Candidate, ...]:
        """The candidates that could run here."""
        return tuple(one for one in self.candidates if one.obstacle is None)


def choose(wanted: Wanted, offers: Iterable[Offer], board: Board) -> Choice:
    """Return the best of `offers` for a name that was typed, with the reason in one line."""
    judged = [
        judge(wanted.reading, offer, board)
        for offer in offers
        if fits_name(wanted.reading, offer.reading)
    ]
    return _decided(wanted, judged, board)


def choose_in_repository(wanted: Wanted, offers: Iterable[Offer], board: Board) -> Choice:
    """Return the best of one repository's files. What the repository is was said: only the rest counts."""
    asked = wanted.reading
    judged = [
        judge(offer.reading.wish(asked.quantization), offer, board)
        for offer in offers
        if asked.quantization is None or asked.quantization == offer.reading.quantization
    ]
    return _decided(wanted, judged, board)


def _decided(wanted: Wanted, judged: Iterable[Candidate], board: Board) -> Choice:
    ranked = tuple(sorted(judged, key=_rank))
    fitting = [one for one in ranked if one.obstacle is None]
    sure = [one for one in fitting if one.doubt is None]
    if not fitting:
        return Choice(chosen=None, reason=_none_fits(wanted, ranked, board), candidates=ranked)
    if not sure:
        reason = f"{wanted.text} is not sure: {fitting[0].doubt}"
        return Choice(chosen=None, reason=reason, candidates=ranked)
    different = _differences(sure)
    if different:
        reason = f"{wanted.text} is ambiguous: there are {different}"
        return Choice(chosen=None, reason=reason, candidates=_best_of_each(ranked))
    best = sure[0].offer
    return Choice(chosen=best, reason=_why(best, len(sure) - 1, board), candidates=ranked)


def _rank(one: Candidate) -> tuple[bool, bool, int, int, str]:
    doubtful = one.doubt is not None
    downloads = one.offer.downloads or 0
    return one.obstacle is not None, doubtful, -one.score, -downloads, one.offer.reference


def _differences(sure: Sequence[Candidate]) -> str:
    """Return what the candidates differ in that only the user can decide, "" for nothing."""
    models = {(one.offer.reading.brand, one.offer.reading.version) for one in sure}
    if len(models) > 1:
        return _listed(sorted(" ".join(part for part in model if part) for model in models))
    sizes: list[str] = []
    for one in sure:
        size = one.offer.reading.size
        if size is not None and not any(same_size(size, other) for other in sizes):
            sizes.append(size)
    sizes.sort(key=lambda size: billions(size) or 0)
    return _listed(sizes) if len(sizes) > 1 else ""


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _best_of_each(ranked: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates with the best of each model and size before the others."""
    seen: set[tuple[str | None, ...]] = set()
    first: list[Candidate] = []
    others: list[Candidate] = []
    for one in ranked:
        reading = one.offer.reading
        key = (reading.brand, reading.version, reading.size)
        (others if key in seen or one.remark else first).append(one)
        seen.add(key)
    first.sort(key=lambda one: (one.offer.guessed_size() or 0, one.offer.reading.label))
    return (*first, *others)


def _why(best: Offer, others: int, board: Board) -> str:
    reading = best.reading
    facts = [
        f"for {board.soc}" if board.soc else "for the CPU",
        reading.quantization,
        f"toolkit {reading.toolkit}" if reading.toolkit else None,
        f"opt-{reading.opt_level}" if reading.opt_level is not None else None,
        f"context {reading.context_length}" if reading.context_length else None,
        "gated" if best.gated else None,
        f"best of {others + 1} that fit" if others else "the only one that fits",
    ]
    return ", ".join(fact for fact in facts if fact)


def _none_fits(wanted: Wanted, ranked: Sequence[Candidate], board: Board) -> str:
    place = board.soc or "the CPU"
    if not ranked:
        return f"no .{board.format} model on the Hub is called {wanted.text}"
    own = [one for one in ranked if one.offer.format == board.format]
    if not own:
        return f"{wanted.text} is on the Hub as .{ranked[0].offer.format} only"
    obstacles = dict.fromkeys(one.obstacle for one in own if one.obstacle)
    return f"no file of {wanted.text} fits {place}: {'; '.join(list(obstacles)[:3])}"


# --- Is it the model? --------------------------------------------------------------------------


def fits_name(wanted: Reading, offered: Reading) -> bool:
    """Return whether an offer is the model that was asked for, or may be."""
    if wanted.brand != offered.brand:
        return False
    if wanted.brand is None and not wanted.rest:
        return False
    if not wanted.rest <= offered.rest or not wanted.words <= offered.words:
        return False
    if offered.words - wanted.words - _ASKED_ABOUT:
        return False
    if not _same_version(wanted, offered):
        return False
    sizes = [size for size in (offered.size, offered.disputed_size) if size]
    if wanted.size and sizes and not any(same_size(wanted.size, size) for size in sizes):
        return False
    if wanted.variant and offered.variant and wanted.variant != offered.variant:
        return False
    return wanted.date is None or wanted.date == offered.date


def _same_version(wanted: Reading, offered: Reading) -> bool:
    """Return whether the generations agree, or may: "llama 3" may mean 3.1, but qwen 3 is not 3.5."""
    if wanted.version == offered.version or wanted.version is None:
        return True
    if wanted.brand == "qwen" or offered.version is None:
        return False
    return offered.version.startswith(f"{wanted.version}.")


# --- Judging -----------------------------------------------------------------------------------


def judge(wanted: Reading, offer: Offer, board: Board) -> Candidate:
    """Return an offer of the wanted model with what speaks against it, and its score."""
    obstacle = _obstacle(wanted, offer, board)
    if obstacle is not None:
        return Candidate(offer=offer, obstacle=obstacle)
    score = _rkllm_score(offer.reading, board) if board.soc else _gguf_score(offer.reading)
    score += _common_score(wanted, offer)
    return Candidate(offer=offer, score=score, doubt=_doubt(wanted, offer, board))


def _obstacle(wanted: Reading, offer: Offer, board: Board) -> str | None:
    reading = offer.reading
    if offer.format != board.format:
        return f"it is a .{offer.format} file"
    if board.soc and reading.platform not in (None, board.platform):
        return f"it is for {(reading.platform or '').upper()}"
    if board.soc and wanted.platform not in (None, board.platform):
        return f"this is no {(wanted.platform or '').upper()}"
    if board.platform in _WITHOUT_W4 and (reading.quantization or "").startswith("w4"):
        return f"{board.soc} cannot run {reading.quantization}"
    if wanted.toolkit not in (None, reading.toolkit):
        return f"it is not of toolkit {wanted.toolkit}"
    if _is_newer(reading.toolkit, board.release):
        return f"it was made by toolkit {reading.toolkit}, newer than the runtime {board.release}"
    if wanted.context_length and (reading.context_length or 1 << 40) < wanted.context_length:
        return f"its context has {reading.context_length} tokens"
    return _wrong_quantization(wanted, reading) or _too_large(offer, board)


def _wrong_quantization(wanted: Reading, reading: Reading) -> str | None:
    if wanted.quantization is None or reading.quantization is None:
        return None
    if reading.quantization.partition("_g")[0] == wanted.quantization:
        return None
    same = reading.quantization == wanted.quantization
    return None if same else f"it is {reading.quantization}, not {wanted.quantization}"


def _too_large(offer: Offer, board: Board) -> str | None:
    needed, room = offer.footprint(), board.room
    if needed is None or room is None or needed <= room:
        return None
    return f"it needs {needed / 1e9:.1f} GB of memory, and {room / 1e9:.1f} GB may be used"


def _doubt(wanted: Reading, offer: Offer, board: Board) -> str | None:
    reading = offer.reading
    if board.soc and reading.platform is None:
        return "its platform is not named"
    if wanted.version != reading.version:
        return f"it is {reading.brand} {reading.version}"
    if wanted.size and reading.size is None:
        return "its size is not named"
    if wanted.size and reading.disputed_size:
        return (
            f"it is {reading.size} by its file's name, {reading.disputed_size} by its repository's"
        )
    unasked = sorted((reading.words - wanted.words) | (reading.rest - wanted.rest))
    if unasked:
        return f"it is another variant ({', '.join(unasked[:4])})"
    if reading.variant == "base" and wanted.variant is None:
        return "it is a base model, which does not chat"
    if wanted.variant and reading.variant is None and not _chats(reading, wanted.variant):
        return f"it may not be the {wanted.variant} model"
    if wanted.context_length and reading.context_length is None:
        return "its context is not named"
    if wanted.quantization and reading.quantization is None:
        return "its quantization is not named"
    return None


def _chats(reading: Reading, variant: str) -> bool:
    return variant == "instruct" and (reading.brand, reading.version) in _CHATS_UNNAMED


def _common_score(wanted: Reading, offer: Offer) -> int:
    reading = offer.reading
    chats = reading.variant == "instruct" or _chats(reading, "instruct")
    score = 3000 if chats else 0 if reading.variant == "base" else 1500
    score -= 2000 if reading.words - wanted.words or reading.rest - wanted.rest else 0
    score -= 1300 if reading.date and not wanted.date else 0
    score += 60 if wanted.context_length and reading.context_length == wanted.context_length else 0
    score += 50 if wanted.quantization and reading.quantization == wanted.quantization else 0
    score -= 150 if offer.gated else 0
    weight = 3 if offer.format == "rkllm" else 30
    return score + int(weight * math.log10(1 + max(0, offer.downloads or 0)))


def _rkllm_score(reading: Reading, board: Board) -> int:
    label = reading.quantization or ""
    score = {"w8a8": 900, "w4a16": 500, "": 450}.get(label, 600 if label.startswith("w8") else 300)
    score += 20 * (reading.opt_level if reading.opt_level in (0, 1) else 0)
    score -= int(10 * min(reading.hybrid_ratio or 0.0, 1.0))
    return score + _toolkit_score(reading.toolkit, board.release)


def _toolkit_score(toolkit: str | None, release: str | None) -> int:
    """Return more for a model of the same minor version as the runtime, and for a newer one."""
    if toolkit is None:
        return -_MINOR - _MINOR // 2
    major, minor = numbers(toolkit)[:2]
    newest = numbers(release)[:2] if release else (major, minor)
    behind = (newest[0] - major) * 10 + newest[1] - minor
    return 4 * numbers(toolkit)[2] - _MINOR * min(max(behind, 0), 3)


def _gguf_score(reading: Reading) -> int:
    return 2 * _QUANTIZATIONS.get(reading.quantization or "", 100)


def _is_newer(toolkit: str | None, release: str | None) -> bool:
    return bool(toolkit and release) and numbers(toolkit or "") > numbers(release or "")
