"""Draws the pictures that the guide's eyes learn from, each with its caption, from a seed.

A scene is one coloured shape (perhaps on the left or the right), two to five alike, or a digit. It is
drawn with the faults of photographs: uneven light, blotched backgrounds, blur, the sensor's noise, JPEG.
"""

from __future__ import annotations

import colorsys
import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .scenes import COLOURS, Scene

Colour = tuple[int, int, int]
Point = tuple[float, float]

_OVERSAMPLING = 2
_HUES = {
    "red": (-13, 11),
    "orange": (22, 40),
    "yellow": (49, 63),
    "green": (88, 155),
    "blue": (205, 246),
    "purple": (265, 304),
}
"""Degrees between which a colour has its name; between two ranges nothing is drawn."""
_CONTRAST = 80
"""The least distance in RGB between a shape and what is behind it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How strong a picture's faults are, each from 0 to 1."""

    blotches: float
    shade: float
    blur: float
    noise: float
    jpeg: float

    @classmethod
    def draw(cls, rng: random.Random) -> Fault:
        """Half of all pictures have few faults."""
        strength = rng.choice((0.0, 0.3, 1.0, 1.0))
        return cls(*(strength * rng.random() for _ in fields(cls)))


def draw(scene: Scene, rng: random.Random, fonts: Sequence[str]) -> Image.Image:
    """A picture of `scene`, 72 to 256 pixels a side; digits are written in one of the font files."""
    width, height = _size(rng)
    fault = Fault.draw(rng)
    while True:
        background = _background(width, height, fault, rng)
        behind = np.asarray(background).reshape(-1, 3).mean(0)
        colour = _any_colour(rng) if scene.digit is not None else shade_of(scene.colour, rng)
        if np.linalg.norm(behind - np.array(colour)) > _CONTRAST:
            break
    mask = _digit_mask if scene.digit is not None else _shapes_mask
    return _spoil(
        _paste(background, mask(scene, width, height, rng, fonts), colour, rng), fault, rng
    )


def _size(rng: random.Random) -> tuple[int, int]:
    side = round(math.exp(rng.uniform(math.log(72), math.log(256))))
    if rng.random() < 0.5:
        return side, side
    other = round(side * rng.uniform(0.75, 1.0))
    return (side, other) if rng.random() < 0.5 else (other, side)


def _background(width: int, height: int, fault: Fault, rng: random.Random) -> Image.Image:
    """A plain, two-coloured or blotched surface."""
    base = np.array(_surface(rng), np.float32)
    grid = rng.choice((2, 3, 5, 9, 16))
    noise = np.random.default_rng(rng.getrandbits(32))
    blotches = (
        noise.standard_normal((grid, grid, 1)) * 20 + noise.standard_normal((grid, grid, 3)) * 9
    )
    small = np.clip(base + fault.blotches * blotches, 0, 255).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def _surface(rng: random.Random) -> Colour:
    kind = rng.random()
    if kind < 0.25:
        return (255, 255, 255)
    if kind < 0.35:
        return (0, 0, 0)
    if kind < 0.6:
        grey = rng.randrange(20, 250)
        return (grey, grey, grey)
    return _rgb(rng.uniform(0, 360), rng.uniform(0.05, 0.45), rng.uniform(0.15, 1.0))


def shade_of(name: str, rng: random.Random) -> Colour:
    if name == "black":
        return _rgb(rng.uniform(0, 360), rng.uniform(0, 0.3), rng.uniform(0, 0.13))
    if name == "white":
        return _rgb(rng.uniform(0, 360), rng.uniform(0, 0.05), rng.uniform(0.93, 1.0))
    value = rng.uniform(0.8, 1.0) if name in ("orange", "yellow") else rng.uniform(0.5, 1.0)
    return _rgb(rng.uniform(*_HUES[name]), rng.uniform(0.62, 1.0), value)


def _any_colour(rng: random.Random) -> Colour:
    return rng.choice(((0, 0, 0), (255, 255, 255), shade_of(rng.choice(COLOURS), rng)))


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _paste(
    background: Image.Image, mask: Image.Image, colour: Colour, rng: random.Random
) -> Image.Image:
    """The background with `colour` where the mask is; sometimes with a soft shadow under it."""
    mask = mask.resize(background.size, Image.Resampling.BOX)
    if rng.random() < 0.2:
        offset = max(1, background.width // 40)
        shadow = Image.new("L", background.size)
        shadow.paste(mask.point(lambda value: value // 3), (offset, offset))
        background.paste((0, 0, 0), mask=shadow.filter(ImageFilter.GaussianBlur(offset)))
    background.paste(colour, mask=mask)
    return background


def _shapes_mask(
    scene: Scene, width: int, height: int, rng: random.Random, _: Sequence[str]
) -> Image.Image:
    places = _one_place(scene, width, height, rng) if scene.count == 1 else []
    while len(places) < scene.count:
        places = _apart(scene.count, width, height, rng)
    canvas = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    drawing = ImageDraw.Draw(canvas)
    turn = _turn(scene.shape, rng)
    for x, y, radius in places:
        wobble = turn + rng.uniform(-8, 8)
        points = outline(scene.shape, wobble, rng.uniform(0.88, 1.14))
        drawing.polygon(
            [
                ((x + radius * a) * _OVERSAMPLING, (y + radius * b) * _OVERSAMPLING)
                for a, b in points
            ],
            fill=255,
        )
    return canvas


def _one_place(
    scene: Scene, width: int, height: int, rng: random.Random
) -> list[tuple[float, float, float]]:
    """In the middle or wholly on one side."""
    side = min(width, height)
    if scene.side is None:
        radius = side * rng.uniform(0.12, 0.46)
        x = width * rng.uniform(0.41, 0.59)
    else:
        radius = side * rng.uniform(0.11, 0.24)
        x = width * rng.uniform(0.12, 0.29)
        x = width - x if scene.side == "right" else x
    slack = max(0.0, height / 2 - radius)
    return [(x, height / 2 + rng.uniform(-slack, slack), radius)]


def _apart(
    count: int, width: int, height: int, rng: random.Random
) -> list[tuple[float, float, float]]:
    """Places that do not touch; fewer than `count` when there was no room."""
    radius = min(width, height) * rng.uniform(0.085, (0.2, 0.18, 0.15, 0.14)[count - 2])
    places: list[tuple[float, float, float]] = []
    for _ in range(60):
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        if all(math.hypot(x - a, y - b) > 2.35 * radius for a, b, _ in places):
            places.append((x, y, radius * rng.uniform(0.92, 1.08)))
        if len(places) == count:
            break
    return places


def _turn(shape: str, rng: random.Random) -> float:
    """Degrees; most things stand upright."""
    most = {"circle": 180, "square": 45, "triangle": 25, "star": 36, "cross": 18}[shape]
    return rng.choice((0.0, rng.uniform(-most, most)))


def outline(shape: str, degrees: float, stretch: float) -> list[Point]:
    """The corners of a shape of radius about 1, turned and stretched."""
    if shape == "circle":
        corners = _ring(40, 1, 1)
    elif shape == "square":
        corners = [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)]
    elif shape == "triangle":
        corners = [(0.0, -1.0), (0.95, 0.8), (-0.95, 0.8)]
    elif shape == "star":
        corners = _ring(10, 1.05, 0.45)
    else:
        corners = _cross(0.3)
    angle = math.radians(degrees)
    cos, sin, root = math.cos(angle), math.sin(angle), math.sqrt(stretch)
    stretched = [(x * root, y / root) for x, y in corners]
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in stretched]


def _ring(count: int, even: float, odd: float) -> list[Point]:
    """Points around the centre, every second one at another distance, the first at the top."""
    radii = [(even, odd)[index % 2] for index in range(count)]
    angles = [2 * math.pi * index / count for index in range(count)]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


def _cross(arm: float) -> list[Point]:
    quarter = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    corners = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


def _digit_mask(
    scene: Scene, width: int, height: int, rng: random.Random, fonts: Sequence[str]
) -> Image.Image:
    """The digit upright, or leaning a little, in a height of 35 to 90 % of the picture's."""
    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    tall = min(size) * rng.uniform(0.35, 0.9)
    font = ImageFont.truetype(rng.choice(fonts), round(tall * 1.35))
    text = str(scene.digit)
    left, top, right, bottom = font.getbbox(text)
    x = _within(size[0], right - left, rng) - left
    y = _within(size[1], bottom - top, rng) - top
    canvas = Image.new("L", size)
    stroke = max(0, round(tall * rng.uniform(-0.04, 0.04)))
    ImageDraw.Draw(canvas).text((x, y), text, fill=255, font=font, stroke_width=stroke)
    if rng.random() < 0.4:
        return canvas
    centre = (x + (left + right) / 2, y + (top + bottom) / 2)
    return _warped(canvas, centre, rng)


def _warped(canvas: Image.Image, centre: Point, rng: random.Random) -> Image.Image:
    """Narrower or wider, slanted and turned: more faces than the fonts have."""
    angle = math.radians(rng.uniform(-10, 10))
    wide, slant = math.exp(rng.uniform(-0.22, 0.22)), rng.uniform(-0.2, 0.2)
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = cos * wide, sin * wide + slant
    c, d = -sin, cos
    x, y = centre
    moved = (a, b, x - a * x - b * y, c, d, y - c * x - d * y)
    return canvas.transform(canvas.size, Image.Transform.AFFINE, moved, Image.Resampling.BILINEAR)


def _within(room: int, length: float, rng: random.Random) -> float:
    """Where something so long begins, off the middle by at most a third of the slack."""
    slack = max(0.0, (room - length) / 2)
    return (room - length) / 2 + rng.uniform(-0.7, 0.7) * slack


def _spoil(picture: Image.Image, fault: Fault, rng: random.Random) -> Image.Image:
    if fault.blur > 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(fault.blur * picture.width / 90))
    values = np.asarray(picture).astype(np.float32)
    noise = np.random.default_rng(rng.getrandbits(32))
    values *= _light(picture.size, fault.shade, noise)[..., None]
    values += noise.standard_normal(values.shape, np.float32) * (fault.noise * 16)
    picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return _through_jpeg(picture, round(95 - 55 * fault.jpeg)) if fault.jpeg > 0 else picture


def _light(
    size: tuple[int, int], strength: float, noise: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Factors (height, width): brighter on one side than on the other."""
    angle = noise.uniform(0, 2 * math.pi)
    x = np.linspace(-1, 1, size[0], dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, size[1], dtype=np.float32)[:, None]
    slope: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = 1 + 0.22 * strength * (
        math.cos(angle) * x + math.sin(angle) * y
    )
    return slope


def _through_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
