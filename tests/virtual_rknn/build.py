"""Compiling the virtual librknnrt, writing encoders for it, and telling what it makes of pixels."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rkllama.rknn import abi
from tests.virtual_npu.build import FLAGS, SHARED, function_lines, own_compiler, type_lines
from tests.virtual_npu.build import SOURCES as NPU_SOURCES

SOURCES = Path(__file__).with_name("src")
_SHARED_SOURCES = [NPU_SOURCES / "report.c", NPU_SOURCES / "trace.c"]
"""How the two virtual libraries speak and trace is one mechanism."""

GREY = 127.5
CELLS = 3
"""The virtual NPU tells a picture as 3 x 3 colours."""


@functools.cache
def library() -> str:
    """Return the path of the virtual librknnrt, compiled on first use; see virtual_npu.library."""
    sources = [*sorted(SOURCES.glob("*.c")), *_SHARED_SOURCES]
    content = hashlib.sha256(repr((header(), FLAGS, SHARED)).encode())
    for source in [*sorted(SOURCES.iterdir()), *sorted(NPU_SOURCES.glob("[rt]*"))]:
        content.update(source.name.encode() + b"\0" + source.read_bytes())
    folder = Path(tempfile.gettempdir(), f"virtual-npu-{os.getuid()}", content.hexdigest()[:16])
    made = folder / "librknnrt.so"
    if not made.exists():
        _compile(sources, made)
    return str(made)


def _compile(sources: Sequence[Path], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        Path(work, "rknn_api.h").write_text(header())
        made = Path(work, target.name)
        command = [own_compiler(), *FLAGS, "-iquote", work, "-iquote", str(SOURCES)]
        command += ["-iquote", str(NPU_SOURCES), "-o", str(made), *map(str, sources), *SHARED]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(f"{command[0]} failed for the virtual librknnrt:\n{run.stderr}")
        os.replace(made, target)


def header() -> str:
    """Return a C header, made from the binding's own declarations."""
    return "\n".join(_header_lines())


def _header_lines() -> Iterator[str]:
    declared = abi.header()
    yield "#ifndef RKNN_API_H\n#define RKNN_API_H"
    yield "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>"
    yield "#ifdef __arm__\ntypedef uint32_t rknn_context;\n#else\ntypedef uint64_t rknn_context;\n#endif"
    yield from type_lines(declared)
    yield from function_lines(declared)
    yield "#endif\n"


def write_encoder(
    path: str | os.PathLike[str],
    *,
    height: int = 28,
    width: int = 28,
    tokens: int = 9,
    embedding: int = 16,
    outputs: int = 1,
    platform: str = "RK3588",
    told: object = None,
    **config: object,
) -> str:
    """Write an encoder whose keys (see README.md) script the virtual librknnrt; return its path.

    `told` is what its JSON text says instead of the truth.
    """
    keys: dict[str, object] = {
        "height": height,
        "width": width,
        "tokens": tokens,
        "embedding": embedding,
        "outputs": outputs,
        "platform": platform,
        **config,
    }
    text = _described(height, width, tokens, embedding, outputs, platform)
    body = json.dumps(text if told is None else told).encode()
    script = "\n".join(["", "vrknn 1", *(f"{k}={_text(v)}" for k, v in keys.items()), "end", ""])
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    model = bytes(256)
    target.write_bytes(
        b"RKNN\0\0\0\0"
        + struct.pack("<QQ", 6, len(model))
        + bytes(40)
        + model
        + struct.pack("<Q", len(body))
        + body
        + script.encode()
    )
    return str(target)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _described(
    height: int, width: int, tokens: int, embedding: int, outputs: int, platform: str
) -> dict[str, object]:
    edges = [("input", 0, 0), *(("output", number, number + 1) for number in range(outputs))]
    sizes = [[1, 3, height, width], *[[1, tokens, embedding]] * outputs]
    return {
        "graph": [
            {"left": side, "left_tensor_id": left, "right": "norm_tensor", "right_tensor_id": right}
            for side, left, right in edges
        ],
        "norm_tensor": [{"tensor_id": at, "size": size} for at, size in enumerate(sizes)],
        "input_num": 1,
        "output_num": outputs,
        "target_platform": [platform.lower()],
        "version": "2.3.2",
    }


def describe(pixels: bytes, height: int, width: int, tokens: int = 9) -> str:
    """Return the colours that the virtual NPU has to tell of these pixels: uint8, RGB, rows from the top.

    Worked out apart from the C code, and for numbers of tokens that are squares of multiples of 3.
    """
    side = round(tokens**0.5)
    assert side * side == tokens
    assert side % CELLS == 0
    patches = [
        _mean(pixels, width, _span(line, side, height), _span(column, side, width))
        for line in range(side)
        for column in range(side)
    ]
    step = side // CELLS
    cells = []
    for line in range(CELLS):
        for column in range(CELLS):
            inside = [
                patches[y * side + x]
                for y in range(line * step, (line + 1) * step)
                for x in range(column * step, (column + 1) * step)
            ]
            colour = [sum(patch[c] for patch in inside) / len(inside) for c in range(3)]
            cells.append("#" + "".join(f"{int(value + 0.5):02x}" for value in colour))
    return " ".join(cells)


def _span(index: int, parts: int, length: int) -> range:
    return range(index * length // parts, (index + 1) * length // parts)


def _mean(pixels: bytes, width: int, rows: range, columns: range) -> tuple[float, ...]:
    sums = [0, 0, 0]
    for y in rows:
        row = pixels[(y * width + columns.start) * 3 : (y * width + columns.stop) * 3]
        for channel in range(3):
            sums[channel] += sum(row[channel::3])
    return tuple(total / (len(rows) * len(columns)) for total in sums)
