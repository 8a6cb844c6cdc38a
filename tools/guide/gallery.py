"""Many pictures drawn at once, as the encoder gets them, in several processes."""

from __future__ import annotations

import importlib.util
import io
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .pictures import draw
from .resample import squared
from .scenes import Scene, random_scene

_FONTS = (
    "font_roboto",
    "font_source_serif_pro",
    "font_source_sans_pro",
    "font_hanken_grotesk",
    "font_fredoka_one",
)
"""Packages on PyPI with one font family each."""
_LEFT_OUT = ("It", "Thin", "ExtraLight")
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures (count, side, side, 3) in bytes and `Scene.numbers` (count, 4) of each."""

    pictures: Tensor
    numbers: Tensor


def paint(count: int, seed: int, side: int, processes: int) -> Gallery:
    """So many pictures, rounded up to whole chunks, the same ones for the same seed."""
    seeds = [seed * 1_000_003 + index for index in range(-(-count // _CHUNK))]
    with ProcessPoolExecutor(processes) as pool:
        chunks = list(pool.map(partial(_chunk, side=side), seeds))
    pictures, numbers = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    return Gallery(torch.from_numpy(pictures), torch.from_numpy(numbers))


def of_files(files: Sequence[tuple[bytes, Scene]], side: int) -> Gallery:
    """Encoded pictures, as RKLLama would hand them on."""
    pictures = [squared(Image.open(io.BytesIO(data)), side) for data, _ in files]
    numbers = np.array([scene.numbers for _, scene in files])
    return Gallery(torch.from_numpy(np.stack(pictures)), torch.from_numpy(numbers))


def encoded(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def scaled(pictures: Tensor) -> Tensor:
    """Bytes (rows, side, side, 3) as the encoder takes them: from -1 to 1."""
    return pictures.float() / 127.5 - 1


def fonts() -> list[str]:
    """The font files that digits are drawn with, upright and not too thin."""
    found = {}
    for package in _FONTS:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(f"{package} is not installed: pip install '.[guide]'")
        for path in Path(spec.submodule_search_locations[0], "files").iterdir():
            if path.suffix in (".ttf", ".otf") and not any(w in path.stem for w in _LEFT_OUT):
                found[path.stem] = str(path)
    return sorted(found.values())


def _chunk(seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    rng = random.Random(seed)
    files = fonts()
    pictures = np.empty((_CHUNK, side, side, 3), np.uint8)
    numbers = np.empty((_CHUNK, 4), np.int64)
    for index in range(_CHUNK):
        scene = random_scene(rng)
        numbers[index] = scene.numbers
        pictures[index] = squared(draw(scene, rng, files), side)
    return pictures, numbers
