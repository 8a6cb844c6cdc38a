"""How things are printed: times as people say them, tables that fit, colours only where they are shown."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rkllama.console.loading import LoadingText, bytes_of
from rkllama.console.output import human_time
from rkllama.types import LoadedModel, ModelInfo
from tests.running import Server
from tests.terminal import Terminal
from tests.test_cli import output
from tests.virtual_npu import write_model

pytestmark = pytest.mark.integration

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (59 * _MINUTE, "59 minutes ago"),
        (_HOUR, "1 hour ago"),
        (47 * _HOUR, "47 hours ago"),
        (2 * _DAY, "2 days ago"),
        (13 * _DAY, "13 days ago"),
        (14 * _DAY, "2 weeks ago"),
        (60 * _DAY, "8 weeks ago"),
        (70 * _DAY, "2 months ago"),
        (700 * _DAY, "22 months ago"),
        (10_000_000_000 - 129_600, "1970-01-02"),
        (-400 * _DAY - 18 * _HOUR, "2287-12-26"),
    ],
)
def test_times_as_people_say_them(ago: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10_000_000_000
    monkeypatch.setattr(time, "time", lambda: float(now))
    assert human_time(now - ago) == text
    assert human_time(None) == "-"


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_lists_fit_the_terminal(columns: int, models: Path, npu: str, server: Server) -> None:
    long = "a-very-long-name-of-a-model-that-somebody-made-7b-w8a8_g128-opt-1-rk3588"
    write_model(models / f"{long}.rkllm")
    write_model(models / "short.rkllm")
    (models / "cut").mkdir()
    (models / "cut" / "cut.rkllm.part").write_bytes(bytes(470))
    (models / "cut" / "cut.rkllm.part.json").write_text('{"size": 1000, "etag": ""}')
    env = {"RKLLAMA_HOST": server.url}
    output("run", long, "hello", env=env)
    for command in ("list", "ps"):
        with Terminal(command, columns=columns, env=env) as screen:
            assert screen.end() == 0
        through, *lines = screen.screen.splitlines()
        if command == "ps":
            assert "memory free" in lines.pop(0)  # of the board
        head, *rows = lines
        assert through == f"Through the server at {server.url}."
        assert max(map(len, (head, *rows))) <= columns
        assert rows[0].startswith("a-very-")
        assert "rk3588 " in rows[0]
        assert "STATE" in head
        assert ("…" in rows[0]) == (columns < 120 or command == "list")
        if command == "list":
            assert rows[0].endswith("  loaded")
            assert rows[1].startswith("cut ")
            assert rows[1].endswith("  incomplete 47%")


def test_colours_are_for_terminals_that_want_them(models: Path) -> None:
    write_model(models / "m.rkllm")
    for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        with Terminal("list", env=env) as screen:
            assert screen.end() == 0
        assert ("\x1b[1mNAME " in screen.raw) == coloured
        with Terminal("show", "nothing", env=env) as screen:
            assert screen.end() == 1
        assert ("\x1b[31mError:\x1b[0m model" in screen.raw) == coloured
        assert coloured or "\x1b" not in screen.raw


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_long_values_go_on_in_their_own_column(columns: int, models: Path) -> None:
    (models / "m").mkdir()
    write_model(models / "m" / ("x" * 60 + ".rkllm"))
    (models / "m" / "Modelfile").write_text("SYSTEM " + "many words " * 30)
    with Terminal("show", "m", columns=columns) as screen:
        assert screen.end() == 0
    lines = screen.screen.splitlines()
    assert max(map(len, lines)) <= columns
    number = next(number for number, line in enumerate(lines) if line.startswith("  file"))
    begin = lines[number].index("/")
    path = lines[number][begin:]
    while not path.endswith(".rkllm"):
        number += 1
        assert lines[number].startswith(" " * begin)
        path += lines[number][begin:]
    assert path == str(models / "m" / ("x" * 60 + ".rkllm"))
    system = lines[lines.index("System") + 1 : lines.index("Note")]
    words = " ".join(line.strip() for line in system).strip()
    assert words == ("many words " * 30).strip()
    assert "\x1b[1mSystem\x1b[0m" in screen.raw
    assert output("show", "m").count("x.rkllm\n") == 1


def test_loading_tells_how_far_it_is(tmp_path: Path) -> None:
    """A process that reads a large file stands for one that loads it."""
    file = tmp_path / "m.rkllm"
    file.touch()
    os.truncate(file, 419_430_400)
    program = (
        "import sys; f = open(sys.argv[1], 'rb')\n"
        "print(sum(len(f.read(1 << 20)) for _ in range(400)), flush=True); input()"
    )
    info = ModelInfo(
        name="m", file="m.rkllm", path=str(file), format="rkllm", size=419_430_400, modified=0
    )
    with subprocess.Popen(
        [sys.executable, "-c", program + " # rkllama.runner.child", str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as reader:  # fmt: skip
        service = _Loading(info, reader.pid)
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"419430400\n"
        assert LoadingText(service, info)() == "Loading m… 99%"  # type: ignore[arg-type]
        half = replace(info, size=bytes_of(reader.pid) * 2)
        assert LoadingText(service, half)() == "Loading m… 50%"  # type: ignore[arg-type]
        small = replace(info, size=100_000_000)
        assert LoadingText(service, small)() == "Loading m…"  # type: ignore[arg-type]
        reader.communicate(b"\n")
    other = _Loading(info, os.getpid())  # as the number of another machine's process may be
    assert LoadingText(other, info)() == "Loading m…"  # type: ignore[arg-type]
    assert bytes_of(reader.pid) == 0


class _Loading:
    """As much of a service as tells which process loads a model."""

    def __init__(self, info: ModelInfo, pid: int) -> None:
        self._model = LoadedModel(info=info, state="loading", pid=pid)

    def loaded(self) -> list[LoadedModel]:
        return [self._model]
