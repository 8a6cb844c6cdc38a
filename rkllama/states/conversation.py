"""One loaded model's conversations: what its memory holds, how fast it is, and what may be kept of it.

A runtime with slots has several memories, each with a conversation of its own: what a model has learned about
states is in its `Facts`, which they share. The caller holds the memory. Nothing here starts a process or
calls a runtime.
"""

from __future__ import annotations

import logging
import math
from collections import deque

from .facts import Facts, Proof, RunFigures
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
from .store import Draft, StateStore

log = logging.getLogger("rkllama")

_SPARE = 1.1
"""How much longer than estimated a prompt may be, for the room that is made for its state."""
_REMEMBERED = 8
"""Runs that tell whether conversations take each other's place in memory."""
_SURE = 32
"""Evaluated tokens from which on a run tells the model's speed."""
MOST_UNUSED = 16
"""States of first turns that are written while no conversation goes on: a thousand documents that are summed
up are none.
"""


class Conversations:
    """The conversations of one memory of a loaded model."""

    def __init__(
        self,
        store: StateStore,
        identity: Identity,
        model: str,
        *,
        has_farewell: bool = True,
        slots: bool = False,
        facts: Facts | None = None,
    ) -> None:
        """`has_farewell`: whether the runtime can be told to make one token, see `farewell` and Visit.pin.

        `slots`: whether it can write the memory at any time, and compares each token of a prompt with it. The
        other memories of the model have the same `facts`.
        """
        self.has_farewell = has_farewell
        self.slots = slots
        self.store = store
        self.identity = identity
        self.model = model
        self.facts = facts or Facts(store.has_failed(identity_key(identity)))
        self.prompt = ""
        """The last prompt that was run, to its end or not."""
        self.used = 0
        """When that was, counted in uses of the model."""
        self._text = ""
        """The last prompt that was evaluated; "" where it is not known what the memory holds."""
        self._tokens = 0
        self._exact = False
        """Whether it has just as many."""
        self._key = ""
        """Whose it is."""
        self._saved: Entry | None = None
        """The longest state that it goes on from, or is."""
        self.is_first = self._is_alone = False
        """Whether what it holds goes on from no other conversation; whether it is none."""
        self._unfinished: tuple[str, str, Entry | None] | None = None
        """The text, key and state of a run that nobody waited for."""
        self._switches: deque[bool] = deque(maxlen=_REMEMBERED)
        self._abandoned: list[Draft] = []

    def sibling(self) -> Conversations:
        """Return those of another memory of the same model."""
        return Conversations(
            self.store,
            self.identity,
            self.model,
            has_farewell=self.has_farewell,
            slots=self.slots,
            facts=self.facts,
        )

    @property
    def off(self) -> bool:
        """Whether no states are used."""
        return self.facts.off

    def begin_use(self, prompt: str) -> None:
        """Note a prompt that is run next."""
        self.prompt = prompt
        self.facts.uses += 1
        self.used = self.facts.uses

    def forget(self) -> None:
        """Something else than a conversation's prompt is in the runtime's memory now."""
        self._text, self._tokens, self._unfinished = "", 0, None

    def distrust(self, reason: str, *, sure: bool = True) -> None:
        """Use no states with this runtime from now on: what it does with them is not what it should. Where
        that is not `sure`, it counts when it happens again.
        """
        if self.off:
            return
        key = identity_key(self.identity)
        self.store.note_failure(key, sure=sure)
        self.facts.off = self.store.has_failed(key)
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
        keys = self.facts.keys
        key = keys.get((digest, owner))
        if key is None:
            key = keys[digest, owner] = state_key(self.identity, digest, owner)
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
        return tail if tail in self.facts.proven else ""

    def saved_length(self, text: str, digest: str | None, owner: str) -> int:
        """Return how many characters of `text` the longest state of it holds, about; for slots."""
        if self.off or digest is None:
            return 0
        data = text.encode("utf-8", "surrogatepass")
        entry = self.store.find(self.key_of(digest, owner), data, lambda _: True)
        return 0 if entry is None else entry.header.length * len(text) // len(data)

    def tokens_of(self, common: int) -> int:
        """Return about how many tokens so many characters of what the memory holds are."""
        return self._tokens * common // len(self._text) if self._text else 0

    def common_with(self, text: str) -> int:
        """Return how many characters of `text` the runtime's memory holds, as far as is known."""
        return common_length(text, self._text)

    def _is_lost(self, common: int) -> bool:
        """Return whether a run drops as much of what is in memory as is worth to be written, where it keeps
        `common` characters of that.
        """
        lost = self._tokens * (len(self._text) - common)
        least = self.least_growth(self._key, self._tokens, self._saved, competing=True)
        return lost > least * len(self._text)

    def note_begin(self, common: int) -> bool:
        """Note whether a run, which keeps `common` characters of what is in memory, takes another
        conversation's place there: as many of its tokens as are worth to be written. Return whether that
        happens here.
        """
        if self._text:
            self._switches.append(self._is_lost(common))
        self.forget()
        return any(self._switches)

    def note_end(self, text: str, key: str, figures: RunFigures, saved: Entry | None) -> None:
        """Note what the memory holds after a run, and how fast the model was."""
        if figures.prompt_tokens and (self.slots or not figures.full):
            self._text, self._tokens = text, figures.prompt_tokens
            self._exact, self._key, self._saved = figures.exact, key, saved
        self.note_speed(figures)

    def note_turn(self, *, is_first: bool, is_alone: bool) -> None:
        """Note whether what is in memory goes on from no other conversation, or is none."""
        self.is_first, self._is_alone = is_first, is_alone

    def note_unfinished(self, text: str, key: str, saved: Entry | None) -> None:
        """Note that nobody waits for the end of a run, which may tell what it has left in its slot."""
        self._unfinished = text, key, saved

    def note_left(self, figures: RunFigures) -> None:
        """Note what the last run has told that nobody waited for."""
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            text, key, saved = unfinished
            self.note_end(text, key, figures, saved)

    def note_counted(self, text: str, key: str, tokens: int | None) -> None:
        """Note that a slot holds a text that was evaluated to count it."""
        if tokens:
            figures = RunFigures(tokens, None, None, None, saved=False)
            self.note_end(text, key, figures, None)
            self.note_turn(is_first=True, is_alone=True)

    def note_saved(self, entry: Entry) -> None:
        """Note that what the memory holds is a state now."""
        self._saved = entry

    def note_count(self, tokens: int | None, seconds: float) -> None:
        """Note how long it took to count a prompt that was not in memory, which evaluates it."""
        if self.facts.prefill is None and tokens is not None and tokens >= _SURE:
            self.facts.prefill = seconds / tokens

    def note_speed(self, figures: RunFigures) -> None:
        """Note how fast the model was."""
        evaluated = figures.evaluated or 0
        if figures.prompt_seconds is not None and evaluated >= _SURE:
            self.facts.prefill = figures.prompt_seconds / evaluated

    def check_speed(self, bytes_per_token: float) -> bool:
        """Return whether the disk is fast enough for the model; of a slow one the log tells once."""
        speeds, prefill = self.store.speeds, self.facts.prefill
        if prefill is None or is_usable(bytes_per_token, speeds, prefill):
            return True
        log.info(
            "%s: conversations are not kept, since the disk is too slow for it: a token takes %.2f ms to "
            "evaluate, %.2f ms to read and %.2f ms to write",
            self.model,
            prefill * 1e3,
            bytes_per_token / speeds.read * 1e3,
            bytes_per_token / speeds.write * 1e3,
        )
        self.facts.off = True
        return False

    def least_growth(self, key: str, tokens: int, saved: Entry | None, *, competing: bool) -> int:
        """Return how much longer than the saved one a state of `tokens` has to be; see policy."""
        return least_growth(
            tokens,
            saved.header.prompt_tokens if saved else 0,
            bytes_per_token=self.store.bytes_per_token(key) or USUAL_BYTES,
            speeds=self.store.speeds,
            prefill=self.facts.prefill or (saved.header.prefill if saved else None),
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

    def farewell(self, text: str | None = None, most: int | None = None) -> Extra | None:
        """Return what keeps the conversation in memory before it is lost, with the model or to a run on
        `text`, if that is worth it and takes `most` bytes at most, as far as is known.
        """
        if not self._text or self.off or not self.has_farewell:
            return None
        if text is not None and not self._is_lost(self.common_with(text)):
            return None
        return self.keep(competing=True, most=most)

    def keep(self, *, competing: bool, most: int | None = None) -> Extra | None:
        """Return what writes the conversation in memory as a state, if that is worth it."""
        facts, saved, key = self.facts, self._saved, self._key
        if not self._text:
            return None
        if self.slots and self.is_first and (self._is_alone or facts.unused >= MOST_UNUSED):
            return None
        least = self.least_growth(key, self._tokens, saved, competing=competing)
        if self._tokens - (saved.header.prompt_tokens if saved else 0) < least:
            return None
        size = self._tokens * (self.store.bytes_per_token(key) or USUAL_BYTES)
        if most is not None and size > most:
            return None
        replaced = None if saved is None or saved.header.pinned else saved
        draft = self.draft(key, self._tokens, replaced)
        if draft is None:
            return None
        tokens = self._tokens if self.slots else None
        return Extra(self, key, self._text, draft, superseded=saved, in_memory=tokens)


class Extra:
    """A run of one token for the state it leaves, on a text that is in memory or has to be evaluated next.

    Where a slot can be written without a run, and the text is `in_memory`, it is no run at all.
    """

    def __init__(
        self,
        own: Conversations,
        key: str,
        text: str,
        draft: Draft,
        *,
        pinned: bool = False,
        superseded: Entry | None = None,
        in_memory: int | None = None,
    ) -> None:
        self._own = own
        self._key = key
        self.text = text
        self.in_memory = in_memory
        """The tokens of the text, where the slot holds them and may be written as it is."""
        self._draft = draft
        self._pinned = pinned
        self._superseded = superseded

    @property
    def writes_slot(self) -> bool:
        """Whether the state is written by itself, rather than by a run."""
        return self._own.slots

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
        own_prefill = own.facts.prefill
        prefill = own_prefill or (self._superseded.header.prefill if self._superseded else None)
        tokens = figures.prompt_tokens
        if not figures.saved or not tokens or not prefill or tokens < LEAST_TOKENS:
            own.store.discard(self._draft)
            return None
        header = Header(
            key=self._key,
            tokens=tokens + figures.answer,
            answer=figures.answer,
            prefill=prefill,
            model=own.model,
            pinned=self._pinned,
            proven=own.proven_tail(self.text),
        )
        text = self.text.encode("utf-8", "surrogatepass")
        entry = own.store.keep(self._draft, text, header, self._superseded)
        if entry is not None and not own.check_speed(entry.header.size / entry.header.tokens):
            own.store.drop(entry)
            return None
        return entry

    def note_saved(self, entry: Entry) -> None:
        """Note that what is in memory is a state now, and whether a conversation has gone on to it."""
        self._own.note_saved(entry)
        self._own.facts.unused += self._own.is_first

    def distrust_writing(self) -> None:
        """Note that the slot could not be written; the second time is the last. A disk that has become full
        meanwhile is no fault of the runtime's.
        """
        if not self._own.store.lacks_space(self._draft.size):
            self._own.distrust(f"{self._own.identity.runtime} does not write its slots", sure=False)

    def give_up(self) -> None:
        """Keep nothing of a run that may not have ended."""
        self._own.abandon(self._draft)
