"""How many questions the guide answers with exactly the right answer, at temperature 0."""

from __future__ import annotations

import json
import random
import secrets
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import torch

from .batches import IGNORED, Renderer
from .bpe import Tokenizer
from .corpus import Corpus, Question
from .network import Guide


def by_network(
    network: Guide, tokenizer: Tokenizer, corpus: Corpus, questions: Sequence[Question]
) -> list[bool]:
    """For each question whether greedy decoding gives its answer.

    It does exactly if every token of the answer is the likeliest one after the tokens before it.
    """
    network.eval()
    renderer = Renderer(tokenizer)
    right = []
    with torch.no_grad():
        for question in questions:
            ids, labels, _ = renderer.exchange(
                tokenizer.encode(question.text), corpus.answer(question)
            )
            best = network(torch.tensor([ids[:-1]]))[0].argmax(-1).tolist()
            right.append(
                all(
                    b == label
                    for b, label in zip(best, labels[1:], strict=True)
                    if label != IGNORED
                )
            )
    return right


class LlamaCpp:
    """The written file in llama.cpp, through xllamacpp."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = 2048, 1
        params.cpuparams.n_threads = threads
        params.warmup, params.n_gpu_layers, params.verbosity = False, 0, -1
        self._key = secrets.token_hex(16)
        params.api_keys = [self._key]  # it always opens a port; nobody else may use it
        started = time.monotonic()
        self._server = xllamacpp.Server(params)
        self.load_seconds = time.monotonic() - started
        self.tokens = 0
        self.seconds = 0.0

    def complete(self, prompt: str, limit: int = 256) -> str:
        """The greedy continuation of a prompt that is already in the chat template."""
        request = {"prompt": prompt, "n_predict": limit, "temperature": 0.0, "stream": False}
        answer = self._server.handle_completions(request)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        if "error" in answer:
            raise RuntimeError(answer["error"])
        if not answer.get("choices"):
            raise RuntimeError(f"no choices in {answer}")
        self.tokens += answer["timings"]["predicted_n"]
        self.seconds += answer["timings"]["predicted_ms"] / 1000
        return str(answer["choices"][0]["text"])

    def answer(self, question: str, before: str = "") -> str:
        """The answer to a question after the conversation `before` (rendered)."""
        return self.complete(f"{before}{turn('user', question)}<|im_start|>assistant\n")

    def tokenize(self, text: str) -> list[int]:
        """llama.cpp's own token ids of `text`, which holds no control tokens."""
        request = urllib.request.Request(
            f"{self._server.listening_address}/tokenize",
            json.dumps({"content": text, "add_special": False}).encode(),
            {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return [int(token) for token in json.load(answer)["tokens"]]


def turn(role: str, content: str) -> str:
    """A turn in the chat template."""
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def history(corpus: Corpus, tokens: int, tokenizer: Tokenizer, rng: random.Random) -> str:
    """A rendered conversation of at least `tokens` tokens about other things."""
    text = ""
    while len(tokenizer.encode(text)) < tokens:
        question = rng.choice(corpus.questions)
        text += turn("user", question.text) + turn("assistant", corpus.answer(question))
    return text
