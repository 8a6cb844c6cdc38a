"""The documented REST API, letter by letter, against a running server; and who reaches it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.hub.loopback import LoopbackHub
from tests.running import Reply, Server
from tests.virtual_npu import directive, library, read_trace, write_model

pytestmark = pytest.mark.integration

NONE_LOADED = "Aucun modèle n'est actuellement chargé."
ENGLISH = {"Accept-Language": "en"}


@pytest.fixture
def server(emptied: Server) -> Server:
    """One for all tests here that need no other one."""
    return emptied


def load(server: Server, name: str, **headers: str) -> Reply:
    return server.request("POST", "/load_model", {"model_name": name}, headers)


def remove(server: Server, name: str, method: str = "DELETE", **headers: str) -> Reply:
    return server.request(method, "/rm", {"model": name}, headers)


def assert_says(answer: Reply, status: int, body: object) -> None:
    """Status, body and content type are exactly these."""
    assert (answer.status, answer.json) == (status, body)
    assert answer.headers["content-type"] == "application/json"


# --- GET / and GET /models ---------------------------------------------------------------------


def test_the_welcome(server: Server) -> None:
    github = "https://github.com/notpunhnox/rkllama"
    assert_says(server.get("/"), 200, {"message": "Bienvenue sur RK-LLama !", "github": github})
    english = server.request("GET", "/", headers=ENGLISH)
    assert_says(english, 200, {"message": "Welcome to RK-LLama!", "github": github})


def test_models_are_file_names(server: Server, there: Path) -> None:
    assert_says(server.get("/models"), 200, {"models": []})
    for name in ("model2", "model1"):
        write_model(there / f"{name}.rkllm")
    (there / "folder").mkdir()
    write_model(there / "folder" / "model3.rkllm")
    (there / "notes.txt").write_text("no model")
    names = ["model1.rkllm", "model2.rkllm", "model3.rkllm"]
    assert sorted(server.get("/models").json["models"]) == names


def test_without_its_directory_models_is_the_documented_500(server: Server, there: Path) -> None:
    there.rmdir()
    error = "Le dossier ~/RKLLAMA/models est introuvable."
    assert_says(server.get("/models"), 500, {"error": error})
    english = server.request("GET", "/models", headers=ENGLISH)
    assert_says(english, 500, {"error": "The directory ~/RKLLAMA/models was not found."})
    there.mkdir()
    assert_says(server.get("/models"), 200, {"models": []})


def test_a_fresh_server_has_no_models_rather_than_an_error(home: Path) -> None:
    with Server() as server:
        assert server.get("/models").json == {"models": []}
        assert server.get("/api/tags").json == {"models": []}
        assert server.get("/v1/models").json["data"] == []
    assert (home / "RKLLAMA" / "models").is_dir()


def test_a_named_directory_that_is_missing_is_not_made(home: Path) -> None:
    """It may be on a disk that is not mounted."""
    named = home / "ssd" / "models"
    named.mkdir(parents=True)
    with Server("--models", str(named)) as server:
        named.rmdir()
        assert server.get("/models").status == 500
    assert not named.exists()


# --- Loading -----------------------------------------------------------------------------------


def test_a_model_is_loaded_named_and_unloaded(server: Server, there: Path) -> None:
    write_model(there / "model1.rkllm")
    assert_says(server.get("/current_model"), 404, {"error": NONE_LOADED})
    message = "Modèle model1.rkllm chargé avec succès."
    assert_says(load(server, "model1.rkllm"), 200, {"message": message})
    assert_says(server.get("/current_model"), 200, {"model_name": "model1"})
    assert_says(server.post("/unload_model"), 200, {"message": "Modèle déchargé avec succès."})
    assert_says(server.get("/current_model"), 404, {"error": NONE_LOADED})
    assert_says(server.post("/unload_model"), 400, {"error": NONE_LOADED})


def test_a_second_load_is_refused(server: Server, there: Path) -> None:
    for name in ("a.rkllm", "b.rkllm"):
        write_model(there / name)
    assert load(server, "a.rkllm").status == 200
    error = "Un modèle est déjà chargé. Veuillez d'abord le décharger."
    assert_says(load(server, "b.rkllm"), 400, {"error": error})
    assert_says(load(server, "a.rkllm"), 400, {"error": error})
    assert_says(server.get("/current_model"), 200, {"model_name": "a"})


def test_an_unknown_model_cannot_be_loaded(server: Server) -> None:
    error = "Modèle nothing.rkllm introuvable dans le dossier /models."
    assert_says(load(server, "nothing.rkllm"), 400, {"error": error})


def test_a_load_without_a_name_is_a_400(server: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    for body in ({}, {"model_name": None}, {"model_name": ""}, {"model": "m"}):
        answer = server.post("/load_model", body)
        assert answer.status == 400
        assert "model_name" in answer.json["error"]


def test_english_for_those_who_ask(server: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    none = {"error": "No model is currently loaded."}
    assert_says(server.request("GET", "/current_model", headers=ENGLISH), 404, none)
    assert_says(server.request("POST", "/unload_model", headers=ENGLISH), 400, none)
    error = "Model x not found in the /models directory."
    assert_says(load(server, "x", **ENGLISH), 400, {"error": error})
    assert_says(load(server, "m", **ENGLISH), 200, {"message": "Model m loaded successfully."})
    error = "A model is already loaded. Please unload it first."
    assert_says(load(server, "m", **ENGLISH), 400, {"error": error})
    done = server.request("POST", "/unload_model", headers=ENGLISH)
    assert_says(done, 200, {"message": "Model unloaded successfully."})
    assert_says(remove(server, "x", **ENGLISH), 404, {"error": "The model: x was not found."})
    assert_says(
        remove(server, "m", **ENGLISH), 200, {"message": "The model was removed successfully."}
    )


def test_the_language_is_the_preferred_one(server: Server) -> None:
    for accept in ("fr", "fr-CA, en;q=0.9", "de", "*", "", "en;q=0", ";;,q="):
        answer = server.request("GET", "/", headers={"Accept-Language": accept})
        assert answer.json["message"] == "Bienvenue sur RK-LLama !", accept
    for accept in ("en", "en-GB,en;q=0.5", "fr;q=0.1, en", "de, en"):
        answer = server.request("GET", "/", headers={"Accept-Language": accept})
        assert answer.json["message"] == "Welcome to RK-LLama!", accept


# --- POST /generate ----------------------------------------------------------------------------


def test_an_answer_is_the_documented_object(server: Server, there: Path) -> None:
    write_model(there / "model1.rkllm", reply="Très bien, merci !")
    load(server, "model1.rkllm")
    answer = server.post("/generate", {"messages": "Bonjour, comment vas-tu ?", "stream": False})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json
    usage = body.pop("usage")
    assert body == {
        "id": "rkllm_chat",
        "object": "rkllm_chat",
        "created": None,
        "choices": [
            {"role": "assistant", "content": "Très bien, merci !", "finish_reason": "stop"}
        ],
    }
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    assert prompt > 0
    assert completion > 0
    assert usage["total_tokens"] == prompt + completion
    assert usage["tokens_per_second"] > 0
    assert len(usage) == 4


def test_a_runtime_without_figures_gives_null(
    models: Path, npu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.1.4"))
    write_model(models / "m.rkllm", toolkit="1.1.4")
    with Server() as server:
        answer = server.post("/generate", {"model": "m", "messages": "hi"})
        assert answer.status == 200, answer.body
        usage = answer.json["usage"]
        assert set(usage) == {
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "tokens_per_second",
        }
        assert usage["prompt_tokens"] is None
        assert usage["total_tokens"] is None


def test_a_streamed_answer_has_that_shape_in_every_line(server: Server, there: Path) -> None:
    write_model(there / "m.rkllm", tokens=20, token_us=2000)
    whole = server.post("/generate", {"model": "m", "messages": "hi"}).json
    answer = server.post("/generate", {"messages": "hi", "stream": True})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.body.endswith(b"\n")
    *pieces, last = answer.lines
    assert len(pieces) > 5
    for line in (*pieces, last):
        assert list(line) == ["id", "object", "created", "choices", "usage"]
        assert line["created"] is None
        assert list(line["choices"][0]) == ["role", "content", "finish_reason"]
    assert {line["choices"][0]["finish_reason"] for line in pieces} == {None}
    assert all(set(line["usage"].values()) == {None} for line in pieces)
    text = "".join(line["choices"][0]["content"] for line in (*pieces, last))
    assert text == whole["choices"][0]["content"]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_without_a_model_generate_is_the_documented_400(server: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    assert_says(server.post("/generate", {"messages": "hi"}), 400, {"error": NONE_LOADED})
    assert_says(
        server.post("/generate", {"messages": "hi", "stream": True}), 400, {"error": NONE_LOADED}
    )


def test_generate_loads_the_model_that_it_names(server: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    assert server.post("/generate", {"model": "m.rkllm", "messages": "hi"}).status == 200
    assert_says(server.get("/current_model"), 200, {"model_name": "m"})
    answer = server.post("/generate", {"model": "nothing", "messages": "hi"})
    assert_says(answer, 404, {"error": "Le modèle : nothing est introuvable."})


def test_conversations_are_templated_and_templated_prompts_are_not(
    server: Server, there: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    write_model(there / "Qwen2.5-0.5B.rkllm", trace=trace, trace_prompt=1)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
    ]
    assert server.post("/generate", {"model": "qwen", "messages": messages}).status == 200
    prompt = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert server.post("/generate", {"model": "qwen", "messages": prompt}).status == 200
    first, second = (event["prompt"] for event in read_trace(trace) if "prompt" in event)
    assert first == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
        "<|im_start|>assistant\n1<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert second == prompt


def test_limits_and_stops_end_an_answer(server: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    short = {"model": "m", "messages": "hi " + directive(tokens=50), "max_tokens": 3}
    answer = server.post("/generate", short)
    assert answer.json["choices"][0]["finish_reason"] == "length"
    assert answer.json["usage"]["completion_tokens"] == 3
    stop = {"model": "m", "messages": "x " + directive(reply="one two three"), "stop": "two"}
    choice = server.post("/generate", stop).json["choices"][0]
    assert (choice["content"], choice["finish_reason"]) == ("one ", "stop")


def test_options_reach_the_runtime(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", library("1.3.0"))
    write_model(models / "m.rkllm", mode="params")
    with Server() as server:
        for options in ({"temperature": 0.25, "top_k": 7}, {"temperature": 0.5, "top_k": 9}):
            answer = server.post("/generate", {"model": "m", "messages": "x", "options": options})
            used = json.loads(answer.json["choices"][0]["content"])
            assert {name: used[name] for name in options} == options


# --- /rm ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_a_model_is_removed(server: Server, there: Path, method: str) -> None:
    for name in ("model1.rkllm", "model2.rkllm"):
        write_model(there / name)
    message = "Le modèle a été supprimé avec succès."
    assert_says(remove(server, "model1.rkllm", method), 200, {"message": message})
    assert [file.name for file in there.glob("*.rkllm")] == ["model2.rkllm"]
    error = "Le modèle : model1.rkllm est introuvable."
    assert_says(remove(server, "model1.rkllm", method), 404, {"error": error})


def test_a_loaded_model_is_unloaded_when_it_is_removed(server: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    load(server, "m")
    assert remove(server, "m").status == 200
    assert_says(server.get("/current_model"), 404, {"error": NONE_LOADED})


# --- POST /pull --------------------------------------------------------------------------------


def test_a_download_is_told_in_lines_of_text(models: Path, npu: str, home: Path) -> None:
    content = b"model" * 300_000
    with LoopbackHub() as hub:
        hub.add("user/repo", {"file.rkllm": content})
        with Server(env={"HF_ENDPOINT": hub.endpoint}) as server:
            answer = server.post("/pull", {"model": "hf/user/repo/file.rkllm"})
            assert answer.status == 200
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            first, *progress = answer.body.decode().splitlines()
            assert first == "Téléchargement file.rkllm (1.43 MB)..."
            assert all(re.fullmatch(r"\d{1,3}%", line) for line in progress)
            numbers = [int(line[:-1]) for line in progress]
            assert numbers == sorted(set(numbers))
            assert numbers[-1] == 100
            assert server.get("/models").json == {"models": ["file.rkllm"]}
            answer = server.post("/pull", {"model": "hf/user/repo/other.rkllm"})
            assert answer.status == 400
            assert answer.body.decode().startswith("Erreur pendant le téléchargement : ")
            english = server.request("POST", "/pull", {"model": "hf/user/nothing/x.rkllm"}, ENGLISH)
            assert english.status == 400
            assert english.body.startswith(b"Error during download: ")


def test_every_error_before_a_download_is_told_in_its_text(server: Server, there: Path) -> None:
    for name in ("qwen2-7b", "qwen2-1.5b"):
        write_model(there / f"{name}.rkllm")
    several = server.post("/pull", {"model": "qwen2"})
    (there / "qwen2-7b.rkllm").unlink()
    (there / "qwen2-1.5b.rkllm").unlink()
    there.rmdir()
    there.symlink_to(there)
    unreadable = server.post("/pull", {"model": "qwen2"})
    for answer in (several, unreadable):
        assert answer.status == 400
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.body.decode().startswith("Erreur pendant le téléchargement : ")
    assert "qwen2-7b" in several.body.decode()
    assert "cannot be read" in unreadable.body.decode()


def test_what_is_no_reference_is_an_error_of_the_download(server: Server) -> None:
    for reference in ("nonsense", "hf/", "a/b/../../c.rkllm", "hf/u/r/f.txt", "@", "é/r/f.rkllm"):
        answer = server.post("/pull", {"model": reference})
        assert answer.status == 400
        assert answer.body.decode().startswith("Erreur pendant le téléchargement : ")


# --- Everything else ---------------------------------------------------------------------------

METHODS = {
    "/": "GET",
    "/models": "GET",
    "/load_model": "POST",
    "/unload_model": "POST",
    "/current_model": "GET",
    "/generate": "POST",
    "/pull": "POST",
    "/rm": "DELETE, POST",
}


def test_other_methods_are_a_405_that_names_the_right_ones(server: Server) -> None:
    for path, methods in METHODS.items():
        right = set(methods.split(", "))
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - right:
            answer = server.request(method, path, {"model": "m"})
            assert answer.status == 405
            assert "error" in answer.json
            assert right <= set(re.split(r",\s*", answer.headers["allow"]))


def test_other_paths_are_a_404(server: Server) -> None:
    for path in ("/nothing", "/Models", "/rm/x", "/generate/../models", "/é"):
        for method in ("GET", "POST", "DELETE"):
            answer = server.request(method, quote(path))
            assert answer.status == 404
            assert path in answer.json["error"]


def test_head_is_a_get_without_its_body(server: Server, there: Path) -> None:
    write_model(there / "m.rkllm")
    for path in ("/", "/models", "/api/version", "/api/tags", "/health", "/v1/models", "/nothing"):
        got, head = server.get(path), server.request("HEAD", path)
        assert (head.status, head.body) == (got.status, b"")
        assert head.headers["content-length"] == str(len(got.body))
    assert server.request("HEAD", "/generate").status == 405


def test_errors_have_the_shape_of_their_dialect(server: Server) -> None:
    def error(path: str) -> Any:
        return server.post(path, b"{").json

    assert isinstance(error("/generate")["error"], str)
    assert isinstance(error("/api/chat")["error"], str)
    assert error("/v1/chat/completions")["error"]["message"]
    assert error("/v1/messages")["type"] == "error"
    assert error("/v1/nothing")["error"]["message"]
    assert error("/v1/messages/nothing")["type"] == "error"


def test_metadata_answers_while_a_model_generates(server: Server, there: Path) -> None:
    write_model(there / "m.rkllm", tokens=100_000, token_us=200)
    with server.stream("/generate", {"model": "m", "messages": "x", "stream": True}) as stream:
        assert stream.status() == 200
        next(iter(stream))
        for path in ("/models", "/current_model", "/", "/api/tags", "/api/ps", "/v1/models"):
            assert server.get(path).status == 200
        assert server.get("/api/ps").json["models"][0]["state"] == "busy"


def test_only_ollama_refuses_thought_of_a_model_that_cannot_think(
    server: Server, there: Path
) -> None:
    for name in ("Qwen2.5-0.5B", "Qwen3-0.6B", "m"):
        write_model(there / f"{name}.rkllm")
    message = {"messages": [{"role": "user", "content": "hi"}], "stream": False}
    for model, status in (("Qwen2.5-0.5B", 400), ("Qwen3-0.6B", 200), ("m", 200)):
        chat = server.post("/api/chat", {"model": model, "think": True, **message})
        assert chat.status == status, chat.body
        prompt = {"model": model, "prompt": "hi", "stream": False, "think": "low"}
        assert server.post("/api/generate", prompt).status == status
    refusal = server.post("/api/chat", {"model": "Qwen2.5-0.5B", "think": True, **message})
    assert refusal.json["error"] == '"Qwen2.5-0.5B" does not support thinking'
    assert (
        server.post("/api/chat", {"model": "Qwen2.5-0.5B", "think": False, **message}).status == 200
    )
    openai = {"model": "Qwen2.5-0.5B", "reasoning_effort": "high", **message}
    assert server.post("/v1/chat/completions", openai).status == 200
    native = {"model": "Qwen2.5-0.5B", "messages": "hi", "think": True}
    assert server.post("/generate", native).status == 200
