"""Values of the search for a model: what is offered, and for which board."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..models.filename import parse_platform
from ..models.reference import SPLIT_GGUF, is_model
from ..models.vision.choice import find_encoder, is_encoder
from ..rkllm.abi import RELEASES
from .reading import Reading, billions, read_names

MEMORY_SHARE = 0.7
"""The part of a board's memory that a model and its context may take."""
USUAL_CONTEXT = 4096
_BITS = {"w4a16": 4.5, "w4a8": 4.5, "w8a8": 8.4, "Q4": 4.8, "Q5": 5.7, "Q6": 6.6, "Q8": 8.5}
_UNKNOWN_BITS = {"rkllm": 8.4, "gguf": 16.0}
_UNQUANTIZED = {"rkllm": 400_000_000, "gguf": 0}
"""Bytes of what stays as it was, mostly the embeddings: Qwen3 1.7B in w8a8 has 2.4 GB, 4B 4.6 GB."""
_KV_SMALL, _KV_LARGE = 112 << 10, 144 << 10
"""Bytes of the context per token, of models up to 3 and of more billions; few need more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The machine that a model is wanted for. `soc` is "RK3588" or the like, None where no NPU is;
    `memory` is in bytes, None where it is not known; `release` the newest runtime to be had.
    """

    soc: str | None = None
    memory: int | None = None
    release: str | None = None

    @property
    def platform(self) -> str | None:
        """The SoC as models name it: the rk3588s runs what the rk3588 runs."""
        return parse_platform(self.soc) if self.soc else None

    @property
    def format(self) -> str:
        """The format of the models for it."""
        return "rkllm" if self.soc else "gguf"

    def without_npu(self) -> Board:
        """Return it as a board whose CPU is meant."""
        return Board(memory=self.memory)

    @property
    def room(self) -> int | None:
        """Bytes that a model with its context may take."""
        return None if self.memory is None else int(self.memory * MEMORY_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A model's file on the Hub and what is known of it."""

    repo: str
    file: str
    reading: Reading
    size: int | None = None
    downloads: int | None = None
    likes: int | None = None
    updated: str | None = None
    """When its repository was last changed, as "2026-01-31T12:00:00.000Z"."""
    gated: bool = False
    encoder: str | None = None
    """The repository's vision encoder, for a model that sees."""
    here: bool = False
    """Whether it has been pulled already."""

    @property
    def reference(self) -> str:
        """What `pull` takes for just this file."""
        return f"{self.repo}/{self.file}"

    @property
    def format(self) -> str:
        """ "rkllm" or "gguf"."""
        return self.file.rpartition(".")[2].lower()

    @property
    def kind(self) -> str:
        """What it is for: "text", "vision", "embedding", "reranker", or "speech" as a part of that."""
        for word in ("reranker", "embedding"):
            if word in self.reading.words:
                return word
        if self.reading.words & {"asr", "tts"}:
            return "speech"
        seeing = self.encoder or "vl" in self.reading.words or self.reading.brand in _SEEING
        return "vision" if seeing else "text"

    def footprint(self) -> int | None:
        """Return the bytes that it takes in memory with its context, guessed from the parameters where the
        size is not known; None where both are not.
        """
        weights = self.size if self.size is not None else self.guessed_size()
        if weights is None:
            return None
        number = billions(self.reading.size)
        per_token = _KV_SMALL if number is not None and number <= 3 else _KV_LARGE
        return weights + per_token * min(self.reading.context_length or USUAL_CONTEXT, 16384)

    def guessed_size(self) -> int | None:
        """Return the file's size as the number of parameters and the quantization tell it."""
        number = billions(self.reading.size)
        if number is None:
            return None
        label = self.reading.quantization or ""
        bits = next((b for name, b in _BITS.items() if name in label), _UNKNOWN_BITS[self.format])
        return int(number * 1e9 * bits / 8) + _UNQUANTIZED[self.format]


def this_board(soc: str | None, release: str | None = None) -> Board:
    """Return this machine as one that models are wanted for; `release` None is the newest known runtime."""
    try:
        memory: int | None = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        memory = None
    return Board(soc=soc, memory=memory, release=release or RELEASES[-1])


_SEEING = frozenset(
    {"internvl", "smolvlm", "minicpm-v", "minicpm-o", "janus", "deepseek-ocr", "deepseek-vl"}
    | {"llava", "moondream", "fastvlm", "paligemma"}
)


def offers_of(
    repo: str,
    files: Iterable[str],
    *,
    downloads: int | None = None,
    likes: int | None = None,
    updated: str | None = None,
    gated: bool = False,
    here: Iterable[str] = (),
) -> Iterator[Offer]:
    """Yield the models among a repository's files; adapters and parts of models are none."""
    files = tuple(files)
    known = frozenset(here)
    beside = files if any(map(is_encoder, files)) else ()
    for file in files:
        if not is_model(file) or SPLIT_GGUF.search(file):
            continue
        reading = read_names(file, repo)
        if "lora" in reading.words and file.lower().endswith("lora.rkllm"):
            continue
        yield Offer(
            repo=repo,
            file=file,
            reading=reading,
            downloads=downloads,
            likes=likes,
            updated=updated,
            gated=gated,
            encoder=find_encoder(file, beside, reading.platform),
            here=f"{repo}/{file}" in known,
        )
