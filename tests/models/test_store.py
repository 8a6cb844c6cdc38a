"""The store: what names mean, and what is known of a model."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rkllama.errors import (
    AmbiguousName,
    ModelNotFound,
    ModelsDirMissing,
)
from rkllama.models.authoring import WritableStore
from rkllama.models.labels import labels
from rkllama.models.scan import scan
from rkllama.models.store import Store
from rkllama.types import Message, TemplateSource
from tests.cost import calls
from tests.model_files import BOOL, STRING, U32, WHOLE, Pair, age, fill, header
from tests.models.conftest import Put, tree
from tests.waiting import Task

JINJA = "{% for message in messages %}{{ message.content }}{% endfor %}"


# --- Names -------------------------------------------------------------------------------------


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
        ("library/poet", "poet"),
        ("registry.ollama.ai/Library/poet:latest", "poet"),
        ("library/qwen2.5:1.5b", "Qwen2.5-1.5B-Instruct-rk3588-w8a8"),
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
    store = WritableStore(str(tmp_path / "nowhere"))
    with pytest.raises(ModelsDirMissing):
        store.list()
    for call in (store.resolve, store.details, store.remove):
        with pytest.raises(ModelNotFound):
            call("m")


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
    told = {
        entry.name: (label.quantization, label.platform, label.parameter_size)
        for entry in scan(str(models))
        for label in [labels(entry)]
    }
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
    assert "not a usable GGUF file" in note
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
    assert note.startswith(f"{name} is ignored")
    assert len(store.list()) == 1


def test_a_file_too_large_or_of_another_kind_is_passed_over(
    store: Store, put: Put, models: Path, tmp_path: Path
) -> None:
    put("m/m.rkllm")
    huge = put("m/tokenizer_config.json", "{")
    os.truncate(huge, 21 << 20)
    os.mkfifo(models / "m" / "config.json")
    (models / "m" / "chat_template.jinja").symlink_to(models.parent)
    (tmp_path / "outside.json").write_text('{"eos_token_id": 7}')
    (models / "m" / "generation_config.json").symlink_to(tmp_path / "outside.json")
    model = store.resolve("m")
    assert model.template is None
    assert model.eos_tokens == (7,)
    assert sorted(note.split(":")[0] for note in model.notes) == [
        "tokenizer_config.json is ignored",
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
        Message.of("user", "a"),
        Message.of("assistant", "b"),
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
        ("Qwen3-Embedding-0.6B.rkllm", "<think>", ("embedding",)),
        ("bge-small-en-v1.5.gguf", None, ("embedding",)),
        ("gte-Qwen2-1.5B-instruct-w8a8.rkllm", None, ("embedding",)),
        ("nomic-embed-text-v1.5.Q8_0.gguf", None, ("embedding",)),
        ("jina-embeddings-v3.gguf", None, ("embedding",)),
        ("multilingual-e5-large.gguf", None, ("embedding",)),
        ("all-MiniLM-L6-v2.gguf", None, ("embedding",)),
        ("all-mpnet-base-v2.gguf", None, ("embedding",)),
        ("mxbai-embed-large-v1.gguf", None, ("embedding",)),
        ("embeddinggemma-300m.gguf", None, ("embedding",)),
        ("Qwen3-Reranker-0.6B.rkllm", None, ("rerank",)),
        ("Qwen3-Reranker-0.6B.gguf", None, ("completion",)),
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


@pytest.mark.parametrize(
    ("file", "end"),
    [
        ("Qwen3-Embedding-0.6B.rkllm", "<|endoftext|>"),
        ("gte-Qwen2-1.5B-instruct.rkllm", "<|endoftext|>"),
        ("bge-m3.rkllm", ""),
        ("Qwen3-0.6B.rkllm", ""),
    ],
)
def test_what_a_text_ends_with_of_which_a_vector_is_made(
    store: Store, put: Put, file: str, end: str
) -> None:
    put(f"m/{file}")
    assert store.resolve("m").text_end == end


def test_a_folder_or_repository_tells_that_a_model_embeds(store: Store, put: Put) -> None:
    put("Qwen3-Embedding-0.6B-rk3588/model.rkllm")
    put("m/m.rkllm")
    put("m/.pull.json", '{"repo": "u/Qwen3-Embedding-4B", "file": "m.rkllm", "revision": "v1"}')
    for name in ("Qwen3-Embedding-0.6B-rk3588", "m"):
        model = store.resolve(name)
        assert (model.capabilities, model.text_end) == (("embedding",), "<|endoftext|>")


@pytest.mark.parametrize("value", [("pooling_type", U32, 3), ("attention.causal", BOOL, False)])
def test_a_gguf_with_pooling_or_of_an_encoder_embeds(
    store: Store, put: Put, value: tuple[str, int, Any]
) -> None:
    key, kind, item = value
    pairs: list[Pair] = [("general.architecture", STRING, "bert"), (f"bert.{key}", kind, item)]
    put("m.gguf", header(pairs))
    assert store.resolve("m").capabilities == ("embedding",)


def test_a_gguf_with_a_head_that_ranks_is_a_reranker(store: Store, put: Put) -> None:
    pairs: list[Pair] = [("general.architecture", STRING, "bert"), ("bert.pooling_type", U32, 4)]
    put("m.gguf", header(pairs))
    assert store.resolve("m").capabilities == ("rerank",)


@pytest.mark.parametrize(
    ("file", "lines", "capabilities"),
    [
        ("m", "PARAMETER rerank true", ("rerank",)),
        ("Qwen3-Reranker-0.6B", "PARAMETER rerank false", ("completion",)),
        ("Qwen3-Reranker-0.6B", "PARAMETER yes_token_id 7", ("rerank",)),
    ],
)
def test_a_modelfile_says_whether_a_model_ranks(
    store: Store, put: Put, file: str, lines: str, capabilities: tuple[str, ...]
) -> None:
    put(f"m/{file}.rkllm")
    put("m/Modelfile", f"FROM {file}.rkllm\n{lines}\n")
    (info,) = store.list()
    model = store.resolve(info.name)
    assert (model.capabilities, model.yes_no_tokens) == (capabilities, ())


def test_the_tokens_of_a_reranker_are_both_or_none(store: Store, put: Put) -> None:
    put("m/Qwen3-Reranker.rkllm")
    tokens = "PARAMETER yes_token_id 1\nPARAMETER no_token_id 0\n"
    put("m/Modelfile", f"FROM Qwen3-Reranker.rkllm\n{tokens}")
    (info,) = store.list()
    assert store.resolve(info.name).yes_no_tokens == (1, 0)


@pytest.mark.parametrize("file", ["m", "bge-m3"])
def test_only_a_model_that_writes_has_no_use_for_n_batch(store: Store, put: Put, file: str) -> None:
    put(f"m/{file}.rkllm")
    put("m/Modelfile", f"FROM {file}.rkllm\nPARAMETER n_batch 4\n")
    (info,) = store.list()
    notes = store.resolve(info.name).notes
    assert notes == (
        ("n_batch in the Modelfile is ignored: this model writes text",) if file == "m" else ()
    )


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


def test_a_removed_model_leaves_no_digest(store: WritableStore, put: Put, models: Path) -> None:
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
    made = calls(store.list)
    assert made["open"] == made["scandir"] == 0
    assert made["stat"] <= 2 * 500 + 2
    assert made.total() < 20 * 500
    for name in spellings(first[250].name):
        store.resolve(name)
        made = calls(lambda name=name: store.resolve(name))  # type: ignore[misc]
        assert made["open"] == made["scandir"] == 0
        assert made.total() < 500, name


def spellings(name: str) -> tuple[str, ...]:
    """A name as clients send it."""
    return name, f"{name}:latest", name.upper(), f" {name}.rkllm"


def settle(models: Path) -> None:
    """Make everything old enough that its time tells whether it has changed."""
    for path in (*models.rglob("*"), models):
        age(path)


def test_a_request_costs_the_same_with_500_aliases(store: Store, put: Put, models: Path) -> None:
    put("m.rkllm")
    for number in range(500):
        put(f"alias-{number:03}/Modelfile", f"FROM {'m' if number else 'alias-001'}\n")
    put("zebra/Modelfile", "FROM m\n")
    settle(models)
    for name in (*spellings("alias-000"), *spellings("alias-400"), *spellings("m"), "zeb"):
        store.resolve(name)
        made = calls(lambda name=name: store.resolve(name))  # type: ignore[misc]
        assert made["open"] == made["scandir"] == 0
        assert made.total() < 500, name


def test_what_changes_below_a_name_that_was_found_is_noticed(
    store: Store, put: Put, models: Path
) -> None:
    put("m.rkllm")
    put("base/Modelfile", "FROM m\nSYSTEM one")
    put("top/Modelfile", "FROM base")
    settle(models)
    for name in ("top", "top:latest", "TOP"):
        assert store.resolve(name).system == "one"
    put("base/Modelfile", "FROM m\nSYSTEM another")
    for name in ("top", "top:latest", "TOP"):
        assert store.resolve(name).system == "another"
    settle(models)
    assert store.resolve("top:latest").system == "another"
    put("top/Modelfile", "FROM m\nSYSTEM mine")
    assert store.resolve("top:latest").system == "mine"
    settle(models)
    assert store.resolve("to").info.name == "top"
    put("tom.rkllm")
    with pytest.raises(AmbiguousName):
        store.resolve("to")
    settle(models)
    (models / "m.rkllm").unlink()
    for name in ("top", "top:latest", "m:latest"):
        with pytest.raises(ModelNotFound):
            store.resolve(name)


def test_many_threads_at_once(store: WritableStore, put: Put, models: Path) -> None:
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
