"""No state is used for a prompt that it does not fit: random pairs, judged by tokenizers."""

from __future__ import annotations

import random
import re
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rkllama.states.conversation import Conversations
from rkllama.states.header import Header
from rkllama.states.index import Entry, Index
from rkllama.states.key import Identity, owner_of, state_key

from .making import DIGEST, IDENTITY, begun, kept, opened, tokens_of

CONTROL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
_SPLIT = re.compile("(" + "|".join(map(re.escape, CONTROL)) + ")")
_LETTERS = r"[^\W\d_]"

PATTERNS = {
    "gpt-2": rf"'(?:[sdmt]|ll|ve|re)| ?{_LETTERS}+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+",
    "qwen, llama 3": (
        rf"(?:[^\r\n\w]|_)?{_LETTERS}+|\d{{1,3}}| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ),
    "deepseek": rf"[\r\n]|\s?{_LETTERS}+|\s?(?:[^\s\w]|_)+|\s+$|\d+|\s",
    "sentencepiece": r"\n+| *[^\s]+| +|\s",
}
"""How texts are cut before anything is merged. Each piece counts as one token: no vocabulary merges more."""


def tokens(pattern: str, text: str) -> list[str]:
    found: list[str] = []
    for piece in _SPLIT.split(text):
        found += [piece] if piece in CONTROL else re.findall(pattern, piece)
    assert "".join(found) == text
    return found


FRAGMENTS = (
    "<|im_start|>", "<|im_end|>", "<think>", "</think>", "assistant\n", "user\n", "system\n", "\n", "\n\n",
    " ", "  ", "\t", "Hello", "hello", " world", "wor", "ld", "1", "23", "456", ".", "...", "!\n", ")", "é",
    "e\u0301", "漢", "字", "\U0001f600", "\r\n", "\u2028", "\u00a0", "_", "<", ">", "'s", "'", "\ud800",
)  # fmt: skip


def random_text(chance: random.Random, most: int = 30) -> str:
    return "".join(chance.choices(FRAGMENTS, k=chance.randint(20, most)))


def changed(chance: random.Random, text: str) -> str:
    """A prompt that begins like `text`, or nearly."""
    rest = random_text(chance, 25)
    way = chance.randrange(4)
    if way == 0:
        return text + rest
    if way == 1:
        return text[: chance.randrange(len(text))] + rest
    if way == 2:
        place = chance.randrange(len(text))
        return text[:place] + chance.choice(FRAGMENTS) + text[place + 1 :] + rest
    return rest + text


def test_random_pairs_of_prompts_and_states(tmp_path: Path) -> None:
    chance = random.Random(12)
    store = opened(tmp_path)
    identities = [
        IDENTITY,
        replace(IDENTITY, runtime="librkllmrt 1.2.3"),
        replace(IDENTITY, context_length=2048),
        replace(IDENTITY, lora="other"),
    ]
    owners, digests = ("", owner_of("a"), owner_of("b")), (DIGEST, "e" * 64)

    def somebody() -> tuple[Identity, str, str]:
        return chance.choice(identities), chance.choice(digests), chance.choice(owners)

    states: list[tuple[str, tuple[Identity, str, str]]] = []
    belongings: dict[str, tuple[str, tuple[Identity, str, str]]] = {}
    for _ in range(300):
        text, who = random_text(chance), somebody()
        identity, digest, owner = who
        draft = store.draft(1000)
        assert draft is not None
        Path(draft.path).write_bytes(b"x" * 1000)
        entry = store.keep(
            draft,
            key=state_key(identity, digest, owner),
            text=text.encode("utf-8", "surrogatepass"),
            tokens=100,
            prefill=1.0,
            model="m",
        )
        assert entry is not None
        states.append((text, who))
        belongings[entry.state] = text, who
    used = wrong = 0
    for _ in range(10_000):
        text, who = chance.choice(states)
        (identity, digest, owner), prompt = chance.choice((who, somebody())), changed(chance, text)
        conversations = Conversations(store, identity, "m")
        visit = conversations.begin(
            prompt, digest=digest, owner=owner, control_tokens=CONTROL, tokens_per_character=50.0
        )
        assert visit is not None
        if visit.load is None:
            continue
        used += 1
        text, who = belongings[visit.load.state]
        fits = who == (identity, digest, owner) and prompt.startswith(text)
        for pattern in PATTERNS.values():
            whole, part = tokens(pattern, prompt), tokens(pattern, text)
            fits &= whole[: len(part)] == part
        wrong += not fits
    store.close()
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


def header(number: int, text: str) -> Header:
    import hashlib
    import zlib

    data = text.encode()
    return Header(
        key="a" * 64,
        prefix=hashlib.sha256(data).hexdigest(),
        prefix_crc=zlib.crc32(data),
        length=len(data),
        tokens=tokens_of(text),
        size=1000,
        crc=number,
        prefill=0.004,
        model="model",
        created=0.0,
    )


def test_a_look_up_among_1000_states() -> None:
    """In 2 ms and 5 MB, a prompt of 20,000 characters of which every length is tried."""
    base = "word " * 4000

    def filled() -> Index:
        index = Index()
        for number in range(1000):
            text = base[: 1000 + number * 19] if number % 2 else base[: 1000 + number * 19] + "x"
            index.add(Entry(f"{number:016x}", header(number, text), 0.0))
        return index

    tracemalloc.start()
    index = filled()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    prompt = (base + "more").encode()
    assert best(lambda: next(index.matches("a" * 64, prompt))) <= 0.002
    assert next(index.matches("a" * 64, prompt)).state == f"{999:016x}"
    assert not list(index.matches("b" * 64, prompt))
    assert size <= 5 << 20


def best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def test_all_that_a_state_belongs_to_is_in_its_key() -> None:
    same = state_key(IDENTITY, DIGEST, "")
    others = {
        state_key(replace(IDENTITY, **{name: value}), DIGEST, "")
        for name, value in (
            ("runtime", "librkllmrt 1.2.3"),
            ("platform", "RK3576"),
            ("toolkit", "1.2.3"),
            ("context_length", 2048),
            ("lora", "x"),
        )
    }
    others |= {state_key(IDENTITY, "e" * 64, ""), state_key(IDENTITY, DIGEST, owner_of("key"))}
    assert len(others | {same}) == 8
    assert same == state_key(IDENTITY, DIGEST, "")


def test_without_a_digest_no_state_is_used(tmp_path: Path) -> None:
    store = opened(tmp_path)
    text = "some words " * 50 + "end\n"
    kept(store, state_key(IDENTITY, DIGEST, ""), text)
    conversations = Conversations(store, IDENTITY, "m")
    assert conversations.begin(text + "more", digest=None) is None
    assert begun(conversations, text + "more").load is not None
    store.close()
