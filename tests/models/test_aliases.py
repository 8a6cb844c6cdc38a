"""Aliases of the settings: what they mean, what comes before them, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllama.config import Settings, load_settings
from rkllama.errors import AmbiguousName, ConfigError, InvalidRequest, ModelNotFound
from rkllama.models.authoring import WritableStore
from tests.virtual_npu import write_model

QWEN = "Qwen3-4B-w8a8-rk3588"


def settings(home: Path, text: str) -> Settings:
    (home / "RKLLAMA").mkdir(exist_ok=True)
    (home / "RKLLAMA" / "config.toml").write_text(text)
    return load_settings()


@pytest.fixture
def store(models: Path) -> Iterator[WritableStore]:
    write_model(models / f"{QWEN}.rkllm")
    write_model(models / "code-1B.rkllm")
    aliases = {"chat": "qwen3:4b", "gpt-4o": "chat", "Code": QWEN, "gone": "mistral:7b"}
    made = WritableStore(str(models), aliases)
    yield made
    made.close()


@pytest.mark.parametrize("name", ["chat", "CHAT", "chat:latest", " chat ", "gpt-4o", "code"])
def test_an_alias_is_its_model_in_every_spelling(store: WritableStore, name: str) -> None:
    """ "code" is also the beginning of a model's name: what the user has set comes first."""
    for _ in range(2):
        assert store.resolve(name).info.name == QWEN
    assert store.details(name).info.name == QWEN


def test_a_model_of_that_name_comes_before_the_alias_and_that_is_told(
    store: WritableStore, models: Path
) -> None:
    assert store.resolve("chat").info.name == QWEN
    write_model(models / "Chat.rkllm")
    store.list()
    assert store.resolve("chat").info.name == "Chat"
    told = {alias.name: alias.problem for alias in store.aliases()}
    assert told["chat"] is not None
    assert "a model has this name" in told["chat"]
    assert told["gpt-4o"] is None, "it means chat, whatever that is"


def test_an_alias_without_a_model_says_what_it_stands_for(store: WritableStore) -> None:
    with pytest.raises(ModelNotFound, match=r"model 'mistral:7b' not found") as caught:
        store.resolve("gone")
    assert "'gone' is an alias of 'mistral:7b' in the settings" in str(caught.value.hint)
    (gone,) = [alias for alias in store.aliases() if alias.name == "gone"]
    assert gone.info is None
    assert gone.problem == "model 'mistral:7b' not found"


def test_an_alias_of_several_models_asks_for_a_full_name(
    store: WritableStore, models: Path
) -> None:
    write_model(models / "Qwen3-4B-w8a8-rk3576.rkllm")
    with pytest.raises(AmbiguousName) as caught:
        store.resolve("chat")
    assert "have it stand for the full name of one of them" in str(caught.value.hint)


def test_an_alias_is_neither_deleted_nor_overwritten_as_a_model(store: WritableStore) -> None:
    with pytest.raises(InvalidRequest, match="'chat' is an alias of 'qwen3:4b' in the settings"):
        store.remove("chat")
    with pytest.raises(InvalidRequest, match="is an alias"):
        store.copy("code-1B", "chat")
    with pytest.raises(InvalidRequest, match="is an alias"):
        store.create("gpt-4o", "FROM code-1B")
    store.copy("chat", "mine")
    assert store.resolve("mine").info.path == store.resolve(QWEN).info.path
    assert store.remove("mine").name == "mine"


def test_asking_for_aliases_brings_no_guide(models: Path) -> None:
    store = WritableStore(str(models), {"help": "guide"})
    (alias,) = store.aliases()
    assert alias.problem is not None
    assert [*models.iterdir()] == []
    assert store.resolve("help").info.name == "guide"
    store.close()


# --- The setting -------------------------------------------------------------------------------


def test_the_table_and_the_variable_mean_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"chat": "qwen3:4b", "a/b": "m"}
    text = 'keep_alive = "5m"\n[aliases]\nchat = "qwen3:4b"\n"a/b" = "m"\n'
    assert settings(home, text).aliases == wanted
    monkeypatch.setenv("RKLLAMA_ALIASES", "chat=qwen3:4b, a/b=m,")
    assert load_settings().aliases == wanted


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a=b,b=a", "circle: a -> b -> a"),
        ("a=A:latest", "circle: a -> a"),
        ("a=x,A:latest=y", "twice"),
        ("chat", "NAME=MODEL"),
        ("a=", "in quotes"),
        ("=m", "cannot be the name"),
        ("two words=m", "cannot be the name"),
    ],
)
def test_what_cannot_be_an_alias_is_said_with_its_place(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    monkeypatch.setenv("RKLLAMA_ALIASES", value)
    with pytest.raises(ConfigError, match="RKLLAMA_ALIASES") as caught:
        load_settings()
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["aliases = 7", "aliases = ['a=b']", "[aliases]\na = 3"])
def test_a_table_of_something_else_is_refused(home: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="aliases"):
        settings(home, text)
