"""Pictures through a real server: from the HTTP request to the encoder, the model and back."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import isolate
from tests.running import Reply, Server
from tests.seeing import OTHER, PHOTO, put_model, told, use_libraries
from tests.virtual_npu import read_prompts, read_trace
from tests.waiting import until

pytestmark = pytest.mark.integration


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


class House:
    """A server with a model that sees, `vl`, and one that does not, `text`."""

    def __init__(self, server: Server, models: Path, trace: Path) -> None:
        self.server, self.models, self.trace = server, models, trace

    def put(self, name: str, *, encoder: dict[str, Any] | None, **model: Any) -> None:
        put_model(self.models, name, self.trace, encoder=encoder, **model)

    def ask(self, model: str, text: str, *images: bytes, **more: Any) -> Reply:
        message = {"role": "user", "content": text, "images": [base64_of(i) for i in images]}
        return self.server.post(
            "/api/chat", {"model": model, "messages": [message], "stream": False, **more}
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in read_trace(self.trace) if event["event"] == name]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("seeing")
    with pytest.MonkeyPatch.context() as patch:
        home = isolate(patch, directory)
        models = home / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        use_libraries(patch)
        with Server("--max-loaded", "2") as server:
            house = House(server, models, directory / "trace")
            house.put("vl", encoder={})
            house.put("text", encoder=None)
            yield house


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    content: str = reply.json["message"]["content"]
    return content


def test_show_says_who_sees(house: House) -> None:
    shown = house.server.post("/api/show", {"model": "vl"}).json
    assert "vision" in shown["capabilities"]
    assert (shown["encoder"]["tokens"], shown["encoder"]["problem"]) == (9, None)
    blind = house.server.post("/api/show", {"model": "text"}).json
    assert "vision" not in blind["capabilities"]
    assert "encoder" not in blind


def test_a_picture_is_seen_by_each_dialect(house: House) -> None:
    assert text_of(house.ask("vl", "What is it?", PHOTO)) == told(PHOTO)
    url = f"data:image/jpeg;base64,{base64_of(OTHER)}"
    words = {"type": "text", "text": "What is it?"}
    parts = [words, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": "vl", "messages": [{"role": "user", "content": parts}]}
    reply = house.server.post("/v1/chat/completions", body).json
    assert reply["choices"][0]["message"]["content"] == told(OTHER)
    source = {"type": "base64", "media_type": "image/png", "data": base64_of(PHOTO)}
    blocks = [{"type": "image", "source": source}, words]
    asked = {"model": "vl", "messages": [{"role": "user", "content": blocks}], "max_tokens": 99}
    assert house.server.post("/v1/messages", asked).json["content"][0]["text"] == told(PHOTO)
    item = {"role": "user", "content": [{"type": "input_image", "image_url": url}]}
    output = house.server.post("/v1/responses", {"model": "vl", "input": [item]}).json["output"]
    assert output[-1]["content"][0]["text"] == told(OTHER)
    generate = {"model": "vl", "prompt": "?", "images": [base64_of(PHOTO)], "stream": False}
    assert house.server.post("/api/generate", generate).json["response"] == told(PHOTO)


def test_a_second_question_runs_no_encoder_and_evaluates_the_new_text(house: House) -> None:
    first = {"role": "user", "content": "What is it?", "images": [base64_of(PHOTO)]}
    body: dict[str, Any] = {"model": "vl", "messages": [first], "stream": False}
    answer = house.server.post("/api/chat", body).json["message"]
    encoded_before, run_before = len(house.events("encode")), house.events("run")[-1]
    body["messages"] = [first, answer, {"role": "user", "content": "And how many?"}]
    assert text_of(house.server.post("/api/chat", body)) == told(PHOTO)
    assert len(house.events("encode")) == encoded_before
    run = house.events("run")[-1]
    assert run["matched"] >= run_before["prompt_tokens"]
    assert run["evaluated"] < 30


def test_what_decodes_and_encodes_is_loaded_with_the_first_picture_only(house: House) -> None:
    house.put("idle", encoder={})
    reply = house.ask("idle", "Hello.")
    assert text_of(reply) == "no picture"
    pid = house.events("init")[-1]["pid"]
    assert mapped(pid) == set()
    text_of(house.ask("idle", "What is it?", PHOTO))
    assert mapped(pid) == {"/PIL/", "/librknnrt.so"}
    assert mapped(house.server.process.pid) == set()  # it only passes pictures on


def mapped(pid: int) -> set[str]:
    """What of Pillow and librknnrt is in a process."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {name for name in ("/PIL/", "/librknnrt.so") if name in maps}


def test_pictures_of_earlier_turns_stay_in_their_places(house: House) -> None:
    messages = [
        {"role": "user", "content": "A?", "images": [base64_of(PHOTO)]},
        {"role": "assistant", "content": "Red and blue."},
        {"role": "user", "content": "B <image>?", "images": [base64_of(OTHER)]},
    ]
    body = {"model": "vl", "messages": messages, "stream": False}
    reply = house.server.post("/api/chat", body)
    assert text_of(reply) == told(PHOTO, OTHER)
    prompt = read_prompts(house.trace)[-1]
    assert prompt.count("<image>") == 2
    assert prompt.index("<image>") < prompt.index("Red and blue.") < prompt.rindex("<image>")
    assert reply.json["prompt_eval_count"] > 18


def test_a_model_without_eyes_refuses_a_picture(house: House) -> None:
    reply = house.ask("text", "What is it?", PHOTO)
    assert reply.status == 400
    assert "does not support images" in reply.json["error"]


@pytest.mark.parametrize("image", [b"no picture", PHOTO[: len(PHOTO) // 2], b""])
def test_what_cannot_be_read_is_a_400_that_names_it(house: House, image: bytes) -> None:
    reply = house.ask("vl", "?", PHOTO, image)
    assert reply.status == 400
    assert "picture" in reply.json["error"]
    assert text_of(house.ask("vl", "?", PHOTO)) == told(PHOTO)


def test_an_encoder_that_crashes_costs_one_answer(house: House) -> None:
    house.put("crashing", encoder={"crash_at": 2})
    assert text_of(house.ask("crashing", "?", PHOTO)) == told(PHOTO)
    reply = house.ask("crashing", "?", OTHER)
    assert reply.status == 500
    assert "was killed by SIGSEGV" in reply.json["error"]
    assert text_of(house.ask("crashing", "?", OTHER)) == told(OTHER)


def test_an_encoder_whose_process_is_killed_costs_one_answer(house: House) -> None:
    house.put("killed", encoder={"hang_at": 2})
    assert text_of(house.ask("killed", "?", PHOTO)) == told(PHOTO)
    with house.server.stream("/api/chat", _body("killed", OTHER)) as stream:
        until(lambda: house.events("encoder_hang"))
        os.kill(house.events("encoder_hang")[0]["pid"], signal.SIGKILL)
        assert stream.status() == 500
    assert text_of(house.ask("killed", "?", OTHER)) == told(OTHER)


def _body(model: str, image: bytes) -> dict[str, Any]:
    message = {"role": "user", "content": "?", "images": [base64_of(image)]}
    return {"model": model, "messages": [message]}


def test_too_many_pictures_for_the_context(house: House) -> None:
    house.put("large", encoder={"tokens": 900})
    before = len(house.events("encode"))
    reply = house.ask("large", "?", PHOTO, OTHER, PHOTO, OTHER, PHOTO)
    assert reply.status == 400
    assert "5 pictures take 4500 tokens" in reply.json["error"]
    assert len(house.events("encode")) == before


def test_the_language_model_leaves_domain_0_to_the_encoder(house: House) -> None:
    assert text_of(house.ask("vl", "?", PHOTO)) == told(PHOTO)
    assert house.events("init")[0]["base_domain_id"] == 1  # every model here sees that is loaded
    house.server.post("/api/generate", {"model": "vl", "keep_alive": 0})
    until(lambda: house.events("encoder_destroy"))
    assert {event["leaked"] for event in house.events("encoder_destroy")} == {0}
