"""Prompts and states at random, judged by tokenizers; used by the tests and by the benchmark."""

from __future__ import annotations

import hashlib
import random
import re
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rkllama.states.conversation import Conversations
from rkllama.states.header import Header
from rkllama.states.index import Entry, Index
from rkllama.states.key import Identity, owner_of, state_key
from rkllama.states.visit import begin

from .making import DIGEST, IDENTITY, opened, tokens_of

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


def random_pairs(path: Path, count: int) -> tuple[int, int]:
    """Try so many prompts on 300 states; how many were used, and how many of them wrongly."""
    chance = random.Random(12)
    store = opened(path)
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
        header = Header(key=state_key(identity, digest, owner), tokens=100, prefill=1.0, model="m")
        entry = store.keep(draft, text.encode("utf-8", "surrogatepass"), header)
        assert entry is not None
        states.append((text, who))
        belongings[entry.state] = text, who
    used = wrong = 0
    for _ in range(count):
        text, who = chance.choice(states)
        (identity, digest, owner), prompt = chance.choice((who, somebody())), changed(chance, text)
        conversations = Conversations(store, identity, "m")
        visit = begin(
            conversations,
            prompt,
            digest=digest,
            owner=owner,
            control_tokens=CONTROL,
            tokens_per_character=50.0,
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
    return used, wrong


def header_of(number: int, text: str) -> Header:
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


def look_up() -> tuple[float, int]:
    """Seconds of a look-up among 1000 states, for a prompt of 20,000 characters, and bytes that they take."""
    base = "word " * 4000

    def filled() -> Index:
        index = Index()
        for number in range(1000):
            text = base[: 1000 + number * 19] if number % 2 else base[: 1000 + number * 19] + "x"
            index.add(Entry(f"{number:016x}", header_of(number, text), 0))
        return index

    tracemalloc.start()
    index = filled()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    prompt = (base + "more").encode()
    seconds = best(lambda: next(index.matches("a" * 64, prompt)))
    assert next(index.matches("a" * 64, prompt)).state == f"{999:016x}"
    assert not list(index.matches("b" * 64, prompt))
    return seconds, size


def best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
