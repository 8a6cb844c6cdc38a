"""The store: what names mean, what is known of a model, what goes away with it and what never does."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rkllama.errors import (
    AmbiguousName,
    InvalidRequest,
    ModelNotFound,
    ModelsDirMissing,
    RKLLamaError,
)
from rkllama.models.labels import labels
from rkllama.models.modelfile import ModelfileError
from rkllama.models.scan import scan
from rkllama.models.store import Store
from rkllama.types import Message, TemplateSource
from tests.model_files import BOOL, STRING, U32, WHOLE, Pair, age, fill, header
from tests.waiting import Task

Put = Callable[..., Path]
JINJA = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.fixture
def put(models: Path) -> Put:
    """Writes a file into the models directory."""

    def write(path: str, content: str | bytes = "x") -> Path:
        file = models / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


@pytest.fixture
def store(models: Path) -> Iterator[Store]:
    made = Store(str(models))
    yield made
    made.close()


def tree(directory: Path) -> set[str]:
    """Every path below a directory, the store's own folder left out."""
    found = (str(path.relative_to(directory)) for path in directory.rglob("*"))
    return {path for path in found if not path.startswith(".rkllama")}


# --- Names -------------------------------------------------------------------------------------


@pytest.fixture
def zoo(put: Put) -> None:
    put("Qwen2.5-1.5B-Instruct-rk3588-w8a8.rkllm")
    put("llama/Llama-3.2-1B-rk3588-w8a8_g128.rkllm")
    put("gemma/gemma-2b-w8a8.rkllm")
    put("gemma/gemma-2b-w4a16.rkllm")
    put("tiny.gguf")
    put("poet/Modelfile", "FROM llama\nSYSTEM rhyme")


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen2.5-1.5B-Instruct-rk3588-w8a8", "Qwen2.5-1.5B-Instruct-rk3588-w8a8"),
        ("Qwen2.5-1.5B-Instruct-rk3588-w8a8.rkllm", "Qwen2.5-1.5B-Instruct-rk3588-w8a8"),
        ("QWEN2.5-1.5B-instruct-RK3588-w8a8:latest", "Qwen2.5-1.5B-Instruct-rk3588-w8a8"),
        ("qwen2.5:1.5b", "Qwen2.5-1.5B-Instruct-rk3588-w8a8"),
        ("qwen", "Qwen2.5-1.5B-Instruct-rk3588-w8a8"),
        ("  qwen  ", "Qwen2.5-1.5B-Instruct-rk3588-w8a8"),
        ("llama", "llama"),
        ("LLAMA:latest", "llama"),
        ("llama.rkllm", "llama"),
        ("Llama-3.2-1B-rk3588-w8a8_g128", "llama"),
        ("llama-3.2-1b-rk3588-w8a8_g128.RKLLM", "llama"),
        ("llama/Llama-3.2-1B-rk3588-w8a8_g128.rkllm", "llama"),
        ("llama-3.2", "llama"),
        ("gemma/gemma-2b-w8a8", "gemma/gemma-2b-w8a8"),
        ("gemma-2b-w4a16", "gemma/gemma-2b-w4a16"),
        ("gemma:w4a16", "gemma/gemma-2b-w4a16"),
        ("tiny", "tiny"),
        ("tiny.gguf:latest", "tiny"),
        ("Poet", "poet"),
        ("poet:latest", "poet"),
        ("p", "poet"),
    ],
)
def test_what_names_mean(store: Store, name: str, expected: str) -> None:
    assert store.resolve(name).info.name == expected
    assert store.details(name).info.name == expected


def test_a_model_answers_to_what_it_was_pulled_as(store: Store, put: Put) -> None:
    put("m/m.rkllm")
    put("m/.pull.json", '{"repo": "u/r", "file": "sub/m.rkllm", "revision": "v1"}')
    put("n.rkllm")
    for name in ("u/r/m.rkllm", "hf/u/r/sub/m.rkllm@v1", "u/r/m.rkllm:latest", "u/r"):
        assert store.resolve(name).info.name == "m"
    for name in ("u/r/n.rkllm", "other/r/m.rkllm", "u/r/m.rkllm@v2", "u/r/..", "u//m.rkllm"):
        with pytest.raises(ModelNotFound):
            store.resolve(name)


@pytest.mark.usefixtures("zoo")
def test_an_ambiguous_name_lists_its_candidates(store: Store) -> None:
    for name in ("gemma", "gemma-2b", "GEMMA:latest", "gemma:2b"):
        with pytest.raises(AmbiguousName) as caught:
            store.resolve(name)
        assert caught.value.candidates == ("gemma/gemma-2b-w4a16", "gemma/gemma-2b-w8a8")


@pytest.mark.usefixtures("zoo")
def test_an_unknown_name_gets_near_ones(store: Store) -> None:
    with pytest.raises(ModelNotFound) as caught:
        store.resolve("lama")
    assert caught.value.candidates[0] == "llama"
    assert "Did you mean llama" in caught.value.text
    with pytest.raises(ModelNotFound) as caught:
        store.resolve("qwen2.5:7b")
    assert caught.value.name == "qwen2.5:7b"


def test_a_folder_of_several_means_the_one_its_modelfile_names(store: Store, put: Put) -> None:
    put("m/a.rkllm")
    put("m/b.rkllm")
    put("m/Modelfile", 'FROM="b.rkllm"\nSYSTEM="x"')
    assert store.resolve("m").info.name == "m/b"
    assert store.resolve("m/b").system == "x"
    assert store.resolve("m/a").system is None


def test_without_a_directory_nothing_has_a_name(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "nowhere"))
    with pytest.raises(ModelsDirMissing):
        store.list()
    for call in (store.resolve, store.details, store.remove):
        with pytest.raises(ModelNotFound):
            call("m")


# --- Attacks -----------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        *("..", ".", "/", "\\", "~", "%2e%2e", "%2f", "", "\0", "\n", " ", "\ud800", "é", "?", "*"),
        *(
            "m",
            "secret",
            "outside",
            "link",
            "Modelfile",
            ".rkllama",
            "hf",
            "C:",
            ".rkllm",
            ":latest",
        ),
    ]
)
_NAMES = st.one_of(st.text(max_size=30), st.lists(_PIECES, max_size=8).map("".join))


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory among files that must survive every name."""
    around = tmp_path_factory.mktemp("fortress")
    models = around / "models"
    models.mkdir()
    (models / "notes.txt").write_text("mine")
    (models / "sub").mkdir()
    (models / "sub" / "thesis.doc").write_text("mine")
    (around / "secret.rkllm").write_text("s")
    (around / "Modelfile").write_text("FROM m")
    (around / "outside").mkdir()
    (around / "outside" / "secret.rkllm").write_text("s")
    (models / "link").symlink_to(around / "outside")
    (models / "link.rkllm").symlink_to(around / "secret.rkllm")
    return around


@pytest.mark.integration
@settings(deadline=None, max_examples=300)
@given(_NAMES)
@example("")
@example(".")
@example("/")
@example("..")
@example("../secret.rkllm")
@example("link/secret.rkllm")
@example("link.rkllm")
@example("sub/../../secret.rkllm")
@example("%2e%2e%2fsecret.rkllm")
@example("..\\secret.rkllm")
@example("m\0")
@example("x" * 10_000)
@example("../" * 3000)
@example(".rkllama")
@example("sub")
@example("notes.txt")
def test_no_name_reaches_what_is_no_model(fortress: Path, name: str) -> None:
    before = tree(fortress)
    store = Store(str(fortress / "models"))
    with pytest.raises((ModelNotFound, AmbiguousName)) as caught:
        store.remove(name)
    assert len(str(caught.value)) < 1000
    for refused in (store.resolve, store.details, lambda n: store.copy(n, "copied")):
        with pytest.raises((ModelNotFound, AmbiguousName)):
            refused(name)
    assert tree(fortress) == before
    assert len(str(fortress / "models" / "notes.txt")) > 0


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_NAMES)
@example("../evil")
@example("/tmp/evil")
@example(".hidden")
@example("a/b")
@example("x" * 200)
@example("link")
@example("sub")
@example("notes.txt")
@example("m:1b:latest")
def test_nothing_is_made_outside(fortress: Path, name: str) -> None:
    models = fortress / "models"
    (models / "m.rkllm").write_text("x")
    store = Store(str(models))
    before = tree(fortress)
    try:
        for made in (lambda: store.copy("m", name), lambda: store.create(name, "FROM m")):
            try:
                made()
            except (InvalidRequest, ModelNotFound):
                assert tree(fortress) == before
            else:
                new = tree(fortress) - before
                folder = new.pop() if len(new) == 1 else min(new, key=len, default="")
                assert folder.startswith("models/")
                assert folder.count("/") == 1
                store.remove(name)
                assert tree(fortress) == before
    finally:
        (models / "m.rkllm").unlink()


def test_from_cannot_leave_the_directory(store: Store, put: Put, tmp_path: Path) -> None:
    put("m.rkllm")
    (tmp_path / "secret.rkllm").write_text("s")
    for source in (
        "../secret.rkllm",
        str(tmp_path / "secret.rkllm"),
        "/etc/passwd",
        "~",
        ".",
        "..",
    ):
        with pytest.raises(ModelNotFound):
            store.create("new", f"FROM {source}")
    assert [info.name for info in store.list()] == ["m"]


# --- What is known -----------------------------------------------------------------------------


def test_a_list_tells_what_the_names_tell(store: Store, put: Put) -> None:
    file = put("Qwen2.5-1.5B-Instruct-rk3588-w8a8.rkllm", "12345")
    (info,) = store.list()
    assert (info.name, info.file, info.path) == (file.stem, file.name, str(file))
    assert (info.format, info.size, info.modified) == ("rkllm", 5, file.stat().st_mtime)
    assert (info.quantization, info.platform) == ("w8a8", "rk3588")
    assert (info.parameter_size, info.family) == ("1.5B", "qwen2.5")
    assert (info.context_length, info.digest) == (None, None)


def test_folder_and_repository_complete_the_file_s_name(store: Store, put: Put) -> None:
    put("Qwen3-8B-rk3588/m.rkllm")
    put("b/b.rkllm")
    put("b/Modelfile", 'FROM="b.rkllm"\nHUGGINGFACE_PATH="meta-llama/Llama-3.2-1B-Instruct"')
    put("c/c.rkllm")
    put("c/.pull.json", '{"repo": "u/Qwen3-8B-rk3588-unsloth-16k", "file": "c.rkllm"}')
    told = {info.name: info for info in store.list()}
    first = told["Qwen3-8B-rk3588"]
    assert (first.family, first.parameter_size, first.platform) == ("qwen3", "8B", "rk3588")
    assert (told["b"].family, told["b"].parameter_size) == ("llama3", "1B")
    assert (told["c"].family, told["c"].context_length) == ("qwen3", 16384)


def test_both_lists_show_the_same(store: Store, put: Put, models: Path) -> None:
    """`rkllama list` without a server reads less, yet says the same."""
    put("Qwen3-8B-rk3588/m-w8a8.rkllm")
    put("b/b.rkllm")
    put("b/Modelfile", 'FROM="b.rkllm"\nHUGGINGFACE_PATH="u/Llama-3.2-1B-rk3576-w4a16_g128"')
    put("c/c.rkllm")
    put("c/.pull.json", '{"repo": "u/Qwen3-8B-rk3588", "file": "c", "revision": "w8a8_g512"}')
    put("alias/Modelfile", "FROM bare\n")
    put("bare.rkllm")
    put("g.gguf", header(WHOLE))
    put("counted.gguf", header([], [("a", [40, 50])]))
    put("broken-q8_0.gguf")
    os.mkfifo(models / "Qwen3-8B-rk3588" / ".pull.json")
    (models / "c" / "Modelfile").mkdir()
    told = {entry.name: labels(entry) for entry in scan(str(models))}
    assert told == {
        "Qwen3-8B-rk3588": ("w8a8", "rk3588", "8B"),
        "alias": (None, None, None),
        "b": ("w4a16_g128", "rk3576", "1B"),
        "bare": (None, None, None),
        "broken-q8_0": ("Q8_0", None, None),
        "c": ("w8a8_g512", "rk3588", "8B"),
        "counted": (None, None, "2K"),
        "g": ("Q4_K_M", None, "1.5B"),
    }
    assert told == {
        info.name: (info.quantization, info.platform, info.parameter_size) for info in store.list()
    }


def test_a_gguf_tells_of_itself(store: Store, put: Put) -> None:
    put("some.gguf", header(WHOLE, [("a", [64, 32])]))
    (info,) = store.list()
    assert (info.format, info.quantization, info.parameter_size) == ("gguf", "Q4_K_M", "1.5B")
    assert (info.family, info.context_length) == ("qwen2.5", 32768)
    model = store.resolve("some")
    assert model.template == TemplateSource(
        source="{% for m in messages %}é{% endfor %}",
        origin="gguf",
        bos_token="t3",
        eos_token="<|im_end|>",
    )
    assert model.eos_tokens == (1000, 7)
    details = store.details("some")
    assert details.license == "apache-2.0"
    assert details.metadata["general.architecture"] == "qwen2"
    assert details.metadata["qwen2.context_length"] == 32768
    assert details.metadata["general.parameter_count"] == 2048
    json.dumps(dict(details.metadata), allow_nan=False)


def test_weights_are_counted_where_nothing_tells_their_number(store: Store, put: Put) -> None:
    pairs: list[Pair] = [("general.architecture", STRING, "llama")]
    put("guide.gguf", header(pairs, [("a", [1000, 1000]), ("b", [2_000_000])]))
    (info,) = store.list()
    assert (info.parameter_size, info.family) == ("3M", "llama")


def test_a_broken_gguf_is_listed_and_explained(store: Store, put: Put) -> None:
    put("Qwen2.5-0.5B-q4_0.gguf", b"GGUF\x03\0\0\0garbage")
    (info,) = store.list()
    assert (info.family, info.quantization, info.parameter_size) == ("qwen2.5", "Q4_0", "0.5B")
    (note,) = store.resolve("qwen").notes
    assert "no usable GGUF file" in note
    assert store.details("qwen").capabilities == ("completion", "tools")


def test_metadata_of_an_rkllm(store: Store, put: Put) -> None:
    put("Phi-3-mini-4k-instruct-w8a8.rkllm")
    put("unknown.rkllm")
    assert store.details("phi").metadata == {
        "general.architecture": "phi3",
        "phi3.context_length": 4096,
    }
    assert store.details("unknown").metadata == {"general.architecture": "rkllm"}


# --- The files beside a model ------------------------------------------------------------------

TOKENIZER = {
    "chat_template": JINJA,
    "bos_token": None,
    "eos_token": {"content": "<|im_end|>"},
    "added_tokens_decoder": {"7": {"content": "<|im_end|>"}, "8": {"content": "x"}, "-": "y"},
}


def test_a_folder_s_files_belong_to_its_model(store: Store, put: Put) -> None:
    put("m/m.rkllm")
    put("m/tokenizer_config.json", json.dumps(TOKENIZER))
    put("m/generation_config.json", '{"eos_token_id": [5, 6, 5, true, -1, "9"]}')
    put("m/config.json", '{"max_position_embeddings": 32768, "eos_token_id": 4}')
    model = store.resolve("m")
    assert model.template == TemplateSource(
        source=JINJA, origin="tokenizer_config.json", bos_token="", eos_token="<|im_end|>"
    )
    assert model.eos_tokens == (5, 6, 7)
    assert model.info.context_length == 32768
    assert model.notes == ()
    assert store.list()[0].context_length == 32768


def test_a_bare_file_s_files_bear_its_name(store: Store, put: Put) -> None:
    put("m.rkllm")
    put("n.rkllm")
    put("tokenizer_config.json", json.dumps(TOKENIZER))
    assert store.resolve("m").template is None
    put("m.chat_template.jinja", JINJA + "m")
    put("m.config.json", '{"text_config": {"max_position_embeddings": 2048}}')
    found = store.resolve("m")
    assert found.template is not None
    assert (found.template.source, found.template.origin) == (JINJA + "m", "chat_template.jinja")
    assert found.info.context_length == 2048
    assert store.resolve("n").template is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"chat_template.jinja": "J", "tokenizer_config.json": {"chat_template": "T"}}, "J"),
        ({"chat_template.json": {"chat_template": "C"}}, "C"),
        ({"tokenizer_config.json": {}, "chat_template.json": {"chat_template": "C"}}, "C"),
        (
            {
                "tokenizer_config.json": {
                    "chat_template": [
                        {"name": "rag", "template": "R"},
                        {"name": "default", "template": "D"},
                    ]
                }
            },
            "D",
        ),
        ({"tokenizer_config.json": {"chat_template": [{"name": "x", "template": "X"}]}}, "X"),
        ({"tokenizer_config.json": {"chat_template": [1, {}, {"name": "x"}]}}, None),
        ({"tokenizer_config.json": {"chat_template": 5}}, None),
        ({"chat_template.jinja": "  \n"}, None),
    ],
)
def test_where_a_template_is_found(
    store: Store, put: Put, files: dict[str, Any], expected: str | None
) -> None:
    put("m/m.rkllm")
    for name, content in files.items():
        put(f"m/{name}", content if isinstance(content, str) else json.dumps(content))
    template = store.resolve("m").template
    assert (template and template.source) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"{broken"),
        ("tokenizer_config.json", b"[1]"),
        ("tokenizer_config.json", b"\xff\xfe"),
        ("tokenizer_config.json", b"[" * 100_000),
        ("config.json", b'{"max_position_embeddings": 1e9999}x'),
        ("chat_template.jinja", b"\xff"),
        ("generation_config.json", b"null"),
    ],
)
def test_a_broken_file_is_passed_over_with_a_note(
    store: Store, put: Put, name: str, content: bytes
) -> None:
    put("m/m.rkllm")
    put(f"m/{name}", content)
    model = store.resolve("m")
    assert (model.template, model.eos_tokens, model.info.context_length) == (None, (), None)
    (note,) = model.notes
    assert note.startswith(f"{name} is passed over")
    assert len(store.list()) == 1


def test_a_file_too_large_or_of_another_kind_is_passed_over(
    store: Store, put: Put, models: Path, tmp_path: Path
) -> None:
    put("m/m.rkllm")
    huge = put("m/tokenizer_config.json", "{")
    os.truncate(huge, 21 << 20)
    os.mkfifo(models / "m" / "config.json")
    (tmp_path / "outside.jinja").write_text(JINJA)
    (models / "m" / "chat_template.jinja").symlink_to(tmp_path / "outside.jinja")
    model = store.resolve("m")
    assert model.template is None
    assert sorted(note.split(":")[0] for note in model.notes) == [
        "chat_template.jinja is passed over",
        "tokenizer_config.json is passed over",
    ]


def test_an_edit_in_place_is_noticed(store: Store, put: Put) -> None:
    put("m/m.rkllm")
    template = put("m/chat_template.jinja", "one")
    modelfile = put("m/Modelfile", "SYSTEM one")
    assert store.resolve("m").system == "one"
    template.write_text("three")
    modelfile.write_text("SYSTEM three")
    model = store.resolve("m")
    assert model.template is not None
    assert (model.template.source, model.system) == ("three", "three")
    assert store.resolve("m") is model


# --- Modelfiles --------------------------------------------------------------------------------


def test_a_modelfile_sets_defaults(store: Store, put: Put, models: Path) -> None:
    put("m/m.rkllm")
    put("m/lora.rkllm.bin")
    put(
        "m/Modelfile",
        "FROM m.rkllm\nSYSTEM hi\nPARAMETER temperature 0\nPARAMETER num_ctx 512\n"
        "PARAMETER num_predict 99\nPARAMETER stop END\nMESSAGE user a\nMESSAGE assistant b\n"
        "ADAPTER lora.rkllm.bin\nLICENSE MIT\nPARAMETER think false",
    )
    model = store.resolve("m")
    assert (model.system, model.sampling.temperature, model.stop) == ("hi", 0.0, ("END",))
    assert (model.context_length, model.max_tokens, model.think) == (512, 99, False)
    assert model.messages == (
        Message(role="user", content="a"),
        Message(role="assistant", content="b"),
    )
    assert model.lora == str(models / "m" / "lora.rkllm.bin")
    assert model.info.context_length is None
    details = store.details("m")
    assert (details.system, details.license, details.parent) == ("hi", "MIT", None)
    assert details.messages == model.messages
    assert ("num_ctx", "512") in details.parameters
    assert details.modelfile.startswith("FROM m.rkllm\nSYSTEM hi\n")


def test_a_broken_modelfile_hides_nothing(store: Store, put: Put) -> None:
    put("m/m.rkllm")
    put("m/Modelfile", "FROM m.rkllm\nPARAMETER temperature hot")
    assert [info.name for info in store.list()] == ["m"]
    model = store.resolve("m")
    assert model.sampling.temperature is None
    (note,) = model.notes
    assert "m/Modelfile" in note
    assert "line 2" in note


def test_an_adapter_outside_is_not_used(store: Store, put: Put, tmp_path: Path) -> None:
    (tmp_path / "lora.bin").write_text("x")
    put("m/m.rkllm")
    for adapter in (str(tmp_path / "lora.bin"), "../../lora.bin", "missing"):
        put("m/Modelfile", f"ADAPTER {adapter}")
        model = store.resolve("m")
        assert model.lora is None
        assert "ADAPTER" in model.notes[0]


def test_templates_of_modelfiles(store: Store, put: Put) -> None:
    put("m/m.rkllm")
    put("m/tokenizer_config.json", json.dumps({"chat_template": "own", "eos_token": "</s>"}))
    put("m/Modelfile", f'TEMPLATE """{JINJA}"""')
    model = store.resolve("m")
    assert model.template == TemplateSource(source=JINJA, origin="Modelfile", eos_token="</s>")
    put("m/Modelfile", 'TEMPLATE """{{ .System }}<|start_header_id|>"""')
    model = store.resolve("m")
    assert model.template is not None
    assert (model.template.source, model.info.family) == ("own", "llama3")
    assert store.details("m").template == "{{ .System }}<|start_header_id|>"
    assert model.template_from("{{ .Prompt }}") is None
    assert model.template_from(JINJA) == TemplateSource(
        source=JINJA, origin="request", eos_token="</s>"
    )


@pytest.mark.parametrize(
    ("file", "template", "expected"),
    [
        ("Qwen2.5-0.5B.rkllm", None, ("completion", "tools")),
        ("Qwen3-0.6B.rkllm", None, ("completion", "tools", "thinking")),
        ("unknown.rkllm", None, ("completion",)),
        ("unknown.rkllm", "{% if tools %}", ("completion", "tools")),
        ("unknown.rkllm", "<think>", ("completion", "thinking")),
        ("unknown.rkllm", "m.split('</think>')[-1]", ("completion", "thinking")),
        ("unknown.rkllm", "[THINK] [/THINK]", ("completion", "thinking")),
        ("Qwen3-Embedding-0.6B.rkllm", None, ("embedding",)),
        ("bge-small-en-v1.5.gguf", None, ("embedding",)),
    ],
)
def test_capabilities(
    store: Store, put: Put, file: str, template: str | None, expected: tuple[str, ...]
) -> None:
    put(f"m/{file}")
    if template:
        put("m/chat_template.jinja", template)
    assert store.resolve("m").capabilities == expected
    assert store.details("m").capabilities == expected


@pytest.mark.parametrize("value", [("pooling_type", U32, 3), ("attention.causal", BOOL, False)])
def test_a_gguf_with_pooling_or_of_an_encoder_embeds(
    store: Store, put: Put, value: tuple[str, int, Any]
) -> None:
    key, kind, item = value
    pairs: list[Pair] = [("general.architecture", STRING, "bert"), (f"bert.{key}", kind, item)]
    put("m.gguf", header(pairs))
    assert store.resolve("m").capabilities == ("embedding",)


# --- Copies and creations ----------------------------------------------------------------------


def test_a_copy_is_the_same_model(store: Store, put: Put, models: Path) -> None:
    put("Qwen3-0.6B.rkllm")
    store.copy("qwen3", "mine")
    mine = store.resolve("mine")
    assert (mine.info.path, mine.parent) == (str(models / "Qwen3-0.6B.rkllm"), "Qwen3-0.6B")
    assert mine.info.family == "qwen3"
    assert [info.name for info in store.list()] == ["mine", "Qwen3-0.6B"]
    assert (models / "mine" / "Modelfile").read_text() == "FROM Qwen3-0.6B\n"


def test_a_copy_of_an_alias_keeps_what_it_sets(store: Store, put: Put) -> None:
    put("m.rkllm")
    store.create("poet", "FROM m\nSYSTEM rhyme\nPARAMETER top_k 3")
    store.copy("poet", "bard")
    bard = store.resolve("bard")
    assert (bard.system, bard.sampling.top_k, bard.parent) == ("rhyme", 3, "m")
    store.remove("poet")
    assert store.resolve("bard").system == "rhyme"


def test_create_inherits_and_overrides(store: Store, put: Put) -> None:
    put("m/m.rkllm")
    put("m/Modelfile", "SYSTEM base\nPARAMETER top_k 1\nPARAMETER stop a\nPARAMETER stop b")
    info = store.create("one", "FROM m:latest\nPARAMETER stop c\nMESSAGE user hi")
    assert (info.name, info.file) == ("one", "m.rkllm")
    store.create("two:v1", "from ONE\nsystem other")
    two = store.resolve("two:v1")
    assert two.info.name == "two-v1"
    assert (two.system, two.sampling.top_k, two.stop, two.parent) == ("other", 1, ("c",), "one")
    assert [message.content for message in two.messages] == ["hi"]
    assert store.details("two-v1").modelfile.startswith("FROM one\n")


def test_create_again_replaces_the_alias(store: Store, put: Put) -> None:
    put("m.rkllm")
    store.create("x", "FROM m\nSYSTEM one\nPARAMETER top_k 1")
    store.create("X", "FROM m\nSYSTEM two")
    assert (store.resolve("x").system, store.resolve("x").sampling.top_k) == ("two", None)
    store.create("x", "FROM x\nPARAMETER top_k 5")
    assert [info.name for info in store.list()] == ["m", "x"]
    assert store.resolve("x").sampling.top_k == 5


def test_nothing_is_made_from_itself(store: Store, put: Put, models: Path) -> None:
    put("m.rkllm")
    store.create("t1", "FROM m\nSYSTEM one")
    store.create("t2", "FROM t1")
    store.create("t3", "FROM t2")
    before = {path: path.read_text() for path in models.rglob("Modelfile")}
    for make in (
        lambda: store.create("t1", "FROM t3"),
        lambda: store.create("T2:latest", "FROM t3\nSYSTEM two"),
        lambda: store.copy("t2", "t1"),
    ):
        with pytest.raises(InvalidRequest, match=r"is made from '.*' itself"):
            make()
    assert {path: path.read_text() for path in models.rglob("Modelfile")} == before
    assert store.resolve("t3").system == "one"


def test_what_is_made_can_be_found_however_long_its_chain(store: Store, put: Put) -> None:
    put("m.rkllm")
    names = ["m", *(f"t{number}" for number in range(1, 10))]
    for name, source in zip(names[1:9], names, strict=False):
        assert store.create(name, f"FROM {source}").file == "m.rkllm"
    with pytest.raises(InvalidRequest, match="'t8' is made from 8 others already"):
        store.create("t9", "FROM t8")
    store.create("t8", "FROM t8\nSYSTEM last")
    assert {info.name for info in store.list()} == set(names[:9])


def test_create_under_the_model_s_own_name(store: Store, put: Put, models: Path) -> None:
    put("m/m.rkllm")
    put("bare.rkllm")
    store.create("m", "FROM m\nSYSTEM mine")
    assert store.resolve("m").system == "mine"
    assert (models / "m" / "Modelfile").read_text() == "FROM m.rkllm\nSYSTEM mine\n"
    with pytest.raises(InvalidRequest, match="no folder of its own"):
        store.create("bare", "FROM bare\nSYSTEM x")


@pytest.mark.parametrize("source", ["./m.rkllm", "m.rkllm", "{models}/m.rkllm", "M"])
def test_ways_to_write_from(store: Store, put: Put, models: Path, source: str) -> None:
    put("m.rkllm")
    store.create("new", f"FROM {source.format(models=models)}")
    assert store.resolve("new").parent == "m"


def test_what_could_not_be_read_again_is_not_written(store: Store, put: Put, models: Path) -> None:
    put("m.rkllm")
    with pytest.raises(ModelfileError, match="more than 1048576 bytes"):
        store.create("french", "FROM m\nSYSTEM " + "é" * 600_000)
    assert not (models / "french").exists()


def test_what_create_refuses(store: Store, put: Put) -> None:
    put("m.rkllm")
    put("taken/taken.rkllm")
    put("folder/notes.txt")
    with pytest.raises(InvalidRequest, match="no FROM"):
        store.create("x", "SYSTEM hi")
    with pytest.raises(ModelfileError, match="line 2"):
        store.create("x", "FROM m\nFOO")
    with pytest.raises(ModelNotFound):
        store.create("x", "FROM nothing")
    for name in ("taken", "TAKEN", "folder"):
        with pytest.raises(InvalidRequest, match="exists already"):
            store.create(name, "FROM m")
    for name in ("", " ", ".x", "a/b", "a\\b", "-x", "ä", "x" * 129, "a b", "..", "\0"):
        with pytest.raises(InvalidRequest, match="cannot be a model's name"):
            store.copy("m", name)
    with pytest.raises(InvalidRequest):
        store.copy("m", "m")
    assert {info.name for info in store.list()} == {"m", "taken"}


def test_a_disk_that_refuses_leaves_nothing(
    store: Store, put: Put, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("m.rkllm")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RKLLamaError, match="No space left"):
        store.copy("m", "x")
    assert not [path for path in models.rglob("*") if path.is_file() and path.name != "m.rkllm"]


# --- Removal -----------------------------------------------------------------------------------


def test_a_bare_file_goes_with_its_own(store: Store, put: Put, models: Path) -> None:
    for path in ("m.rkllm", "m.rkllm.part", "m.rkllm.part.json", "m.tokenizer_config.json"):
        put(path)
    for path in ("m.txt", "m2.rkllm", "tokenizer_config.json"):
        put(path)
    assert store.remove("m.rkllm").name == "m"
    assert tree(models) == {"m.txt", "m2.rkllm", "tokenizer_config.json"}


def test_a_pulled_folder_goes_whole(store: Store, put: Put, models: Path) -> None:
    for name in ("m.rkllm", "tokenizer_config.json", "config.json", ".pull.json", "Modelfile"):
        put(f"m/{name}")
    store.remove("M:latest")
    assert tree(models) == set()
    assert models.is_dir()


def test_the_user_s_files_stay(store: Store, put: Put, models: Path) -> None:
    put("m/m.rkllm")
    put("m/config.json", "{}")
    put("m/thesis.doc")
    put("m/deep/er.txt")
    store.remove("m")
    assert tree(models) == {"m", "m/thesis.doc", "m/deep", "m/deep/er.txt"}


def test_one_of_several_leaves_what_they_share(store: Store, put: Put, models: Path) -> None:
    put("m/a.rkllm")
    put("m/b.rkllm")
    put("m/chat_template.jinja", JINJA)
    put("m/a.config.json", "{}")
    store.remove("m/a")
    assert tree(models) == {"m", "m/b.rkllm", "m/chat_template.jinja"}
    assert store.remove("m").file == "b.rkllm"
    assert tree(models) == set()


def test_an_alias_goes_alone(store: Store, put: Put, models: Path) -> None:
    put("m.rkllm")
    store.copy("m", "x")
    put("y/Modelfile", "FROM m")
    put("y/notes.txt")
    removed = store.remove("x")
    assert (removed.name, removed.path) == ("x", str(models / "x" / "Modelfile"))
    store.remove("y")
    assert tree(models) == {"m.rkllm", "y", "y/notes.txt"}


def test_what_aliases_are_made_from_stays(store: Store, put: Put, models: Path) -> None:
    put("m.rkllm")
    store.copy("m", "x")
    store.create("y", "FROM x")
    with pytest.raises(InvalidRequest, match="'m' is what x is made from") as caught:
        store.remove("m")
    assert caught.value.hint == "Remove x first."
    with pytest.raises(InvalidRequest, match="'x' is what y is made from"):
        store.removable("x")
    for name in ("y", "x", "m"):
        assert store.removable(name).name == name
        store.remove(name)
    assert tree(models) == set()


def test_an_alias_whose_model_is_gone(store: Store, put: Put, models: Path) -> None:
    put("x/Modelfile", "FROM gone\nSYSTEM hi")
    assert store.list() == []
    with pytest.raises(ModelNotFound, match="'gone' not found"):
        store.resolve("x")
    assert store.remove("x").name == "x"
    assert tree(models) == set()


def test_a_modelfile_that_names_nothing_can_be_removed(
    store: Store, put: Put, models: Path
) -> None:
    put("x/Modelfile", "SYSTEM hi")
    assert store.remove("x").path == str(models / "x" / "Modelfile")
    assert tree(models) == set()


@pytest.mark.usefixtures("zoo")
def test_removal_takes_no_beginnings(store: Store, models: Path) -> None:
    before = tree(models)
    for name in ("qwen", "t", "gemma/", "qwen2.5:7b", "qwen2.5:1.5b", "gemma:w4a16"):
        with pytest.raises(ModelNotFound):
            store.remove(name)
    with pytest.raises(AmbiguousName):
        store.remove("gemma")
    assert tree(models) == before


def test_links_are_removed_and_not_followed(store: Store, put: Put, models: Path) -> None:
    put("real/m.rkllm")
    (models / "link.rkllm").symlink_to(models / "real" / "m.rkllm")
    (models / "folder").symlink_to(models / "real")
    store.remove("link")
    store.remove("folder")
    assert tree(models) == {"real", "real/m.rkllm"}


def test_a_disk_that_refuses_says_so(
    store: Store, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("m.rkllm")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(RKLLamaError, match="cannot be removed: Permission denied"):
        store.remove("m")


# --- Digests -----------------------------------------------------------------------------------


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def test_a_digest_is_computed_once_and_kept(store: Store, put: Put, models: Path) -> None:
    file = put("m/m.rkllm", "hello")
    (info,) = store.list()
    provisional = store.digest(info, compute=False)
    assert len(provisional) == 64
    assert provisional != sha256("hello")
    assert store.digest(info) == provisional
    assert store.settle(10)
    assert store.digest(info) == sha256("hello")
    assert store.list()[0].digest == sha256("hello")
    assert store.resolve("m").info.digest == sha256("hello")
    assert store.details("m").info.digest == sha256("hello")
    # Another process finds it without reading the file.
    status = file.stat()
    file.write_text("HELLO")
    os.utime(file, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert Store(str(models)).list()[0].digest == sha256("hello")


def test_a_changed_file_has_another_digest(store: Store, put: Put) -> None:
    put("m.rkllm", "one")
    store.digest(store.list()[0])
    assert store.settle(10)
    put("m.rkllm", "three")
    (info,) = store.list()
    assert info.digest is None
    provisional = store.digest(info)
    assert provisional not in (sha256("one"), sha256("three"))
    assert store.settle(10)
    assert store.digest(store.list()[0]) == sha256("three")


def test_a_digest_that_is_known_already(store: Store, put: Put, models: Path) -> None:
    file = put("m.rkllm", "one")
    store.put_digest(str(file), sha256("one"))
    assert store.list()[0].digest == sha256("one")
    store.put_digest(str(models / "gone.rkllm"), sha256("two"))
    with pytest.raises(ValueError, match="not a sha256"):
        store.put_digest(str(file), "abc")


def test_what_another_process_learns_is_taken_over(put: Put, models: Path) -> None:
    file = put("m.rkllm", "one")
    ours, theirs = Store(str(models)), Store(str(models))
    assert ours.list()[0].digest is None
    theirs.put_digest(str(file), sha256("one"))
    assert ours.list()[0].digest == sha256("one")


def test_both_of_two_processes_entries_survive(put: Put, models: Path) -> None:
    a, b = put("a.rkllm", "a"), put("b.rkllm", "b")
    ours, theirs = Store(str(models)), Store(str(models))
    ours.put_digest(str(a), sha256("a"))
    theirs.put_digest(str(b), sha256("b"))
    assert [info.digest for info in Store(str(models)).list()] == [sha256("a"), sha256("b")]


def test_two_stores_of_one_process_write_at_once(
    put: Put, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = (put(f"{name}.rkllm", name) for name in "abc")
    ours, theirs = Store(str(models)), Store(str(models))
    write = json.dump

    def put_both() -> None:
        for path in (b, c):
            theirs.put_digest(str(path), sha256(path.stem))

    def write_after_the_other(*values: Any, **options: Any) -> None:
        monkeypatch.setattr(json, "dump", write)
        Task(put_both).result()
        write(*values, **options)

    monkeypatch.setattr(json, "dump", write_after_the_other)
    ours.put_digest(str(a), sha256("a"))
    assert Store(str(models)).list()[0].digest == sha256("a")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"files": 5}',
        b'{"files": {"m.rkllm": [1, 2]}}',
        b"\xff",
        b'{"files": {"m.rkllm": [3, 4, "zz"], "x": null}}',
        b"[" * 100_000,
    ],
)
def test_a_broken_cache_is_begun_anew(store: Store, put: Put, content: bytes, models: Path) -> None:
    put(".rkllama/digests.json", content)
    put("m.rkllm", "one")
    store.digest(store.list()[0])
    assert store.settle(10)
    assert Store(str(models)).list()[0].digest == sha256("one")


def test_a_directory_that_cannot_be_written_to(
    store: Store, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("m.rkllm", "one")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", refuse)
    store.digest(store.list()[0])
    assert store.settle(10)
    assert store.list()[0].digest == sha256("one")


def test_a_removed_model_leaves_no_digest(store: Store, put: Put, models: Path) -> None:
    put("m.rkllm", "one")
    store.digest(store.list()[0])
    assert store.settle(10)
    store.remove("m")
    kept = json.loads((models / ".rkllama" / "digests.json").read_text())
    assert kept["files"] == {}


def test_a_digest_keeps_nobody_waiting(
    store: Store, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists and digests answer while a file is being read, and closing ends the reading."""
    put("m.rkllm", "one")
    reading, release = threading.Event(), threading.Event()
    real = hashlib.sha256

    class Slow:
        def __init__(self) -> None:
            self._real = real()

        def update(self, block: bytes) -> None:
            reading.set()
            assert release.wait(10)
            self._real.update(block)

        def hexdigest(self) -> str:
            return self._real.hexdigest()

    (info,) = store.list()
    provisional = store.digest(info, compute=False)
    monkeypatch.setattr(hashlib, "sha256", lambda *data: real(*data) if data else Slow())
    assert store.digest(info) == provisional
    assert reading.wait(10)
    assert store.digest(info) == provisional
    assert store.list()[0].digest is None
    assert not store.settle(0)
    release.set()
    store.close()
    assert store.settle(0)


def test_a_file_that_changes_while_it_is_read_gets_no_digest(
    store: Store, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put("m.rkllm", "one")
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        file.write_text("three")
        return real(fd)

    (info,) = store.list()
    monkeypatch.setattr(os, "fstat", fstat)
    store.digest(info)
    assert store.settle(10)
    monkeypatch.undo()
    assert store.list()[0].digest is None


# --- Speed and threads -------------------------------------------------------------------------


def test_500_models_cost_little_when_nothing_has_changed(store: Store, models: Path) -> None:
    fill(models)
    for path in (*models.iterdir(), models):
        age(path)
    for file in models.rglob("*.rkllm"):
        age(file)
    first = store.list()
    assert len(first) == 500
    assert store.list() == first
    best = min(_seconds(store.list) for _ in range(10))
    assert best < 0.02  # 2 ms on an idle machine, 110 ms when everything is read anew
    name = first[250].name
    store.resolve(name)
    assert min(_seconds(lambda: store.resolve(name)) for _ in range(10)) < 0.001  # 0.04 ms


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def test_many_threads_at_once(store: Store, put: Put, models: Path) -> None:
    put("m.rkllm")
    put("n/n.rkllm")
    errors: list[BaseException] = []
    start = threading.Barrier(6)

    def work(number: int) -> None:
        start.wait()
        try:
            for round_ in range(15):
                name = f"a{number}-{round_}"
                store.copy("m", name)
                assert store.resolve(name).parent == "m"
                assert {"m", "n"} <= {info.name for info in store.list()}
                store.digest(store.resolve("n").info)
                store.remove(name)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert store.settle(10)
    assert tree(models) == {"m.rkllm", "n", "n/n.rkllm"}


def test_a_directory_that_is_switched_under_a_running_store(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.rkllm").write_text(name)
    link = tmp_path / "models"
    link.symlink_to(tmp_path / "one")
    store = Store(str(link))
    assert [info.name for info in store.list()] == ["one"]
    link.unlink()
    link.symlink_to(tmp_path / "two")
    (info,) = store.list()
    assert (info.name, info.path) == ("two", str(tmp_path / "two" / "two.rkllm"))
