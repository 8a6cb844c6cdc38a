"""States for tests: written as a runtime would write them, without one."""

from __future__ import annotations

import os
from pathlib import Path

from rkllama.states.conversation import Conversations
from rkllama.states.facts import RunFigures
from rkllama.states.header import Header
from rkllama.states.index import Entry
from rkllama.states.key import Identity
from rkllama.states.store import StateStore
from rkllama.states.visit import Visit, begin

DIGEST = "d" * 64
BYTES = 64
"""Of a token."""
IDENTITY = Identity(
    runtime="librkllmrt 1.3.0", platform="RK3588", toolkit="1.3.0", context_length=4096
)


def tokens_of(text: str) -> int:
    """As many tokens as there are words."""
    return len(text.split())


def write(path: str, tokens: int) -> None:
    """Write what a runtime writes: so many bytes for a token."""
    Path(path).write_bytes(os.urandom(tokens * BYTES))


def opened(path: Path, budget: int | None = 1 << 30, hourly: int | None = 1 << 40) -> StateStore:
    """A store in a directory."""
    store = StateStore(str(path), budget, hourly)
    assert store.open()
    return store


def kept(store: StateStore, key: str, text: str, *, pinned: bool = False) -> Entry | None:
    """Write a state of `text` and keep it; None where the store does not want it."""
    tokens = tokens_of(text)
    draft = store.draft(tokens * BYTES)
    if draft is None:
        return None
    write(draft.path, tokens)
    header = Header(key=key, tokens=tokens, prefill=1.0, model="m", pinned=pinned)
    return store.keep(draft, text.encode("utf-8", "surrogatepass"), header)


def figures(
    text: str, *, reused: int = 0, saved: bool = False, per_token: float = 1.0
) -> RunFigures:
    """What a run on `text` tells that found `reused` tokens."""
    tokens = tokens_of(text)
    evaluated = max(0, tokens - reused)
    return RunFigures(tokens, evaluated, reused, evaluated * per_token, saved)


def begun(conversations: Conversations, text: str, **values: object) -> Visit:
    """A visit that is made for a model whose digest is known."""
    values = {"digest": DIGEST, "tokens_per_character": tokens_of(text) / len(text), **values}
    visit = begin(conversations, text, **values)  # type: ignore[arg-type]
    assert visit is not None
    return visit


class Run:
    """One turn as the engine makes it, on a memory that holds one conversation."""

    def __init__(self, conversations: Conversations, per_token: float = 1.0) -> None:
        self.conversations = conversations
        self.per_token = per_token
        self.held = 0
        self.text = ""
        self.evaluated = 0
        self.loads = 0

    def __call__(
        self, text: str, *, saves: bool = True, goes_on: bool = False, alone: bool = False
    ) -> bool:
        """Run a prompt; return whether its state was kept."""
        visit = begun(self.conversations, text, alone=alone)
        path = visit.path()
        if path is not None and visit.load is not None:
            visit.loaded(True, 0.0)
            self.loads += 1
            self.held, self.text = visit.load.header.tokens, text[: visit.load.header.length]
        reused = self.held if text.startswith(self.text) else 0
        target = visit.draft(goes_on=goes_on)
        if target is not None:
            write(target, tokens_of(text))
        visit.end(
            figures(
                text, reused=reused, saved=saves and target is not None, per_token=self.per_token
            )
        )
        visit.give_up()  # as the engine does, whatever came before
        self.held, self.text = tokens_of(text), text
        self.evaluated += tokens_of(text) - reused
        return saves and target is not None
