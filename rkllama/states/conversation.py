"""One loaded model's use of the states: what to load before a run, and whether to keep what it leaves.

    visit = conversations.begin(text, …)     before a run; `visit.load` is a state that pays
    visit.loaded(…)                          what the runtime made of it
    visit.pin()                              a run of one token that comes first: see prefixes.py
    visit.draft(…)                           where the run is to write its state, if it is worth it
    visit.end(…) or visit.give_up()          once it has ended
    conversations.farewell()                 a run of one token before the model is unloaded

Its caller holds the model's lease. It starts no process and calls no runtime.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from .index import Entry
from .key import Identity, identity_key, state_key
from .policy import (
    FIRST_TOKENS,
    LEAST_TOKENS,
    USUAL_BYTES,
    common_length,
    is_border,
    is_usable,
    least_growth,
    pays_to_load,
    white_tail,
)
from .prefixes import Prefixes
from .store import Draft, StateStore

log = logging.getLogger("rkllama")

_USUAL_RATIO = 0.3
"""Tokens per character, until a run has told."""
_SPARE = 1.1
"""How much longer than estimated a prompt may be, for the room that is made for its state."""
_REMEMBERED = 8
"""Runs that tell whether conversations take each other's place in memory."""
_SLACK = 2
"""Tokens by which the runtime's figures may differ: a constant for each way to end that may be unknown."""
_SURE = 32
"""Evaluated tokens from which on a run tells the model's speed."""


class RunFigures(NamedTuple):
    """What a run tells. `reused`: tokens that were in the KV cache, give or take _SLACK."""

    prompt_tokens: int | None
    evaluated: int | None
    reused: int | None
    prompt_seconds: float | None
    saved: bool
    exact: bool = False
    """Whether `prompt_tokens` and `reused` are not off by a token."""


class Proof(NamedTuple):
    """White space at the end of a prompt: a token ends there if a run that goes on from it reuses as many."""

    tail: str
    tokens: int


class Conversations:
    """The conversations of one loaded model."""

    def __init__(self, store: StateStore, identity: Identity, model: str) -> None:
        self.store = store
        self.identity = identity
        self.model = model
        self.off = store.has_failed(identity_key(identity))
        """Whether the disk is too slow for this model, or the runtime does not do what it should."""
        self.prefill: float | None = None
        """Seconds per prompt token."""
        self.prefixes = Prefixes()
        self._text = ""
        """The last prompt that was evaluated; "" where it is not known what the memory holds."""
        self._tokens = 0
        self._exact = False
        """Whether it has just as many."""
        self._key = ""
        """Whose it is."""
        self._saved: Entry | None = None
        """The longest state that it goes on from, or is."""
        self._switches: deque[bool] = deque(maxlen=_REMEMBERED)
        self._abandoned: list[Draft] = []
        self.proven: set[str] = set()
        """The white space after which the runtime has shown that a token ends."""

    def forget(self) -> None:
        """Something else than a conversation's prompt is in the runtime's memory now."""
        self._text, self._tokens = "", 0

    def distrust(self, reason: str, *, sure: bool = True) -> None:
        """Use no states with this runtime from now on: what it does with them is not what it should. Where
        that is not `sure`, it counts when it happens again.
        """
        if self.off:
            return
        key = identity_key(self.identity)
        self.store.note_failure(key, sure=sure)
        self.off = self.store.has_failed(key)
        if not self.off:
            return
        log.warning(
            "%s: conversations are not kept any more, since %s; `rkllama cache clear` lets it be tried again",
            self.model,
            reason,
        )

    def abandon(self, draft: Draft) -> None:
        """Give up what a run may still write: its reader has gone, but the runtime has not ended it."""
        self._abandoned.append(draft)

    def sweep(self) -> None:
        """Remove what was abandoned; no run is under way now."""
        while self._abandoned:
            self.store.discard(self._abandoned.pop())

    def begin(
        self,
        text: str,
        *,
        digest: str | None,
        owner: str = "",
        control_tokens: Collection[str] = (),
        tokens_per_character: float | None = None,
    ) -> Visit | None:
        """Return what to do about a run on `text`; None where states are not used for it: while the digest
        of the model's file is not known, or on a disk that is too slow.
        """
        self.sweep()
        if self.off or digest is None:
            self.forget()
            return None
        return Visit(
            self,
            text,
            state_key(self.identity, digest, owner),
            tuple(control_tokens),
            tokens_per_character or None,
        )

    def continued(self, text: str) -> Proof | None:
        """Return what a run on `text` can show of the prompt in memory, where it goes on from that."""
        if not self._exact or not self._text or not text.startswith(self._text):
            return None
        at = len(self._text)
        tail = white_tail(text, at)
        if not tail or at == len(text) or text[at].isspace():
            return None
        return Proof(tail, self._tokens)

    def proven_tail(self, text: str) -> str:
        """Return the white space at the end of a text, if a token is known to end there."""
        tail = white_tail(text, len(text))
        return tail if tail in self.proven else ""

    def in_memory(self, text: str) -> int:
        """Return about how many tokens of `text` the runtime's memory holds."""
        if not self._text:
            return 0
        common = common_length(text, self._text)
        return self._tokens * common // len(self._text)

    def note_begin(self, text: str) -> bool:
        """Note whether a run takes another conversation's place in memory: as many of its tokens as are worth
        to be written. Return whether that happens here.
        """
        if self._text:
            lost = self._tokens * (len(self._text) - common_length(text, self._text))
            least = self.least_growth(self._key, self._tokens, self._saved, competing=True)
            self._switches.append(lost > least * len(self._text))
        self.forget()
        return any(self._switches)

    def note_end(self, text: str, key: str, figures: RunFigures, saved: Entry | None) -> None:
        """Note what the memory holds after a run, and how fast the model was."""
        if figures.prompt_tokens:
            self._text, self._tokens = text, figures.prompt_tokens
            self._exact, self._key, self._saved = figures.exact, key, saved
        self.note_speed(figures)

    def note_saved(self, entry: Entry) -> None:
        """Note that what the memory holds is a state now."""
        self._saved = entry

    def note_count(self, tokens: int | None, seconds: float) -> None:
        """Note how long it took to count a prompt that was not in memory, which evaluates it."""
        if self.prefill is None and tokens is not None and tokens >= _SURE:
            self.prefill = seconds / tokens

    def note_speed(self, figures: RunFigures) -> None:
        """Note how fast the model was."""
        evaluated = figures.evaluated or 0
        if figures.prompt_seconds is not None and evaluated >= _SURE:
            self.prefill = figures.prompt_seconds / evaluated

    def check_speed(self, bytes_per_token: float) -> bool:
        """Return whether the disk is fast enough for the model; of a slow one the log tells once."""
        if self.prefill is None or is_usable(bytes_per_token, self.store.speeds, self.prefill):
            return True
        speeds = self.store.speeds
        log.info(
            "%s: conversations are not kept, since the disk is too slow for it: a token takes %.2f ms to "
            "evaluate, %.2f ms to read and %.2f ms to write",
            self.model,
            self.prefill * 1e3,
            bytes_per_token / speeds.read * 1e3,
            bytes_per_token / speeds.write * 1e3,
        )
        self.off = True
        return False

    def least_growth(self, key: str, tokens: int, saved: Entry | None, *, competing: bool) -> int:
        """Return how much longer than the saved one a state of `tokens` has to be; see policy."""
        return least_growth(
            tokens,
            saved.header.tokens if saved else 0,
            bytes_per_token=self.store.bytes_per_token(key) or USUAL_BYTES,
            speeds=self.store.speeds,
            prefill=self.prefill or (saved.header.prefill if saved else None),
            competing=competing,
        )

    def draft(self, key: str, tokens: int, superseded: Entry | None = None) -> Draft | None:
        """Return a place for a state of about `tokens`, where the disk is fast enough and has room for it."""
        known = self.store.bytes_per_token(key)
        if known is not None and not self.check_speed(known):
            return None
        size = math.ceil(tokens * (known or USUAL_BYTES) * _SPARE)
        if known is None:  # a guess: too much for it must not keep the model from telling
            size = min(size, self.store.budget // 2)
        return self.store.draft(size, superseded)

    def farewell(self) -> Extra | None:
        """Return the run that keeps the conversation in memory before it is lost, if that is worth it."""
        text, saved = self._text, self._saved
        if not text or self.off:
            return None
        least = self.least_growth(self._key, self._tokens, saved, competing=True)
        if self._tokens - (saved.header.tokens if saved else 0) < least:
            return None
        draft = self.draft(self._key, self._tokens, saved)
        return Extra(self, self._key, text, draft, superseded=saved) if draft else None


class Extra:
    """A run of one token for the state it leaves, on a text that is in memory or has to be evaluated next."""

    def __init__(
        self,
        own: Conversations,
        key: str,
        text: str,
        draft: Draft,
        *,
        pinned: bool = False,
        superseded: Entry | None = None,
    ) -> None:
        self._own = own
        self._key = key
        self.text = text
        self._draft = draft
        self._pinned = pinned
        self._superseded = superseded

    @property
    def path(self) -> str:
        """Where the run is to write its state."""
        return self._draft.path

    def end(self, figures: RunFigures) -> Entry | None:
        """Keep what the run has written; None where that is nothing of use."""
        own = self._own
        own.note_speed(figures)
        prefill = own.prefill or (self._superseded.header.prefill if self._superseded else None)
        tokens = figures.prompt_tokens
        if not figures.saved or not tokens or not prefill or tokens < LEAST_TOKENS:
            own.store.discard(self._draft)
            return None
        entry = own.store.keep(
            self._draft,
            key=self._key,
            text=self.text.encode("utf-8", "surrogatepass"),
            tokens=tokens,
            prefill=prefill,
            model=own.model,
            pinned=self._pinned,
            proven=own.proven_tail(self.text),
            superseded=self._superseded,
        )
        if entry is not None and not own.check_speed(entry.header.size / tokens):
            own.store.drop(entry)
            return None
        return entry

    def give_up(self) -> None:
        """Keep nothing of a run that may not have ended."""
        self._own.abandon(self._draft)


class Visit:
    """One run."""

    def __init__(
        self,
        own: Conversations,
        text: str,
        key: str,
        control_tokens: tuple[str, ...],
        ratio: float | None,
    ) -> None:
        self._own = own
        self._text = text
        self._data = text.encode("utf-8", "surrogatepass")
        self._key = key
        self._control_tokens = control_tokens
        self._load_seconds = 0.0
        self._extra: Extra | None = None
        """What is to become of the state that the run leaves."""
        self._ended = False
        self._used: Entry | None = None
        """The state that was loaded."""
        self._found = own.store.find(key, self._data, self._fits)
        sure, rest = 0, len(text)
        if self._found is not None:
            sure, at = self._found.header.tokens, len(self._prefix(self._found.header.length))
            rest, ratio = len(text) - at, ratio or sure / at
        self.tokens_per_character = ratio
        """None where nothing has told."""
        self._tokens = sure + math.ceil(rest * (ratio or _USUAL_RATIO))
        self._proof = own.continued(text)
        memory = min(own.in_memory(text), self._tokens)
        self._memory = memory
        self._competing = own.note_begin(text)
        self.load = self._found if self._pays(memory) else None
        """The state to load before the run; None for none."""
        if self._found is None and memory < self._tokens // 2 and self._tokens >= FIRST_TOKENS:
            own.store.note_miss()

    def _prefix(self, length: int) -> str:
        return self._data[:length].decode("utf-8", "surrogatepass")

    def _fits(self, entry: Entry) -> bool:
        try:
            at = len(self._prefix(entry.header.length))
        except UnicodeDecodeError:  # it ends inside a character of this text
            return False
        proven = (*self._own.proven, entry.header.proven)
        return is_border(self._text, at, self._control_tokens, proven)

    def _pays(self, memory: int) -> bool:
        if self._found is None:
            return False
        header = self._found.header
        prefill = self._own.prefill or header.prefill
        size = header.size * (1 if self._found.stamp else 2)  # it is checked first
        return pays_to_load(header.tokens - memory, size, self._own.store.speeds, prefill)

    def path(self) -> str | None:
        """Return the file of the state to load; None where there is none, or it is not whole."""
        if self.load is None:
            return None
        path = self._own.store.path(self.load)
        if path is None:
            self.load = self._found = None
        return path

    def loaded(self, taken: bool, seconds: float) -> None:
        """Note whether the runtime has taken the state."""
        assert self.load is not None
        if taken:
            self._used, self._load_seconds = self.load, seconds
        else:
            self._own.store.refuse(self.load, "the runtime does not take it")
            self._found = None
            self._own.distrust(f"{self._own.identity.runtime} does not take what it wrote")

    def pin(self) -> Extra | None:
        """Return a run on what this conversation begins with, as others did; None where there is nothing new
        in that. What it evaluates, the conversation's own run does not evaluate again.
        """
        own, found = self._own, self._found
        prefix = own.prefixes.recurring(self._key, self._text, self._control_tokens)
        tokens = math.ceil(len(prefix) * (self.tokens_per_character or _USUAL_RATIO))
        saved = found.header.tokens if found else 0
        least = max(FIRST_TOKENS, own.least_growth(self._key, tokens, found, competing=True))
        if tokens - saved < least or own.prefill is None:
            return None
        draft = own.draft(self._key, tokens)
        return Extra(own, self._key, prefix, draft, pinned=True) if draft else None

    def pinned(self, entry: Entry | None) -> None:
        """Note what has become of the run that `pin` told of."""
        if entry is not None:
            self._found = entry
            self._memory = max(self._memory, entry.header.tokens)

    def draft(self, *, goes_on: bool = False) -> str | None:
        """Return where the run is to write its state; None where it is not worth it.

        `goes_on`: a run with a longer prompt of the same conversation is likely to follow at once.
        """
        own, found = self._own, self._found
        least = own.least_growth(self._key, self._tokens, found, competing=self._competing)
        growth = self._tokens - (found.header.tokens if found else 0)
        if growth < least * (2 if goes_on else 1):
            return None
        draft = own.draft(self._key, self._tokens, self._superseded())
        if draft is None:
            return None
        self._extra = Extra(own, self._key, self._text, draft, superseded=found)
        return draft.path

    def _superseded(self) -> Entry | None:
        """Return the state that this run goes on from, where that is in memory: loaded, or still there."""
        found = self._found
        if found is None or found.header.pinned:
            return None
        in_memory = self._used is found or self._memory >= found.header.tokens
        return found if in_memory else None

    def end(self, figures: RunFigures) -> None:
        """Keep what the run has written, and see whether it reused what was loaded."""
        own, self._ended = self._own, True
        if self._used is not None:
            self._check_reuse(self._used, figures)
        elif self._proof and figures.exact and (figures.reused or 0) >= self._proof.tokens:
            own.proven.add(self._proof.tail)
        own.note_end(self._text, self._key, figures, self._found)
        own.prefixes.note(self._key, self._text)
        if self._extra is not None and (entry := self._extra.end(figures)) is not None:
            own.note_saved(entry)

    def _check_reuse(self, entry: Entry, figures: RunFigures) -> None:
        """Count a hit, or drop a state that the run did not use as a whole, or beyond what it is."""
        own, tokens, reused = self._own, entry.header.tokens, figures.reused
        if reused is None:  # not told: the context became full
            return
        if abs(reused - tokens) <= _SLACK:
            prefill = own.prefill or entry.header.prefill
            saved = (tokens - self._memory) * prefill - self._load_seconds
            own.store.note_hit(entry, self._load_seconds, saved)
            return
        own.store.refuse(entry, f"the runtime used {reused} of its {tokens} tokens")
        own.distrust(f"{own.identity.runtime} does not use what it loads")
        if self._found is entry:
            self._found = None

    def failed(self) -> None:
        """The process has died in the run, or while it loaded a state."""
        if self._ended:
            return
        self.give_up()
        if self._extra is not None or self.load is not None:
            self._own.distrust("its process died when it saved or loaded one", sure=False)

    def give_up(self) -> None:
        """Nothing is kept of a run that has not come to its `end`, and what is in memory is not known."""
        if self._ended:
            return
        self._ended = True
        self._own.forget()
        if self._extra is not None:
            self._extra.give_up()
