"""What the guide's eyes can see: scenes, each with the caption that the guide is to say."""

from __future__ import annotations

import random
from dataclasses import dataclass

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
SHAPES = ("circle", "square", "triangle", "star", "cross")
SIDES = (None, "left", "right")
NUMBERS = ("two", "three", "four", "five")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Shapes of one kind, or a digit (then the rest means nothing)."""

    colour: str = "red"
    shape: str = "circle"
    count: int = 1
    side: str | None = None
    digit: int | None = None

    @property
    def caption(self) -> str:
        """What the guide says to it."""
        if self.digit is not None:
            return f"the digit {self.digit}"
        if self.count > 1:
            plural = "es" if self.shape == "cross" else "s"
            return f"{NUMBERS[self.count - 2]} {self.colour} {self.shape}{plural}"
        article = "an" if self.colour == "orange" else "a"
        place = "" if self.side is None else f" on the {self.side}"
        return f"{article} {self.colour} {self.shape}{place}"

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """Its features as class numbers: colour (8: none), shape (5: none), arrangement, digit (10: none).

        Arrangements: 0 to 2 one thing in the middle, left and right, 3 to 6 two to five, 7 a digit.
        """
        if self.digit is not None:
            return len(COLOURS), len(SHAPES), 7, self.digit
        arrangement = self.count + 1 if self.count > 1 else SIDES.index(self.side)
        return COLOURS.index(self.colour), SHAPES.index(self.shape), arrangement, 10


FEATURES = (len(COLOURS) + 1, len(SHAPES) + 1, 8, 11)
"""How many classes each of a scene's numbers has."""


def every_scene() -> list[Scene]:
    """All scenes there are: 290."""
    shapes = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    single = [Scene(colour=c, shape=s, side=side) for c, s in shapes for side in SIDES]
    several = [Scene(colour=c, shape=s, count=n) for c, s in shapes for n in (2, 3, 4, 5)]
    return single + several + [Scene(digit=digit) for digit in range(10)]


def random_scene(rng: random.Random) -> Scene:
    """One in four is a digit, three in eight are several shapes."""
    kind = rng.random()
    if kind < 0.25:
        return Scene(digit=rng.randrange(10))
    colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
    if kind < 0.625:
        return Scene(colour=colour, shape=shape, count=rng.randint(2, 5))
    return Scene(colour=colour, shape=shape, side=rng.choice(SIDES))
