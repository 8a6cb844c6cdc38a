"""Settings whose values are more than a text or a number."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkllama.config import load_settings
from rkllama.errors import ConfigError
from rkllama.models.modelfile import ModelfileError, parse_modelfile, read_parameters


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("llama-server", ("llama-server",)),
        (r"/opt/rk\ llama/x -ngl 99", ("/opt/rk llama/x", "-ngl", "99")),
        ("/b/ls '--flag' 'a b'", ("/b/ls", "--flag", "a b")),
    ],
)
def test_a_llama_server_is_a_program_and_its_arguments(text: str, words: tuple[str, ...]) -> None:
    assert load_settings(environ={"RKLLAMA_LLAMA_SERVER": text}).llama_server == words
    parsed = parse_modelfile(f"FROM m\nPARAMETER llama_server {text}\n")
    assert read_parameters(parsed.parameters).llama_server == words


@pytest.mark.parametrize(
    "arguments",
    [
        "--port 1",
        "--host 0.0.0.0",
        "--api-key x",
        "--api_key=x",
        "-m other.gguf",
        "--tools all",
        "'",
    ],
)
def test_what_is_set_for_it_cannot_be_set(arguments: str) -> None:
    with pytest.raises(ConfigError, match="RKLLAMA_LLAMA_SERVER"):
        load_settings(environ={"RKLLAMA_LLAMA_SERVER": f"/bin/x {arguments}"})
    with pytest.raises(ModelfileError, match="line 2: llama_server cannot be"):
        parse_modelfile(f"FROM m\nPARAMETER llama_server {arguments}\n")


def test_arguments_alone_are_no_setting() -> None:
    with pytest.raises(ConfigError, match="begin with a program"):
        load_settings(environ={"RKLLAMA_LLAMA_SERVER": "-ngl 99"})


def test_governors_are_performance_or_left_alone(home: Path) -> None:
    assert load_settings(environ={}).governors is None
    for text in ("performance", "Performance"):
        assert load_settings(environ={"RKLLAMA_GOVERNORS": text}).governors == "performance"
    (home / "RKLLAMA").mkdir()
    (home / "RKLLAMA" / "config.toml").write_text('governors = "performance"\n')
    assert load_settings(environ={}).governors == "performance"
    assert load_settings(environ={"RKLLAMA_GOVERNORS": "off"}).governors is None
    with pytest.raises(ConfigError, match="RKLLAMA_GOVERNORS cannot be 'ondemand'"):
        load_settings(environ={"RKLLAMA_GOVERNORS": "ondemand"})


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("2G", 2 << 30), ("1.5M", 3 << 19), ("500 MB", 500 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert load_settings(environ={"RKLLAMA_STATE_BUDGET": text}).state_budget == size


@pytest.mark.parametrize("text", ["much", "-1", "1e400", "nan", "2X", "9999T", "G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="RKLLAMA_STATE_BUDGET"):
        load_settings(environ={"RKLLAMA_STATE_BUDGET": text})


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("0s", 0.0), ("0.1", 0.1), ("10s", 10.0), ("1m", 60.0)]
)
def test_intervals(text: str, seconds: float) -> None:
    assert load_settings(environ={"RKLLAMA_ALIVE_INTERVAL": text}).alive_interval == seconds


@pytest.mark.parametrize("text", ["never", "-1", "0.05", "25h", "nan"])
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(ConfigError, match="RKLLAMA_ALIVE_INTERVAL"):
        load_settings(environ={"RKLLAMA_ALIVE_INTERVAL": text})


def test_a_picture_may_take_as_long_as_an_encoder_is_loaded() -> None:
    settings = load_settings({"token_timeout": "1s", "prefill_timeout": "10s"})
    assert settings.prompt_timeout(500) == 6.0
    assert settings.prompt_timeout(500, images=2) == 46.0
