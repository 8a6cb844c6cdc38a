"""The guide sees: pictures of a program that drew none to train on, the way that requests go."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.models.guide import ENCODER
from rkllama.types import ChatRequest, Message, SamplingParams, SentImage, TextDelta, TextPart
from tests.clients.common import GUIDE_FILE
from tools.guide.other_pictures import draw_all

pytestmark = pytest.mark.integration

QUESTION = "What is in the picture?"
ABOUT_RKLLAMA = "How do I pull a model?"
PICTURES = 20
RIGHT = 17
"""At least: of 100, more than 90 are said rightly."""

Say = Callable[..., str]


def asked(text: str, picture: bytes | None = None) -> Message:
    if picture is None:
        return Message.of("user", text)
    sent = SentImage(data=base64.b64encode(picture).decode(), instead="[picture]")
    return Message.of("user", (sent, TextPart(text)))


@pytest.fixture
def say(models: Path) -> Iterator[Say]:
    """What a guide says to a conversation: `guide`, or `blind`, which has no encoder."""
    (models / "blind").mkdir()
    shutil.copy(GUIDE_FILE, models / "blind" / "blind.gguf")
    service = LocalService(load_settings({"max_loaded": 2}), "test")

    def answer(*messages: Message, model: str = "guide") -> str:
        request = ChatRequest(
            model=model, messages=messages, sampling=SamplingParams(temperature=0), max_tokens=100
        )
        events = service.stream(request)
        return "".join(event.text for event in events if isinstance(event, TextDelta))

    yield answer
    service.close()


def test_what_it_says_is_in_the_pictures_and_its_texts_stay_the_same(say: Say) -> None:
    pictures = draw_all(PICTURES, 11)
    answers = [(say(asked(QUESTION, file)), scene.caption) for file, scene in pictures]
    wrong = [(said, shown) for said, shown in answers if said != shown]
    assert len(wrong) <= PICTURES - RIGHT, wrong

    alone = say(asked(ABOUT_RKLLAMA), model="blind")
    assert "rkllama pull" in alone
    assert say(asked(ABOUT_RKLLAMA)) == alone

    # A picture confuses the guide no longer than its own answer takes.
    told = Message.of("assistant", answers[0][0])
    later = (told, asked(ABOUT_RKLLAMA))
    without = say(asked(QUESTION), *later, model="blind")
    assert say(asked(QUESTION, pictures[0][0]), *later) == without
    assert (
        say(asked(QUESTION, pictures[0][0]), told, asked(QUESTION, pictures[1][0])) == answers[1][0]
    )


def test_the_encoder_comes_with_the_guide(models: Path) -> None:
    assert Path(ENCODER).stat().st_size <= 3_000_000
