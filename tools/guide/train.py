"""Trains the guide and writes it as GGUF: `python -m tools.guide.train` in the repository's root.

Everything is drawn from one seed; the questions held out (see corpus.split) are never shown.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from torch.nn import functional

from . import bpe, corpus, evaluate, export
from .augment import without_accents
from .batches import IGNORED, Batches, template_questions
from .network import Guide, Shape

PRODUCT = Path(__file__).parents[2] / "rkllama" / "guide.gguf"


def main() -> None:
    arguments = _arguments()
    started = time.monotonic()
    random_source = random.Random(arguments.seed)
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    texts = corpus.load()
    training, held_out = corpus.split(texts.questions)
    validation = corpus.split(training, salt="validation")[1] if arguments.validate else []
    hidden = {id(question) for question in validation}
    training = [question for question in training if id(question) not in hidden]
    tokenizer = bpe.Tokenizer(bpe.train(_vocabulary_texts(texts, training), Shape().vocabulary))
    print(
        f"{len(texts.answers) // 2} intents, {len(texts.questions)} questions written, "
        f"{len(training)} for training, {len(held_out)} held out; "
        f"vocabulary after {time.monotonic() - started:.0f} s"
    )
    network = Guide(Shape(), arguments.dropout)
    print(f"{sum(w.numel() for w in network.parameters()):,} parameters")
    batches = Batches(texts, training, held_out + validation, tokenizer, random_source)
    _train(network, batches, arguments)
    export.write(arguments.output, network, tokenizer)
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")
    if validation:
        _report("validation", arguments.output, network, tokenizer, texts, validation, True)
    else:
        _report("held out", arguments.output, network, tokenizer, texts, held_out, False)
    print(f"{(time.monotonic() - started) / 60:.1f} minutes in all")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--rate", type=float, default=2e-3, help="the highest learning rate")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--validate",
        action="store_true",
        help="hold out a second set and report on that one, for work on the data",
    )
    parser.add_argument("--output", type=Path, default=PRODUCT)
    return parser.parse_args()


def _vocabulary_texts(texts: corpus.Corpus, training: list[corpus.Question]) -> list[str]:
    """What the vocabulary is made from: answers count more, for they are what is generated."""
    questions = [question.text for question in training]
    outside = [question.text for question in template_questions()[::5]]
    roles = ["user\n", "assistant\n", "system\n"] * 100
    answers = list(texts.answers.values()) * 3
    bare = [without_accents(text.lower()) for text in questions]
    return answers + questions + [text.lower() for text in questions] + bare + outside + roles


def _train(network: Guide, batches: Batches, arguments: argparse.Namespace) -> None:
    matrices = [w for w in network.parameters() if w.dim() == 2]
    others = [w for w in network.parameters() if w.dim() != 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=arguments.rate,
        betas=(0.9, 0.98),
    )
    short_floats = _has_short_floats()
    network.train()
    mean, started = 0.0, time.monotonic()
    for step in range(arguments.steps):
        for group in optimiser.param_groups:
            group["lr"] = arguments.rate * _schedule(step / arguments.steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=short_floats):
            loss = _loss(network, *_batch(batches, step))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        mean = loss.item() if step == 0 else 0.98 * mean + 0.02 * loss.item()
        if step % 250 == 249:
            minutes = (time.monotonic() - started) / 60
            print(f"step {step + 1}: loss {mean:.4f}, {minutes:.1f} minutes", flush=True)


def _has_short_floats() -> bool:
    """Whether the CPU multiplies bfloat16 itself: training is twice as fast then."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def _batch(batches: Batches, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches of single questions, then one of conversations, a few of them very long."""
    if step % 3 != 2:
        return batches.short(64, 12)
    return batches.long(2, 1024) if step % 24 == 23 else batches.long(6, 320)


def _schedule(progress: float) -> float:
    """Linear warm-up over 3 %, then a cosine to nearly zero."""
    if progress < 0.03:
        return progress / 0.03
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - 0.03) / 0.97))


def _loss(network: Guide, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the learnt tokens; only their logits are computed."""
    learnt = labels != IGNORED
    logits = network.states(ids)[learnt] @ network.embedding.weight.T
    return functional.cross_entropy(logits, labels[learnt])


def _report(
    name: str,
    path: Path,
    network: Guide,
    tokenizer: bpe.Tokenizer,
    texts: corpus.Corpus,
    questions: list[corpus.Question],
    confusions: bool,
) -> None:
    right = evaluate.by_network(network, tokenizer, texts, questions)
    _figures(f"{name}, network", questions, right)
    try:
        model = evaluate.LlamaCpp(path)
    except ImportError:
        print("xllamacpp is not installed: the file itself was not tried")
        return
    answers = [model.answer(question.text) for question in questions]
    also = [a == texts.answer(q) for a, q in zip(answers, questions, strict=True)]
    _figures(f"{name}, file in llama.cpp", questions, also)
    agree = sum(a == b for a, b in zip(right, also, strict=True))
    print(
        f"network and file agree on {agree} of {len(questions)}; loaded in "
        f"{model.load_seconds:.2f} s; {model.tokens / model.seconds:.0f} tokens/s"
    )
    written = [question.text for question in texts.questions] + list(texts.answers.values())
    alike = sum(model.tokens(text) == tokenizer.encode(text) for text in written)
    print(f"llama.cpp splits {alike} of {len(written)} texts into the same tokens")
    if confusions:
        _confusions(texts, questions, answers)


def _figures(name: str, questions: list[corpus.Question], right: list[bool]) -> None:
    pairs = list(zip(questions, right, strict=True))
    inside = [ok for question, ok in pairs if question.intent != corpus.OUTSIDE]
    outside = [ok for question, ok in pairs if question.intent == corpus.OUTSIDE]
    print(
        f"{name}: about RKLLama {evaluate.percentage(inside)}, "
        f"from outside {evaluate.percentage(outside)}, all {evaluate.percentage(right)}"
    )


def _confusions(texts: corpus.Corpus, questions: list[corpus.Question], answers: list[str]) -> None:
    intents = {answer: intent for (intent, _), answer in texts.answers.items()}
    for question, answer in zip(questions, answers, strict=True):
        if answer != texts.answer(question):
            got = intents.get(answer) or json.dumps(answer, ensure_ascii=False)
            print(f"  {question.language} {question.intent} <- {got}: {question.text}")


if __name__ == "__main__":
    main()
