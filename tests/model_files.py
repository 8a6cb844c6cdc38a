"""Model files and directories for tests: .gguf headers byte by byte, many models, old times."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Any

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
Pair = tuple[str, int, Any]


def string(text: str | bytes) -> bytes:
    """A string as headers hold it."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, item: Any) -> bytes:
    """A value's bytes; of an array, `item` is the items' type and the items."""
    if kind == STRING:
        return string(item)
    if kind == ARRAY:
        inner, items = item
        body = b"".join(value(inner, each) for each in items)
        return struct.pack("<IQ", inner, len(items)) + body
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q"}[kind], item)


def header(
    pairs: list[Pair], tensors: list[tuple[str, list[int]]] | None = None, version: int = 3
) -> bytes:
    """A .gguf header with these pairs and tensors (name, sizes); no weights follow."""
    tensors = tensors or []
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(pairs))]
    parts += [
        string(key) + struct.pack("<I", kind) + value(kind, item) for key, kind, item in pairs
    ]
    for name, sizes in tensors:
        layout = f"<I{len(sizes)}QIQ"
        parts.append(string(name) + struct.pack(layout, len(sizes), *sizes, 0, 0))
    return b"".join(parts)


# What a converted chat model says.
WHOLE: list[Pair] = [
    ("general.architecture", STRING, "qwen2"),
    ("general.name", STRING, "Qwen2.5 1.5B Instruct"),
    ("general.size_label", STRING, "1.5B"),
    ("general.license", STRING, "apache-2.0"),
    ("general.file_type", U32, 15),
    ("general.tags", ARRAY, (STRING, ["chat", "text-generation"])),
    ("qwen2.context_length", U32, 32768),
    ("qwen2.embedding_length", U32, 1536),
    ("qwen2.rope.freq_base", F32, 1e6),
    ("tokenizer.ggml.model", STRING, "gpt2"),
    ("tokenizer.ggml.tokens", ARRAY, (STRING, [f"t{n}" for n in range(1000)] + ["<|im_end|>"])),
    ("tokenizer.ggml.token_type", ARRAY, (I32, [1] * 1001)),
    ("tokenizer.ggml.merges", ARRAY, (STRING, [f"a b{n}" for n in range(500)])),
    ("tokenizer.ggml.bos_token_id", U32, 3),
    ("tokenizer.ggml.eos_token_id", U32, 1000),
    ("tokenizer.ggml.eot_token_id", U32, 7),
    ("tokenizer.ggml.eom_token_id", U32, 7),
    ("tokenizer.ggml.add_bos_token", BOOL, False),
    ("tokenizer.chat_template", STRING, "{% for m in messages %}é{% endfor %}"),
]


def fill(models: Path, count: int = 500) -> None:
    """Write `count` models, each in a folder of its own."""
    for number in range(count):
        folder = models / f"Qwen3-{number}B-w8a8-rk3588"
        folder.mkdir()
        (folder / "model.rkllm").touch()


def age(path: Path) -> None:
    """Make a file or directory one that has not changed for an hour."""
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))
