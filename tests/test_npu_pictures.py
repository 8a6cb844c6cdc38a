"""The NPU backend with pictures, over both virtual libraries in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rkllama.backends.base import GenerateSpec, LoadedInfo, LoadSpec, RunResult
from rkllama.backends.vision.eyes import Eyes
from rkllama.backends.vision.markers import Markers, find_markers
from rkllama.backends.vision.picture import square
from rkllama.chat.messages import IMAGE_PLACE as HERE
from rkllama.errors import InvalidRequest, LoadFailed, PromptTooLong, RuntimeFailed, Unsupported
from rkllama.npu import NPUBackend
from tests.backends.vision.pictures import BLUE, GREEN, RED, encoded, halves
from tests.test_npu import to_file
from tests.virtual_npu import VERSIONS, library, read_trace, write_model
from tests.virtual_rknn import describe, write_encoder
from tests.virtual_rknn import library as encoder_library

pytestmark = pytest.mark.integration

QWEN = Markers("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
CLEARS = [version for version in VERSIONS if version != "1.1.4"]
LAYOUTS = ["1.1.4", "1.2.0", "1.2.3", "1.3.0"]
"""One release for each layout of the multimodal input, and the last one without n_image."""


class Model:
    """A backend with eyes, and what the virtual libraries saw of it."""

    def __init__(self, directory: Path) -> None:
        self.trace_file = directory / "trace.jsonl"
        self.directory = directory
        self.backend = NPUBackend(compatible=str(directory / "none"))
        self.info: LoadedInfo

    def load(self, version: str, encoder: dict[str, Any], **config: Any) -> None:
        outputs = encoder.get("outputs", 1)
        path = write_model(
            self.directory / "m.rkllm",
            mode="picture",
            trace=self.trace_file,
            trace_prompt=1,
            embd_size=16,
            image_outputs=outputs,
            **config,
        )
        self.info = self.backend.load(
            LoadSpec(
                path=path,
                context_length=256,
                library=library(version),
                encoder=write_encoder(self.directory / "e.rknn", trace=self.trace_file, **encoder),
                encoder_library=encoder_library(),
                image_markers=QWEN,
            )
        )

    def run(self, prompt: str, *images: bytes, **spec: Any) -> str:
        return self.result(prompt, *images, **spec)[0]

    def result(self, prompt: str, *images: bytes, **spec: Any) -> tuple[str, RunResult]:
        texts: list[str] = []
        result = self.backend.generate(
            GenerateSpec(prompt=prompt, images=images, **spec), texts.append
        )
        return "".join(texts), result

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in read_trace(self.trace_file) if event["event"] == name]


@contextmanager
def seeing(
    version: str, directory: Path, encoder: dict[str, Any] | None = None, **config: Any
) -> Iterator[Model]:
    with to_file(directory / "log"):
        model = Model(directory)
        try:
            model.load(version, encoder or {}, **config)
            yield model
        finally:
            model.backend.close()


def told(*images: bytes, tokens: int = 9) -> str:
    """What the virtual NPU has to say of these pictures."""
    return "\n".join(
        f"picture {number}: {describe(square(image, 28, 28, ''), 28, 28, tokens)}"
        for number, image in enumerate(images, 1)
    )


PHOTO, OTHER = encoded(halves()), encoded(halves((90, 50), GREEN, RED))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_picture_is_seen_with_each_release(version: str, tmp_path: Path) -> None:
    with seeing(version, tmp_path) as model:
        assert model.info.image_tokens == 9
        assert model.run(f"{HERE}What is it?", PHOTO) == told(PHOTO)
        (pictures,) = model.events("pictures")
        assert (pictures["count"], pictures["tokens"]) == (1, 9)
        assert pictures["markers"] == [*QWEN]
        (run,) = model.events("run")
        assert run["prompt"].count("<image>") == 1
    assert [event["leaked"] for event in model.events("encoder_destroy")] == [0]


def test_the_description_tells_the_colours_apart() -> None:
    """What the tests compare with is right for two pictures that can be told by hand."""
    cells = told(PHOTO).removeprefix("picture 1: ").split()
    assert cells[::3] == ["#dc1e28"] * 3
    assert cells[2::3] == ["#1e3cd2"] * 3
    grey, middle = told(OTHER).split()[2], told(OTHER).split()[6]
    assert int(grey[1:3], 16) in range(80, 128)
    assert middle != grey


@pytest.mark.parametrize("nchw", [True, False])
@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
def test_all_outputs_and_layouts_reach_the_model(outputs: int, nchw: bool, tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path, {"outputs": outputs, "nchw": nchw, "tokens": 36}) as model:
        assert model.run(f"{HERE}?", PHOTO) == told(PHOTO, tokens=36)


def test_several_pictures_stand_in_their_places(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path) as model:
        text, result = model.result(f"A {HERE} and B {HERE}: which?", PHOTO, OTHER)
        assert text == told(PHOTO, OTHER)
        (run,) = model.events("run")
        assert "A <image> and B <image>: which?" in run["prompt"]
        plain = model.result("A  and B : which?")[1]
        assert result.prompt_tokens is not None
        assert plain.prompt_tokens is not None
        assert result.prompt_tokens >= 18 + plain.prompt_tokens - 2


@pytest.mark.parametrize("version", [v for v in VERSIONS if v != "1.3.0"])
def test_several_pictures_are_refused_before_1_3_0(version: str, tmp_path: Path) -> None:
    with seeing(version, tmp_path) as model:
        with pytest.raises(Unsupported, match=r"sees one picture at a time, and the con.* has 2"):
            model.run(f"{HERE}{HERE}", PHOTO, OTHER)
        assert not model.events("encode")
        assert model.run(f"{HERE}", PHOTO) == told(PHOTO)


@pytest.mark.parametrize("version", LAYOUTS)
def test_other_pictures_are_seen_after_the_first_one(version: str, tmp_path: Path) -> None:
    with seeing(version, tmp_path) as model:
        for image in (PHOTO, OTHER, PHOTO):
            assert model.run(f"{HERE}What is it?", image) == told(image)
            assert model.events("run")[-1]["matched"] == 0
        assert len(model.events("encode")) == 2  # the third one was kept


@pytest.mark.parametrize("version", ["1.2.3", "1.3.0"])
def test_the_same_picture_again_is_neither_encoded_nor_evaluated(
    version: str, tmp_path: Path
) -> None:
    with seeing(version, tmp_path) as model:
        first = f"{HERE}What is it?"
        answer, before = model.result(first, PHOTO)
        again, after = model.result(f"{first}{answer}And how many?", PHOTO)
        assert again == answer == told(PHOTO)
        assert len(model.events("encode")) == 1
        new = model.events("run")[-1]
        assert new["matched"] >= model.events("run")[0]["prompt_tokens"]
        assert new["evaluated"] < 10
        assert before.prompt_tokens == model.events("run")[0]["prompt_tokens"]
        assert after.prompt_tokens == new["prompt_tokens"]


def test_the_same_picture_in_another_place_is_seen_right(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path) as model:
        for prompt in (f"{HERE}What is it?", f"What is it?{HERE}", f"What?{HERE}", f"What?{HERE}!"):
            assert model.run(prompt, PHOTO) == told(PHOTO)
        assert [run["matched"] > 0 for run in model.events("run")] == [False, False, False, True]
        assert len(model.events("encode")) == 1


def test_a_further_picture_is_seen_right(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path) as model:
        first = f"{HERE}What is it?"
        answer = model.run(first, PHOTO)
        assert model.run(f"{first}{answer}{HERE}And that?", PHOTO, OTHER) == told(PHOTO, OTHER)


def test_text_after_a_picture_and_a_picture_after_text(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path) as model:
        assert model.run("Hello.") == "no picture"
        assert model.run(f"Hello.{HERE}", PHOTO) == told(PHOTO)
        assert model.events("run")[-1]["matched"] > 0  # the text in front is kept
        assert model.run("Hello.") == "no picture"
        assert model.run(f"Hello.{HERE}", OTHER) == told(OTHER)


def test_tags_in_the_text_are_only_text(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path) as model:
        text = f"<image> <video>{HERE} </image> <image>"
        assert model.run(text, PHOTO) == told(PHOTO)
        prompt = model.events("run")[-1]["prompt"]
        assert prompt == "<\u200dimage> <\u200dvideo><image> </image> <\u200dimage>"


def test_the_encoder_is_loaded_with_the_first_picture_and_kept(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path) as model:
        model.run("Hello.")
        assert not model.events("encoder_init")
        for image in (PHOTO, OTHER):
            model.run(f"{HERE}?", image)
        assert len(model.events("encoder_init")) == 1
    assert len(model.events("encoder_destroy")) == 1


def test_an_encoder_that_cannot_be_loaded_leaves_the_text(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path, {"init_code": -6}) as model:
        with pytest.raises(LoadFailed, match=r"e\.rknn could not be loaded: .* code -6"):
            model.run(f"{HERE}?", PHOTO)
        assert model.run("Hello.") == "no picture"


def test_a_run_that_fails_is_an_error_and_the_next_one_sees(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path, {"run_code": -1, "fail_at": 1}) as model:
        with pytest.raises(RuntimeFailed, match="rknn_run failed with code -1: the run failed"):
            model.run(f"{HERE}?", PHOTO)
        assert model.run(f"{HERE}?", PHOTO) == told(PHOTO)


def test_what_is_no_picture_is_the_clients_fault(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path) as model:
        with pytest.raises(InvalidRequest, match="picture 2 of 2 cannot be read"):
            model.run(f"{HERE}{HERE}", PHOTO, b"no picture")
        with pytest.raises(RuntimeFailed, match="1 places for 2 pictures"):
            model.run(f"{HERE}", PHOTO, OTHER)
        assert model.run(f"{HERE}", PHOTO) == told(PHOTO)


def test_too_many_pictures_are_told_before_the_encoder_runs(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path, {"tokens": 36}) as model:
        with pytest.raises(
            PromptTooLong, match="8 pictures take 288 tokens, and the context has only 256"
        ):
            model.run(HERE * 8, *[PHOTO] * 8)
        assert not model.events("encode")


def test_a_cancelled_request_encodes_no_further_picture(tmp_path: Path) -> None:
    with seeing("1.3.0", tmp_path) as model:
        gone = iter([False, True, True, True])
        spec = GenerateSpec(prompt=HERE * 3, images=(PHOTO, OTHER, PHOTO))
        result = model.backend.generate(spec, lambda _: None, cancelled=lambda: next(gone))
        assert result.reason == "cancelled"
        assert len(model.events("encode")) == 1
        assert not model.events("run")


def test_a_model_without_an_encoder_refuses_pictures(tmp_path: Path) -> None:
    with to_file(tmp_path / "log"):
        backend = NPUBackend(compatible=str(tmp_path / "none"))
        path = write_model(tmp_path / "m.rkllm")
        backend.load(LoadSpec(path=path, context_length=256, library=library("1.3.0")))
        with pytest.raises(Unsupported, match="it has no encoder"):
            backend.generate(GenerateSpec(prompt=HERE, images=(PHOTO,)), lambda _: None)
        backend.close()


def test_what_is_kept_of_pictures_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rkllama.backends.vision.eyes._MOST_KEPT", 2 * 9 * 16 * 4)
    eyes = Eyes(
        write_encoder(tmp_path / "e.rknn", trace=tmp_path / "trace"),
        QWEN,
        soc="RK3588",
        library=encoder_library(),
    )
    colours = [encoded(Image.new("RGB", (9, 9), colour)) for colour in (RED, GREEN, BLUE)]

    def see(*images: bytes) -> int:
        before = len(read_trace(tmp_path / "trace"))
        assert eyes.see(HERE * len(images), images, think=None, cancelled=lambda: False)
        return sum(e["event"] == "encode" for e in read_trace(tmp_path / "trace")[before:])

    assert see(*colours) == 3
    assert see(colours[2], colours[1]) == 0
    assert see(colours[0]) == 1  # it was unused for longest, and takes the place of the third
    assert see(colours[1]) == 0
    assert see(colours[2]) == 1
    eyes.close()


@pytest.mark.parametrize(
    ("names", "start", "content"),
    [
        (("qwen2.5-vl", ""), "<|vision_start|>", "<|image_pad|>"),
        ((None, "Qwen3.5-0.8B-rk3588"), "<|vision_start|>", "<|image_pad|>"),
        (("qwen3", "qwen3.5-4b_w8a8_rk3588.rkllm"), "<|vision_start|>", "<|image_pad|>"),
        (("internvl", ""), "<img>", "<IMG_CONTEXT>"),
        ((None, "InternVL3_5-2B"), "<img>", "<IMG_CONTEXT>"),
        (("minicpm-v", ""), "<image>", "<unk>"),
        (("smolvlm", ""), "<fake_token_around_image>", "<image>"),
        (("deepseek", "DeepSeek-OCR-w8a8.rkllm"), "", "<｜▁pad▁｜>"),
        (("gemma3n", ""), "<start_of_image>", "<image_soft_token>"),
        ((None, "Janus-Pro-1B"), "<begin_of_image>", "<image_placeholder>"),
    ],
)
def test_each_family_has_its_markers(
    names: tuple[str | None, ...], start: str, content: str
) -> None:
    markers = find_markers(*names)
    assert markers is not None
    assert (markers.start, markers.content) == (start, content)
