"""Training batches: conversations in the guide's chat template, drawn and varied at random.

Two kinds alternate. "Short" rows hold one question and only the beginning of its answer, because
which answer it is gets decided there. "Long" rows hold a conversation of several unrelated
questions, sometimes below a system prompt, so that a history does not distract the guide.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from .augment import Variations
from .bpe import END, TURN, TURN_END, Tokenizer
from .corpus import OUTSIDE, Corpus, Question, expand, normalised, read_lines

IGNORED = -100
Row = tuple[list[int], list[int]]
"""Token ids, and for each of them itself where it is learnt, else IGNORED."""


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

    def exchange(self, question: list[int], answer: str, limit: int | None = None) -> Row:
        """A question's turn and its answer's, of which only the answer (up to `limit`) is learnt."""
        opening = self._tokenizer.encode("assistant\n")
        ids = [*self.turn("user", question), self._turn, *opening]
        learnt = [*self._tokenizer.encode(answer), self._end][:limit]
        return ids + learnt, [IGNORED] * len(ids) + learnt


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
        self._queue: list[Question] = []
        self._ready: list[list[Row]] = []

    def _allowed(self, text: str) -> bool:
        return normalised(text) not in self._forbidden

    def _draw(self) -> Question:
        """The next question: one in six from outside, else each written one once per round."""
        if self._rng.random() < 0.17:
            return self._rng.choice(self._rng.choice((self._outside, self._templates)))
        if not self._queue:
            self._queue = self._rng.sample(self._inside, len(self._inside))
        return self._queue.pop()

    def _question(self) -> tuple[Question, list[int]]:
        question = self._draw()
        text = self._variations.vary(question.text, question.language)
        if not self._allowed(text):
            text = question.text
        dropout = 0.1 if self._rng.random() < 0.3 else 0.0
        return question, self._tokenizer.encode(text, dropout, self._rng)

    def short(self, count: int, limit: int) -> tuple[Tensor, Tensor]:
        """`count` rows of one question each and the first `limit` tokens of its answer.

        Rows of like length share a batch, so that little of it is padding.
        """
        if not self._ready:
            rows = sorted((self._short_row(limit) for _ in range(4 * count)), key=_length)
            self._ready = [rows[at : at + count] for at in range(0, len(rows), count)]
            self._rng.shuffle(self._ready)
        return self._tensors(self._ready.pop())

    def _short_row(self, limit: int) -> Row:
        question, ids = self._question()
        row = self._renderer.exchange(ids, self._corpus.answer(question), limit)
        return self._with_system(row) if self._rng.random() < 0.1 else row

    def _with_system(self, row: Row) -> Row:
        prompt = self._tokenizer.encode(self._rng.choice(self._systems))
        opening = self._renderer.turn("system", prompt)
        return opening + row[0], [IGNORED] * len(opening) + row[1]

    def long(self, count: int, length: int) -> tuple[Tensor, Tensor]:
        """`count` conversations of `length` tokens; the last answer may be cut off."""
        return self._tensors([self._long_row(length) for _ in range(count)])

    def _long_row(self, length: int) -> Row:
        ids: list[int] = []
        labels: list[int] = []
        if self._rng.random() < 0.3:
            ids, labels = self._with_system(([], []))
        newline = self._tokenizer.encode("\n")
        while len(ids) < length:
            question, asked = self._question()
            more, learnt = self._renderer.exchange(asked, self._corpus.answer(question))
            ids += more + newline
            labels += learnt + [IGNORED] * len(newline)
        return ids[:length], labels[:length]

    def _tensors(self, rows: list[Row]) -> tuple[Tensor, Tensor]:
        """Padded ids, and the label of the token that follows each."""
        length = max(len(ids) for ids, _ in rows)
        padding = self._tokenizer.ids[END]
        inputs = torch.full((len(rows), length), padding)
        labels = torch.full((len(rows), length), IGNORED)
        for index, (ids, learnt) in enumerate(rows):
            inputs[index, : len(ids)] = torch.tensor(ids)
            labels[index, : len(ids) - 1] = torch.tensor(learnt[1:])
        return inputs, labels


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
