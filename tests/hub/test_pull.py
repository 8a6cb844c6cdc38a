"""`pull` against a Hub on the loopback: resumption, verification, refusals, and where files end up."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllama.config import load_settings
from rkllama.engine.service import LocalService
from rkllama.errors import (
    AmbiguousName,
    ConfigError,
    DiskFull,
    HubGated,
    HubNotFound,
    HubUnreachable,
    IntegrityError,
    InvalidRequest,
    ModelIncomplete,
    ModelNotFound,
    PullError,
    Unsupported,
)
from rkllama.files import RESERVE
from rkllama.hub import api as hub
from rkllama.hub import partial as part
from rkllama.hub import pull, sidecars
from rkllama.models.authoring import WritableStore
from rkllama.models.digests import DigestCache
from rkllama.models.reference import Reference, parse_reference
from rkllama.models.scan import scan
from rkllama.models.store import Store
from rkllama.types import PullProgress
from tests import prepared
from tests.cases import cases
from tests.fuzzing import examples
from tests.hub.loopback import Fault, HubFile, LoopbackHub
from tests.running import LIMIT, Server

pytestmark = pytest.mark.integration

FILE = "m-w8a8-rk3588.rkllm"
CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_login(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token and no proxy of the person who runs the tests; waiting costs nothing."""
    for name in list(os.environ):
        if name.startswith("HUGGING") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(home / "hf" / "token"))
    monkeypatch.setattr(pull, "LOOK_EVERY", 0.005)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        server.add("user/repo", {FILE: CONTENT, "README.md": b"# A model"})
        yield server


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def fetch(
    models: Path, reference: str = f"hf/user/repo/{FILE}", **values: Any
) -> list[PullProgress]:
    return list(pull.pull(reference, str(models), backoff=0, **values))


def break_off(remote: LoopbackHub, models: Path, count: int) -> None:
    """A pull that fails after so many bytes."""
    remote.fail(FILE, Fault(drop_after=count), *[Fault(drop_after=0)] * pull.RETRIES)
    with pytest.raises(HubUnreachable):
        fetch(models)
    assert part.unfinished(str(models / "m-w8a8-rk3588" / FILE)) == count


def names(models: Path) -> list[str]:
    return [entry.name for entry in scan(str(models))]


def left_over(models: Path) -> list[str]:
    """What a finished pull must not leave."""
    return [str(path) for path in models.rglob("*") if ".part" in path.name or ".new" in path.name]


# --- References --------------------------------------------------------------------------------


@cases(
    ("text", "repo", "file", "revision"),
    [
        ("hf/u/r/f.rkllm", "u/r", "f.rkllm", None),
        ("u/r/f.rkllm", "u/r", "f.rkllm", None),
        (" u/r/f.GGUF ", "u/r", "f.GGUF", None),
        ("u/r", "u/r", None, None),
        ("hf/u/r/a/b/f.rkllm", "u/r", "a/b/f.rkllm", None),
        ("u/r/f.rkllm@v1.1", "u/r", "f.rkllm", "v1.1"),
        ("u/r/f.rkllm@refs/pr/3", "u/r", "f.rkllm", "refs/pr/3"),
        ("u/r@v1/f.rkllm", "u/r", "f.rkllm", "v1"),
        ("u/r@v1/a/f.rkllm", "u/r", "a/f.rkllm", "v1"),
        ("u/r@refs/pr/3", "u/r", None, "refs/pr/3"),
        ("u/r@main", "u/r", None, "main"),
        ("u/r/", "u/r", None, None),
        ("j/m_w8a8_rk3588.rkllm", "j/m_w8a8_rk3588.rkllm", None, None),
        ("j/m.rkllm@v2", "j/m.rkllm", None, "v2"),
        ("hf/j/m.rkllm/m.rkllm@v2", "j/m.rkllm", "m.rkllm", "v2"),
        ("j/m.rkllm@v2/m.rkllm", "j/m.rkllm", "m.rkllm", "v2"),
        ("u/r/a@b.rkllm", "u/r", "a@b.rkllm", None),
        ("hf.co/u/r/f.gguf", "u/r", "f.gguf", None),
        ("huggingface.co/u/r", "u/r", None, None),
        ("hf.co/u/r:latest", "u/r", None, None),
        ("https://huggingface.co/u/r", "u/r", None, None),
        ("https://huggingface.co/u/r/blob/main/f.rkllm", "u/r", "f.rkllm", "main"),
        ("https://hf.co/u/r/resolve/v1/a/f.rkllm?download=true", "u/r", "a/f.rkllm", "v1"),
        ("https://huggingface.co/u/r/tree/v1", "u/r", None, "v1"),
        (
            "https://huggingface.co/u/r/blob/refs%2Fpr%2F3/f%20x.gguf",
            "u/r",
            "f x.gguf",
            "refs/pr/3",
        ),
    ],
)
def test_references(text: str, repo: str, file: str | None, revision: str | None) -> None:
    assert parse_reference(text) == Reference(repo=repo, file=file, revision=revision)


def test_a_reference_may_tell_the_kind_as_those_of_ollama_do() -> None:
    assert parse_reference("hf.co/u/r:Q4_K_M") == Reference(repo="u/r", tag="Q4_K_M")
    assert parse_reference("u/r:m-Q8_0.gguf@v1") == Reference(
        repo="u/r", tag="m-Q8_0.gguf", revision="v1"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf/",
        "hf.co/model",
        "u/r:",
        "u/r:../x",
        "u/r:a b",
        "u/r:Q8_0/f.gguf",
        "u:x/r",
        "model",
        "hf/model",
        "/u/r/f.rkllm",
        "u//f.rkllm",
        "u/r//f.rkllm",
        "../r/f.rkllm",
        "u/../f.rkllm",
        "u/..",
        "u/r/../f.rkllm",
        "u/r/../../etc/f.rkllm",
        "u/r/./f.rkllm",
        "u/r/.hidden.rkllm",
        "u/r/.rkllm",
        "u/r/.git/f.rkllm",
        "u/r/a\\b.rkllm",
        "u/r/a\nb.rkllm",
        "u/r/a\0b.rkllm",
        "u/r/\x1b[2J.rkllm",
        "u/r/" + "x" * 300 + ".rkllm",
        "u/r/model.safetensors",
        "u/r/f.rkllm@",
        "u/r/f.rkllm@a b",
        "u/r/f.rkllm@../x",
        "u/r/f.rkllm@a?b",
        "u/r@v1/f.rkllm@v2",
        "u r/x/f.rkllm",
        "-u/r/f.rkllm",
        "u/r?x/f.rkllm",
        "u/r#x/f.rkllm",
        "u/" + "r" * 200,
        "é/r/f.rkllm",
        "https://huggingface.co/",
        "https://huggingface.co/u",
        "https://huggingface.co/u/r/blob/main/..%2F..%2Ff.rkllm",
        "https://huggingface.co/u/r/blob/main/%2Fetc%2Ff.rkllm",
        "https://huggingface.co/u/r/settings/x",
        "https://huggingface.co/u/r/blob/%2E%2E/f.rkllm",
        "https://huggingface.co/datasets/u/r/blob/main/f.rkllm",
        "file:///etc/f.rkllm",
        "https://[::1/u/r/blob/main/f.rkllm",
        "u/r/f.rkllm@\ud800",
        "u/r/\ud800.rkllm",
    ],
)
def test_references_that_are_none(text: str, models: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        fetch(models, text)
    assert caught.value.hint
    assert caught.value.text.isprintable()
    assert not models.exists()


WORDS = (
    "hf/ u r : Q8_0 / @ . .. f.rkllm .gguf main https://huggingface.co/ blob %2e %2F \\ ? # é - _ ~"
)
PIECES = st.sampled_from([*WORDS.split(" "), "\0", "\n", " ", "\ud800"])


@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=40))
@settings(max_examples=examples(4))
def test_whatever_is_accepted_is_safe(text: str) -> None:
    try:
        found = parse_reference(text)
    except InvalidRequest:
        return
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", found.repo, re.ASCII)
    for path in filter(None, (found.file, found.repo)):
        assert os.path.normpath(path) == path
        assert path.isprintable()
        assert not path.startswith("/")
        assert ".." not in path.split("/")
    assert found.revision is None or found.revision.isprintable()
    assert found.tag is None or re.fullmatch(r"[\w.+-]+", found.tag, re.ASCII)


# --- The download ------------------------------------------------------------------------------


def test_a_model_arrives(remote: LoopbackHub, models: Path) -> None:
    steps = fetch(models)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert [step.status for step in steps if step.status != "downloading"] == [
        "resolving",
        "verifying",
        "done",
    ]
    assert steps[0].file == FILE
    assert steps[-1].name == "m-w8a8-rk3588"
    assert {step.digest for step in steps[1:]} == {SHA256}
    assert {step.total for step in steps[1:]} == {len(CONTENT)}
    assert steps[-1].completed == len(CONTENT)
    assert left_over(models) == []
    assert [entry.name for entry in scan(str(models))] == ["m-w8a8-rk3588"]


def test_nothing_happens_before_the_first_step(remote: LoopbackHub, models: Path) -> None:
    pull.pull(f"user/repo/{FILE}", str(models)).close()
    pull.pull("no reference", str(models)).close()
    assert remote.seen == []
    assert not models.exists()


def test_progress_counts_up_and_is_reported_in_time(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "REPORT_EVERY", 0.0)
    counts = [step.completed for step in fetch(models) if step.status == "downloading"]
    assert counts[0] == 0
    assert counts[-1] == len(CONTENT)
    assert counts == sorted(counts)
    assert len(counts) > 10


def test_progress_is_not_reported_per_chunk(remote: LoopbackHub, models: Path) -> None:
    remote.add("user/large", {"large.rkllm": bytes(20_000_000)})
    assert len(fetch(models, "user/large")) < 50


def test_a_lost_connection_is_continued_where_it_broke(remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(drop_after=1_000_000), Fault(drop_after=500_000), Fault(status=503))
    fetch(models)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    ranges = [seen.headers.get("range") for seen in remote.downloads(FILE)]
    assert ranges == [None, "bytes=1000000-", "bytes=1500000-", "bytes=1500000-"]


def test_progress_gives_the_tries_back(remote: LoopbackHub, models: Path) -> None:
    drops = [Fault(drop_after=100_000) for _ in range(3 * pull.RETRIES)]
    remote.fail(FILE, *drops)
    fetch(models)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert len(remote.downloads(FILE)) == len(drops) + 1


def test_it_is_given_up_when_nothing_comes(remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(drop_after=1_000_000), *[Fault(drop_after=0)] * pull.RETRIES)
    with pytest.raises(HubUnreachable, match="5 attempts") as caught:
        fetch(models)
    assert "resume after 1 MB" in (caught.value.hint or "")
    steps = fetch(models)
    assert steps[-1].status == "done"
    assert {step.resumed for step in steps if step.status == "downloading"} == {1_000_000}


def test_pauses_grow_and_a_server_may_ask_for_longer_ones(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    later = Fault(status=429, headers={"Retry-After": "7"})
    forever = Fault(status=503, headers={"Retry-After": "86400"})
    odd = Fault(status=500, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    remote.fail(FILE, Fault(drop_after=9), Fault(status=500), later, odd, forever)
    list(pull.pull(f"user/repo/{FILE}", str(models)))
    assert pauses == [1.0, 2.0, 7.0, 8.0, 60.0]


def test_an_ignored_range_costs_time_but_no_byte(remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(drop_after=1_000_000), Fault(ignore_range=True))
    fetch(models)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT


def test_a_wrong_range_is_not_appended(remote: LoopbackHub, models: Path) -> None:
    wrong = f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"
    remote.fail(
        FILE,
        Fault(drop_after=1_000_000),
        Fault(headers={"Content-Range": wrong}, ignore_range=True),
        Fault(headers={"Content-Range": "garbage"}),
    )
    fetch(models)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT


def test_another_length_is_noticed_in_a_continuation(remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(drop_after=1_000_000), Fault(content=bytes(4_000_000)))
    with pytest.raises(IntegrityError, match="4000000 bytes"):
        fetch(models)


def test_a_refused_range_starts_again(remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(drop_after=1_000_000), Fault(status=416))
    fetch(models)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert [seen.headers.get("range") for seen in remote.downloads(FILE)][2] is None


def test_an_expired_storage_address_is_renewed(remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(status=403), Fault(status=404))
    fetch(models)
    asked_hub = [s for s in remote.seen if s.origin == remote.endpoint and s.method == "GET"]
    assert len([s for s in asked_hub if "/resolve/" in s.path and "README" not in s.path]) == 3


def test_another_status_is_not_retried(remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(status=418))
    with pytest.raises(PullError, match="status 418"):
        fetch(models)
    assert len(remote.downloads(FILE)) == 1


def test_wrong_bytes_of_the_right_length(remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(content=CONTENT[:-1] + b"!"))
    with pytest.raises(IntegrityError, match=SHA256):
        fetch(models)
    assert names(models) == []
    assert left_over(models) == []
    fetch(models)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [10, 4_000_000])
def test_another_length_is_noticed_before_it_is_fetched(
    length: int, remote: LoopbackHub, models: Path
) -> None:
    remote.fail(FILE, Fault(content=bytes(length)))
    with pytest.raises(IntegrityError, match=f"{length} bytes"):
        fetch(models)
    assert names(models) == []


def test_a_damaged_part_is_thrown_away_once(remote: LoopbackHub, models: Path) -> None:
    break_off(remote, models, 1_000_000)
    unfinished = models / "m-w8a8-rk3588" / f"{FILE}.part"
    unfinished.write_bytes(b"?" + unfinished.read_bytes()[1:])
    fetch(models)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert [s.headers.get("range") for s in remote.downloads(FILE)][-2:] == ["bytes=1000000-", None]


def test_after_a_damaged_part_wrong_bytes_are_an_error(remote: LoopbackHub, models: Path) -> None:
    break_off(remote, models, 1_000_000)
    unfinished = models / "m-w8a8-rk3588" / f"{FILE}.part"
    unfinished.write_bytes(bytes(1_000_000))
    remote.fail(FILE, Fault(), Fault(content=bytes(len(CONTENT))))
    with pytest.raises(IntegrityError, match=SHA256):
        fetch(models)
    assert left_over(models) == []


def test_a_part_of_other_content_is_not_continued(remote: LoopbackHub, models: Path) -> None:
    break_off(remote, models, 1_000_000)
    newer = CONTENT[::-1]
    remote.repos["user/repo"].files[FILE] = HubFile(content=newer)
    fetch(models)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == newer
    assert remote.downloads(FILE)[-1].headers.get("range") is None


def test_a_part_that_is_too_long_or_unmarked_is_not_continued(
    remote: LoopbackHub, models: Path
) -> None:
    folder = models / "m-w8a8-rk3588"
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").write_bytes(CONTENT[:1000])
    fetch(models)
    assert remote.downloads(FILE)[-1].headers.get("range") is None
    (folder / FILE).unlink()
    (folder / f"{FILE}.part").write_bytes(CONTENT + b"more")
    (folder / f"{FILE}.part.json").write_text(json.dumps({"size": len(CONTENT), "etag": SHA256}))
    fetch(models)
    assert (folder / FILE).read_bytes() == CONTENT


def test_a_complete_part_needs_no_connection(remote: LoopbackHub, models: Path) -> None:
    folder = models / "m-w8a8-rk3588"
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").write_bytes(CONTENT)
    (folder / f"{FILE}.part.json").write_text(json.dumps({"size": len(CONTENT), "etag": SHA256}))
    assert fetch(models)[-1].name == "m-w8a8-rk3588"
    assert remote.downloads(FILE) == []


MARKS = ['"d41d8cd98f00b204e9800998ecf8427e"', 'W/"5f3-18c"', f'"{"g" * 64}"', '"a-5"', ""]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("lfs", [True, False])
def test_a_mark_that_is_no_hash_gives_way_to_the_repositorys_own(
    remote: LoopbackHub, models: Path, mark: str, lfs: bool
) -> None:
    remote.repos["user/repo"].files[FILE] = HubFile(content=CONTENT, lfs=lfs, mark=mark)
    remote.fail(FILE, Fault(content=CONTENT[::-1]))
    if lfs:  # what lies outside LFS comes from the Hub itself, which has no faults
        with pytest.raises(IntegrityError, match=SHA256):
            fetch(models)
    steps = fetch(models)
    assert "verifying" in [step.status for step in steps]
    assert steps[-1].digest == (SHA256 if lfs else None)


@pytest.mark.parametrize("mark", MARKS)
def test_what_nobody_can_verify_is_refused_unless_it_is_accepted(
    remote: LoopbackHub, models: Path, mark: str, caplog: pytest.LogCaptureFixture
) -> None:
    remote.repos["user/repo"].files[FILE] = HubFile(content=CONTENT, mark=mark)
    remote.serve_api = False
    with pytest.raises(PullError, match="could not be verified") as caught:
        fetch(models)
    assert "--unverified" in caught.value.text
    assert not models.exists()
    remote.fail(FILE, Fault(drop_after=1_000_000))
    steps = fetch(models, unverified=True)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert "verifying" not in [step.status for step in steps]
    assert {step.digest for step in steps} == {None}
    assert "is taken unverified" in caplog.text


def test_the_flag_for_it(remote: LoopbackHub, models: Path) -> None:
    """On the command line, and through a server."""
    remote.repos["user/repo"].files[FILE] = HubFile(content=CONTENT, mark='"x"')
    remote.serve_api = False
    models.mkdir()

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return prepared.run(
            [sys.executable, "-m", "rkllama", *arguments],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    here = ("--models", str(models), "pull", f"user/repo/{FILE}")
    assert "could not be verified" in run(*here).stderr
    done = run(*here, "--unverified")
    assert done.returncode == 0, done.stderr
    assert "is taken unverified" in done.stderr
    assert "Verifying" not in done.stderr
    with Server() as server:
        there = {"RKLLAMA_HOST": server.url}
        assert "could not be verified" in run("pull", f"user/repo/{FILE}", **there).stderr
        assert run("pull", f"user/repo/{FILE}", "--unverified", **there).returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/u/r/blob/main/f.rkllm",
        "https://huggingface.co.example.org/u/r",
        "https://huggingface.co@example.org/u/r",
        "http://huggingface.co:8080/u/r",
        "https://xn--huggingfac-6sb.co/u/r",
        "HTTPS://modelscope.cn/u/r",
    ],
)
def test_an_address_of_another_site_is_not_one_of_the_hubs(
    remote: LoopbackHub, models: Path, text: str
) -> None:
    with pytest.raises(InvalidRequest, match="its site is not the Hub") as caught:
        fetch(models, text)
    assert "HF_ENDPOINT=http" in caught.value.text
    assert remote.seen == []


def test_addresses_of_the_hub_and_of_its_mirror_are_known(
    remote: LoopbackHub, models: Path
) -> None:
    for site in ("https://HuggingFace.co", "http://hf.co", "https://www.huggingface.co:443"):
        assert fetch(models, f"{site}/user/repo/blob/main/{FILE}")[-1].status == "done"
    assert fetch(models, f"{remote.endpoint}/user/repo/resolve/main/{FILE}")[-1].status == "done"


def test_a_file_outside_lfs_is_verified_by_its_git_hash(remote: LoopbackHub, models: Path) -> None:
    remote.repos["user/repo"].files[FILE].lfs = False
    assert fetch(models)[-1].digest is None
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    remote.repos["user/repo"].files[FILE].content = CONTENT[::-1]
    fetch(models)
    path = models / "m-w8a8-rk3588" / FILE
    assert path.read_bytes() == CONTENT[::-1]
    # Whoever computes its sha256 meanwhile does not make it another file.
    DigestCache(str(models)).put(str(path), hashlib.sha256(CONTENT[::-1]).hexdigest())
    seen = len(remote.seen)
    fetch(models)
    assert [s.method for s in remote.seen[seen:]] == ["GET", "HEAD"]


def test_an_empty_file_is_no_trap(remote: LoopbackHub, models: Path) -> None:
    remote.add("user/empty", {"e.rkllm": b""})
    assert fetch(models, "user/empty")[-1].status == "done"


# --- Interruptions and neighbours --------------------------------------------------------------

CHILD = """
import sys
from rkllama.hub import pull
pull.REPORT_EVERY = 0.0
pull.LOOK_EVERY = 0.005
for step in pull.pull(sys.argv[1], sys.argv[2], backoff=0):
    print(step.status, step.completed, step.resumed, flush=True)
"""


def start_child(models: Path, reference: str = f"user/repo/{FILE}") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, reference, str(models)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for_bytes(child: subprocess.Popen[str], count: int) -> None:
    """Read the child's progress until it has written so many bytes."""
    assert child.stdout is not None
    for line in child.stdout:
        status, completed, _ = line.split()
        if status == "downloading" and int(completed) >= count:
            return
    raise AssertionError("the child ended early")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_pull_is_continued(how: signal.Signals, remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(hold_after=2_000_000))
    with start_child(models) as child:
        wait_for_bytes(child, 2_000_000)
        child.send_signal(how)
        child.communicate(timeout=20)
    assert names(models) == []
    steps = fetch(models)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert [s.headers.get("range") for s in remote.downloads(FILE)] == [None, "bytes=2000000-"]
    assert {s.resumed for s in steps if s.status == "downloading"} == {2_000_000}
    assert left_over(models) == []


def test_closing_leaves_the_part_and_lets_go_of_it(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "REPORT_EVERY", 0.0)
    remote.fail(FILE, Fault(hold_after=2_000_000))
    steps = pull.pull(f"user/repo/{FILE}", str(models))
    next(step for step in steps if step.completed == 2_000_000)
    steps.close()
    assert part.unfinished(str(models / "m-w8a8-rk3588" / FILE)) == 2_000_000
    fetch(models)
    assert [s.headers.get("range") for s in remote.downloads(FILE)] == [None, "bytes=2000000-"]
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT


def test_a_second_pull_watches_the_first_and_shares_its_file(
    remote: LoopbackHub, models: Path
) -> None:
    fault = Fault(hold_after=2_000_000)
    remote.fail(FILE, fault)
    with start_child(models) as child:
        wait_for_bytes(child, 2_000_000)
        steps = pull.pull(f"user/repo/{FILE}", str(models))
        watched = next(step for step in steps if step.status == "downloading")
        assert watched.completed == 2_000_000
        fault.released.set()
        assert list(steps)[-1].name == "m-w8a8-rk3588"
        child.communicate(timeout=20)
        assert child.returncode == 0
    assert len(remote.downloads(FILE)) == 1
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert left_over(models) == []


def test_a_second_pull_takes_over_when_the_first_dies(remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(hold_after=2_000_000))
    with start_child(models) as child:
        wait_for_bytes(child, 2_000_000)
        steps = pull.pull(f"user/repo/{FILE}", str(models), backoff=0)
        next(step for step in steps if step.status == "downloading")
        child.kill()
        child.communicate(timeout=20)
        assert list(steps)[-1].status == "done"
    assert [s.headers.get("range") for s in remote.downloads(FILE)] == [None, "bytes=2000000-"]


def test_many_pulls_of_one_file_at_once(remote: LoopbackHub, models: Path) -> None:
    results: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(models)[-1].name)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == ["m-w8a8-rk3588"] * 6
    assert len(remote.downloads(FILE)) == 1
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert left_over(models) == []


def test_a_pull_that_ended_just_before_ours_began(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = part.Part.acquire

    def late(path: str, size: int, etag: str) -> part.Part | None:
        monkeypatch.setattr(part.Part, "acquire", real)
        assert fetch(models)[-1].status == "done"
        return real(path, size, etag)

    monkeypatch.setattr(part.Part, "acquire", late)
    assert fetch(models)[-1].name == "m-w8a8-rk3588"
    assert len(remote.downloads(FILE)) == 1
    assert left_over(models) == []


def test_a_lock_that_has_been_taken_away_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path /= "here"
    tmp_path.mkdir()
    path = str(tmp_path / "x.rkllm")
    first = part.Part.acquire(path, 0, "")
    assert first is not None
    assert part.Part.acquire(path, 0, "") is None
    real = fcntl.flock

    def meanwhile(fd: int, how: int) -> None:
        with first:
            first.finish()
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    assert part.Part.acquire(path, 0, "") is None
    assert os.listdir(tmp_path) == ["x.rkllm"]


@pytest.mark.parametrize(
    ("text", "file", "revision"),
    [
        ("u/r/f.rkllm/My-1", "f.rkllm", None),
        ("hf/u/r/a/b/f.GGUF/My-1", "a/b/f.GGUF", None),
        ("u/r/f.rkllm/My-1@refs/pr/3", "f.rkllm", "refs/pr/3"),
        ("u/r@v1/f.rkllm/My-1", "f.rkllm", "v1"),
    ],
)
def test_a_reference_may_name_the_model(text: str, file: str, revision: str | None) -> None:
    wanted = Reference(repo="u/r", file=file, revision=revision, name="My-1")
    assert parse_reference(text) == wanted


@pytest.mark.parametrize("name", ["..", ".hidden", "a b", "x" * 200])
def test_a_name_that_no_model_can_have(name: str) -> None:
    with pytest.raises(InvalidRequest, match="not a valid model name"):
        parse_reference(f"u/r/f.rkllm/{name}")


def test_a_pull_gives_the_name_that_was_asked_for(remote: LoopbackHub, models: Path) -> None:
    assert fetch(models, f"user/repo/{FILE}/mine")[-1].name == "mine"
    assert names(models) == ["mine"]
    remote.add("user/other", {"other.rkllm": b"1"})
    with pytest.raises(PullError, match="already contains another model"):
        fetch(models, "user/other/other.rkllm/mine")
    (models / "free.rkllm").write_bytes(b"2")
    with pytest.raises(PullError, match="free is another model's name"):
        fetch(models, "user/other/other.rkllm/free")
    assert names(models) == ["free", "mine"]


def test_a_pull_of_what_is_here_makes_the_name_another_one(
    remote: LoopbackHub, models: Path
) -> None:
    fetch(models)
    service = LocalService(load_settings({"models": str(models)}), "test")
    with contextlib.closing(service):
        for _ in range(2):
            assert list(service.pull(f"user/repo/{FILE}/mine"))[-1].name == "mine"
    assert names(models) == ["m-w8a8-rk3588", "mine"]
    assert len(remote.downloads(FILE)) == 1


# --- What a failure leaves ---------------------------------------------------------------------


def test_a_pull_that_brings_nothing_leaves_nothing(remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, *[Fault(drop_after=0)] * (pull.RETRIES + 1))
    with pytest.raises(HubUnreachable):
        fetch(models)
    assert os.listdir(models) == []
    remote.fail(FILE, Fault(content=bytes(len(CONTENT))))
    with pytest.raises(IntegrityError):
        fetch(models)
    assert os.listdir(models) == []
    steps = pull.pull(f"user/repo/{FILE}", str(models))
    assert [next(steps).status for _ in range(2)] == ["resolving", "downloading"]
    steps.close()
    assert os.listdir(models) == []


def test_an_interrupted_download_is_incomplete_until_it_is_removed(
    remote: LoopbackHub, models: Path
) -> None:
    remote.add("user/repo", {FILE: CONTENT, **TEXTS})
    break_off(remote, models, 1_000_000)
    store = WritableStore(str(models))
    assert store.list() == []
    (found,) = store.incomplete()
    assert (found.name, found.file) == ("m-w8a8-rk3588", FILE)
    assert (found.completed, found.total) == (1_000_000, len(CONTENT))
    for name in ("m-w8a8-rk3588", "m-w8a8", FILE):
        with pytest.raises(ModelIncomplete) as caught:
            store.resolve(name)
        assert caught.value.hint is not None
        assert f"rkllama pull user/repo/{FILE};" in caught.value.hint
    with pytest.raises(ModelNotFound, match="'m-w8a8' not found"):
        store.remove("m-w8a8")
    held = part.Part.acquire(str(models / "m-w8a8-rk3588" / FILE), len(CONTENT), SHA256)
    assert held is not None
    with held, pytest.raises(InvalidRequest, match="is being downloaded"):
        store.remove("m-w8a8-rk3588")
    assert store.remove("M-W8A8-RK3588").size == 1_000_000
    assert [name for name in os.listdir(models) if name != ".rkllama"] == []
    assert store.incomplete() == []


@pytest.mark.parametrize("reference", [f"user/repo/{FILE}/mine", f"user/repo/{FILE}/mine@v1"])
def test_an_incomplete_download_tells_how_it_was_asked_for(
    reference: str, remote: LoopbackHub, models: Path
) -> None:
    remote.fail(FILE, Fault(drop_after=1000), *[Fault(drop_after=0)] * pull.RETRIES)
    remote.add("user/repo", {FILE: CONTENT}, revisions=("main", "v1"))
    with pytest.raises(HubUnreachable):
        fetch(models, reference)
    with pytest.raises(ModelIncomplete) as caught:
        WritableStore(str(models)).resolve("mine")
    assert caught.value.reference == reference


# --- The disk ----------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_noticed_first(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = RESERVE + len(CONTENT) - 1

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(DiskFull, match="3 MB more") as caught:
        fetch(models)
    assert (caught.value.needed, caught.value.available) == (len(CONTENT), Usage.free)
    assert remote.downloads(FILE) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile(
    number: int, remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(fd: int, data: memoryview, real: Any = os.write) -> int:
        if os.fstat(fd).st_size >= 1_000_000:
            raise OSError(number, os.strerror(number))
        return int(real(fd, data[:70_000]))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(DiskFull):
            fetch(models)
    assert 1_000_000 <= part.unfinished(str(models / "m-w8a8-rk3588" / FILE)) < len(CONTENT)
    assert fetch(models)[-1].status == "done"
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT


def test_a_file_system_with_a_limit_for_files(remote: LoopbackHub, models: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from rkllama import errors\nfrom rkllama.hub import pull\n"
        "steps = pull.pull(sys.argv[1], sys.argv[2])\n"
        "next(steps)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n    list(steps)\n"
        "except errors.PullError as error:\n    print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", code, f"user/repo/{FILE}", str(models)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.startswith("PullError the file system of ")
    assert "cannot hold a file of 0.0 GB" in output


def test_a_directory_that_cannot_be_used(remote: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PullError, match="cannot be used"):
        fetch(tmp_path / "file" / "models")


# --- Refusals of the Hub -----------------------------------------------------------------------


def test_a_missing_repository(remote: LoopbackHub, models: Path) -> None:
    with pytest.raises(HubNotFound, match="no repository user/other"):
        fetch(models, "user/other/x.rkllm")
    with pytest.raises(HubNotFound, match="no repository user/other"):
        fetch(models, "user/other", token="hf_good")
    assert not models.exists()


def test_a_private_repository_needs_the_token(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.repos["user/repo"].private = True
    with pytest.raises(HubNotFound, match="or it is private"):
        fetch(models)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert fetch(models)[-1].status == "done"


def test_a_gated_repository_needs_the_token(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.repos["user/repo"].gated = True
    with pytest.raises(HubGated, match="is gated") as caught:
        fetch(models)
    assert f"{remote.endpoint}/user/repo" in (caught.value.hint or "")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert fetch(models)[-1].status == "done"


def test_access_withdrawn_in_the_middle(remote: LoopbackHub, models: Path) -> None:
    fault = Fault(hold_after=1_000_000, drop_after=0)
    remote.fail(FILE, fault)
    steps = pull.pull(f"user/repo/{FILE}", str(models), backoff=0)
    next(step for step in steps if step.status == "downloading")
    remote.repos["user/repo"].gated = True
    fault.released.set()
    with pytest.raises(HubGated):
        list(steps)


def test_a_token_that_is_not_valid(remote: LoopbackHub, models: Path) -> None:
    with pytest.raises(HubGated, match="Invalid credentials") as caught:
        fetch(models, token="hf_bad")
    assert "HF_TOKEN" in (caught.value.hint or "")


def test_a_missing_revision(remote: LoopbackHub, models: Path) -> None:
    with pytest.raises(HubNotFound, match="no revision v9"):
        fetch(models, f"user/repo/{FILE}@v9")


def test_a_missing_file_names_near_ones(remote: LoopbackHub, models: Path) -> None:
    with pytest.raises(HubNotFound, match=r"no file m-w8a8-rk3576\.rkllm") as caught:
        fetch(models, "user/repo/m-w8a8-rk3576.rkllm")
    assert FILE in (caught.value.hint or "")


def test_the_only_model_needs_no_name(remote: LoopbackHub, models: Path) -> None:
    assert fetch(models, "user/repo")[-1].name == "m-w8a8-rk3588"
    remote.add("user/m.rkllm", {"m.rkllm": b"1", "mmproj-m.gguf": b"2"})
    assert fetch(models, "hf/user/m.rkllm")[-1].name == "m"


def test_several_models_need_a_name(remote: LoopbackHub, models: Path) -> None:
    remote.add("user/two", {"a.rkllm": b"1", "x/b.gguf": b"2"})
    with pytest.raises(AmbiguousName) as caught:
        fetch(models, "user/two")
    assert caught.value.candidates == ("user/two/a.rkllm", "user/two/x/b.gguf")
    remote.add("user/none", {"README.md": b""})
    with pytest.raises(HubNotFound, match="contains no"):
        fetch(models, "user/none")


@pytest.mark.parametrize(
    ("tag", "file"),
    [
        ("Q4_K_M", "m-Q4_K_M.gguf"),
        ("q8_0", "q8/m.Q8_0.gguf"),
        ("UD-Q2_K_XL", "m-UD-Q2_K_XL.gguf"),
        ("m-Q4_K_M.gguf", "m-Q4_K_M.gguf"),
        ("w8a8", "m-w8a8-rk3588.rkllm"),
    ],
)
def test_of_several_models_the_kind_chooses_one(
    remote: LoopbackHub, models: Path, tag: str, file: str
) -> None:
    files = ("m-Q4_K_M.gguf", "q8/m.Q8_0.gguf", "m-UD-Q2_K_XL.gguf", "m-w8a8-rk3588.rkllm")
    remote.add("user/many", {name: name.encode() for name in files})
    name = fetch(models, f"hf.co/user/many:{tag}")[-1].name
    found = Store(str(models)).resolve(f"hf.co/user/many:{tag}").info
    assert (found.name, found.file) == (name, file.rpartition("/")[2])


def test_a_kind_that_no_model_has_or_several_have(remote: LoopbackHub, models: Path) -> None:
    remote.add("user/many", {"a-Q8_0.gguf": b"1", "b-Q8_0.gguf": b"2"})
    with pytest.raises(HubNotFound, match="has no Q4_K_M") as caught:
        fetch(models, "hf.co/user/many:Q4_K_M")
    assert "a-Q8_0.gguf, b-Q8_0.gguf" in (caught.value.hint or "")
    with pytest.raises(AmbiguousName):
        fetch(models, "hf.co/user/many:Q8_0")


def test_a_hub_cannot_name_a_place_outside(remote: LoopbackHub, models: Path) -> None:
    evil = {"../../x.rkllm": b"1", "/x.rkllm": b"2", "a/../../x.gguf": b"3", "..\\x.gguf": b"4"}
    remote.add("user/evil", evil)
    with pytest.raises(HubNotFound, match="contains no"):
        fetch(models, "user/evil")
    remote.add("user/evil", {**evil, "good.gguf": b"5"})
    assert fetch(models, "user/evil")[-1].name == "good"
    assert names(models) == ["good"]


def test_a_split_model_is_refused(remote: LoopbackHub, models: Path) -> None:
    remote.add("user/split", {"m-00001-of-00002.gguf": b"1"})
    with pytest.raises(Unsupported, match="split"):
        fetch(models, "user/split")


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (429, {}, HubUnreachable),
        (500, {}, HubUnreachable),
        (503, {}, HubUnreachable),
        (403, {"X-Error-Message": "blocked"}, HubGated),
        (400, {}, PullError),
        (404, {}, PullError),
        (200, {"Content-Type": "text/html"}, PullError),
    ],
)
def test_a_hub_out_of_order(
    status: int,
    headers: dict[str, str],
    error: type[PullError],
    remote: LoopbackHub,
    models: Path,
) -> None:
    remote.api_fault = (status, headers)
    with pytest.raises(error) as caught:
        fetch(models)
    assert type(caught.value) is error
    assert not models.exists()


def test_a_mirror_that_only_serves_files(remote: LoopbackHub, models: Path) -> None:
    remote.serve_api = False
    assert fetch(models)[-1].name == "m-w8a8-rk3588"
    with pytest.raises(PullError):
        fetch(models, "user/repo")


def test_nobody_listens(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        fetch(models)


def test_a_name_that_does_not_resolve(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://no-such-hub.invalid")
    with pytest.raises(HubUnreachable, match=r"no-such-hub\.invalid cannot be reached"):
        fetch(models)


def test_a_hub_that_never_answers(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hub.Hub.repository
    monkeypatch.setattr(hub.Hub, "repository", lambda *a: real(*a, timeout=0.1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(HubUnreachable, match="timed out"):
            fetch(models)


def test_offline(remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE"):
        fetch(models)
    assert remote.seen == []


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://x", "https://", "http://[::1"])
def test_an_endpoint_that_is_none(
    endpoint: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(ConfigError, match="HF_ENDPOINT"):
        fetch(models)


# --- Tokens and redirects ----------------------------------------------------------------------


@pytest.mark.parametrize("by", ["environment", "argument", "login"])
def test_the_token_goes_to_the_hub_and_nowhere_else(
    by: str, remote: LoopbackHub, models: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_good")
    elif by == "login":
        (home / "hf").mkdir()
        (home / "hf" / "token").write_text("hf_good")
    remote.fail(FILE, Fault(drop_after=1_000_000))
    remote.add("base/model", {"tokenizer_config.json": b"{}"})
    remote.repos["user/repo"].card = {"base_model": "base/model"}
    fetch(models, token="hf_good" if by == "argument" else None)
    to_hub = [s.headers.get("authorization") for s in remote.seen if s.origin == remote.endpoint]
    to_storage = [s for s in remote.seen if s.origin == remote.storage]
    assert set(to_hub) == {"Bearer hf_good"}
    assert len(to_storage) == 2
    assert not any("hf_good" in str(seen) for seen in to_storage)


def test_a_login_that_cannot_be_read_is_none(remote: LoopbackHub, models: Path, home: Path) -> None:
    (home / "hf" / "token").mkdir(parents=True)
    assert fetch(models)[-1].status == "done"
    assert not any("authorization" in seen.headers for seen in remote.seen)


def test_no_token_is_invented(remote: LoopbackHub, models: Path) -> None:
    fetch(models)
    assert not any("authorization" in seen.headers for seen in remote.seen)


def test_a_proxy_is_used_for_all_of_it(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The loopback Hub takes whole addresses, as a proxy does; the storage is reached directly.
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("HTTP_PROXY", remote.endpoint)
    monkeypatch.setenv("NO_PROXY", "localhost")
    with start_child(models) as child:
        output, _ = child.communicate(timeout=20)
    assert output.splitlines()[-1].startswith("done")
    through = [seen.path for seen in remote.seen if seen.origin == remote.endpoint]
    assert len(through) == 4  # the list, the file's size and hash, the file, the card
    assert all(path.startswith("http://hub.invalid/") for path in through)


def test_redirects_have_an_end(remote: LoopbackHub, models: Path) -> None:
    around = Fault(status=302, headers={"Location": f"/user/repo/{FILE}"})
    remote.fail(FILE, *[around] * 10)
    with pytest.raises(PullError, match="redirected more than"):
        fetch(models)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/y"])
def test_a_redirect_to_nowhere(location: str, remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(status=302, headers={"Location": location}))
    with pytest.raises(PullError, match="redirects to"):
        fetch(models)


@pytest.mark.parametrize("status", [300, 302, 304])
def test_a_redirect_without_an_address(status: int, remote: LoopbackHub, models: Path) -> None:
    remote.fail(FILE, Fault(status=status))
    with pytest.raises(PullError, match=f"cannot be downloaded: status {status}"):
        fetch(models)


def test_a_redirect_to_what_is_no_host(remote: LoopbackHub, models: Path) -> None:
    # An older httpx2, the last one for Python 3.10, finds it out itself: that is tried again, in vain.
    remote.fail(FILE, *[Fault(status=302, headers={"Location": "http://[v1.x]/"})] * 20)
    with pytest.raises(PullError, match=r"not a usable address|Invalid URL"):
        fetch(models)


def test_a_redirect_never_leaves_encryption() -> None:
    assert hub.next_hop("https://a/b", "/c") == "https://a/c"
    assert hub.next_hop("http://a/b", "https://c/d") == "https://c/d"
    for location in ("http://c/d", "https://[::1", "mailto:a@b", "https://a/\x00"):
        with pytest.raises(PullError, match="redirects to"):
            hub.next_hop("https://a/b", location)


# --- Files beside the model --------------------------------------------------------------------

TEXTS = {
    "tokenizer_config.json": b'{"chat_template": "x"}',
    "chat_template.jinja": b"{{ x }}",
    "chat_template.json": b'{"chat_template": "y"}',
    "generation_config.json": b'{"eos_token_id": 2}',
    "config.json": b'{"model_type": "qwen2"}',
}


def beside(models: Path, folder: str = "m-w8a8-rk3588") -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (models / folder).iterdir()}
    return {name: text for name, text in found.items() if name not in (FILE, ".pull.json")}


def test_the_repositorys_own_files_come_along_and_no_others(
    remote: LoopbackHub, models: Path
) -> None:
    others = {"tokenizer.json": b"{}", "Modelfile": b"FROM /etc/passwd", "x.py": b"", "a.md": b""}
    remote.add("user/repo", {FILE: CONTENT, **TEXTS, **others}, card={"base_model": "base/model"})
    remote.add("base/model", dict.fromkeys(TEXTS, b"base"))
    fetch(models)
    assert beside(models) == TEXTS


def test_those_of_the_subfolder_go_first(remote: LoopbackHub, models: Path) -> None:
    files = {f"w8a8/{FILE}": CONTENT, "w8a8/config.json": b"sub", **TEXTS}
    remote.add("user/repo", files)
    fetch(models, f"user/repo/w8a8/{FILE}")
    assert beside(models) == {**TEXTS, "config.json": b"sub"}


@pytest.mark.parametrize(
    "card", ["base/model", ["base/model"], ["base/gone", "base/model"], [3, "../x", "base/model"]]
)
def test_the_base_models_files_fill_in(card: object, remote: LoopbackHub, models: Path) -> None:
    own = {FILE: CONTENT, "config.json": b"own"}
    remote.add("user/repo", own, card={"base_model": card})
    remote.add("base/model", TEXTS)
    fetch(models)
    assert beside(models) == {**TEXTS, "config.json": b"own"}


def test_templates_of_two_sources_are_not_mixed(remote: LoopbackHub, models: Path) -> None:
    own = {"tokenizer_config.json": b"own"}
    remote.add("user/repo", {FILE: CONTENT, **own}, card={"base_model": "base/model"})
    remote.add("base/model", TEXTS)
    fetch(models)
    configs = {name: TEXTS[name] for name in ("generation_config.json", "config.json")}
    assert beside(models) == {**own, **configs}


@pytest.mark.parametrize("card", [None, "base/gated", "base/private", "base/gone", "", 7, {"a": 1}])
def test_a_base_model_that_is_not_to_be_had_is_no_error(
    card: object, remote: LoopbackHub, models: Path
) -> None:
    remote.repos["user/repo"].card = {"base_model": card}
    remote.add("base/gated", TEXTS, gated=True)
    remote.add("base/private", TEXTS, private=True)
    assert fetch(models)[-1].name == "m-w8a8-rk3588"
    assert beside(models) == {}


@pytest.mark.parametrize(
    "headers", [{}, {"Location": "http://[v1.x]/"}, {"Location": "mailto:a@b"}]
)
def test_a_small_file_that_is_not_to_be_had_is_no_error(
    headers: dict[str, str], remote: LoopbackHub, models: Path
) -> None:
    repo = remote.add("user/repo", {FILE: CONTENT, **TEXTS})
    repo.files["config.json"].lfs = True
    remote.fail("config.json", Fault(status=302, headers=headers))
    assert fetch(models)[-1].name == "m-w8a8-rk3588"
    assert left_over(models) == []
    assert "config.json" not in beside(models)


@pytest.mark.serial
def test_a_slow_base_model_is_not_waited_for(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecars, "STEP_LIMIT", 0.05)
    remote.repos["user/repo"].card = {"base_model": "base/model"}
    remote.add("base/model", TEXTS, held=threading.Event())
    start = time.monotonic()
    assert fetch(models)[-1].name == "m-w8a8-rk3588"
    assert time.monotonic() - start < 10
    assert beside(models) == {}


def test_all_of_them_together_have_a_time_limit(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecars, "TIME_LIMIT", 0.0)
    remote.add("user/repo", {FILE: CONTENT, **TEXTS})
    assert fetch(models)[-1].name == "m-w8a8-rk3588"
    assert beside(models) == {}


def test_a_file_that_is_too_large_is_left(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecars, "SIZE_LIMIT", 100_000)
    remote.add("user/repo", {FILE: CONTENT, **TEXTS, "config.json": bytes(200_000)})
    fetch(models)
    assert beside(models) == {name: text for name, text in TEXTS.items() if name != "config.json"}


def test_a_gguf_needs_none(remote: LoopbackHub, models: Path) -> None:
    remote.add("user/gguf", {"m.Q4_K_M.gguf": b"GGUF", **TEXTS})
    assert fetch(models, "user/gguf")[-1].name == "m.Q4_K_M"
    assert sorted(os.listdir(models / "m.Q4_K_M")) == [".pull.json", "m.Q4_K_M.gguf"]


def test_a_later_pull_fetches_what_was_missed(remote: LoopbackHub, models: Path) -> None:
    fetch(models)
    remote.add("user/repo", {FILE: CONTENT, **TEXTS})
    fetch(models)
    assert beside(models) == TEXTS
    assert len(remote.downloads(FILE)) == 1


# --- Where it goes -----------------------------------------------------------------------------


def test_what_is_there_already_is_not_fetched_again(remote: LoopbackHub, models: Path) -> None:
    fetch(models)
    seen = len(remote.seen)
    steps = fetch(models)
    assert [step.status for step in steps] == ["resolving", "done"]
    assert steps[-1].name == "m-w8a8-rk3588"
    assert [s.method for s in remote.seen[seen:]] == ["GET", "HEAD"]


@pytest.mark.parametrize("place", [FILE, f"my-name/{FILE}"])
def test_a_file_that_the_user_put_there_is_recognised(
    place: str, remote: LoopbackHub, models: Path
) -> None:
    (models / place).parent.mkdir(parents=True)
    (models / place).write_bytes(CONTENT)
    remote.add("user/repo", {FILE: CONTENT, **TEXTS})
    steps = fetch(models)
    assert os.listdir((models / place).parent) in ([FILE], [FILE, ".rkllama"], [".rkllama", FILE])
    assert steps[-1].name == ("my-name" if "/" in place else "m-w8a8-rk3588")
    assert remote.downloads(FILE) == []
    assert len(names(models)) == 1
    assert "verifying" not in [step.status for step in fetch(models)]  # read once, then known


def test_a_file_that_the_user_put_there_is_not_overwritten(
    remote: LoopbackHub, models: Path
) -> None:
    mine = models / "m-w8a8-rk3588" / FILE
    mine.parent.mkdir(parents=True)
    mine.write_bytes(CONTENT[::-1])
    name = fetch(models)[-1].name
    assert mine.read_bytes() == CONTENT[::-1]
    assert (models / "user_repo_m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert name == "user_repo_m-w8a8-rk3588"


def test_an_alias_of_the_user_is_left_alone(remote: LoopbackHub, models: Path) -> None:
    alias = models / "m-w8a8-rk3588" / "Modelfile"
    alias.parent.mkdir(parents=True)
    alias.write_text("FROM other\n")
    fetch(models)
    assert os.listdir(alias.parent) == ["Modelfile"]


def test_variants_and_namesakes_live_side_by_side(remote: LoopbackHub, models: Path) -> None:
    remote.add(
        "user/variants", {"a-opt-0.rkllm": b"0", "a-opt-1.rkllm": b"1", "x/a-opt-1.rkllm": b"2"}
    )
    remote.add("other/repo", {FILE: b"other"})
    for reference in (
        f"user/repo/{FILE}",
        "user/variants/a-opt-0.rkllm",
        "user/variants/a-opt-1.rkllm",
        "user/variants/x/a-opt-1.rkllm",
        f"other/repo/{FILE}",
    ):
        fetch(models, reference)
    assert names(models) == [
        "a-opt-0",
        "a-opt-1",
        "m-w8a8-rk3588",
        "other_repo_m-w8a8-rk3588",
        "user_variants_x_a-opt-1",
    ]


def test_revisions_live_side_by_side(remote: LoopbackHub, models: Path) -> None:
    repo = remote.repos["user/repo"]
    repo.revisions = ("main", "refs/pr/1")
    fetch(models)
    repo.files[FILE] = HubFile(content=b"another branch")
    assert fetch(models, f"user/repo/{FILE}@refs/pr/1")[-1].name == (
        "user_repo_refs_pr_1_m-w8a8-rk3588"
    )
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert any("/resolve/refs%2Fpr%2F1/" in seen.path for seen in remote.seen)


def test_a_newer_version_replaces_the_older_one_only_when_it_is_whole(
    remote: LoopbackHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(models)
    newer = CONTENT[::-1]
    remote.repos["user/repo"].files[FILE] = HubFile(content=newer)
    remote.fail(FILE, Fault(content=CONTENT))
    monkeypatch.setattr(pull, "REPORT_EVERY", 0.0)
    steps = pull.pull(f"user/repo/{FILE}", str(models))
    # The old file has the same name and size; that it is another one is known without reading it.
    assert [next(steps).status, next(steps).status] == ["resolving", "downloading"]
    with pytest.raises(IntegrityError):
        list(steps)
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT
    assert fetch(models)[-1].name == "m-w8a8-rk3588"
    assert (models / "m-w8a8-rk3588" / FILE).read_bytes() == newer
    assert names(models) == ["m-w8a8-rk3588"]


def test_links_do_not_lead_out_of_the_directory(
    remote: LoopbackHub, models: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    models.mkdir()
    (models / "m-w8a8-rk3588").symlink_to(outside)
    fetch(models)
    assert os.listdir(outside) == []
    victim = tmp_path / "victim"
    victim.write_text("mine")
    remote.add("user/link", {"l.rkllm": b"1"})
    (models / "l").mkdir()
    (models / "l" / "l.rkllm.part").symlink_to(victim)
    with pytest.raises(PullError, match="cannot be used"):
        fetch(models, "user/link")
    assert victim.read_text() == "mine"


def test_a_model_behind_a_link_is_found_and_nothing_written_there(
    remote: LoopbackHub, models: Path, tmp_path: Path
) -> None:
    fetch(models)
    (models / "m-w8a8-rk3588").rename(tmp_path / "disk")  # as the owner does when the disk is full
    (models / "m-w8a8-rk3588").symlink_to(tmp_path / "disk")
    before = sorted(os.listdir(tmp_path / "disk"))
    remote.add("user/repo", {FILE: CONTENT, **TEXTS})
    assert fetch(models)[-1].name == "m-w8a8-rk3588"
    assert sorted(os.listdir(tmp_path / "disk")) == before
    assert len(remote.downloads(FILE)) == 1


def test_a_models_directory_behind_a_link(
    remote: LoopbackHub, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    models.symlink_to(tmp_path / "disk")
    assert fetch(models)[-1].name == "m-w8a8-rk3588"
    assert (tmp_path / "disk" / "m-w8a8-rk3588" / FILE).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("card", "toolkit"),
    [
        ("This model was converted with RKLLM version: 1.1.4 for the RK3588.", "1.1.4"),
        ("- **RKLLM Toolkit version:** `v1.2.1b1`", "1.2.1b1"),
        ("| rkllm-runtime | 1.2.3 |\nNeeds transformers 4.45.2", "1.2.3"),
        ("rkllm-toolkit 1.1.4 or rkllm-toolkit 1.2.0", None),
        ("TinyLlama v1.0.0", None),
    ],
)
def test_the_card_tells_the_toolkit(card: str, toolkit: str | None, tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        hub.add("user/repo", {"m.rkllm": b"model", "README.md": card.encode()})
        *_, done = pull.pull("user/repo/m.rkllm", str(tmp_path / "models"), endpoint=hub.endpoint)
    assert done.toolkit == toolkit


def test_the_repositorys_name_tells_the_toolkit(tmp_path: Path) -> None:
    """It is surer than the card, and gone once the model has the name that was typed."""
    with LoopbackHub() as hub:
        files = {"m.rkllm": b"model", "README.md": b"RKLLM version: 1.1.4"}
        hub.add("user/m-rk3588-1.2.0", files)
        reference = "user/m-rk3588-1.2.0/m.rkllm/typed"
        *_, done = pull.pull(reference, str(tmp_path / "models"), endpoint=hub.endpoint)
    assert (done.name, done.toolkit) == ("typed", "1.2.0")


# --- Encoders ----------------------------------------------------------------------------------

ENCODER = random.Random(1).randbytes(400_000)


@pytest.fixture
def seeing(remote: LoopbackHub) -> LoopbackHub:
    """The Hub with a model that sees, and an encoder for another SoC."""
    files = {
        "vl_w8a8_rk3588.rkllm": CONTENT,
        "vl_vision_rk3588.rknn": ENCODER,
        "vl_vision_rk3576.rknn": b"another",
        "mmproj-vl.gguf": b"llama.cpp's",
    }
    remote.add("user/vl", files)
    return remote


def _pull_seeing(models: Path) -> list[PullProgress]:
    return list(pull.pull("user/vl/vl_w8a8_rk3588.rkllm", str(models), backoff=0.001))


def test_the_encoder_of_a_model_comes_along(seeing: LoopbackHub, models: Path) -> None:
    steps = _pull_seeing(models)
    folder = models / "vl_w8a8_rk3588"
    assert (folder / "vl_vision_rk3588.rknn").read_bytes() == ENCODER
    assert {path.name for path in folder.iterdir()} == {
        ".pull.json",
        "vl_vision_rk3588.rknn",
        "vl_w8a8_rk3588.rkllm",
    }
    assert {step.file for step in steps if step.status == "downloading"} == {
        "vl_w8a8_rk3588.rkllm",
        "vl_vision_rk3588.rknn",
    }
    assert (steps[-1].status, steps[-1].name) == ("done", "vl_w8a8_rk3588")
    again = _pull_seeing(models)
    assert "downloading" not in [step.status for step in again]


def test_a_model_without_its_encoder_gets_it(seeing: LoopbackHub, models: Path) -> None:
    _pull_seeing(models)
    path = models / "vl_w8a8_rk3588" / "vl_vision_rk3588.rknn"
    path.unlink()
    steps = _pull_seeing(models)
    assert path.read_bytes() == ENCODER
    assert {step.file for step in steps if step.status == "downloading"} == {path.name}


def test_another_encoder_of_that_name_stays(seeing: LoopbackHub, models: Path) -> None:
    _pull_seeing(models)
    path = models / "vl_w8a8_rk3588" / "vl_vision_rk3588.rknn"
    path.write_bytes(b"the user's own")
    _pull_seeing(models)
    assert path.read_bytes() == b"the user's own"


def test_removing_a_model_removes_its_encoder(seeing: LoopbackHub, models: Path) -> None:
    _pull_seeing(models)
    store = WritableStore(str(models))
    assert store.resolve("vl_w8a8_rk3588").encoder is not None
    store.remove("vl_w8a8_rk3588")
    store.close()
    assert not (models / "vl_w8a8_rk3588").exists()


def test_an_encoder_that_another_model_uses_stays(seeing: LoopbackHub, models: Path) -> None:
    _pull_seeing(models)
    (models / "other").mkdir()
    (models / "other" / "m.rkllm").write_bytes(b"x")
    encoder = models / "vl_w8a8_rk3588" / "vl_vision_rk3588.rknn"
    (models / "other" / "Modelfile").write_text(
        f"VISION_ENCODER ../{encoder.parent.name}/{encoder.name}"
    )
    store = WritableStore(str(models))
    store.remove("vl_w8a8_rk3588")
    store.close()
    assert encoder.exists()


def test_the_encoder_for_llama_cpp_comes_along(remote: LoopbackHub, models: Path) -> None:
    files = {
        "vl-Q4_K_M.gguf": CONTENT,
        "vl-Q8_0.gguf": b"another",
        "mmproj-vl-f16.gguf": ENCODER,
        "mmproj-vl-f32.gguf": b"larger",
        "vision.rknn": b"the NPU's",
    }
    remote.add("user/vl-GGUF", files)
    for _ in range(2):
        steps = list(pull.pull("user/vl-GGUF/vl-Q4_K_M.gguf", str(models), backoff=0.001))
        assert steps[-1].name == "vl-Q4_K_M"
    folder = models / "vl-Q4_K_M"
    assert (folder / "mmproj-vl-f16.gguf").read_bytes() == ENCODER
    assert {path.name for path in folder.iterdir()} == {
        ".pull.json",
        "mmproj-vl-f16.gguf",
        "vl-Q4_K_M.gguf",
    }
    assert "downloading" not in [step.status for step in steps]
    store = WritableStore(str(models))
    assert [info.name for info in store.list()] == ["vl-Q4_K_M"]
    store.remove("vl-Q4_K_M")
    store.close()
    assert not folder.exists()
