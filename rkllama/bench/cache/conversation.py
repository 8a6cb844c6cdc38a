"""A conversation of about so many tokens: two prompts, of which the second goes on from the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ...engine.prompt import build_prompt, markers_for
from ...models.metadata import StoredModel
from ...types import ChatRequest, Message
from ..prompts import PromptMaker

_FIRST = "Answer with the one word: ready."
"""Before release 1.3 only an answer that ends by itself leaves a state."""
_SECOND = "Tell me in a few sentences which of these words are things that one can touch."
_PROBES = (64, 128)
"""Words of the two prompts that tell how many tokens a word and the rest have."""

Count = Callable[[str], "int | None"]


class Text(NamedTuple):
    """A complete prompt, and the control tokens that are a part of its answer."""

    prompt: str
    markers: tuple[str, ...]


class Talk:
    """A conversation with a model; its beginning is words in random order, so that no two begin alike."""

    def __init__(self, model: StoredModel, words: int) -> None:
        self._model = model
        system = Message.of("system", PromptMaker().make(words).text.strip())
        self._messages: tuple[Message, ...] = (system, Message.of("user", _FIRST))
        self.first = self._render()

    def _render(self) -> Text:
        request = ChatRequest(messages=self._messages, think=False)
        prompt = build_prompt(request, self._model, runtime_wraps=False)
        return Text(prompt.text, markers_for(request, prompt, ()))

    def go_on(self, answer: str) -> Text:
        """Return the next turn's prompt, which begins with the first one whatever the template does."""
        self._messages += (Message.of("assistant", answer), Message.of("user", _SECOND))
        text = self._render()
        if text.prompt.startswith(self.first.prompt):
            return text
        return Text(f"{self.first.prompt}{answer}\n{_SECOND}\n", text.markers)


def learn_words(model: StoredModel, count: Count) -> Callable[[int], int]:
    """Return what tells the words of a conversation whose first prompt has about so many tokens; `count` is
    asked for the tokens of two texts.
    """
    low, high = (count(Talk(model, words).first.prompt) for words in _PROBES)
    per_word, overhead = 1.0, 0.0
    if low is not None and high is not None and high > low:
        per_word = (high - low) / (_PROBES[1] - _PROBES[0])
        overhead = low - _PROBES[0] * per_word
    return lambda size: max(1, round((size - overhead) / per_word))
