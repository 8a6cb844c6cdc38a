"""The documented REST API: exact texts and bodies, decoding of anything, golden dialects."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllama import errors
from rkllama.api import native, native_texts
from rkllama.api.common import Generation
from rkllama.types import (
    Event,
    Finished,
    Message,
    ModelInfo,
    PullProgress,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    Timings,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from tests import dialects
from tests.cases import cases
from tests.cost import calls
from tests.fuzzing import examples

DOCUMENT = Path(__file__).parents[1] / "data" / "rest-api.fr.md"
GIB = 1 << 30
LANGUAGES: tuple[native_texts.Language, ...] = ("fr", "en")

ANSWER: list[Event] = [
    TextDelta("Très bien"),
    TextDelta(", merci !\n"),
    TextDelta('Et "vous" ? 😀\u2028'),
    Finished(
        reason="stop",
        model="qwen",
        usage=Usage(prompt_tokens=12, completion_tokens=8),
        timings=Timings(generation=0.5),
    ),
]


# --- The documentation -------------------------------------------------------------------------


def documented() -> dict[str, list[Any]]:
    """The JSON answers in the documentation, by path: every block after "#### **Réponse**"."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found: dict[str, list[Any]] = {}
    for section in re.split(r"^### \*\*\d+\. ", text, flags=re.MULTILINE)[1:]:
        path = section.split("**", 1)[0].split()[1]
        answers = section.split("#### **Réponse**", 1)[1].split("#### **Exemple**", 1)[0]
        blocks = re.findall(r"```json\n(.*?)```", answers, flags=re.DOTALL)
        found[path] = [json.loads(block) for block in blocks]
    return found


DOC = documented()


def info(file: str = "model1.rkllm", name: str = "model1") -> ModelInfo:
    return ModelInfo(
        name=name, file=file, path=f"/m/{file}", format="rkllm", size=GIB, modified=1.7e9
    )


def test_the_documentation_was_read() -> None:
    assert {path: len(blocks) for path, blocks in DOC.items()} == {
        "/models": 2,
        "/load_model": 3,
        "/unload_model": 2,
        "/current_model": 2,
        "/generate": 2,
        "/pull": 0,
        "/rm": 2,
        "/": 1,
    }


def test_successes_are_the_documented_ones() -> None:
    files = [info(f"model{i}.rkllm") for i in (1, 2, 3)]
    assert native.models_body(files) == DOC["/models"][0]
    assert native.loaded_body("<model_name>") == DOC["/load_model"][0]
    assert native.unloaded_body() == DOC["/unload_model"][0]
    assert native.current_model_body(info(name="nom_du_modèle")) == DOC["/current_model"][0]
    assert native.removed_body() == DOC["/rm"][0]
    assert native.welcome_body() == DOC["/"][0]
    assert native.already_loaded_body() == DOC["/load_model"][1]


def test_a_file_of_several_models_is_listed_once() -> None:
    models = [info("a.rkllm", "a"), info("b.rkllm", "b"), info("a.rkllm", "mario")]
    assert native.models_body(models) == {"models": ["a.rkllm", "b.rkllm"]}


def test_errors_are_the_documented_ones() -> None:
    default = os.path.expanduser("~/RKLLAMA/models")
    nothing = errors.NoModelLoaded()
    replies = {
        ("/models", 1): (native.error_reply(errors.ModelsDirMissing(default), "/models"), 500),
        ("/load_model", 2): (
            native.error_reply(errors.ModelNotFound("<model_name>"), "/load_model"),
            400,
        ),
        ("/unload_model", 1): (native.error_reply(nothing, "/unload_model"), 400),
        ("/current_model", 1): (native.error_reply(nothing, "/current_model"), 404),
        ("/generate", 1): (native.error_reply(nothing, "/generate"), 400),
        ("/rm", 1): (native.error_reply(errors.ModelNotFound("{model}"), "/rm"), 404),
    }
    for (path, block), (reply, status) in replies.items():
        assert reply == (status, DOC[path][block]), path


def test_another_models_directory_is_named_as_it_is() -> None:
    status, body = native.error_reply(errors.ModelsDirMissing("/srv/models"), "/models")
    assert (status, body) == (500, {"error": "Le dossier /srv/models est introuvable."})


def test_the_whole_answer_has_the_documented_shape() -> None:
    generation = native.decode_generate({"messages": "Bonjour", "stream": False})
    answer = generation.encoder.whole(
        iter((TextDelta("sortie_rkllama"), Finished(reason="stop", model="m")))
    )
    assert answer["usage"].pop("tokens_per_second", "missing") is None
    assert answer == DOC["/generate"][0]
    assert list(answer) == list(DOC["/generate"][0])


def test_the_pull_texts_are_the_documented_ones() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    header, progress = re.findall(r"```txt\n(Téléchargement.*)\n(.*)\n```", text)[0]
    (failed,) = re.findall(r"```txt\n(Erreur.*)\n```", text)
    lines = native.PullLines()
    begun = lines.encode(PullProgress(status="downloading", file="<fichier>", total=1 << 20))
    expected = header.replace("<taille>", "1.00") + "\n" + progress.replace("<progression>", "0")
    assert begun.decode() == expected + "\n"
    problem = errors.InvalidRequest("<erreur>")
    assert native.pull_error_text(problem) == failed + "\n"


# --- Languages ---------------------------------------------------------------------------------


@cases(
    ("header", "expected"),
    [
        (None, "fr"),
        ("", "fr"),
        ("en", "en"),
        ("EN-us", "en"),
        ("en-US,en;q=0.5", "en"),
        ("fr-FR,fr;q=0.9,en;q=0.8", "fr"),
        ("en;q=0.8, fr;q=0.9", "fr"),
        ("fr;q=0.2,en;q=0.3", "en"),
        ("en,fr", "en"),
        ("fr,en", "fr"),
        ("de, en;q=0.5", "en"),
        ("de", "fr"),
        ("*", "fr"),
        ("en;q=0", "fr"),
        ("en;q=abc", "fr"),
        ("en;level=1", "en"),
        (",;,=;q=", "fr"),
    ],
)
def test_accept_language(header: str | None, expected: str) -> None:
    assert native.language(header) == expected


def all_errors() -> Iterator[errors.RKLLamaError]:
    """One error of every class in the tree."""
    text: Any = "what happened"
    values: dict[str, dict[str, Any]] = {
        "Unauthorized": {},
        "BodyTooLarge": {"limit": 1024},
        "TooManyBodies": {"limit": 1024},
        "UnsupportedEncoding": {"encoding": "br"},
        "NoSuchRoute": {"path": "/nowhere"},
        "MethodNotAllowed": {"method": "PUT", "path": "/rm", "allowed": "DELETE, POST"},
        "ModelNotFound": {"name": "m"},
        "NoPreviousResponse": {"response_id": "resp_1"},
        "ModelIncomplete": {"name": "m", "completed": 5, "reference": "u/r"},
        "NoWebSocket": {"path": "/rm", "allowed": "DELETE, POST"},
        "NotStored": {"kind": "item", "id": "msg_1"},
        "AmbiguousName": {"name": "m", "candidates": ("m1", "m2")},
        "NoModelLoaded": {},
        "ServerStopping": {},
        "ModelsDirMissing": {"path": "/m"},
        "QueueFull": {"limit": 64},
        "LibraryNotFound": {"tried": (("/lib", "absent"),), "hint": "Install it."},
        "UnknownRuntime": {"message": text, "version": None, "hint": "Set it."},
        "NPUBusy": {"holder": "pid 7"},
        "WorkerCrashed": {"message": text, "exit_status": -11},
        "WorkerHung": {"message": text, "seconds": 30.0},
        "DiskFull": {"message": text, "needed": 10, "available": 5},
        "ServerUnreachable": {"url": "http://x", "reason": "refused"},
    }
    todo: list[type[errors.RKLLamaError]] = [errors.RKLLamaError]
    while todo:
        cls = todo.pop()
        todo.extend(sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__)
        yield cls(**values.get(cls.__name__, {"message": text}))


@cases("error", list(all_errors()), ids=lambda error: type(error).__name__)
def test_every_error_has_a_sentence_in_one_language(error: errors.RKLLamaError) -> None:
    status, french = native.error_reply(error, "/generate", "fr")
    _, english = native.error_reply(error, "/generate", "en")
    assert status == error.status
    for body in (french, english):
        assert list(body) == ["error"]
        assert body["error"].strip()
        assert "{" not in body["error"]
    # What quotes the English of an error is English from its beginning.
    assert french == english or "what happened" not in french["error"]
    assert english["error"] == error.text or french != english


def test_values_in_messages_are_not_format_strings() -> None:
    error = errors.InvalidRequest("{0} {x} %s {")
    assert native.error_reply(error)[1]["error"].endswith("{0} {x} %s {")
    assert native.loaded_body("{x}{")["message"] == "Modèle {x}{ chargé avec succès."


def test_english_bodies() -> None:
    assert native.welcome_body("en")["message"] == "Welcome to RK-LLama!"
    assert native.error_reply(errors.NoModelLoaded(), "/generate", "en")[1] == {
        "error": "No model is currently loaded."
    }


def test_phrases_keep_their_values_in_both_languages() -> None:
    phrases = [*native_texts._PHRASES.values(), *native_texts._ERRORS.values()]
    for french, english in phrases:
        names = set(re.findall(r"{(\w+)}", french)) - {"text"}
        assert names == set(re.findall(r"{(\w+)}", english)) - {"text"} or english == "{text}"


# --- Decoding ----------------------------------------------------------------------------------


def test_a_prompt() -> None:
    generation = native.decode_generate({"messages": "Bonjour, comment vas-tu ?"})
    request = generation.request
    assert (request.prompt, request.messages, request.model) == (
        "Bonjour, comment vas-tu ?",
        (),
        None,
    )
    assert request.raw is None, "the engine looks for the model's control tokens"
    assert generation.stream is False


def test_a_conversation_and_everything_optional() -> None:
    generation = native.decode_generate(
        {
            "model": " qwen ",
            "messages": [
                {"role": "system", "content": "Sois bref."},
                {"role": "user", "content": "Ça va ?"},
            ],
            "stream": True,
            "max_tokens": 64,
            "stop": "FIN",
            "think": False,
            "format": "json",
            "keep_alive": "5m",
            "options": {"temperature": 0.5, "top_k": 40.0, "num_predict": 7, "num_ctx": 2048},
        }
    )
    request = generation.request
    assert generation.stream is True
    assert request.model == "qwen"
    assert request.messages == (
        Message.of("system", "Sois bref."),
        Message.of("user", "Ça va ?"),
    )
    assert request.sampling == SamplingParams(temperature=0.5, top_k=40)
    assert (request.max_tokens, request.stop, request.keep_alive) == (64, ("FIN",), 300.0)
    assert (request.think, request.format, request.context_length) == (False, "json", 2048)
    assert request.raw is False


def test_options_fill_in_what_the_body_leaves_open() -> None:
    request = native.decode_generate(
        {"messages": "x", "options": {"num_predict": -1, "stop": ["a", "", "b"], "top_k": -1}}
    ).request
    assert (request.max_tokens, request.stop, request.sampling.top_k) == (-1, ("a", "b"), None)


@cases(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ""}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": 3}, "messages"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": ["x"]}, None),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": "x", "stream": "yes"}, "stream"),
        ({"messages": "x", "model": 3}, "model"),
        ({"messages": "x", "model": " "}, "model"),
        ({"messages": "x", "options": []}, None),
        ({"messages": "x", "options": {"top_k": 1.5}}, "options.top_k"),
        ({"messages": "x", "options": {"temperature": -1}}, "options.temperature"),
        ({"messages": "x", "options": {"temperature": "hot"}}, "options.temperature"),
        ({"messages": "x", "options": {"top_p": 1.1}}, "options.top_p"),
        ({"messages": "x", "max_tokens": "many"}, "max_tokens"),
        ({"messages": "x", "stop": [1]}, "stop"),
        ({"messages": "x", "keep_alive": "soon"}, "keep_alive"),
        ({"messages": "x", "keep_alive": 10**400}, "keep_alive"),
        ({"messages": "x", "think": "much"}, "think"),
        ({"messages": "x", "format": "xml"}, "format"),
    ],
)
def test_wrong_bodies_name_what_is_wrong(body: object, param: str | None) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        native.decode_generate(body)
    assert caught.value.param == param
    status, answer = native.error_reply(caught.value, "/generate")
    assert status == 400
    assert caught.value.text in answer["error"]


@pytest.mark.parametrize(
    "body", [None, [], "x", 3, True, {}, {"model_name": 3}, {"model_name": ""}]
)
def test_load_model_without_a_name(body: object) -> None:
    with pytest.raises(errors.InvalidRequest):
        native.decode_load(body)


def test_names() -> None:
    assert native.decode_load({"model_name": "model1.rkllm"}) == "model1.rkllm"
    assert native.decode_name({"model": "hf/user/repo/file.rkllm"}) == "hf/user/repo/file.rkllm"


FULL = {
    "messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}],
    "model": "m",
    "stream": True,
    "max_tokens": 5,
    "stop": ["a"],
    "think": "high",
    "format": "json",
    "keep_alive": "5m",
    "options": {"temperature": 1.0, "top_k": 4, "seed": 1, "stop": ["b"], "num_ctx": 99},
}


@pytest.mark.integration
@settings(max_examples=examples(3))
@given(dialects.bodies(FULL, ("json", "user", "-1m", "{}")))
def test_any_json_is_a_generation_or_an_invalid_request(body: object) -> None:
    try:
        generation = native.decode_generate(body)
    except errors.InvalidRequest as error:
        json.dumps(native.error_reply(error, "/generate")[1], allow_nan=False)
        return
    assert isinstance(generation, Generation)
    assert (generation.request.prompt is None) == bool(generation.request.messages)


# --- Encoding ----------------------------------------------------------------------------------


def test_every_line_of_a_stream_has_the_shape_of_the_whole() -> None:
    encoder = native.decode_generate({"messages": "x", "stream": True}).encoder
    whole = encoder.whole(iter(ANSWER))
    lines = [encoder.encode(event) for event in ANSWER]
    assert all(line.endswith(b"\n") and len(line.decode().splitlines()) == 1 for line in lines)
    parsed = [json.loads(line) for line in lines]
    for line in parsed:
        assert list(line) == list(whole)
        assert list(line["choices"][0]) == list(whole["choices"][0])
        assert list(line["usage"]) == list(whole["usage"])
    assert [line["choices"][0]["finish_reason"] for line in parsed] == [None, None, None, "stop"]
    assert (
        "".join(line["choices"][0]["content"] for line in parsed) == whole["choices"][0]["content"]
    )
    assert parsed[-1]["usage"] == whole["usage"]
    assert whole["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 8,
        "total_tokens": 20,
        "tokens_per_second": 16.0,
    }


@pytest.mark.parametrize(
    ("usage", "timings"),
    [
        (Usage(completion_tokens=3), Timings()),
        (Usage(prompt_tokens=3), Timings(generation=1.0)),
        (Usage(prompt_tokens=0, completion_tokens=0), Timings(generation=0.0)),
    ],
)
def test_unknown_figures_are_null(usage: Usage, timings: Timings) -> None:
    finished = Finished(reason="length", model="m", usage=usage, timings=timings)
    answer = native.GenerateEncoder().whole(iter([finished]))
    figures = answer["usage"]
    assert figures["tokens_per_second"] is None
    assert (figures["total_tokens"] is None) == (
        None in (usage.prompt_tokens, usage.completion_tokens)
    )
    assert answer["choices"][0]["finish_reason"] == "length"


@given(st.text(min_size=1))
def test_the_fast_path_writes_the_same_as_the_slow_one(text: str) -> None:
    encoder = native.GenerateEncoder()
    line = json.loads(encoder.encode(TextDelta(text)))
    assert line["choices"][0]["content"] == text
    finished = Finished(reason="stop", model="m")
    whole = encoder.whole(iter((TextDelta(text), finished)))
    assert whole["choices"][0]["content"] == text


def test_a_token_costs_little() -> None:
    encode, event = native.GenerateEncoder().encode, TextDelta(" token")
    assert calls(lambda: encode(event)).total() <= 10


# --- Golden transcripts ------------------------------------------------------------------------

CALL = ToolCall(id="call_1", name="meteo", arguments={"ville": "Orléans"})
THOUGHTFUL: list[Event] = [
    ReasoningDelta("Voyons"),
    ReasoningDelta("…"),
    TextDelta("42"),
    ToolCallDelta(0, CALL),
    Finished(reason="tool_calls", model="qwen", usage=Usage(completion_tokens=9)),
]
CRASH = errors.WorkerCrashed("the runtime died of signal 11", exit_status=-11)


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("generate", ANSWER),
        ("generate_reasoning_and_tools", THOUGHTFUL),
        ("generate_cut_short", dialects.CUT),
        ("generate_cancelled", [TextDelta("Il"), Finished(reason="cancelled", model="m")]),
        ("generate_format_not_met", dialects.NOT_MET),
    ],
)
def test_golden_generate(name: str, events: list[Event]) -> None:
    body = {"messages": [{"role": "user", "content": "Ça va ?"}], "stream": True}
    text = dialects.transcript("POST /generate", body, native.decode_generate, events)
    dialects.assert_golden(f"native/{name}.txt", text)


def test_golden_error_inside_a_stream() -> None:
    body = {"messages": "Bonjour", "stream": True}
    text = dialects.transcript("POST /generate", body, native.decode_generate, ANSWER[:1], CRASH)
    dialects.assert_golden("native/generate_error_inside.txt", text)


def test_golden_errors() -> None:
    replies = [
        f"{error.status} {native.error_reply(error, '/generate', chosen)[1]['error']}"
        for error in all_errors()
        for chosen in LANGUAGES
    ]
    dialects.assert_golden("native/errors.txt", "\n".join(sorted(replies)) + "\n")


def pull_steps() -> Iterator[PullProgress]:
    total, digest = 1_700_000_000, "ab" * 32
    yield PullProgress(status="resolving", file="qwen.rkllm")
    for completed in (0, 1_000_000, 17_000_000, 17_000_000, 850_000_000, 1_699_999_999, total):
        yield PullProgress(
            status="downloading", file="qwen.rkllm", total=total, completed=completed, digest=digest
        )
    yield PullProgress(status="verifying", file="qwen.rkllm", total=total, completed=total)
    yield PullProgress(status="done", file="qwen.rkllm", total=total, completed=total, name="qwen")


@pytest.mark.parametrize("language", ["fr", "en"])
def test_golden_pull(language: native_texts.Language) -> None:
    unreachable = errors.HubUnreachable("no connection to huggingface.co")
    good, broken = native.PullLines(language), native.PullLines(language)
    answers = (
        "200\n" + b"".join(map(good.encode, pull_steps())).decode(),
        "200, broken off\n"
        + b"".join(map(broken.encode, list(pull_steps())[:4])).decode()
        + broken.error(unreachable).decode(),
        "400\n" + native.pull_error_text(unreachable, language),
    )
    dialects.assert_golden(f"native/pull_{language}.txt", "\n--------\n".join(answers))


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(0, 1000))
def test_each_percent_comes_once_and_in_order(sizes: list[int], total: int) -> None:
    lines = native.PullLines()
    steps = [
        PullProgress(status="downloading", file="f", total=total, completed=min(size, total))
        for size in sizes
    ]
    steps.append(PullProgress(status="done", file="f", total=total, completed=total))
    text = b"".join(map(lines.encode, steps)).decode().splitlines()
    percents = [int(line.removesuffix("%")) for line in text[1:]]
    assert text[0].startswith("Téléchargement f (")
    assert percents == sorted(set(percents))
    assert percents[-1] == 100
