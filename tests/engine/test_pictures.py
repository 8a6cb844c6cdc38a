"""Pictures from every dialect: as bytes for a model that sees, and where they stand in its prompt."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from rkllama.api import anthropic, native, ollama, openai, responses
from rkllama.api.common import Generation
from rkllama.chat.messages import IMAGE_PLACE
from rkllama.engine import pictures
from rkllama.engine.pictures import (
    images_in,
    images_of,
    with_pictures,
    without_earlier_pictures,
)
from rkllama.engine.prompt import Prompt, build_prompt
from rkllama.errors import InvalidRequest, Unsupported
from rkllama.models.metadata import StoredModel
from rkllama.models.modelfile import Modelfile
from rkllama.types import ChatRequest, ImagePart, Message, ModelInfo, SentImage, TextPart

RED, BLUE = b"\x89PNG red", b"\xff\xd8 blue"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url_of(data: bytes) -> str:
    return f"data:image/png;base64,{encoded(data)}"


def from_openai(*content: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": list(content)}]}
    return openai.decode_chat(body, answer_id="a", created=0).request


def from_responses(*content: Any) -> ChatRequest:
    body = {"model": "m", "input": [{"role": "user", "content": list(content)}]}
    return responses.decode_response(body, answer_id="r", created=0).request


def from_anthropic(*content: Any) -> ChatRequest:
    body = {
        "model": "m",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": list(content)}],
    }
    return anthropic.decode_messages(body, answer_id="i").request


def from_native(*content: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": list(content)}]}
    return native.decode_generate(body).request


def from_ollama(*images: str, text: str = "What?") -> ChatRequest:
    entry = {"role": "user", "content": text, "images": list(images)}
    call = ollama.decode_chat({"model": "m", "messages": [entry]})
    assert isinstance(call, Generation)
    return call.request


def image_url(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url_of(data), "detail": "low"}}


def input_image(data: bytes) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url_of(data)}


def image_block(data: bytes) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": encoded(data)}
    return {"type": "image", "source": source}


def text(words: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": words}


SENT: dict[str, tuple[Callable[..., ChatRequest], tuple[Any, ...], tuple[Any, ...]]] = {
    "openai": (
        from_openai,
        (text("a"), image_url(RED), text("b"), image_url(BLUE)),
        (TextPart("a"), ImagePart(RED), TextPart("b"), ImagePart(BLUE)),
    ),
    "responses": (
        from_responses,
        (input_image(RED), text("a", "input_text")),
        (ImagePart(RED), TextPart("a")),
    ),
    "anthropic": (
        from_anthropic,
        (image_block(RED), text("a")),
        (ImagePart(RED), TextPart("\n\na")),
    ),
    "native": (from_native, (image_url(RED), text("a")), (ImagePart(RED), TextPart("a"))),
    "ollama": (
        from_ollama,
        (encoded(RED), url_of(BLUE)),
        (ImagePart(RED), ImagePart(BLUE), TextPart("What?")),
    ),
}


@pytest.mark.parametrize("dialect", SENT)
def test_a_model_that_sees_gets_the_bytes_where_they_were_sent(dialect: str) -> None:
    read, sent, expected = SENT[dialect]
    (message,) = with_pictures(read(*sent), sees=True).messages
    assert message.content == expected


@pytest.mark.parametrize("dialect", SENT)
def test_a_model_without_eyes_refuses_what_is_sent_now(dialect: str) -> None:
    read, sent, _ = SENT[dialect]
    with pytest.raises(
        Unsupported, match=r"this model (accepts only text|does not support images)"
    ):
        with_pictures(read(*sent), sees=False)


def test_a_model_whose_eyes_cannot_be_used_says_why() -> None:
    problem = "Pillow is not installed"
    with pytest.raises(Unsupported, match="does not support images: Pillow is not") as caught:
        with_pictures(from_ollama(encoded(RED)), sees=False, problem=problem)
    assert "rkllama doctor" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "not fetched"),
        ({"type": "image_url", "image_url": "file:///etc/passwd"}, "not fetched"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,plain"}}, "base64"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,****"}}, "base64"),
        ({"type": "image_url", "image_url": {}}, "base64"),
        ({"type": "image_url", "image_url": {"url": ""}}, "base64"),
        ({"type": "input_image", "file_id": "file-1"}, "base64"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_place(part: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"'messages\[0\].content\[1\]'.*{why}") as raised:
        with_pictures(from_openai(text("a"), part), sees=True)
    assert raised.value.param == "messages[0].content[1].type"


def test_an_older_picture_that_cannot_be_read_is_told() -> None:
    sent = SentImage(data="", instead="[image]", problem="it is a URL")
    request = ChatRequest(messages=(Message.of("user", (sent, TextPart(" a"))),))
    (message,) = with_pictures(request, sees=True).messages
    assert message.content == (TextPart("[image] a"),)


def test_a_model_that_they_confuse_sees_the_last_question_s_only() -> None:
    def turn(role: Any, *parts: str | bytes) -> Message:
        sent = (
            TextPart(part) if isinstance(part, str) else SentImage(data=encoded(part), instead="x")
            for part in parts
        )
        return Message.of(role, tuple(sent))

    earlier = (turn("user", "One? ", RED), turn("assistant", "Red."))
    last = (turn("user", BLUE), turn("user", "And this? ", RED), turn("tool", BLUE))
    left = without_earlier_pictures(ChatRequest(messages=earlier + last)).messages
    assert left == (turn("user", "One? "), earlier[1], *last)
    assert without_earlier_pictures(ChatRequest(messages=last[1:])).messages == last[1:]
    alone = ChatRequest(prompt="What?", images=last[0].content)
    assert without_earlier_pictures(alone) == alone


def test_base64_may_be_wrapped() -> None:
    wrapped = "\n".join(encoded(RED)[at : at + 4] for at in range(0, 12, 4))
    (message,) = with_pictures(from_ollama(wrapped), sees=True).messages
    assert images_of([message]) == (RED,)


def test_pictures_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_IMAGES", 2)
    with pytest.raises(InvalidRequest, match="3 pictures, at most 2"):
        with_pictures(from_ollama(*[encoded(RED)] * 3), sees=True)
    monkeypatch.setattr(pictures, "MAX_BYTES", 10)
    with pytest.raises(InvalidRequest, match="MB together"):
        with_pictures(from_ollama(encoded(RED), encoded(BLUE)), sees=True)


# --- In the prompt -----------------------------------------------------------------------------


def model(family: str | None = "qwen2") -> StoredModel:
    info = ModelInfo(
        name="m", file="m.rkllm", path="/m.rkllm", format="rkllm", size=1, modified=0, family=family
    )
    return StoredModel(info=info, modelfile=Modelfile(), mtime_ns=0)


def prompt_of(request: ChatRequest, **options: Any) -> tuple[str, tuple[bytes, ...]]:
    prompt = build_prompt(with_pictures(request, sees=True), model(), **options)
    return prompt.text, prompt.images


def test_places_stand_where_the_pictures_were() -> None:
    request = from_openai(text("First "), image_url(RED), text(" then "), image_url(BLUE))
    prompt, images = prompt_of(request)
    assert f"user\nFirst {IMAGE_PLACE} then {IMAGE_PLACE}<|im_end|>" in prompt
    assert images == (RED, BLUE)


def test_a_user_s_text_makes_no_place() -> None:
    prompt, images = prompt_of(from_openai(text(f"{IMAGE_PLACE}0;"), image_url(RED)))
    assert f"\ufffd0;{IMAGE_PLACE}" in prompt
    assert images == (RED,)


@pytest.mark.parametrize("words", [f"{IMAGE_PLACE}7;", f"a{IMAGE_PLACE}b", f"{IMAGE_PLACE}0;"])
def test_a_user_s_text_makes_no_place_where_the_runtime_has_the_template(words: str) -> None:
    expected = words.replace(IMAGE_PLACE, "\ufffd")
    for content, prompt in (([], expected), ([image_url(RED)], f"{IMAGE_PLACE}{expected}")):
        request = with_pictures(from_openai(*content, text(words)), sees=True)
        built = build_prompt(request, model(None))
        assert not built.raw
        assert (built.text, len(built.images)) == (prompt, len(content))


def test_a_picture_in_an_answer_that_was_begun_is_seen() -> None:
    messages = (
        Message.of("user", (ImagePart(RED), TextPart("Draw."))),
        Message.of("assistant", (TextPart("Here: "), ImagePart(BLUE), TextPart(" It"))),
    )
    built = build_prompt(ChatRequest(messages=messages), model())
    assert built.text.endswith(f"assistant\nHere: {IMAGE_PLACE} It")
    assert built.images == (RED, BLUE)


def test_a_picture_is_shown_as_often_as_a_request_has_pictures() -> None:
    """Tags and templates repeat one that was sent once."""
    prompt_of(generate_request("[img-0]" * 32, raw=True, images=(RED,)))
    with pytest.raises(InvalidRequest, match="33 pictures, at most 32"):
        prompt_of(generate_request("[img-0]" * 33, raw=True, images=(RED,)))


def test_pictures_in_tool_results_are_seen_in_the_results_order() -> None:
    """Results that come in another order than their calls are put in order, with their pictures."""
    calls = [{"id": name, "function": {"name": "see", "arguments": "{}"}} for name in "xy"]
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "Look"},
            {"role": "assistant", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "y", "content": [image_url(BLUE)]},
            {"role": "tool", "tool_call_id": "x", "content": [image_url(RED)]},
        ],
    }
    prompt, images = prompt_of(openai.decode_chat(body, answer_id="a", created=0).request)
    assert prompt.count(IMAGE_PLACE) == 2
    assert images == (RED, BLUE)


def generate_request(prompt: str, *, raw: bool, images: tuple[bytes, ...]) -> ChatRequest:
    body = {"model": "m", "prompt": prompt, "raw": raw, "images": [encoded(i) for i in images]}
    call = ollama.decode_generate(body)
    assert isinstance(call, Generation)
    return call.request


@pytest.mark.parametrize(
    ("prompt", "expected", "order"),
    [
        ("a", f"{IMAGE_PLACE}{IMAGE_PLACE}a", (RED, BLUE)),
        ("[img-1] or [img-0]?", f"{IMAGE_PLACE} or {IMAGE_PLACE}?", (BLUE, RED)),
        ("[img][img]", IMAGE_PLACE * 2, (RED, BLUE)),
    ],
)
def test_raw_prompts_name_their_pictures(
    prompt: str, expected: str, order: tuple[bytes, ...]
) -> None:
    assert prompt_of(generate_request(prompt, raw=True, images=(RED, BLUE))) == (expected, order)


def test_a_place_without_a_picture_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="picture 1"):
        prompt_of(generate_request("[img-1]", raw=True, images=(RED,)))


def test_a_prompt_s_pictures_come_before_it() -> None:
    prompt, images = prompt_of(generate_request("What?", raw=False, images=(RED,)))
    assert f"user\n{IMAGE_PLACE}What?" in prompt
    assert images == (RED,)
    assert images_in(()) == ()


def test_prompts_about_different_pictures_differ() -> None:
    """A slot is chosen by what it holds, and equal texts do not tell that."""

    def text(*images: bytes) -> str:
        return Prompt(
            text=f"a{IMAGE_PLACE}b{IMAGE_PLACE}c", raw=True, images=images
        ).text_with_digests

    assert text(b"1", b"2") == text(b"1", b"2") != text(b"1", b"3")
    one, other = text(b"1", b"2"), text(b"1", b"3")
    assert one.startswith(f"a{IMAGE_PLACE}")
    assert one.endswith("c")
    common = one.index("b" + IMAGE_PLACE)
    assert one[: common + 2] == other[: common + 2]
    assert Prompt(text="plain", raw=True).text_with_digests == "plain"
