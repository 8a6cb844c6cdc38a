"""Pictures through a real server to a model on llama.cpp, whose answers depend on the pixels."""

from __future__ import annotations

import base64
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.runner.growth import private_memory
from tests.backends.vision.malformed import malformed
from tests.backends.vision.pictures import encoded, halves
from tests.conftest import isolate
from tests.llama_server import WHEEL, command
from tests.running import Reply, Server
from tests.seeing_gguf import COLOURS, colour, write_mmproj, write_seeing

pytestmark = pytest.mark.integration

MALFORMED = int(os.environ.get("TEST_PICTURES", "280"))
"""How many malformed pictures are sent; read here, since each test runs in a clean environment."""
_GROWTH = 48 << 20
"""Bytes for the largest picture that is decoded, which the allocator may keep."""


def photo(left: str, right: str, form: str = "JPEG", size: tuple[int, int] = (90, 90)) -> bytes:
    options = {"quality": 90} if form == "JPEG" else {}
    return encoded(halves(size, colour(left), colour(right)), form, **options)


def memory_of(server: Server) -> int:
    """The bytes that the models' processes have for themselves."""
    return sum(private_memory(pid) or 0 for pid in server.children())


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


def put(models: Path, name: str, **changed: Any) -> None:
    write_seeing(models / name / f"{name}-Q8_0.gguf")
    write_mmproj(models / name / f"mmproj-{name}-F16.gguf", **changed)


@pytest.fixture(scope="module", params=["the binding", WHEEL])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with models that see, `seer` and `wide`, whose encoder does not fit, and one that does not."""
    base, env = tmp_path_factory.mktemp("cpu"), {}
    if request.param == WHEEL:
        env = {"RKLLAMA_LLAMA_SERVER": " ".join(command(WHEEL, base) or ())}
    with pytest.MonkeyPatch.context() as patch:
        models = isolate(patch, base) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        put(models, "seer")
        put(models, "wide", width=64)
        write_seeing(models / "blind.gguf")
        with Server("--max-loaded", "2", env=env) as running:
            yield running


def ask(server: Server, text: str, *images: bytes, model: str = "seer", **more: Any) -> Reply:
    message = {"role": "user", "content": text, "images": [base64_of(i) for i in images]}
    body = {"model": model, "messages": [message], "stream": False, **more}
    return server.post(
        "/api/chat", {**body, "options": {"temperature": 0, **body.pop("options", {})}}
    )


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    content: str = reply.json["message"]["content"]
    return content


def test_show_says_who_sees(server: Server) -> None:
    shown = server.post("/api/show", {"model": "seer"}).json
    assert "vision" in shown["capabilities"]
    encoder = shown["encoder"]
    assert (encoder["width"], encoder["tokens"], encoder["problem"]) == (16, 1, None)
    assert "vision" not in server.post("/api/show", {"model": "blind"}).json["capabilities"]
    listed = {model["name"] for model in server.get("/api/tags").json["models"]}
    assert listed == {"seer:latest", "wide:latest", "blind:latest"}


def test_a_picture_is_seen_by_each_dialect(server: Server) -> None:
    assert text_of(ask(server, "?", photo("red", "blue"))) == "red blue"
    image = photo("green", "white", "PNG")
    url = f"data:image/png;base64,{base64_of(image)}"
    words = {"type": "text", "text": "What is it?"}
    parts = [words, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": "seer", "messages": [{"role": "user", "content": parts}]}
    answer = server.post("/v1/chat/completions", body).json
    assert answer["choices"][0]["message"]["content"] == "green white"
    source = {"type": "base64", "media_type": "image/png", "data": base64_of(image)}
    message = {"role": "user", "content": [{"type": "image", "source": source}, words]}
    asked = {"model": "seer", "max_tokens": 9, "messages": [message]}
    assert server.post("/v1/messages", asked).json["content"][0]["text"] == "green white"
    content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "?"}]
    item = {"role": "user", "content": content}
    output = server.post("/v1/responses", {"model": "seer", "input": [item]}).json["output"]
    assert output[-1]["content"][0]["text"] == "green white"
    generate = {"model": "seer", "prompt": "?", "images": [base64_of(image)], "stream": False}
    assert server.post("/api/generate", generate).json["response"] == "green white"


def test_an_answer_to_a_picture_is_streamed(server: Server) -> None:
    reply = ask(server, "?", photo("cyan", "black"), stream=True)
    pieces = [line["message"]["content"] for line in reply.lines]
    assert "".join(pieces) == "cyan black"
    last = reply.lines[-1]
    assert (last["done_reason"], last["eval_count"]) == ("stop", 3)


def test_a_second_question_evaluates_only_what_is_new(server: Server) -> None:
    image = {"images": [base64_of(photo("magenta", "yellow"))]}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": f"A long question, {'and more ' * 40}", **image}
    ]
    body: dict[str, Any] = {"model": "seer", "messages": messages, "stream": False}
    body["options"] = {"temperature": 0}
    first = server.post("/api/chat", body).json
    # Another conversation comes between, and has a slot of its own.
    assert text_of(ask(server, "Something else " * 40, photo("red", "red"))) == "red red"
    messages += [first["message"], {"role": "user", "content": "And now?"}]
    second = server.post("/api/chat", body).json
    assert second["message"]["content"] == "magenta yellow"
    assert second["cached_count"] >= first["prompt_eval_count"]
    assert second["prompt_eval_count"] - second["cached_count"] < 60


def test_the_same_text_about_another_picture_is_about_that(server: Server) -> None:
    for left in ("red", "blue", "red"):
        reply = ask(server, "The same question " * 20, photo(left, "white"))
        assert text_of(reply) == f"{left} white"
        assert reply.json["prompt_eval_count"] > 100


def test_several_pictures_are_seen_together(server: Server) -> None:
    """What the model names is their mean, which each of them has a part in."""
    for names, mean in (
        (("red", "green", "blue"), "black"),
        (("yellow", "cyan", "magenta"), "white"),
    ):
        reply = ask(server, "?", *(photo(name, "blue") for name in names))
        assert text_of(reply) == f"{mean} blue"


def test_a_schema_holds_what_is_seen(server: Server) -> None:
    shape = {"enum": list(COLOURS)}
    for name in ("cyan", "magenta"):
        assert text_of(ask(server, "?", photo(name, "red"), format=shape)) == f'"{name}"'


def test_a_marker_that_a_user_writes_is_text(server: Server) -> None:
    reply = ask(server, "<__media__> and <image> \ufdd1?", photo("red", "green"))
    assert text_of(reply) == "red green"
    assert text_of(ask(server, "<__media__>?")) == "black black"


def test_a_model_without_eyes_refuses_a_picture(server: Server) -> None:
    reply = ask(server, "?", photo("red", "red"), model="blind")
    assert reply.status == 400
    assert "does not support images" in reply.json["error"]


def test_an_encoder_that_does_not_fit_costs_the_pictures_alone(server: Server) -> None:
    assert text_of(ask(server, "?", model="wide")) == "black black"
    reply = ask(server, "?", photo("red", "red"), model="wide")
    assert reply.status == 400
    assert "mmproj-wide-F16.gguf could not be loaded" in reply.json["error"]
    assert (
        "mismatch between text model (n_embd = 32) and mmproj (n_embd = 64)" in reply.json["error"]
    )


def test_a_conversation_that_is_too_long_is_told(server: Server) -> None:
    reply = ask(server, "word " * 2000, photo("red", "red"), options={"num_ctx": 1024})
    assert reply.status == 400, reply.body
    assert "the context only" in reply.json["error"]


def test_several_clients_see_their_own_pictures(server: Server) -> None:
    pairs = [(left, right) for left in COLOURS for right in COLOURS[::3]]
    random.Random(1).shuffle(pairs)
    wrong: list[Any] = []

    def see(mine: list[tuple[str, str]]) -> None:
        for left, right in mine:
            text = text_of(ask(server, f"Which {left}?", photo(left, right)))
            if text != f"{left} {right}":
                wrong.append((left, right, text))

    threads = [threading.Thread(target=see, args=(pairs[at::4],)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_client_that_goes_away_leaves_the_model_to_others(server: Server) -> None:
    message = {"role": "user", "content": "?", "images": [base64_of(photo("red", "red"))]}
    for _ in range(5):
        with server.stream("/api/chat", {"model": "seer", "messages": [message]}):
            pass
    assert text_of(ask(server, "?", photo("blue", "red"))) == "blue red"


def test_malformed_pictures_are_seen_or_refused(server: Server) -> None:
    """Without a 5xx, a process that dies, or memory that grows."""
    processes, early, seen = [0], 0, 0
    for number, data in enumerate(malformed(MALFORMED)):
        reply = ask(server, "?", data, options={"num_predict": 1})
        assert reply.status in (200, 400), (number, reply.body)
        seen += reply.status == 200
        if number == MALFORMED // 4:
            processes, early = server.children(), memory_of(server)
    assert 0 < seen < MALFORMED
    assert server.children() == processes
    assert memory_of(server) < early + _GROWTH
    assert text_of(ask(server, "?", photo("blue", "red"))) == "blue red"
