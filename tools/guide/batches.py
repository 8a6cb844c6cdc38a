"""Training batches: conversations in the guide's chat template, drawn and varied at random.

Two kinds alternate. "Short" rows hold one question, and its answer or less. "Long" rows hold a
conversation of several unrelated questions, sometimes below a system prompt, so that a history does
not distract the guide.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from .augment import Variations
from .bpe import END, TURN, TURN_END, Tokenizer
from .corpus import OUTSIDE, Corpus, Question, expand, normalised, read_lines

IGNORED = -100
Row = tuple[list[int], list[int], list[int]]
"""Token ids; for each of them itself where it is learnt, else IGNORED; and at each prompt's last token
the number of the answer that is to follow, else IGNORED."""
Batch = tuple[Tensor, Tensor, Tensor]
"""Ids, the learnt token that follows each, and the number of the answer that begins after each."""


class Renderer:
    """Turns in the chat template, as token ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._turn, self._end = tokenizer.ids[TURN], tokenizer.ids[TURN_END]
        self._newline = tokenizer.encode("\n")

    def turn(self, role: str, content: list[int]) -> list[int]:
        """A whole turn that is not learnt."""
        opening = self._tokenizer.encode(f"{role}\n")
        return [self._turn, *opening, *content, self._end, *self._newline]

    def exchange(
        self, question: list[int], answer: str, number: int = IGNORED, limit: int | None = None
    ) -> Row:
        """A question's turn and its answer's, of which only the answer (up to `limit`) is learnt."""
        opening = self._tokenizer.encode("assistant\n")
        ids = [*self.turn("user", question), self._turn, *opening]
        learnt = [*self._tokenizer.encode(answer), self._end][:limit]
        numbers = [IGNORED] * (len(ids) - 1) + [number] + [IGNORED] * len(learnt)
        return ids + learnt, [IGNORED] * len(ids) + learnt, numbers


class Batches:
    """An endless source of batches, the same for the same `rng`."""

    def __init__(
        self,
        corpus: Corpus,
        questions: list[Question],
        held_out: list[Question],
        tokenizer: Tokenizer,
        rng: random.Random,
    ) -> None:
        self._corpus = corpus
        self._rng = rng
        self._tokenizer = tokenizer
        self._renderer = Renderer(tokenizer)
        self._variations = Variations(rng)
        self._forbidden = {normalised(question.text) for question in held_out}
        self._inside = [q for q in questions if q.intent != OUTSIDE]
        self._outside = [q for q in questions if q.intent == OUTSIDE]
        self._templates = [q for q in template_questions() if self._allowed(q.text)]
        self._systems = read_lines("phrases.lines")["system"]
        self._numbers = {key: number for number, key in enumerate(corpus.answers)}
        self._queue: list[Question] = []
        self._missed: list[Question] = []
        self._ready: dict[tuple[int, int | None], list[list[Row]]] = {}

    def _allowed(self, text: str) -> bool:
        return normalised(text) not in self._forbidden

    def _draw(self) -> Question:
        """The next question: one in six from outside, else each written one once per round."""
        if self._rng.random() < 0.17:
            return self._rng.choice(self._rng.choice((self._outside, self._templates)))
        if not self._queue:
            self._queue = self._rng.sample(self._inside, len(self._inside))
        return self._queue.pop()

    def practise(self, missed: list[Question]) -> None:
        """From now on three questions in ten are of these, in the very words that are written."""
        self._missed = missed
        self._ready.clear()

    def _question(self) -> tuple[Question, list[int]]:
        if self._missed and self._rng.random() < 0.3:
            question = self._rng.choice(self._missed)
            return question, self._tokenizer.encode(question.text)
        question = self._draw()
        text = self._variations.vary(question.text, question.language)
        if not self._allowed(text):
            text = question.text
        dropout = 0.1 if self._rng.random() < 0.3 else 0.0
        return question, self._tokenizer.encode(text, dropout, self._rng)

    def short(self, count: int, limit: int | None = None) -> Batch:
        """`count` rows of one question each and the first `limit` tokens of its answer.

        Rows of like length share a batch, so that little of it is padding.
        """
        ready = self._ready.setdefault((count, limit), [])
        if not ready:
            rows = sorted((self._short_row(limit) for _ in range(4 * count)), key=_length)
            ready += [rows[at : at + count] for at in range(0, len(rows), count)]
            self._rng.shuffle(ready)
        return self._tensors(ready.pop())

    def _short_row(self, limit: int | None) -> Row:
        row = self._exchange(limit)
        return _joined(self._system(), row) if self._rng.random() < 0.1 else row

    def _exchange(self, limit: int | None = None) -> Row:
        question, ids = self._question()
        number = self._numbers[question.intent, question.language]
        return self._renderer.exchange(ids, self._corpus.answer(question), number, limit)

    def _system(self) -> Row:
        prompt = self._tokenizer.encode(self._rng.choice(self._systems))
        return _unlearnt(self._renderer.turn("system", prompt))

    def long(self, count: int, length: int) -> Batch:
        """`count` conversations of `length` tokens; the last answer may be cut off."""
        return self._tensors([self._long_row(length) for _ in range(count)])

    def _long_row(self, length: int) -> Row:
        row = self._system() if self._rng.random() < 0.3 else _unlearnt([])
        newline = _unlearnt(self._tokenizer.encode("\n"))
        while len(row[0]) < length:
            row = _joined(row, _joined(self._exchange(), newline))
        return row[0][:length], row[1][:length], row[2][:length]

    def _tensors(self, rows: list[Row]) -> Batch:
        length = max(map(_length, rows))
        inputs = torch.full((len(rows), length), self._tokenizer.ids[END])
        labels = torch.full((len(rows), length), IGNORED)
        numbers = torch.full((len(rows), length), IGNORED)
        for index, (ids, learnt, answers) in enumerate(rows):
            inputs[index, : len(ids)] = torch.tensor(ids)
            labels[index, : len(ids) - 1] = torch.tensor(learnt[1:])
            numbers[index, : len(ids)] = torch.tensor(answers)
        return inputs, labels, numbers


def _unlearnt(ids: list[int]) -> Row:
    return ids, [IGNORED] * len(ids), [IGNORED] * len(ids)


def _joined(first: Row, second: Row) -> Row:
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


def _length(row: Row) -> int:
    return len(row[0])


def template_questions() -> list[Question]:
    """The questions from outside that `outside.lines` builds out of templates and word lists."""
    lines = read_lines("outside.lines")
    words = {slot: values[0].split(", ") for slot, values in lines.items()}
    return [
        Question(text=text, intent=OUTSIDE, language=language)
        for language in ("en", "fr")
        for text in expand(lines[language], words)
    ]
