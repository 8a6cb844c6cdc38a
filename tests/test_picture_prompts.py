"""What the runtime is given for a picture with each family of models: the prompt, and the tokens around it.

tests/golden/pictures.json holds them, as they were read against the families' own templates.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rkllama.backends.base import GenerateSpec, LoadSpec
from rkllama.backends.vision.eyes import with_tags
from rkllama.backends.vision.markers import Markers, markers_of
from rkllama.chat.messages import IMAGE_PLACE
from rkllama.engine.prompt import build_prompt
from rkllama.models.store import Store
from rkllama.npu import NPUBackend
from rkllama.types import ChatRequest, ImagePart, Message, TextPart
from tests.seeing import OTHER, PHOTO, put_model, told
from tests.test_npu import to_file
from tests.virtual_npu import library, read_trace
from tests.virtual_rknn import library as encoder_library

pytestmark = pytest.mark.integration

FILES = {
    "Qwen2-VL": "Qwen2-VL-2B-Instruct_w8a8_rk3588.rkllm",
    "Qwen2.5-VL": "Qwen2.5-VL-3B-Instruct_w8a8_rk3588.rkllm",
    "Qwen3-VL": "qwen3-vl-2b-instruct_w8a8_rk3588.rkllm",
    "Qwen3.5": "qwen3.5-4b_w8a8_rk3588.rkllm",
    "InternVL3": "internvl3-1b_w8a8_rk3588.rkllm",
    "MiniCPM-V": "MiniCPM-V-4_5_w8a8_rk3588.rkllm",
    "SmolVLM2": "smolvlm2-256m-instruct_w8a8_rk3588.rkllm",
    "DeepSeek-OCR": "deepseekocr_w8a8_rk3588.rkllm",
    "Gemma3": "gemma-3-4b-it_w8a8_rk3588.rkllm",
    "Janus-Pro": "Janus-Pro-1B_w8a8_rk3588.rkllm",
}
GOLDEN: dict[str, Any] = json.loads(
    Path(__file__).with_name("golden").joinpath("pictures.json").read_text()
)
CONVERSATION = (
    Message.of("system", "Be brief."),
    Message.of("user", [ImagePart(PHOTO), TextPart("What is <image>?")]),
    Message.of("assistant", "Red."),
    Message.of("user", [TextPart("And "), ImagePart(OTHER), TextPart("?")]),
)


class Family(NamedTuple):
    """What is known of a model file by its name."""

    markers: Markers
    prompt: str
    images: tuple[bytes, ...]
    path: str


def family_of(name: str, models: Path, messages: tuple[Message, ...]) -> Family:
    put_model(models, name, models.parent / "trace", encoder={}, file=FILES[name])
    store = Store(str(models))
    try:
        stored = store.resolve(name)
    finally:
        store.close()
    prompt = build_prompt(ChatRequest(messages=messages), stored)
    return Family(markers_of(stored), prompt.text, prompt.images, stored.info.path)


@pytest.mark.parametrize("name", FILES)
def test_the_prompt_has_places_and_no_markup(name: str, models: Path) -> None:
    family = family_of(name, models, CONVERSATION)
    assert family.images == (PHOTO, OTHER)
    assert [*family.markers] == GOLDEN[name]["markers"]
    assert family.prompt.replace(IMAGE_PLACE, "{picture}") == GOLDEN[name]["prompt"]


@pytest.mark.parametrize("name", FILES)
def test_markers_in_a_user_s_text_are_text(name: str, models: Path) -> None:
    text = "<image> <video> " + " ".join(GOLDEN[name]["markers"])
    family = family_of(name, models, (Message.of("user", [ImagePart(PHOTO), TextPart(text)]),))
    prompt = with_tags(family.prompt, family.markers)
    literal = {"<image>", "<video>", *family.markers} - {""}
    assert {tag: prompt.count(tag) for tag in literal} == {t: int(t == "<image>") for t in literal}
    assert prompt.count("\u200d") == 2 + sum(map(bool, family.markers))


@pytest.mark.parametrize("version", ["1.2.0", "1.2.3", "1.3.0"])
@pytest.mark.parametrize("name", FILES)
def test_each_layout_gets_it(name: str, version: str, models: Path, tmp_path: Path) -> None:
    messages = CONVERSATION if version == "1.3.0" else CONVERSATION[:2]
    family = family_of(name, models, messages)
    backend = NPUBackend(compatible=str(tmp_path / "none"))
    texts: list[str] = []
    with to_file(tmp_path / "log"):
        spec = LoadSpec(
            path=family.path,
            context_length=1024,
            library=library(version),
            encoder=str(models / name / "vision.rknn"),
            encoder_library=encoder_library(),
            image_markers=family.markers,
        )
        backend.load(spec)
        run = GenerateSpec(prompt=family.prompt, images=family.images, raw=True)
        backend.generate(run, texts.append)
        backend.close()
    assert "".join(texts) == told(*family.images)
    events = {event["event"]: event for event in read_trace(models.parent / "trace")}
    assert events["pictures"]["markers"] == GOLDEN[name]["markers"]
    prompt = str(events["run"]["prompt"])
    assert prompt.count("<image>") == len(family.images)
    if version == "1.3.0":
        golden = GOLDEN[name]["prompt"].replace("<image>", "<\u200dimage>")
        assert prompt == golden.replace("{picture}", "<image>")
