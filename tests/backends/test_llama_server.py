"""The external backend's program: its life and its end, with real processes of which none is left behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.backends.base import GenerateSpec, LoadSpec
from rkllama.console.one_file import OneFile
from rkllama.errors import BackendMissing, LoadFailed, OutOfMemory, WorkerCrashed, WorkerHung
from rkllama.runner.lane import Lane
from rkllama.runner.worker import Worker
from tests.clients.common import GUIDE_FILE, ask, serving_guide
from tests.llama_server import write_program
from tests.running import Server
from tests.waiting import LIMIT, Task, until

pytestmark = pytest.mark.integration

LONG = {"type": "array", "items": {"const": "again"}, "minItems": 150, "maxItems": 150}
"""A shape that holds a model to a long answer."""
NOT_FOR_HELP = 'if "--help" not in sys.argv:\n    '

Start = Callable[..., Worker]
notices: list[str] = []
"""Of the last loads of a test."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker whose llama-server is `program`, and loads the guide with it."""
    workers: list[Worker] = []
    notices.clear()

    def begin(program: str, *arguments: str, timeout: float = LIMIT, parallel: int = 1) -> Worker:
        log_path = str(tmp_path / "guide.log")
        worker = Worker(str(GUIDE_FILE), log_path, external=True, lanes=parallel)
        workers.append(worker)
        spec = LoadSpec(
            path=str(GUIDE_FILE),
            context_length=512,
            parallel=parallel,
            llama_server=(program, "--threads", "1", *arguments),
        )
        notices.extend(worker.load(spec, timeout=timeout).notices)
        return worker

    yield begin
    for worker in workers:
        worker.close()


@pytest.fixture
def program(tmp_path: Path) -> str:
    return write_program(tmp_path / "llama-server")


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, and that run."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    return [int(child) for child in found]


def running(path: Path) -> list[int]:
    """The processes with the program `path` in their command lines."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            if name.isdigit() and os.fsencode(path) in words:
                found.append(int(name))
    return found


def is_to_be_reaped(pid: int) -> bool:
    """Whether a process has ended; its first thread may have done so before the others."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z" and os.listdir(f"/proc/{pid}/task") == [str(pid)]


def is_asking(child: int) -> bool:
    """Whether a model's process has a connection to its llama-server."""
    files = Path(f"/proc/{child}/fd").iterdir()
    with contextlib.suppress(FileNotFoundError):
        return any(os.readlink(file).startswith("socket:") for file in files)
    return False


def answer(worker: Worker, **more: Any) -> Any:
    spec = GenerateSpec(prompt="Once upon a time", **more)
    return worker.generate(spec, first=LIMIT, each=LIMIT)


# --- Several answers at a time -----------------------------------------------------------------


def test_several_answers_at_a_time(start: Start, program: str) -> None:
    """One that is given up takes no other along, and a lane whose answer was given up is used again."""
    worker = start(program, parallel=3)
    assert len(worker.lanes) == 3
    assert len(children_of(worker.pid)) == 1
    runs = [begun(lane, schema=LONG) for lane in worker.lanes]
    for run in runs:
        next(run)  # each has begun, and none has ended
    runs[1].close()
    for run in (runs[0], runs[2]):
        assert list(run)[-1].result.reason != "cancelled"
    assert list(begun(worker.lanes[1], max_tokens=4))[-1].result.completion_tokens == 4


def begun(lane: Lane, **more: Any) -> Any:
    spec = GenerateSpec(prompt="Once upon a time", **more)
    return lane.generate(spec, first=LIMIT, each=LIMIT)


def test_one_that_starts_for_one_answer_at_a_time_only(start: Start, tmp_path: Path) -> None:
    at_most_one = 'sys.argv[sys.argv.index("--parallel") + 1] == "1" or sys.exit("no room")'
    program = write_program(tmp_path / "llama-server", before=NOT_FOR_HELP + at_most_one)
    worker = start(program, parallel=3)
    assert len(worker.lanes) == 1
    assert notices == ["llama-server does not start for 3 answers at a time: it has one"]
    assert list(answer(worker, max_tokens=4))[-1].result.completion_tokens == 4


# --- Its end -----------------------------------------------------------------------------------


def test_one_that_is_killed_in_an_answer_is_a_crash(start: Start, program: str) -> None:
    worker = start(program)
    (server,) = children_of(worker.pid)
    pieces = answer(worker, schema=LONG)
    next(pieces)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match="SIGKILL: most likely the memory") as caught:
        list(pieces)
    assert caught.value.hint is not None
    assert "guide.log" in caught.value.hint
    assert not worker.alive
    assert not running(Path(program))


def test_the_last_error_of_one_that_ends_is_quoted(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "server"
    write_program(path)
    text = path.read_text()
    end = "sys.stderr.write('0.01 E srv: the NPU is on fire\\n'); __import__('os')._exit(7)"
    wait = "signal.sigwait({signal.SIGTERM})"
    assert wait in text
    path.write_text(text.replace(wait, f"signal.sigwait({{signal.SIGUSR1}})\n{end}"))
    worker = start(str(path))
    pieces = answer(worker, schema=LONG)
    next(pieces)
    os.kill(children_of(worker.pid)[0], signal.SIGUSR1)
    with pytest.raises(WorkerCrashed, match="status 7: llama-server said: srv: the NPU is on fire"):
        list(pieces)


def test_nothing_outlives_the_child(start: Start, program: str) -> None:
    worker = start(program)
    (server,) = children_of(worker.pid)
    assert server in running(Path(program))
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashed):
        list(answer(worker))
    until(lambda: not running(Path(program)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_server(tmp_path: Path, program: str, number: int) -> None:
    with serving_external(tmp_path, program) as (server, _):
        assert server.post("/api/generate", {"model": "guide"}).status == 200
        assert running(Path(program))
        server.stop(number)
        until(lambda: not running(Path(program)))


def test_what_a_script_has_started_ends_with_it(start: Start, program: str, tmp_path: Path) -> None:
    """Not every script hands its process over with `exec`."""
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\n{program} "$@"\nexit $?\n')
    script.chmod(0o755)
    worker = start(str(script))
    assert running(Path(program))
    worker.kill("the test is over")
    worker.close()
    until(lambda: not running(Path(program)))


# --- Its start ---------------------------------------------------------------------------------


def test_one_that_takes_its_time_is_waited_for(start: Start, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    path = tmp_path / "server"
    write_program(path, before=f"{NOT_FOR_HELP}open({str(fifo)!r}).read()")
    task = Task(lambda: start(str(path)))
    with fifo.open("w"):  # it has come to where it waits
        assert not task.done
    assert task.result().alive


def test_one_that_is_never_ready_is_stopped(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "server"
    write_program(path, before=f"{NOT_FOR_HELP}__import__('signal').pause()")
    with pytest.raises(WorkerHung) as caught:
        start(str(path), timeout=1.0)
    assert "RKLLAMA_LOAD_TIMEOUT" in caught.value.text
    until(lambda: not running(path))


def test_a_program_that_is_not_there_is_one_clear_error(start: Start, tmp_path: Path) -> None:
    with pytest.raises(BackendMissing, match="missing is not there") as caught:
        start(str(tmp_path / "missing"))
    assert "RKLLAMA_LLAMA_SERVER" in caught.value.text
    (tmp_path / "data").write_text("x")
    with pytest.raises(BackendMissing, match="data is not executable"):
        start(str(tmp_path / "data"))
    with pytest.raises(BackendMissing, match="no program is set"):
        start("-ngl")


def test_a_program_for_another_machine_says_so(start: Start, tmp_path: Path) -> None:
    (tmp_path / "arm").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    (tmp_path / "arm").chmod(0o755)
    with pytest.raises(LoadFailed, match=r"arm does not run here: .*Exec format error"):
        start(str(tmp_path / "arm"))


def test_why_it_does_not_start_is_quoted(
    start: Start, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    with pytest.raises(LoadFailed, match="cannot be loaded: error: invalid argument: --fast"):
        start(program, "--fast")
    assert os.listdir(tmp_path / "t") == []
    assert not running(Path(program))


def test_a_signal_while_it_loads_is_explained(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "server"
    write_program(path, before=f"import os\n{NOT_FOR_HELP}os.kill(os.getpid(), 9)")
    with pytest.raises(OutOfMemory, match=r"could not be loaded: .*most likely the memory ran out"):
        start(str(path))


# --- What it gets, and who may ask it ----------------------------------------------------------


def test_it_gets_none_of_our_secrets(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RKLLAMA_API_KEY", "HF_TOKEN", "MY_PASSWORD", "LLAMA_API_KEY"):
        monkeypatch.setenv(name, "a-secret")
    monkeypatch.setenv("GGML_VISIBLE", "kept")
    told = tmp_path / "told"
    before = f"import os\nopen({str(told)!r}, 'a').write(repr((sys.argv, dict(os.environ))))"
    start(write_program(tmp_path / "server", before=before))
    text = told.read_text()
    assert "a-secret" not in text
    assert "'GGML_VISIBLE': 'kept'" in text
    assert "'--api-key-file', '/dev/fd/" in text


def test_its_socket_has_no_name(
    start: Start, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    worker = start(program)
    assert os.listdir(tmp_path / "t") == []
    assert [piece.text for piece in answer(worker, max_tokens=2)]
    worker.embed(("a",), True, limits=[LIMIT])
    assert os.listdir(tmp_path / "t") == []


def test_one_without_unix_sockets_asks_for_a_key(start: Start, tmp_path: Path) -> None:
    worker = start(write_program(tmp_path / "server", unix=False))
    assert [piece.text for piece in answer(worker, max_tokens=2)]
    from rkllama.backends.llama_program import _listening_port

    port = _listening_port(children_of(worker.pid)[0])
    for path in ("/v1/completions", "/props", "/slots", "/tokenize"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        with contextlib.closing(connection):
            connection.request("POST", path, b'{"prompt":"hi"}')
            assert connection.getresponse().status in (401, 403, 404)


# --- Behind the server -------------------------------------------------------------------------


@contextlib.contextmanager
def serving_external(base: Path, words: str, **environment: str) -> Iterator[tuple[Server, Path]]:
    """A server whose .gguf models run on a llama-server."""
    (base / "serving").mkdir()
    values = {"RKLLAMA_LLAMA_SERVER": f"{words} --threads 1", **environment}
    with serving_guide(base / "serving", env=values) as served:
        yield served


def chat(server: Server, model: str = "guide", **more: Any) -> Any:
    options = {"temperature": 0, "num_predict": 8}
    body = {"model": model, "messages": [ask("Hi")], "options": options, "stream": False, **more}
    return server.post("/api/chat", body)


def test_one_that_died_idle_is_started_again_unnoticed(tmp_path: Path, program: str) -> None:
    with serving_external(tmp_path, program) as (server, _):
        first = chat(server).json["message"]["content"]
        (child,) = server.children()
        os.kill(children_of(child)[0], signal.SIGKILL)
        until(lambda: is_to_be_reaped(child))
        assert chat(server).json["message"]["content"] == first
        assert server.children() != [child]
        assert "(llama-server" in server.get("/api/ps").json["models"][0]["runtime"]


def test_one_that_hangs_is_stopped_and_started_again(tmp_path: Path, program: str) -> None:
    limits = {"RKLLAMA_TOKEN_TIMEOUT": "1s", "RKLLAMA_PREFILL_TIMEOUT": "1s"}
    with serving_external(tmp_path, program, **limits) as (server, _):
        assert chat(server).status == 200
        (stopped,) = children_of(server.children()[0])
        os.kill(stopped, signal.SIGSTOP)
        reply = chat(server)
        assert reply.status == 504, reply.body
        assert chat(server).status == 200
        assert stopped not in running(Path(program))


def is_idle(server: Server) -> bool:
    """Whether no request for the guide is being answered."""
    return 'rkllama_requests_running{model="guide"} 0\n' in server.get("/metrics").body.decode()


def test_an_answer_that_is_given_up_does_not_keep_the_next_one_from_a_stuck_program(
    tmp_path: Path, program: str
) -> None:
    with serving_external(tmp_path, program) as (server, _):
        assert chat(server).status == 200
        (stopped,) = children_of(server.children()[0])
        os.kill(stopped, signal.SIGSTOP)
        (child,) = server.children()
        with server.stream("/api/generate", {"model": "guide", "prompt": "Hi"}):
            until(lambda: is_asking(child))
        # Till it is idle, the next request has another lane than the stuck one.
        until(lambda: is_idle(server))
        assert chat(server).json["message"]["content"]
        assert stopped not in running(Path(program))


def test_a_modelfile_may_choose_a_program_and_a_client_may_not(
    tmp_path: Path, program: str
) -> None:
    other = write_program(tmp_path / "other-server")
    with serving_external(tmp_path, program) as (server, models):
        (models / "own").mkdir()
        own = models / "own" / "Modelfile"
        own.write_text(f"FROM guide\nPARAMETER llama_server {other} --threads 1\n")
        assert chat(server, "own").status == 200
        assert running(Path(other))
        own.write_text("FROM guide\nPARAMETER llama_server off\n")
        assert chat(server, "own").status == 200
        assert "(xllamacpp" in server.get("/api/ps").json["models"][0]["runtime"]
        own.write_text("FROM guide\nPARAMETER llama_server --nonsense\n")
        assert "invalid argument: --nonsense" in chat(server, "own").json["error"]
        for body in (
            {"from": "guide", "parameters": {"llama_server": other}},
            {"from": "guide", "parameters": {"LLAMA_SERVER": "-v"}},
            {"modelfile": f"FROM guide\nparameter Llama_Server {other}"},
            {"modelfile": f'FROM guide\nLLAMA_SERVER="{other}"'},
        ):
            reply = server.post("/api/create", {"model": "theirs", **body})
            assert reply.status == 400, body
            assert "llama_server" in reply.json["error"]
            assert not (models / "theirs").exists()


def test_a_file_elsewhere_is_run_without_the_program_beside_it(
    tmp_path: Path, program: str
) -> None:
    folder = tmp_path / "download"
    folder.mkdir()
    shutil.copy(GUIDE_FILE, folder)
    ran = tmp_path / "ran"
    write_program(Path(program), before=f"open({str(ran)!r}, 'w')")
    text = f"FROM guide.gguf\nPARAMETER llama_server {program}\nSYSTEM \xff\n"
    (folder / "Modelfile").write_bytes(text.encode("latin-1"))
    with contextlib.closing(OneFile(str(folder / "guide.gguf"))) as service:
        assert service.show(service.name).system == "\ufffd"
        service.load(service.name)
    assert not ran.exists()


def test_a_program_is_not_taken_from_a_file_that_others_may_write(
    tmp_path: Path, program: str
) -> None:
    (tmp_path / "serving").mkdir()
    with serving_guide(tmp_path / "serving") as (server, models):
        (models / "open").mkdir()
        (models / "open" / "Modelfile").write_text(
            f"FROM guide\nPARAMETER llama_server {program}\n"
        )
        (models / "open" / "Modelfile").chmod(0o666)
        assert chat(server, "open").status == 200
        assert "(xllamacpp" in server.get("/api/ps").json["models"][0]["runtime"]
        assert not running(Path(program))
        assert any("llama_server in open/Modelfile is ignored" in line for line in server.log)
