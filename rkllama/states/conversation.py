"""One loaded model's conversations: what its memory holds, how fast it is, and what may be kept of it.

Its caller holds the model's lease. It starts no process and calls no runtime.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import NamedTuple

from .header import Header
from .index import Entry
from .key import Identity, identity_key, state_key
from .policy import (
    LEAST_TOKENS,
    USUAL_BYTES,
    common_length,
    is_usable,
    least_growth,
    white_tail,
)
from .prefixes import Prefixes
from .store import Draft, StateStore

log = logging.getLogger("rkllama")

_SPARE = 1.1
"""How much longer than estimated a prompt may be, for the room that is made for its state."""
_REMEMBERED = 8
"""Runs that tell whether conversations take each other's place in memory."""
_SURE = 32
"""Evaluated tokens from which on a run tells the model's speed."""


class RunFigures(NamedTuple):
    """What a run tells. `reused`: tokens that were in the KV cache, give or take _SLACK."""

    prompt_tokens: int | None
    evaluated: int | None
    reused: int | None
    prompt_seconds: float | None
    saved: bool
    full: bool = False
    """Whether the context became full, so that what is in memory is not the prompt any more."""
    exact: bool = False
    """Whether `prompt_tokens` and `reused` are not off by a token."""


class Proof(NamedTuple):
    """White space at the end of a prompt: a token ends there if a run that goes on from it reuses as many."""

    tail: str
    tokens: int


class Conversations:
    """The conversations of one loaded model."""

    def __init__(
        self, store: StateStore, identity: Identity, model: str, *, has_farewell: bool = True
    ) -> None:
        """`has_farewell`: whether the runtime can be told to make one token, see `farewell` and Visit.pin."""
        self.has_farewell = has_farewell
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
        self.unused = 0
        """States of first turns that were written since a conversation has gone on."""
        self._abandoned: list[Draft] = []
        self._keys: dict[tuple[str, str], str] = {}
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

    def key_of(self, digest: str, owner: str) -> str:
        """Return the key of what a client with these may use."""
        key = self._keys.get((digest, owner))
        if key is None:
            key = self._keys[digest, owner] = state_key(self.identity, digest, owner)
        return key

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
        if figures.prompt_tokens and not figures.full:
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
            has_farewell=self.has_farewell,
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
        if not text or self.off or not self.has_farewell:
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
    def context_length(self) -> int:
        """The model's."""
        return self._own.identity.context_length

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
        header = Header(
            key=self._key,
            tokens=tokens,
            prefill=prefill,
            model=own.model,
            pinned=self._pinned,
            proven=own.proven_tail(self.text),
        )
        text = self.text.encode("utf-8", "surrogatepass")
        entry = own.store.keep(self._draft, text, header, self._superseded)
        if entry is not None and not own.check_speed(entry.header.size / tokens):
            own.store.drop(entry)
            return None
        return entry

    def give_up(self) -> None:
        """Keep nothing of a run that may not have ended."""
        self._own.abandon(self._draft)
