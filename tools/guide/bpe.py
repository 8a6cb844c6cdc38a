"""A byte-level BPE vocabulary: training, encoding (with dropout of merges) and decoding.

The pre-tokeniser is GPT-2's, which llama.cpp knows by the name "gpt-2"; Python's `re` has no
`\\p{L}`, so letters are written as "word characters that are neither digits nor underscores".
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

PIECES = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+", re.UNICODE
)
END = "<|endoftext|>"
TURN = "<|im_start|>"
TURN_END = "<|im_end|>"
CONTROL = (END, TURN, TURN_END)
Pair = tuple[str, str]


def _byte_letters() -> dict[int, str]:
    """A printable character for each byte, as GPT-2 assigns them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(printable))
    return dict(sorted(letters.items()))


LETTERS = _byte_letters()
BYTES = {letter: byte for byte, letter in LETTERS.items()}


def _letters(piece: str) -> list[str]:
    return [LETTERS[byte] for byte in piece.encode()]


def train(texts: Iterable[str], size: int) -> list[Pair]:
    """The merges, best first, of a vocabulary of `size` tokens, the control tokens included."""
    counts = Counter(piece for text in texts for piece in PIECES.findall(text))
    words = [_letters(piece) for piece in counts]
    weights = list(counts.values())
    pairs: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        _count(word, weights[index], index, pairs, places)
    merges: list[Pair] = []
    while len(merges) < size - len(LETTERS) - len(CONTROL):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for index in sorted(places[best]):
            _count(words[index], -weights[index], index, pairs, places)
            words[index] = _merge(words[index], best)
            _count(words[index], weights[index], index, pairs, places)
        del pairs[best]
    return merges


def _count(
    word: list[str],
    weight: int,
    index: int,
    pairs: Counter[Pair],
    places: defaultdict[Pair, set[int]],
) -> None:
    for pair in pairwise(word):
        pairs[pair] += weight
        places[pair].add(index)


def _merge(word: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    at = 0
    while at < len(word):
        if at + 1 < len(word) and (word[at], word[at + 1]) == pair:
            merged.append(word[at] + word[at + 1])
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return merged


class Tokenizer:
    """Text to token ids and back; ids are bytes, then merges in order, then the control tokens."""

    def __init__(self, merges: list[Pair]) -> None:
        self.merges = merges
        self.tokens = [*LETTERS.values(), *(a + b for a, b in merges), *CONTROL]
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._known: dict[str, list[int]] = {}

    def encode(
        self, text: str, dropout: float = 0.0, rng: random.Random | None = None
    ) -> list[int]:
        """Ids of `text`, which holds no control tokens; with dropout some merges are left out."""
        ids: list[int] = []
        for piece in PIECES.findall(text):
            if dropout and rng:
                ids += self._encode_piece(piece, dropout, rng)
                continue
            if piece not in self._known:
                self._known[piece] = self._encode_piece(piece, 0.0, None)
            ids += self._known[piece]
        return ids

    def _encode_piece(self, piece: str, dropout: float, rng: random.Random | None) -> list[int]:
        word = _letters(piece)
        while len(word) > 1:
            candidates = [
                pair
                for pair in pairwise(word)
                if pair in self._ranks and not (rng and rng.random() < dropout)
            ]
            if not candidates:
                break
            word = _merge(word, min(candidates, key=self._ranks.__getitem__))
        return [self.ids[token] for token in word]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, control tokens left out."""
        letters = "".join(self.tokens[i] for i in ids if self.tokens[i] not in CONTROL)
        return bytes(BYTES[letter] for letter in letters).decode("utf-8", "replace")
