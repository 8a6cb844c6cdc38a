"""Pictures on their way into a request for llama.cpp's server, and its answer's chunks."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from rkllama.backends.llama_wire import Completion, is_native, native_chunk
from rkllama.backends.vision.mmproj import MmprojEyes, need_eyes
from rkllama.backends.vision.picture import fitted
from rkllama.chat.messages import IMAGE_PLACE as HERE
from rkllama.errors import InvalidRequest, RuntimeFailed, Unsupported
from rkllama.models.vision.mmproj import Mmproj
from tests.backends.vision.pictures import BLUE, RED, encoded, halves
from tests.backends.vision.test_picture import near

MARKER = "<__media_x__>"
PROPS = {"media_marker": MARKER, "modalities": {"vision": True}}
FIRST, SECOND = encoded(halves()), encoded(halves((90, 30), BLUE, RED), "JPEG", quality=95)


def never() -> bool:
    return False


def added(
    prompt: str, *images: bytes, eyes: MmprojEyes | None = None
) -> tuple[str, list[Image.Image]]:
    """The prompt and the pictures of a request."""
    request: dict[str, Any] = {"prompt": prompt, "n_predict": 1}
    assert not is_native(request)
    assert (eyes or MmprojEyes(Mmproj(), PROPS)).add(request, images, never)
    assert is_native(request)
    assert request["n_predict"] == 1
    data = request["prompt"]["multimodal_data"]
    opened = [Image.open(io.BytesIO(base64.b64decode(item))) for item in data]
    assert {image.format for image in opened} <= {"PNG"}
    return request["prompt"]["prompt_string"], [image.convert("RGB") for image in opened]


def test_each_picture_stands_in_its_place() -> None:
    text, images = added(f"a {HERE} b {HERE} c", FIRST, SECOND)
    assert text == f"a {MARKER} b {MARKER} c"
    assert [image.size for image in images] == [(120, 120), (90, 30)]
    assert images[0].getpixel((10, 60)) == RED
    assert images[1].getpixel((5, 15))[2] > 150  # type: ignore[index]


def test_a_prompt_without_a_place_for_each_picture_is_a_bug_that_is_told() -> None:
    with pytest.raises(RuntimeFailed, match="1 places for 2 pictures"):
        added(f"a {HERE}", FIRST, SECOND)


def test_a_marker_in_a_users_text_becomes_text() -> None:
    text, _ = added(f"{MARKER} {HERE}", FIRST)
    assert text.count(MARKER) == 1
    assert text.endswith(f" {MARKER}")
    text, _ = added(f"<__media__> {HERE}", FIRST, eyes=MmprojEyes(Mmproj(), {}))
    assert text.count("<__media__>") == 1


def test_an_encoder_with_one_square_gets_just_that() -> None:
    eyes = MmprojEyes(Mmproj("mlp", 60, 16, pads=True), PROPS)
    _, (image,) = added(HERE, SECOND, eyes=eyes)
    assert image.size == (60, 60)
    assert image.getpixel((30, 5)) == (122, 116, 104)
    assert near(image.getpixel((50, 30)), RED)
    stretching = MmprojEyes(Mmproj("gemma3", 60, 16), PROPS)
    assert added(HERE, SECOND, eyes=stretching)[1][0].size == (90, 30)


def test_a_picture_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    eyes = MmprojEyes(Mmproj(), PROPS)
    first = added(HERE, FIRST, eyes=eyes)
    monkeypatch.setattr("rkllama.backends.vision.mmproj.fitted", None)
    assert added(HERE, FIRST, eyes=eyes)[0] == first[0]
    with pytest.raises(TypeError):
        added(HERE, SECOND, eyes=eyes)


def test_what_is_kept_of_pictures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rkllama.backends.vision.mmproj._MOST_KEPT", 100)
    eyes = MmprojEyes(Mmproj(), PROPS)
    added(HERE * 2, FIRST, SECOND, eyes=eyes)
    assert len(eyes._kept) == 1


def test_a_run_that_is_cancelled_decodes_no_further() -> None:
    request: dict[str, Any] = {"prompt": HERE}
    assert not MmprojEyes(Mmproj(), PROPS).add(request, [b"no picture"], lambda: True)
    assert request == {"prompt": HERE}


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"^picture 2 of 2 cannot be read"):
        added(HERE * 2, FIRST, b"none")


@pytest.mark.parametrize(
    ("eyes", "blind", "message"),
    [
        (None, None, "this model has no image encoder"),
        (None, "it is damaged", "it is damaged"),
        (MmprojEyes(Mmproj(), {"modalities": {"vision": False}}), None, "has no image encoder"),
    ],
)
def test_a_model_that_does_not_see_says_why(
    eyes: MmprojEyes | None, blind: str | None, message: str
) -> None:
    with pytest.raises(Unsupported, match=message) as caught:
        need_eyes(eyes, blind)
    assert caught.value.param == "images"


# --- Sizes -------------------------------------------------------------------------------------


def size_of(image: Image.Image, longest: int = 100, **options: Any) -> tuple[int, int]:
    return Image.open(io.BytesIO(fitted(encoded(image, **options), longest, "it"))).size


@pytest.mark.parametrize(
    ("size", "handed"),
    [
        ((100, 50), (100, 50)),
        ((60, 80), (60, 80)),
        ((400, 200), (100, 50)),
        ((200, 400), (50, 100)),
        ((1, 1), (28, 28)),
        ((3000, 1), (100, 28)),
    ],
)
def test_a_picture_is_as_large_as_an_encoder_may_want(
    size: tuple[int, int], handed: tuple[int, int]
) -> None:
    assert size_of(Image.new("RGB", size, RED)) == handed


def test_exif_turns_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert size_of(halves((400, 200)), form="JPEG", exif=exif) == (50, 100)


# --- Chunks ------------------------------------------------------------------------------------


def test_the_chunks_of_the_native_endpoint_are_taken_like_the_others() -> None:
    timings = {
        "cache_n": 70,
        "prompt_n": 5,
        "prompt_ms": 20.0,
        "predicted_n": 2,
        "predicted_ms": 4.0,
    }
    logprob = {"id": 1, "token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []}
    chunks: list[dict[str, Any]] = [
        {"content": "", "stop": False, "prompt_progress": {"total": 75, "processed": 75}},
        {"content": "a", "stop": False, "timings": timings, "completion_probabilities": [logprob]},
        {"content": "b", "stop": False, "timings": timings},
        {
            "content": "",
            "stop": True,
            "stop_type": "limit",
            "tokens_evaluated": 75,
            "tokens_predicted": 2,
            "timings": timings,
        },
    ]
    texts: list[str] = []
    logprobs: list[Any] = []
    completion = Completion(texts.append, lambda text, items: logprobs.append((text, items)))
    completion.take(native_chunk(chunks[0]))
    assert not completion.has_begun
    for chunk in chunks[1:]:
        completion.take(native_chunk(chunk))
    result = completion.result(aborted=False)
    assert (texts, [text for text, _ in logprobs]) == (["b"], ["a"])
    assert (result.prompt_tokens, result.cached_tokens, result.completion_tokens) == (75, 70, 2)
    assert (result.reason, result.prompt_seconds) == ("length", 0.02)
    ended = {**chunks[3], "stop_type": "eos"}
    completion.take(native_chunk(ended))
    assert completion.result(aborted=False).reason == "stop"


def test_an_error_of_the_native_endpoint_stays_one() -> None:
    completion = Completion(lambda _: None)
    completion.take(native_chunk({"error": {"message": "no", "type": "invalid_request_error"}}))
    with pytest.raises(InvalidRequest, match="no"):
        completion.result(aborted=False)
