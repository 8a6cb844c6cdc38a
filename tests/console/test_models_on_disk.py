"""What the commands say of the models on disk that are special: behind links, incomplete, named by a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.terminal import Terminal
from tests.test_cli import output, rkllama
from tests.virtual_npu import write_model

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
