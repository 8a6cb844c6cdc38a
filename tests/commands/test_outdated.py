"""`rkllama outdated` and `pull --update`: what the Hub has newer is told and fetched, and only that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.loopback import HubFile, LoopbackHub
from tests.test_cli import failure, rkllama

pytestmark = pytest.mark.integration


@pytest.fixture
def remote(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Two models are here: one under its file's name, one under a name of its own from a branch."""
    with LoopbackHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        server.add("user/one", {"one-w8a8.rkllm": b"first" * 1000})
        server.add("user/two", {"sub/two.rkllm": b"second" * 1000}, revisions=("main", "v2"))
        for reference in ("user/one/one-w8a8.rkllm", "user/two/sub/two.rkllm/second:2b@v2"):
            done = rkllama("pull", reference)
            assert done.returncode == 0, done.stderr
        yield server


def renew(remote: LoopbackHub, repo: str, file: str, content: bytes) -> None:
    remote.repos[repo].files[file] = HubFile(content=content)


def test_nothing_is_outdated_at_first(remote: LoopbackHub) -> None:
    done = rkllama("outdated")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "No pulled model is outdated.\n"
    assert rkllama("outdated", "--json").stdout == "[]\n"
    assert rkllama("pull", "--update").stderr == "Nothing to update.\n"


def test_a_newer_file_is_told_and_fetched_in_its_place(remote: LoopbackHub, models: Path) -> None:
    renew(remote, "user/two", "sub/two.rkllm", b"newer!" * 1000)  # of the same size
    done = rkllama("outdated")
    head, row = done.stdout.splitlines()
    assert head.split() == ["NAME", "SIZE", "FROM"]
    assert row.split() == ["second:2b", "6.0", "kB", "user/two"]
    (entry,) = json.loads(rkllama("outdated", "--json").stdout)
    assert (entry["name"], entry["revision"]) == ("second:2b", "v2")
    done = rkllama("pull", "--update")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "Updated second:2b"
    assert (models / "second:2b" / "two.rkllm").read_bytes() == b"newer!" * 1000
    assert sorted(path.name for path in models.iterdir() if path.name[0] != ".") == [
        "one-w8a8",
        "second:2b",
    ]
    assert rkllama("outdated").stdout == ""


def test_one_that_is_named_and_one_that_is_gone(remote: LoopbackHub, models: Path) -> None:
    renew(remote, "user/one", "one-w8a8.rkllm", b"newer" * 2000)
    del remote.repos["user/two"]
    done = rkllama("outdated")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1].startswith("one-w8a8 ")
    assert done.stderr.startswith("second:2b: ")
    done = rkllama("pull", "--update", "one-w8a8")
    assert done.returncode == 0
    assert (models / "one-w8a8" / "one-w8a8.rkllm").read_bytes() == b"newer" * 2000
    assert "was not pulled" in failure("pull", "--update", "unknown")
    assert "it is missing" in failure("pull", status=2)
