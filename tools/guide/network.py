"""The transformer, in the shape that llama.cpp calls "llama"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The network's dimensions; rows are multiples of 32, as Q8_0 asks."""

    vocabulary: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 4
    hidden: int = 512
    context: int = 1024
    rope_base: float = 10000.0
    epsilon: float = 1e-5


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q = nn.Linear(shape.width, shape.width, bias=False)
        self.k = nn.Linear(shape.width, shape.width, bias=False)
        self.v = nn.Linear(shape.width, shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, width = x.shape
        q, k, v = (
            part(x).view(rows, length, self.heads, -1).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True
        )
        return self.out(mixed.transpose(1, 2).reshape(rows, length, width))


class Layer(nn.Module):
    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.attention = Attention(shape)
        self.ffn_norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), cos, sin))
        h = self.ffn_norm(x)
        return x + self.dropout(self.down(functional.silu(self.gate(h)) * self.up(h)))


class Guide(nn.Module):
    """Token ids (rows, length) to logits (rows, length, vocabulary); embeddings are tied."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(shape, dropout) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, shape.epsilon)
        cos, sin = rope(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        depth = (2 * self.shape.layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = depth if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(weight, std=0.02 * scale if "embed" in name else 0.04 * scale)

    def lower(self, ids: Tensor) -> Tensor:
        """The states after the first half of the layers."""
        return self.lower_of(self.embedding(ids))

    def lower_of(self, vectors: Tensor) -> Tensor:
        """The same of embeddings (rows, length, width), among which a picture's may be."""
        x = self.dropout(vectors)
        return self._through(self.layers[: len(self.layers) // 2], x)

    def upper(self, x: Tensor) -> Tensor:
        """From those, the normalised states before the output layer."""
        return self.norm(self._through(self.layers[len(self.layers) // 2 :], x))

    def _through(self, layers: nn.ModuleList, x: Tensor) -> Tensor:
        cos, sin = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        for layer in layers:
            x = layer(x, cos, sin)
        return x

    def logits(self, states: Tensor) -> Tensor:
        """Of the normalised states; the output layer is the embedding."""
        return states @ self.embedding.weight.T

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.upper(self.lower(ids)))


def rope(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines (context, head size / 2) of the rotary positions."""
    half = shape.width // shape.heads // 2
    frequencies = shape.rope_base ** (-torch.arange(half) / half)
    angles = torch.arange(shape.context)[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs, the order that llama.cpp uses for the llama architecture."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
