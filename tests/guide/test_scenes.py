"""What the guide's eyes learn from: scenes, captions, pictures, and that these are scaled as in use."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from rkllama.backends.vision.picture import square_file
from tools.guide.other_pictures import PALETTE, draw_all
from tools.guide.resample import PADDING, squared
from tools.guide.scenes import COLOURS, FEATURES, Scene, every_scene, random_scene


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (Scene(colour="red", shape="circle"), "a red circle"),
        (Scene(colour="orange", shape="star", side="left"), "an orange star on the left"),
        (Scene(colour="blue", shape="cross", count=2), "two blue crosses"),
        (Scene(colour="black", shape="square", count=5), "five black squares"),
        (Scene(digit=7), "the digit 7"),
    ],
)
def test_a_caption_is_what_a_person_would_say(scene: Scene, caption: str) -> None:
    assert scene.caption == caption


def test_scenes_differ_in_their_captions_and_in_their_numbers() -> None:
    scenes = every_scene()
    assert len({scene.caption for scene in scenes}) == len(scenes)
    assert len({scene.numbers for scene in scenes}) == len(scenes)
    assert all(n < most for s in scenes for n, most in zip(s.numbers, FEATURES, strict=True))


def test_every_random_scene_is_one_of_them() -> None:
    rng = random.Random(3)
    known = {scene.caption for scene in every_scene()}
    assert {random_scene(rng).caption for _ in range(2000)} <= known


def test_the_same_seed_draws_the_same_files() -> None:
    assert draw_all(6, 4) == draw_all(6, 4)
    assert draw_all(6, 4) != draw_all(6, 5)
    assert set(PALETTE) == set(COLOURS)


@pytest.mark.parametrize("size", [(64, 64), (300, 200), (35, 90), (640, 480), (31, 31)])
def test_a_picture_is_scaled_as_in_use(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    used = Image.open(io.BytesIO(square_file(file.getvalue(), 64, "it")))
    assert (squared(Image.fromarray(pixels), 64) == np.asarray(used)).all()


def test_what_is_not_square_is_padded_on_both_sides() -> None:
    wide = squared(Image.new("RGB", (64, 32), (1, 2, 3)), 32)
    assert (wide[:8] == PADDING).all()
    assert (wide[-8:] == PADDING).all()
    assert (wide[8:-8] == (1, 2, 3)).all()
