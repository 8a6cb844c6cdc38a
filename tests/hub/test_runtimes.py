"""Releases of librkllmrt, fetched from a mirror on the loopback: virtual NPUs with hashes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rkllama import cli
from rkllama.clib.elf import machine
from rkllama.errors import HubNotFound, HubUnreachable, IntegrityError, PullError, RKLLamaError
from rkllama.hub.runtimes import install
from rkllama.rkllm import releases
from rkllama.rkllm.abi import RELEASES
from rkllama.rkllm.installed import Runtimes
from rkllama.rkllm.releases import PUBLISHED, Published
from rkllama.rknn.library import find_library, look_for_library
from tests.virtual_npu import VERSIONS, library, write_model
from tests.virtual_rknn import library as encoder_library
from tests.waiting import until

pytestmark = pytest.mark.integration

HERE = machine() or ""
LICENCE = b"Copyright of the vendor\n"


def built(release: str) -> str:
    """The virtual NPU of a release; 1.1.0 to 1.1.3 have the layout of 1.1.4."""
    return library(release if release in VERSIONS else "1.1.4", reported=release)


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Mirror:
    """The vendor's repository on the loopback. `stop_after` ends each answer after so many bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, int] = {}
        self.stop_after: int | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.ranges: list[str | None] = []
        self.agents: list[str | None] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    def __init__(self, mirror: Mirror, *arguments: object) -> None:
        self.mirror = mirror
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        mirror, content = self.mirror, self.mirror.files.get(self.path)
        status = mirror.statuses.get(self.path, 404 if content is None else 200)
        if status != 200 or content is None:
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = self.headers.get("Range")
        first = int(re.findall(r"\d+", asked)[0]) if asked else 0
        mirror.ranges.append(asked)
        mirror.agents.append(self.headers.get("Authorization"))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = len(content) if mirror.stop_after is None else first + mirror.stop_after
        self.wfile.write(content[first:end])
        if not mirror.hold.is_set():
            self.wfile.flush()
            mirror.hold.wait()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror of all releases, whose hashes are the published ones for this test."""
    mirror = Mirror()
    for number, release in enumerate(RELEASES):
        content = Path(built(release)).read_bytes()
        commit = f"{number:040d}"
        published = Published(commit, {HERE: blob_id(content)})
        monkeypatch.setitem(releases.PUBLISHED, release, published)
        mirror.files[f"/{commit}/{published.path(HERE)}"] = content
        mirror.files[f"/{commit}/LICENSE"] = LICENCE
    monkeypatch.setenv("RKLLAMA_RUNTIME_URL", mirror.url)
    yield mirror
    mirror.close()


@pytest.fixture
def runtimes(home: Path) -> Runtimes:
    return Runtimes(str(home / "RKLLAMA"))


def path_at(release: str) -> str:
    return f"/{PUBLISHED[release].commit}/{PUBLISHED[release].path(HERE)}"


def fetch(runtimes: Runtimes, release: str, mirror: Mirror) -> list[str]:
    steps = install(
        runtimes.folder(release), release, PUBLISHED[release], HERE, base=mirror.url, backoff=0
    )
    return [step.status for step in steps]


def rkllama(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this process, where the table of releases is the test's."""
    result = CliRunner().invoke(cli.app, list(arguments))
    if isinstance(result.exception, RKLLamaError):
        return 1, result.stdout, result.exception.text
    return result.exit_code, result.stdout, result.stderr


def test_the_table_has_every_known_release_and_whole_hashes() -> None:
    assert tuple(PUBLISHED) == RELEASES
    for one in (*PUBLISHED.values(), releases.ENCODER_LIBRARY):
        assert re.fullmatch("[0-9a-f]{40}", one.commit)
        assert all(re.fullmatch("[0-9a-f]{40}", blob) for blob in one.blobs.values())
        assert "aarch64" in one.blobs


def test_the_encoders_library_is_installed_beside_them(
    mirror: Mirror, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Path(encoder_library()).read_bytes()
    published = releases.ENCODER_LIBRARY._replace(blobs={HERE: blob_id(content)})
    assert published.path("aarch64").endswith("/librknn_api/aarch64/librknnrt.so")
    monkeypatch.setattr(releases, "ENCODER_LIBRARY", published)
    status, _, error = rkllama("runtime", "install", "rknn")
    assert (status, "is not there: it may have moved" in error) == (1, True)
    assert f"copy the file to {home}/RKLLAMA/lib/librknnrt.so" in error
    mirror.files[f"/{published.commit}/{published.path(HERE)}"] = content
    status, _, error = rkllama("runtime", "install", "rknn")
    assert (status, error.splitlines()[-1]) == (0, "Installed librknnrt.")
    assert look_for_library() == str(home / "RKLLAMA" / "lib" / "librknnrt.so")
    assert find_library()[0] == look_for_library()


def test_all_releases_are_installed_side_by_side(mirror: Mirror, runtimes: Runtimes) -> None:
    for release in RELEASES:
        assert fetch(runtimes, release, mirror)[-1] == "done"
    assert [one.release for one in runtimes.installed()] == list(reversed(RELEASES))
    for release in RELEASES:
        folder = Path(runtimes.folder(release))
        assert sorted(os.listdir(folder)) == ["LICENSE", "librkllmrt.so"]
        assert (folder / "LICENSE").read_bytes() == LICENCE
    assert set(mirror.agents) == {None}, "no token leaves for another site than the Hub"


def test_a_broken_connection_is_resumed(mirror: Mirror, runtimes: Runtimes) -> None:
    mirror.stop_after = 10_000
    assert fetch(runtimes, "1.2.3", mirror)[-1] == "done"
    assert "bytes=10000-" in mirror.ranges


@pytest.mark.parametrize("damage", [b"x", b"<html>moved</html>", b""])
def test_other_bytes_never_get_the_name(damage: bytes, mirror: Mirror, runtimes: Runtimes) -> None:
    content = mirror.files[path_at("1.2.3")]
    mirror.files[path_at("1.2.3")] = damage + content[1:] if damage == b"x" else damage
    with pytest.raises((IntegrityError, PullError)):
        fetch(runtimes, "1.2.3", mirror)
    assert runtimes.installed() == []
    mirror.files[path_at("1.2.3")] = content
    assert fetch(runtimes, "1.2.3", mirror)[-1] == "done"


def test_a_file_that_was_changed_is_fetched_again(mirror: Mirror, runtimes: Runtimes) -> None:
    fetch(runtimes, "1.2.3", mirror)
    path = Path(runtimes.folder("1.2.3")) / "librkllmrt.so"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"!")
    fetch(runtimes, "1.2.3", mirror)
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (404, HubNotFound, "runtime add FILE"),
        (403, PullError, "status 403"),
        (503, HubUnreachable, "Try again"),
        (302, PullError, ""),
    ],
)
def test_what_a_mirror_refuses_is_told(
    status: int, error: type[PullError], says: str, mirror: Mirror, runtimes: Runtimes
) -> None:
    mirror.statuses[path_at("1.2.3")] = status
    with pytest.raises(error) as raised:
        fetch(runtimes, "1.2.3", mirror)
    assert says in raised.value.text
    assert not os.path.exists(runtimes.folder("1.2.3"))


def test_offline_and_silent_sites(
    mirror: Mirror, runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = install(
        runtimes.folder("1.2.3"), "1.2.3", PUBLISHED["1.2.3"], HERE, base="http://127.0.0.1:9"
    )
    with pytest.raises(HubUnreachable, match=r"cannot be reached"):
        list(steps)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE"):
        fetch(runtimes, "1.2.3", mirror)


_FETCH = """
import sys
from rkllama.hub.runtimes import install
from rkllama.rkllm.releases import Published
folder, commit, blob, machine, base = sys.argv[1:]
for step in install(folder, "1.2.3", Published(commit, {machine: blob}), machine, base=base):
    print(step.status, flush=True)
"""


def test_a_kill_in_the_middle_leaves_no_release_and_is_resumed(
    mirror: Mirror, runtimes: Runtimes
) -> None:
    mirror.stop_after = 20_000
    mirror.hold.clear()
    folder, published = runtimes.folder("1.2.3"), PUBLISHED["1.2.3"]
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _FETCH,
            folder,
            published.commit,
            published.blobs[HERE],
            HERE,
            mirror.url,
        ]
    )
    part = Path(folder) / "librkllmrt.so.part"
    until(lambda: part.exists() and part.stat().st_size == 20_000)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert runtimes.installed() == []
    mirror.hold.set()
    mirror.stop_after = None
    assert fetch(runtimes, "1.2.3", mirror)[-1] == "done"
    assert "bytes=20000-" in mirror.ranges


# --- The commands ------------------------------------------------------------------------------


def test_install_list_use_and_remove(mirror: Mirror, runtimes: Runtimes, home: Path) -> None:
    write_model(home / "RKLLAMA" / "models" / "m.rkllm")
    status, _, errors = rkllama("runtime", "install")
    assert (status, errors.splitlines()[-1]) == (0, "Installed librkllmrt 1.3.0.")
    assert rkllama("runtime", "install", "1.2.0")[0] == 0
    assert rkllama("runtime", "use", "1.2.0", "m")[0] == 0
    assert rkllama("runtime", "use", "1.3.0")[0] == 0
    rows = {row["release"]: row for row in json.loads(rkllama("runtime", "list", "--json")[1])}
    assert (rows["1.2.0"]["state"], rows["1.2.0"]["models"]) == ("installed", ["m"])
    assert rows["1.3.0"]["note"] == "the first choice"
    assert (rows["1.1.4"]["state"], rows["1.1.4"]["path"]) == ("available", None)
    assert rkllama("run", "m", "--no-stdin", "one two") == (0, "one two\n", "")
    assert rkllama("runtime", "rm", "1.2.0")[0] == 0
    status, _, error = rkllama("run", "m", "--no-stdin", "one two")
    assert status == 1
    assert "which is not installed" in error
    assert rkllama("runtime", "use", "auto", "m")[0] == 0
    assert rkllama("run", "m", "--no-stdin", "one two")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("install", "9.9.9"), "there is no librkllmrt 9.9.9"),
        (("rm", "1.2.3"), "is not installed here"),
        (("rm", "../models"), "is not installed here"),
        (("use", "1.2.3"), "is not installed"),
    ],
)
def test_wrong_releases(arguments: tuple[str, ...], says: str, mirror: Mirror) -> None:
    status, _, error = rkllama("runtime", *arguments)
    assert status == 1
    assert says in error


def test_a_file_that_one_has_is_added(runtimes: Runtimes, tmp_path: Path) -> None:
    assert rkllama("runtime", "add", library("1.2.1"))[0] == 0
    assert [one.release for one in runtimes.installed()] == ["1.2.1"]
    bad = tmp_path / "librkllmrt.so"
    bad.write_bytes(b"<html>")
    status, _, error = rkllama("runtime", "add", str(bad))
    assert status == 1
    assert f"{bad} cannot be used: not an ELF shared library" in error
    status, _, error = rkllama("runtime", "add", str(tmp_path / "nowhere.so"))
    assert status == 1
    assert f"{tmp_path}/nowhere.so cannot be used: not found" in error
    assert "rkllm_lib" not in error
    assert [one.release for one in runtimes.installed()] == ["1.2.1"]


def test_a_strange_library_is_looked_at_in_another_process(tmp_path: Path) -> None:
    source, target = tmp_path / "evil.c", tmp_path / "librkllmrt.so"
    source.write_text(
        "#include <stdlib.h>\n__attribute__((constructor)) void boom(void) { abort(); }\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", target], check=True)
    status, _, error = rkllama("runtime", "add", str(target))
    assert status == 1
    assert "loading it ended its process (status -6)" in error


def test_a_strange_library_sees_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "curious.c", tmp_path / "librkllmrt.so"
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n"
        "__attribute__((constructor)) void look(void)\n"
        '{ FILE *seen = fopen(getenv("SEEN"), "w"); char *token = getenv("HF_TOKEN");\n'
        '  fprintf(seen, "token: %s", token ? token : "none"); fclose(seen); }\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", target], check=True)
    monkeypatch.setenv("HF_TOKEN", "hf_sesame")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    assert rkllama("runtime", "add", str(target))[0] == 1
    assert (tmp_path / "seen").read_text() == "token: none"
