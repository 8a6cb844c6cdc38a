"""What child processes get to know of this one, and who may read what they write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllama.backends.base import LoadSpec
from rkllama.engine import template_process
from rkllama.runner import log as child_log
from rkllama.runner.environment import for_interpreter, without_secrets
from rkllama.runner.worker import Worker
from tests.virtual_npu import library, write_model
from tests.waiting import LIMIT

SECRETS = {
    "RKLLAMA_API_KEY": "sesame",
    "HF_TOKEN": "hf_sesame",
    "HUGGING_FACE_HUB_TOKEN": "hf_sesame",
    "OPENAI_API_KEY": "sesame",
    "AWS_SECRET_ACCESS_KEY": "sesame",
    "GOOGLE_APPLICATION_CREDENTIALS": "/sesame.json",
    "PGPASSWORD": "sesame",
    "db-password": "sesame",
    "SSH_AUTH_SOCK": "/sesame",
    "https_proxy": "http://me:sesame@proxy:3128",
    "DATABASE_URL": "postgres://me:sesame@db/x",
}
NEEDED = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "LD_LIBRARY_PATH": "/opt/lib",
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": "/opt/python",
}
OTHERS = {
    "RKLLM_LOG_LEVEL": "1",
    "GGML_N_THREADS": "4",
    "RKLLAMA_RKLLM_LIB": "/opt/librkllmrt.so",
    "HF_ENDPOINT": "https://hub.example.org:8443/a@b",
    "KEYBOARD_LAYOUT": "de",
    "TOKENIZERS_PARALLELISM": "false",
    "COMPASS": "north",
}


def test_a_models_process_gets_no_secret_and_all_else() -> None:
    assert without_secrets({**SECRETS, **NEEDED, **OTHERS}) == {**NEEDED, **OTHERS}


def test_a_process_of_pythons_gets_what_python_needs() -> None:
    assert for_interpreter({**SECRETS, **NEEDED, **OTHERS, "PYTHON_KEY": "sesame"}) == NEEDED


def environ(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "1")
    child = Worker(str(write_model(tmp_path / "m.rkllm")), str(tmp_path / "logs" / "m.log"))
    yield child
    child.close()


@pytest.mark.integration
def test_a_running_child_knows_none(worker: Worker) -> None:
    spec = LoadSpec(path=worker.path, context_length=512, library=library("1.2.3"))
    worker.load(spec, timeout=LIMIT)
    assert b"sesame" not in environ(worker.pid)
    assert b"RKLLM_LOG_LEVEL=1\0" in environ(worker.pid)


@pytest.mark.integration
def test_a_chat_template_knows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    template_process.end_idle()
    assert template_process.render("{{ a }}", {"a": "b"}) == "b"
    (child,) = template_process._idle
    assert b"sesame" not in environ(child._process.pid)


def mode(path: Path) -> int:
    return os.stat(path).st_mode & 0o777


@pytest.fixture(params=[0o000, 0o022, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_logs_are_their_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = child_log.open_log(str(tmp_path / "ours" / "logs" / "m.log"))
    log = Path(path)
    assert (mode(log), mode(log.parent), mode(log.parent.parent)) == (0o600, 0o700, 0o700)
    log.chmod(0o644)  # an older release's
    log.parent.chmod(0o755)
    monkeypatch.setattr(child_log, "LIMIT", 10)
    log.write_text("x" * 20)
    _, kept = child_log.open_log(path)
    assert (mode(log), mode(log.parent)) == (0o600, 0o700)
    aside = log.with_name("m.log.1")
    assert mode(aside) == 0o600
    aside.chmod(0o644)
    log.write_text("y" * 20)
    kept.mark_command()
    assert aside.read_text() == "y" * 20
    assert mode(aside) == 0o600


def test_a_device_as_a_log_stays_as_it_is(tmp_path: Path) -> None:
    link = tmp_path / "m.log"
    link.symlink_to(os.devnull)
    before = os.stat(os.devnull).st_mode
    assert child_log.open_log(str(link))[0] == str(link)
    assert os.stat(os.devnull).st_mode == before
