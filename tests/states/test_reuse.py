"""No state is used for a prompt that it does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rkllama.states.conversation import Conversations
from rkllama.states.key import owner_of, state_key
from rkllama.states.visit import begin

from .making import DIGEST, IDENTITY, begun, kept, opened
from .pairs import PATTERNS, look_up, random_pairs, tokens


def test_random_pairs_of_prompts_and_states(tmp_path: Path) -> None:
    used, wrong = random_pairs(tmp_path, 10_000)
    assert used > 300  # else nothing was tried
    assert wrong == 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_tokenizers_find_wrong_borders(pattern: str) -> None:
    """They judge: they have to know what is wrong."""
    whole, part = (
        tokens(PATTERNS[pattern], "user\nHello world"),
        tokens(PATTERNS[pattern], "user\nHel"),
    )
    assert whole[: len(part)] != part


def test_a_look_up_among_1000_states() -> None:
    seconds, size = look_up()
    assert seconds <= 0.002
    assert size <= 5 << 20


def test_all_that_a_state_belongs_to_is_in_its_key() -> None:
    same = state_key(IDENTITY, DIGEST, "")
    identities = (
        replace(IDENTITY, runtime="librkllmrt 1.2.3"),
        replace(IDENTITY, platform="RK3576"),
        replace(IDENTITY, toolkit="1.2.3"),
        replace(IDENTITY, context_length=2048),
        replace(IDENTITY, lora="x"),
    )
    others = {state_key(identity, DIGEST, "") for identity in identities}
    others |= {state_key(IDENTITY, "e" * 64, ""), state_key(IDENTITY, DIGEST, owner_of("key"))}
    assert len(others | {same}) == 8
    assert same == state_key(IDENTITY, DIGEST, "")


def test_without_a_digest_no_state_is_used(tmp_path: Path) -> None:
    store = opened(tmp_path)
    text = "some words " * 50 + "end\n"
    kept(store, state_key(IDENTITY, DIGEST, ""), text)
    conversations = Conversations(store, IDENTITY, "m")
    assert begin(conversations, text + "more", digest=None) is None
    assert begun(conversations, text + "more").load is not None
    store.close()
