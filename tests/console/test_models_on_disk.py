"""What the commands say of the models on disk that are special: behind links, incomplete, named by a path."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest

from rkllama.files import IMPORT_ROOT
from tests import prepared
from tests.hub.loopback import Fault, LoopbackHub
from tests.running import LIMIT, Server
from tests.terminal import CTRL_C, Terminal
from tests.test_cli import failure, output, rkllama
from tests.virtual_npu import write_model
from tests.waiting import until

pytestmark = pytest.mark.integration


def test_models_behind_links_are_used_and_others_told(
    models: Path, npu: str, tmp_path: Path
) -> None:
    write_model(tmp_path / "disk.rkllm")
    (models / "far.rkllm").symlink_to(tmp_path / "disk.rkllm")
    (models / "gone.rkllm").symlink_to(tmp_path / "gone.rkllm")
    listed = rkllama("list")
    assert listed.stderr == (
        f"Note: passed over gone.rkllm: it is a link to {tmp_path}/gone.rkllm, which is not there.\n"
    )
    assert listed.stdout.splitlines()[1].startswith("far ")
    assert output("run", "far", "hello")
    assert "gone.rkllm: it is a link to " in rkllama("run", "gone", "hello").stderr
    with Terminal("rm", "far") as screen:
        screen.expect(f"Delete far (a link; {tmp_path}/disk.rkllm stays)? [y/N] ")
        screen.type("y\n")
        assert screen.end() == 0
    assert not (models / "far.rkllm").is_symlink()
    assert (tmp_path / "disk.rkllm").exists()


@pytest.mark.parametrize("through_a_server", [False, True])
def test_an_interrupted_download_is_listed_and_goes_with_rm(
    through_a_server: bool, models: Path, npu: str
) -> None:
    file = "m-w8a8-rk3588.rkllm"
    part = models / "mine" / f"{file}.part"
    with LoopbackHub() as hub, contextlib.ExitStack() as stack:
        hub.add("user/repo", {file: bytes(2_000_000)})
        held = Fault(hold_after=1_000_000)
        hub.fail(file, held)
        env = {"HF_ENDPOINT": hub.endpoint}
        with Terminal("pull", f"user/repo/{file}/mine", env=env) as command:
            command.expect("/2.0 MB")
            until(lambda: part.stat().st_size == 1_000_000)
            command.type(CTRL_C)
            command.expect(f"To resume: rkllama pull user/repo/{file}/mine\n")
            assert command.end() == 130
        held.released.set()
        if through_a_server:
            server = stack.enter_context(Server())
            env = {"RKLLAMA_HOST": f"127.0.0.1:{server.port}"}
        assert output("list", env=env).splitlines()[1].split() == [
            *("mine", "1.0", "MB", "-", "-", "-", "just", "now", "incomplete", "50%")
        ]
        assert output("list", "--json", env=env) == "[]\n"
        said = rkllama("run", "mine", "hello", env=env)
        assert said.returncode == 1
        assert said.stderr.splitlines()[-2:] == [
            "Error: the download of 'mine' is incomplete: 1.0 of 2.0 MB",
            f"Continue it: rkllama pull user/repo/{file}/mine; or remove it: rkllama rm mine",
        ]
        with Terminal("rm", "min", env=env) as screen:
            screen.expect("Delete mine (incomplete, 1.0 MB)? [y/N] ")
            screen.type("y\n")
            screen.expect("Deleted mine\n")
            assert screen.end() == 0
    assert not (models / "mine").exists()


def test_a_file_is_run_where_it_lies(
    models: Path, npu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    folder = tmp_path / "my models"
    folder.mkdir()
    write_model(folder / "far-w8a8.rkllm")
    (folder / "Modelfile").write_text("FROM far-w8a8.rkllm\nSYSTEM Be brief.")
    before = sorted(os.listdir(folder))
    assert "hello" in output("run", f"{folder}/far-w8a8.rkllm", "hello")
    with Terminal("run", f"{folder}/far-w8a8.rkllm") as chat:
        chat.expect("Chat with far-w8a8.")
        chat.expect(">>> ")
        assert chat.ask("/show system") == "Be brief."
        assert "cannot be saved" in chat.ask("/save mine")
        chat.type("/bye\n")
        assert chat.end() == 0
    done = prepared.run(
        [sys.executable, "-m", "rkllama", "run", "far-w8a8.rkllm", "hello"],
        cwd=folder, capture_output=True, check=True, text=True, timeout=LIMIT,
        env={**os.environ, "PYTHONPATH": IMPORT_ROOT},
    )  # fmt: skip
    assert "hello" in done.stdout
    assert sorted(os.listdir(folder)) == before
    assert os.listdir(models) == []
    assert os.listdir(tmp_path / "tmp") == []


def test_a_path_into_the_models_directory_is_a_name(models: Path, npu: str, server: Server) -> None:
    (models / "deep").mkdir()
    write_model(models / "deep" / "m.rkllm")
    env = {"RKLLAMA_HOST": server.url}
    assert output("run", f"{models}/deep/m.rkllm", "hello", env=env)
    assert output("ps", env=env).splitlines()[1].startswith("deep ")


def test_a_path_where_nothing_is_and_a_busy_npu(
    models: Path, npu: str, server: Server, tmp_path: Path
) -> None:
    assert failure("run", "./far.rkllm", "hello") == (
        "Error: model './far.rkllm' not found\nThere is no model file of this name.\n"
    )
    assert "rkllama list" in failure("run", "user/repo/far.rkllm", "hello")
    write_model(models / "m.rkllm")
    write_model(tmp_path / "far.rkllm")
    env = {"RKLLAMA_HOST": server.url}
    output("run", "m", "hello", env=env)
    complaint = failure("run", f"{tmp_path}/far.rkllm", "hello", env=env)
    assert "the NPU is in use by `rkllama serve`" in complaint
