"""`rkllama config`: what is set and where, and changing it in the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rkllama.commands.config.values import duration_text, toml_value, value_text
from rkllama.config import SETTINGS, Setting, load_settings, parse_duration, parse_toml
from tests.cases import cases
from tests.running import Server
from tests.terminal import Terminal
from tests.test_cli import failure, output, rkllama

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}


@pytest.fixture
def file(home: Path) -> Path:
    (home / "RKLLAMA").mkdir(exist_ok=True)
    return home / "RKLLAMA" / "config.toml"


# --- Values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (300, "5m"),
        (5400, "1h30m"),
        (86400, "24h"),
        (90, "1m30s"),
        (0.5, "0.5s"),
        (0, "0s"),
        (-60, "-1"),
    ],
)
def test_durations_as_they_are_written(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
    assert parse_duration(text) == seconds or seconds < 0


@cases("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
def test_a_default_can_be_set_as_it_is_shown(setting: Setting) -> None:
    if setting.default not in (None, ()):
        value = setting.parse(setting.default)
        assert setting.parse(value_text(value, setting)) == value


@pytest.mark.parametrize(
    ("name", "text", "written"),
    [
        ("keep_alive", "30m", '"30m"'),
        ("keep_alive", "-1", "-1"),
        ("max_loaded", "2", "2"),
        ("enabled_cpus_mask", "0xF0", "0xf0"),
        ("embed_flash", "Yes", "true"),
        ("log_level", "DEBUG", '"debug"'),
        ("origins", "https://A.example.org/, null", '["https://a.example.org", "null"]'),
        ("api_keys", "one two,three", '["one", "two", "three"]'),
        ("llama_server", "/opt/rk\\ llama/x -ngl 99", "\"'/opt/rk llama/x' -ngl 99\""),
        ("host", "0.0.0.0:9000", '"0.0.0.0:9000"'),
        ("rkllm_abi", 'a"b\\', '"a\\"b\\\\"'),
    ],
)
def test_a_value_is_written_as_it_is_meant(name: str, text: str, written: str) -> None:
    setting = BY_NAME[name]
    assert toml_value(setting, text) == written
    value = parse_toml(f"x = {written}")["x"]
    assert setting.parse(value) == setting.parse(text)


def test_paths_mean_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").write_text("secret\n")
    assert toml_value(BY_NAME["models"], "here") == f'"{tmp_path}/here"'
    assert toml_value(BY_NAME["models"], "~/there") == f'"{home}/there"'
    assert toml_value(BY_NAME["llama_server"], "./x -v") == f'"{tmp_path}/x -v"'
    assert toml_value(BY_NAME["api_keys"], "@keys") == f'["@{tmp_path}/keys"]', "not what is in it"


# --- What is shown -----------------------------------------------------------------------------


@pytest.mark.integration
def test_every_setting_is_shown_with_where_it_was_set(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RKLLAMA_LOCK")
    file.write_text('keep_alive = "1h30m"\napi_keys = ["one", "two"]\nmax_queue = 3\n')
    monkeypatch.setenv("RKLLAMA_MAX_QUEUE", "5")
    text = output("--models", str(tmp_path), "config")
    sections = [section.splitlines() for section in text.split("\n\n")]
    assert [lines[0] for lines in sections] == ["Command line", "Environment", str(file), "Default"]
    assert sections[0][1:] == [f"  models  {tmp_path}  (--models)"]
    assert [line.split() for line in sections[1][1:]] == [
        ["host", "127.0.0.1:0", "(RKLLAMA_HOST)"],
        ["max_queue", "5", "(RKLLAMA_MAX_QUEUE)"],
    ]
    assert [line.split() for line in sections[2][1:]] == [
        ["keep_alive", "1h30m"],
        ["api_keys", "2", "keys"],
    ]
    defaults = dict(line.split(None, 1) for line in sections[3][1:])
    assert defaults["load_timeout"] == "10m"
    assert defaults["llama_server"] == "not set"
    shown = {line.split()[0] for lines in sections for line in lines[1:]}
    assert shown == set(BY_NAME)


@pytest.mark.integration
def test_as_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('keep_alive = "30m"\napi_keys = "secret"\n')
    text = output("config", "--json", env={"RKLLAMA_RUNTIME_URL": "http://me:secret@mirror/x"})
    assert "secret" not in text
    rows = {row["name"]: row for row in json.loads(text)}
    assert list(rows) == list(BY_NAME)
    assert rows["keep_alive"] == {
        "name": "keep_alive",
        "value": 1800.0,
        "source": "file",
        "where": str(file),
        "variable": "RKLLAMA_KEEP_ALIVE",
    }
    assert (rows["api_keys"]["value"], rows["api_keys"]["count"]) == (None, 1)
    assert rows["runtime_url"]["value"] == "http://…@mirror/x"
    assert (rows["max_loaded"]["source"], rows["max_loaded"]["where"]) == ("default", None)
    assert (rows["host"]["source"], rows["host"]["where"]) == ("environment", "RKLLAMA_HOST")
    settings: Any = load_settings()
    for name, row in rows.items():
        value = getattr(settings, name)
        if name not in ("api_keys", "runtime_url"):
            assert row["value"] == (list(value) if isinstance(value, tuple) else value), name


@pytest.mark.integration
def test_one_value_for_a_script(file: Path) -> None:
    file.write_text('keep_alive = "30m"\napi_keys = "secret"\n')
    assert output("config", "get", "keep_alive") == "30m\n"
    assert output("config", "get", "models") == f"{file.parent}/models\n"
    assert output("config", "get", "rkllm_abi") == ""
    error = failure("config", "get", "api_keys")
    assert "API keys are not shown" in error
    assert "secret" not in error
    assert "Did you mean keep_alive?" in failure("config", "get", "keep-alife")
    assert "`rkllama config` lists them" in failure("config", "get", "xyzzy")


@pytest.mark.integration
@pytest.mark.parametrize("columns", [40, 80])
def test_it_fits_the_terminal(columns: int, file: Path) -> None:
    with Terminal("config", columns=columns, env={"RKLLAMA_MODELS": "/tmp/a\x1b[31mb"}) as terminal:
        assert terminal.end() == 0
        assert "\x1b[31m" not in terminal.raw
        long = [line for line in terminal.screen.splitlines() if len(line) > columns]
    assert long in ([], [str(file)]), "but for the path, which is to be copied"


@pytest.mark.integration
def test_a_value_that_cannot_be_used_is_shown_and_can_be_removed(file: Path) -> None:
    file.write_text('keep_alive = "soon"\nthreads = 2\n')
    assert "keep_alive" in failure("ps"), "nothing else works"
    done = rkllama("config")
    assert done.returncode == 1
    assert "  keep_alive  soon: it is not a duration such as 30s or 5m\n" in done.stdout
    assert "  threads     2\n" in done.stdout
    assert done.stderr.startswith("Error: keep_alive cannot be used as set\n")
    assert "it is not a duration" in failure("config", "get", "keep_alive")
    assert rkllama("config", "unset", "keep_alive").stderr.startswith("Removed keep_alive from ")
    assert file.read_text() == "threads = 2\n"
    file.write_text("thread = 2\nhome = '/x'\n")
    done = rkllama("config")
    assert done.returncode == 1
    assert "there is no setting 'thread', which" in done.stderr
    assert "Did you mean threads?" in done.stderr
    assert rkllama("config", "unset", "thread").returncode == 0
    assert "home cannot be set in the file" in rkllama("config").stderr
    assert rkllama("config", "unset", "home").returncode == 0
    assert output("config", "get", "threads") == "0\n"


# --- What is changed ---------------------------------------------------------------------------


@pytest.mark.integration
def test_a_setting_is_set_and_removed(home: Path) -> None:
    file = home / "RKLLAMA" / "config.toml"
    done = rkllama("config", "set", "keep_alive", "-1")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"Set keep_alive = -1 in {file}\n"
    assert rkllama("config", "set", "keep_alive", "-1").stderr.startswith("Already set: keep_alive")
    assert (
        rkllama("config", "set", "api_keys", "top-secret").stderr
        == f"Set api_keys = 1 key in {file}\n"
    )
    assert file.read_text() == 'keep_alive = -1\napi_keys = ["top-secret"]\n'
    assert file.stat().st_mode & 0o777 == 0o600
    assert rkllama("config", "unset", "api_keys").stderr == f"Removed api_keys from {file}\n"
    done = rkllama("config", "unset", "api_keys")
    assert (done.returncode, done.stderr) == (0, f"api_keys is not set in {file}\n")
    assert file.read_text() == "keep_alive = -1\n"


WRONG = [
    (("keep_alive", "soon"), "keep_alive cannot be 'soon': it is not a duration"),
    (("max_loaded", "65"), "it must be between 1 and 64"),
    (("llama_server", "-ngl 9"), "it must begin with a program"),
    (("origins", "example.org"), "is not an origin"),
    (("api_keys", ", "), "api_keys cannot be used: it contains no key"),
    (("api_keys", "@/no/such"), "/no/such cannot be read"),
    (("host", "https://x:1"), "cannot be 'https://x:1'"),
    (("home", "/x"), "home cannot be set in the file, which lies there\nSet the variable"),
    (("keepalive", "5m"), "there is no setting 'keepalive'\nDid you mean keep_alive?"),
]


@pytest.mark.integration
@pytest.mark.parametrize(("arguments", "reason"), WRONG, ids=[words[0] for words, _ in WRONG])
def test_what_cannot_be_used_is_not_written(
    arguments: tuple[str, str], reason: str, file: Path
) -> None:
    file.write_text("# mine\n")
    assert reason in failure("config", "set", *arguments)
    assert file.read_text() == "# mine\n"


@pytest.mark.integration
def test_a_file_that_is_broken_elsewhere_is_not_touched(file: Path) -> None:
    file.write_text("threads = \n")
    assert "threads cannot be changed in" in failure("config", "set", "threads", "2")
    assert "config.toml cannot be read" in failure("config")
    assert file.read_text() == "threads = \n"


@pytest.mark.integration
def test_what_overrules_the_file_is_told(file: Path) -> None:
    done = rkllama("config", "set", "threads", "2", env={"RKLLAMA_THREADS": "3"})
    assert done.stderr.endswith("\nNote: RKLLAMA_THREADS=3 is set here and overrules the file.\n")
    done = rkllama("config", "set", "api_keys", "a", env={"RKLLAMA_API_KEY": "secret"})
    assert "Note: RKLLAMA_API_KEY is set here" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.integration
def test_a_running_server_has_to_be_restarted(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RKLLAMA_HOST", server.url)
    note = f"Note: restart the server at {server.url} for it to count there.\n"
    assert rkllama("config", "set", "threads", "2").stderr.endswith(note)
    assert "restart" not in rkllama("config", "set", "threads", "2").stderr, "nothing has changed"
    assert rkllama("config", "unset", "threads").stderr.endswith(note)
    done = rkllama("config", "set", "threads", "2", env={"RKLLAMA_HOME": str(tmp_path / "other")})
    assert done.returncode == 0
    assert "restart" not in done.stderr, "it has another home"
    assert os.listdir(tmp_path / "other") == ["config.toml"]
