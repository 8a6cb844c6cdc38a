"""Holding the governors where something is amiss: what is logged, once, and that models go on."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllama.board.governor_helper import state_directory
from rkllama.board.governor_keeper import Keeper
from rkllama.board.governors import Governors
from tests.board.governors import BEFORE, FAST, governors, listen
from tests.board.test_governor_helper import Serving
from tests.waiting import Task, until


@pytest.fixture
def held(caplog: pytest.LogCaptureFixture) -> Iterator[Governors]:
    """What a process holds whose user wants it."""
    caplog.set_level(logging.INFO, "rkllama")
    wanted = Governors("performance")
    yield wanted
    wanted.drop("m")
    wanted.settle()


def test_without_a_helper_and_without_rights_the_cure_is_told_once(
    board: Path,
    held: Governors,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    for model in ("m", "m", "n"):
        held.hold(model)
    assert governors() == BEFORE
    [text] = caplog.messages
    assert text.startswith("governors: only root may set them, and their helper is not here: ")
    assert text.endswith("sudo rkllama service install")


def test_a_kernel_without_governors_is_told(
    board: Path,
    held: Governors,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(tmp_path))
    held.hold("m")
    assert caplog.messages == ["governors: this kernel has none that can be set"]


def test_unset_nothing_is_tried(board: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rkllama")
    held = Governors(None)
    with listen(board) as listener:
        held.hold("m")
        held.drop("m")
        held.settle()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("reply", "warning"),
    [
        (b"", "governors: their helper hung up: "),
        (b"not json\n", ""),
        (b"{}\n", ""),
        (b'{"error": "no room"}\n', "governors: no room"),
        (b'{"refused": {"npu": "busy"}}\n', "governors: that of npu cannot be set: busy"),
    ],
)
def test_whatever_answers_at_the_socket_stops_no_load(
    board: Path, held: Governors, caplog: pytest.LogCaptureFixture, reply: bytes, warning: str
) -> None:
    with listen(board) as listener:

        def answer() -> socket.socket:
            connection, _ = listener.accept()
            connection.recv(16)
            connection.sendall(reply)
            if not reply:
                connection.close()
            return connection

        task = Task(answer)
        held.hold("m")
        task.result().close()
    assert "".join(caplog.messages).startswith(warning)
    assert len(caplog.messages) == bool(warning)


def test_the_hold_ends_with_the_last_model(
    board: Path, held: Governors, caplog: pytest.LogCaptureFixture
) -> None:
    serving = Serving(Keeper(state_directory()), board, idle=60)
    held.hold("m")
    held.hold("n")
    assert governors() == FAST
    held.drop("m")
    held.settle()
    held.drop("n")
    held.hold("o")  # it takes the place of the last one
    held.settle()
    assert governors() == FAST
    held.drop("o")
    held.settle()
    until(lambda: governors() == BEFORE)
    serving.stop()
    assert caplog.messages == ["governors: performance for npu, ddr, cpu0-3, cpu4-5, cpu6-7"]
