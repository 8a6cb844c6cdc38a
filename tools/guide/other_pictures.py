"""A second program that draws scenes, only to measure: it shares no drawing code with `pictures.py`.

Shapes are computed from their distance to each pixel, with smooth edges, over a background of noise in
octaves; digits are in the font inside Pillow or another that was not trained on; all go through JPEG at
quality 60.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .scenes import Scene, random_scene

Plane = NDArray[np.float64]

PALETTE = {
    "red": [(255, 0, 0), (220, 20, 60), (196, 30, 28)],
    "green": [(0, 128, 0), (46, 139, 87), (50, 205, 50), (0, 255, 0)],
    "blue": [(0, 0, 255), (65, 105, 225), (20, 50, 190)],
    "yellow": [(255, 255, 0), (255, 215, 0), (242, 226, 38)],
    "orange": [(255, 165, 0), (255, 140, 0), (240, 120, 20)],
    "purple": [(128, 0, 128), (148, 0, 211), (106, 13, 173)],
    "black": [(0, 0, 0), (24, 24, 24)],
    "white": [(255, 255, 255), (246, 246, 242)],
}
SURFACES = [
    (255, 255, 255),
    (208, 206, 200),
    (120, 124, 128),
    (52, 54, 60),
    (176, 196, 160),
    (196, 164, 132),
]


def draw_all(count: int, seed: int, fonts: tuple[str, ...] = ()) -> list[tuple[bytes, Scene]]:
    """So many JPEG files and what they show; `fonts` are used beside the one in Pillow."""
    rng = random.Random(seed)
    scenes = [random_scene(rng) for _ in range(count)]
    return [(_jpeg(_picture(scene, rng, fonts)), scene) for scene in scenes]


def _picture(scene: Scene, rng: random.Random, fonts: tuple[str, ...]) -> Plane:
    """Values (height, width, 3) from 0 to 255."""
    width, height = rng.choice(
        ((224, 224), (320, 240), (240, 320), (300, 300), (512, 512), (640, 480))
    )
    colours = PALETTE[scene.colour] if scene.digit is None else rng.choice(list(PALETTE.values()))
    colour = np.array(rng.choice(colours), float)
    surface = rng.choice([s for s in SURFACES if np.linalg.norm(colour - np.array(s)) > 90])
    picture = np.array(surface, float) + _octaves(width, height, rng)[..., None]
    cover = _cover(scene, width, height, rng, fonts)[..., None]
    return (picture * (1 - cover) + colour * cover) * _vignette(width, height)[..., None]


def _octaves(width: int, height: int, rng: random.Random) -> Plane:
    """Noise (height, width) of several sizes, the finest from pixel to pixel."""
    noise = np.random.default_rng(rng.getrandbits(32))
    strength = rng.choice((0, 6, 14))
    total = noise.standard_normal((height, width)) * strength / 3
    for cells in (3, 6, 12):
        rows = np.linspace(0, cells - 1.001, height)
        columns = np.linspace(0, cells - 1.001, width)
        grid = noise.standard_normal((cells + 1, cells + 1)) * strength / np.sqrt(cells)
        y, x = rows.astype(int)[:, None], columns.astype(int)[None, :]
        v, u = rows[:, None] - y, columns[None, :] - x
        top = grid[y, x] * (1 - u) + grid[y, x + 1] * u
        bottom = grid[y + 1, x] * (1 - u) + grid[y + 1, x + 1] * u
        total += top * (1 - v) + bottom * v
    return total


def _vignette(width: int, height: int) -> Plane:
    x, y = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    return 1 - 0.06 * (x**2 + y**2)


def _cover(
    scene: Scene, width: int, height: int, rng: random.Random, fonts: tuple[str, ...]
) -> Plane:
    """How much of each pixel is covered, 0 to 1."""
    if scene.digit is not None:
        return _written(str(scene.digit), width, height, rng, fonts)
    cover = np.zeros((height, width))
    turn = rng.choice((0.0, rng.uniform(-0.3, 0.3)))
    for x, y, radius in _places(scene, width, height, rng):
        u, v = np.arange(width)[None, :] + 0.5 - x, np.arange(height)[:, None] + 0.5 - y
        cos, sin = np.cos(turn), np.sin(turn)
        distance = DISTANCES[scene.shape](
            (u * cos + v * sin) / radius, (v * cos - u * sin) / radius
        )
        cover = np.maximum(cover, np.clip(0.5 - distance * radius, 0, 1))
    return cover


def _places(
    scene: Scene, width: int, height: int, rng: random.Random
) -> list[tuple[float, float, float]]:
    side = min(width, height)
    if scene.count == 1:
        x = {None: 0.5, "left": 0.22, "right": 0.78}[scene.side] * width
        radius = side * rng.uniform(0.14, 0.2 if scene.side else 0.38)
        return [(x + rng.uniform(-0.06, 0.06) * width, height * rng.uniform(0.4, 0.6), radius)]
    cells = [(column, row) for column in range(3) for row in range(2)]
    return [
        (
            (column + rng.uniform(0.42, 0.58)) * width / 3,
            (row + rng.uniform(0.4, 0.6)) * height / 2,
            side * rng.uniform(0.1, 0.125),
        )
        for column, row in rng.sample(cells, scene.count)
    ]


def _circle(u: Plane, v: Plane) -> Plane:
    return np.hypot(u, v) - 1


def _square(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.abs(u), np.abs(v)) - 0.85


def _triangle(u: Plane, v: Plane) -> Plane:
    slant = (np.abs(u) * 1.8 - v - 0.95) / np.hypot(1.8, 1)
    triangle: Plane = np.maximum(slant, v - 0.75)
    return triangle


def _star(u: Plane, v: Plane) -> Plane:
    """Five points: the angle is folded into one half of a point, whose edge is a straight line."""
    angle = np.abs((np.arctan2(u, -v) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    x, y = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    inner = 0.42
    edge = np.array([inner * np.cos(np.pi / 5) - 1, inner * np.sin(np.pi / 5)])
    star: Plane = ((x - 1) * edge[1] - y * edge[0]) / np.hypot(*edge)
    return star


def _cross(u: Plane, v: Plane) -> Plane:
    a, b = np.abs(u), np.abs(v)
    cross: Plane = np.minimum(np.maximum(a - 0.32, b - 1), np.maximum(b - 0.32, a - 1))
    return cross


DISTANCES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
}


def _written(
    text: str, width: int, height: int, rng: random.Random, fonts: tuple[str, ...]
) -> Plane:
    size = round(min(width, height) * rng.uniform(0.6, 0.95))
    name = rng.choice((None, *fonts))
    font = ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    canvas = Image.new("L", (width, height))
    place = (width * rng.uniform(0.42, 0.58), height * rng.uniform(0.45, 0.55))
    ImageDraw.Draw(canvas).text(place, text, 255, font, anchor="mm")
    return np.asarray(canvas) / 255


def _jpeg(picture: Plane) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()
