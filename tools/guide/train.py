"""Trains the guide and writes it as GGUF: `python -m tools.guide.train` in the repository's root.

Everything is drawn from one seed; the questions held out (see corpus.split) are never shown.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import bpe, corpus, evaluate, export, report
from .augment import without_accents
from .batches import IGNORED, Batch, Batches, template_questions
from .network import Guide, Shape

_PRACTICE_RATE = 0.15
"""Of the highest learning rate: the practice is not to undo what has been learnt."""
PRODUCT = Path(__file__).parents[2] / "rkllama" / "models" / "guide.gguf"


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
    tokenizer = bpe.Tokenizer(bpe.train(vocabulary_texts(texts, training), Shape().vocabulary))
    print(
        f"{len(texts.answers) // 2} intents, {len(texts.questions)} questions written, "
        f"{len(training)} for training, {len(held_out)} held out; "
        f"vocabulary after {time.monotonic() - started:.0f} s"
    )
    network = Guide(Shape(), arguments.dropout)
    print(f"{sum(w.numel() for w in network.parameters()):,} parameters")
    batches = Batches(texts, training, held_out + validation, tokenizer, random_source)
    chooser = Chooser(Shape(), len(texts.answers))
    if arguments.start is None:
        _train(network, chooser, batches, arguments, arguments.choose, arguments.steps)
    else:
        export.read(arguments.start, network)
    if arguments.practice:
        right = evaluate.by_network(network, tokenizer, texts, training)
        missed = [question for question, well in zip(training, right, strict=True) if not well]
        print(f"{len(missed)} of the questions trained on are answered wrong: they are practised")
        batches.practise(missed)
        _train(network, None, batches, arguments, 0, arguments.practice, _PRACTICE_RATE)
    export.write(arguments.output, network, tokenizer)
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")
    report.by_network("held out", network, tokenizer, texts, validation or held_out)
    report.by_network("independent", network, tokenizer, texts, corpus.independent())
    report.by_file(
        arguments.output,
        tokenizer,
        texts,
        validation or held_out,
        mistakes=bool(validation),  # those on the held-out questions are not to be learnt from
    )
    print(f"{(time.monotonic() - started) / 60:.1f} minutes in all")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--choose", type=int, default=3000, help="steps that only choose")
    parser.add_argument("--steps", type=int, default=3600, help="steps that also answer")
    parser.add_argument(
        "--practice", type=int, default=400, help="steps with the questions that are still missed"
    )
    parser.add_argument(
        "--start", type=Path, help="a guide that has been trained: only practise with it"
    )
    parser.add_argument("--rate", type=float, default=1.5e-3, help="the highest learning rate")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--validate",
        action="store_true",
        help="hold out a second set and report on that one instead, for work on the data",
    )
    parser.add_argument("--output", type=Path, default=PRODUCT)
    return parser.parse_args()


def vocabulary_texts(texts: corpus.Corpus, training: list[corpus.Question]) -> list[str]:
    """What the vocabulary is made from: answers count more, for they are what is generated."""
    questions = [question.text for question in training]
    outside = [question.text for question in template_questions()[::5]]
    roles = ["user\n", "assistant\n", "system\n"] * 100
    answers = list(texts.answers.values()) * 3
    bare = [without_accents(text.lower()) for text in questions]
    return answers + questions + [text.lower() for text in questions] + bare + outside + roles


class Chooser(nn.Module):
    """A training aid: names the answer from the states in mid-network, where it is to be decided.

    Without it the network learns all answers by heart before it looks at the questions. It is not
    part of the product.
    """

    def __init__(self, shape: Shape, answers: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.out = nn.Linear(shape.width, answers)

    def loss(self, states: Tensor, numbers: Tensor) -> Tensor:
        """Mean cross entropy of the choice, at the places where `numbers` has an answer's number."""
        chosen = numbers != IGNORED
        return functional.cross_entropy(self.out(self.norm(states[chosen])), numbers[chosen])


def _train(
    network: Guide,
    chooser: Chooser | None,
    batches: Batches,
    arguments: argparse.Namespace,
    choose: int,
    answer: int,
    share: float = 1.0,
) -> None:
    """First the lower half learns to choose the answer, then the whole network to say it; so many steps
    of each, at a `share` of the highest learning rate. Without a chooser the choice is not practised.
    """
    rate = arguments.rate * share
    aids = [] if chooser is None else list(chooser.parameters())
    optimiser = _optimiser([*network.parameters(), *aids], rate)
    short_floats = _has_short_floats()
    network.train()
    means, started = torch.zeros(2), time.monotonic()
    steps = choose + answer
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * _schedule(step / steps)
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=short_floats),
            sdpa_kernel(SDPBackend.MATH),  # the fused one is slow going back over short rows
        ):
            if step < choose:
                losses = _losses(network, chooser, _choices(batches, step), whole=False)
            else:
                losses = _losses(network, chooser, _answers(batches, step), whole=True)
        optimiser.zero_grad()
        losses.sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        means = losses.detach() if step == 0 else 0.97 * means + 0.03 * losses.detach()
        if step % 100 == 99:
            minutes = (time.monotonic() - started) / 60
            print(
                f"step {step + 1}: loss of the choice {means[0]:.4f}, of the answer "
                f"{means[1]:.4f}, {minutes:.1f} minutes",
                flush=True,
            )


def _optimiser(weights: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    matrices = [weight for weight in weights if weight.dim() == 2]
    others = [weight for weight in weights if weight.dim() != 2]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


def _has_short_floats() -> bool:
    """Whether the CPU multiplies bfloat16 itself: training is twice as fast then."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def _choices(batches: Batches, step: int) -> Batch:
    """Three batches of single questions without their answers, then one of conversations."""
    return batches.long(14, 288) if step % 4 == 3 else batches.short(128, 0)


def _answers(batches: Batches, step: int) -> Batch:
    """Batches of single questions and of conversations in turn, a few of those very long."""
    if step % 2 == 0:
        return batches.short(40)
    return batches.long(3, 1024) if step % 12 == 11 else batches.long(9, 384)


def _schedule(progress: float) -> float:
    """Linear warm-up over 2 %, then a cosine to nearly zero."""
    if progress < 0.02:
        return progress / 0.02
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - 0.02) / 0.98))


def _losses(network: Guide, chooser: Chooser | None, batch: Batch, *, whole: bool) -> Tensor:
    """Cross entropies (2,): of the choice, and with `whole` of the answers' tokens."""
    ids, labels, numbers = batch
    middle = network.lower(ids)
    choice = torch.zeros(()) if chooser is None else chooser.loss(middle, numbers)
    if not whole:
        return torch.stack((choice, torch.zeros_like(choice)))
    learnt = labels != IGNORED
    logits = network.logits(network.upper(middle)[learnt])
    return torch.stack((choice, functional.cross_entropy(logits, labels[learnt])))


if __name__ == "__main__":
    main()
