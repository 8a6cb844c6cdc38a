"""What the commands say of the models on disk that are special: behind links, incomplete, named by a path."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.hub.loopback import Fault, LoopbackHub
from tests.running import Server
from tests.terminal import CTRL_C, Terminal
from tests.test_cli import output, rkllama
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
        f"Passed over gone.rkllm: it is a link to {tmp_path}/gone.rkllm, which is not there.\n"
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
            *("mine", "1.0", "MB", "-", "-", "-", "incomplete", "50%")
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
