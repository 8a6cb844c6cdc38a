"""One run, as the states see it: what to load before it, and whether to keep what it leaves.

visit = begin(conversations, text, …)    before a run; `visit.load` is a state that pays
visit.loaded(…)                          what the runtime made of it
visit.pin()                              a run of one token that comes first: see prefixes.py
visit.draft(…)                           where the run is to write its state, if it is worth it
visit.end(…), give_up() or failed()      once it has ended, or nobody waits for that, or its process has
visit.keep()                             after `end`, in place of `draft`, where a slot is written by itself
"""

from __future__ import annotations

import math
from collections.abc import Collection

from .conversation import MOST_UNUSED, Conversations, Extra
from .facts import RunFigures
from .index import Entry
from .policy import FIRST_TOKENS, SLACK, is_border, pays_to_load

_USUAL_RATIO = 0.3
"""Tokens per character, until a run has told."""
_MERGED = 8
"""Tokens at the end of a state's text that may be others when text follows, where a runtime compares each."""


def begin(
    conversations: Conversations,
    text: str,
    *,
    digest: str | None,
    owner: str = "",
    control_tokens: Collection[str] = (),
    tokens_per_character: float | None = None,
    alone: bool = False,
) -> Visit | None:
    """Return what to do about a run on `text`; None where states are not used for it: while the digest of the
    model's file is not known, on a disk that is too slow, and with a runtime that has failed.

    `alone`: the prompt is one text, and a conversation only if it continues one.
    """
    conversations.sweep()
    if conversations.off or digest is None:
        conversations.forget()
        return None
    key = conversations.key_of(digest, owner)
    ratio = tokens_per_character or None
    return Visit(conversations, text, key, tuple(control_tokens), ratio, alone=alone)


class Visit:
    """One run."""

    def __init__(
        self,
        own: Conversations,
        text: str,
        key: str,
        control_tokens: tuple[str, ...],
        ratio: float | None,
        *,
        alone: bool = False,
    ) -> None:
        self._own = own
        self._text = text
        self._data = text.encode("utf-8", "surrogatepass")
        self._key = key
        self._control_tokens = control_tokens
        self._alone = alone
        self._load_seconds = 0.0
        self._extra: Extra | None = None
        """What is to become of the state that the run leaves."""
        self._ended = False
        self.has_ended = False
        """Whether its run has come to its end."""
        self.evaluated_before = False
        """Whether a part of the prompt was evaluated by another run that was made for it."""
        self._used: Entry | None = None
        """The state that was loaded."""
        self._found = own.store.find(key, self._data, self._fits)
        sure, rest = 0, len(text)
        if self._found is not None:
            sure, at = self._found.header.prompt_tokens, self._found_length
            rest, ratio = len(text) - at, ratio or sure / at
        self.tokens_per_character = ratio
        """None where nothing has told."""
        self._tokens = sure + math.ceil(rest * (ratio or _USUAL_RATIO))
        self._proof = own.continued(text)
        self._goes_on = own.facts.prefixes.continues(key, text) or (
            self._found is not None and not self._found.header.pinned
        )
        if self._goes_on:
            own.facts.unused = 0
        self.cached = own.common_with(text)
        """Characters of the text that are in memory, as far as is known."""
        memory = min(own.tokens_of(self.cached), self._tokens)
        self._memory = memory
        self._competing = own.note_begin(self.cached)
        self.load = self._found if self._pays(memory) else None
        """The state to load before the run; None for none."""
        if self._found is None and memory < self._tokens // 2 and self._tokens >= FIRST_TOKENS:
            own.store.note_miss()

    @property
    def _found_length(self) -> int:
        """Characters of the text that the longest state begins with."""
        return 0 if self._found is None else len(self._prefix(self._found.header.length))

    def _prefix(self, length: int) -> str:
        return self._data[:length].decode("utf-8", "surrogatepass")

    def _fits(self, entry: Entry) -> bool:
        try:
            at = len(self._prefix(entry.header.length))
        except UnicodeDecodeError:  # it ends inside a character of this text
            return False
        if self._own.slots:  # tokens are compared, and what they are in the text is known by that
            return True
        proven = (*self._own.facts.proven, entry.header.proven)
        return is_border(self._text, at, self._control_tokens, proven)

    def _pays(self, memory: int) -> bool:
        if self._found is None:
            return False
        header = self._found.header
        prefill = self._own.facts.prefill or header.prefill
        size = header.size * (1 if self._found.stamp else 2)  # it is checked first
        return pays_to_load(header.prompt_tokens - memory, size, self._own.store.speeds, prefill)

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
            self.cached = self._found_length
        else:
            self._own.store.refuse(self.load, "the runtime does not take it")
            self._found = None
            self._own.distrust(f"{self._own.identity.runtime} does not take what it wrote")

    def pin(self) -> Extra | None:
        """Return a run on what this conversation begins with, as others did; None where there is nothing new
        in that. What it evaluates, the conversation's own run does not evaluate again.
        """
        own, found = self._own, self._found
        if not own.has_farewell or own.facts.prefill is None:
            return None
        if self._used is not None:  # what was loaded is to be held to its figures
            return None
        prefix = own.facts.prefixes.recurring(self._key, self._text, self._control_tokens)
        tokens = math.ceil(len(prefix) * (self.tokens_per_character or _USUAL_RATIO))
        saved = found.header.prompt_tokens if found else 0
        least = max(FIRST_TOKENS, own.least_growth(self._key, tokens, found, competing=True))
        if tokens - saved < least:
            return None
        draft = own.draft(self._key, tokens)
        return Extra(own, self._key, prefix, draft, pinned=True) if draft else None

    def pinned(self, entry: Entry | None) -> None:
        """Note what has become of the run that `pin` told of."""
        self.evaluated_before = True
        if entry is not None:
            self._found = entry
            self._memory = max(self._memory, entry.header.tokens)

    def draft(self, *, goes_on: bool = False) -> str | None:
        """Return where the run is to write its state; None where it is not worth it.

        `goes_on`: a run with a longer prompt of the same conversation is likely to follow at once.
        """
        own, found = self._own, self._found
        if not self._goes_on and (self._alone or own.facts.unused >= MOST_UNUSED):
            return None
        least = own.least_growth(self._key, self._tokens, found, competing=self._competing)
        growth = self._tokens - (found.header.prompt_tokens if found else 0)
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
        own, self._ended, self.has_ended = self._own, True, True
        if self._used is not None:
            self._check_reuse(self._used, figures)
        elif self._proof and figures.exact and (figures.reused or 0) >= self._proof.tokens:
            own.facts.proven.add(self._proof.tail)
        own.note_end(self._text, self._key, figures, self._found)
        own.note_turn(is_first=not self._goes_on, is_alone=self._alone)
        own.facts.prefixes.note(self._key, self._text)
        if self._extra is not None and (entry := self._extra.end(figures)) is not None:
            self._extra.note_saved(entry)

    def keep(self) -> Extra | None:
        """Return what writes the slot after the run, if that is worth it."""
        own = self._own
        return None if own.off else own.keep(competing=False)

    def _check_reuse(self, entry: Entry, figures: RunFigures) -> None:
        """Count a hit, or drop a state that the run did not use as a whole, or beyond what it is."""
        own, tokens, reused = self._own, entry.header.prompt_tokens, figures.reused
        if reused is None:  # not told: the context became full
            return
        if reused >= tokens - _MERGED if own.slots else abs(reused - tokens) <= SLACK:
            prefill = own.facts.prefill or entry.header.prefill
            saved = (tokens - self._memory) * prefill - self._load_seconds
            own.store.note_hit(entry, self._load_seconds, saved)
            return
        own.store.refuse(entry, f"the runtime used {reused} of its {tokens} tokens")
        own.distrust(f"{own.identity.runtime} does not use what it loads", sure=not own.slots)
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
        if self._own.slots:
            self._own.note_turn(is_first=not self._goes_on, is_alone=self._alone)
            self._own.note_unfinished(self._text, self._key, self._found)
        if self._extra is not None:
            self._extra.give_up()
