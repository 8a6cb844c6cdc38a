"""What every test gets: a home of its own, and no setting or server of whoever runs the tests."""

from __future__ import annotations

import fcntl
import gc
import itertools
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests import prepared
from tests.boards import build_board
from tests.running import Server
from tests.virtual_npu import library

# A shell's background job ignores Ctrl-C, and so would every program that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# What is collected stays to the end: looking for garbage among all of it takes a second, each time.
gc.disable()


def pytest_collection_finish() -> None:
    """Leave what has been collected out of the search for garbage, which is on from now on."""
    gc.collect()  # what collecting the tests has left open is still told
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """A worker more than there are cores: half of the time tests wait for processes."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A stretch of the tests for each worker, of which the others take what it does not come to: those of a
    file, which share servers and browsers, run in one of them.
    """
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `unit` what is not marked `integration`: `pytest -m unit` takes seconds. The files whose tests
    are the longest come first, so that no worker begins one when the others have nothing left; tests that run
    alone come last, when nobody waits long for them.
    """
    for item in items:
        if item.get_closest_marker("integration") is None:
            item.add_marker("unit")
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if item.path.name in LONGEST:
        return 0
    return 1 if item.get_closest_marker("serial") is None else 2


LONGEST = (
    "test_distribution.py",
    "test_emulated.py",
    "test_firefox.py",
    "test_markdown_hostile.py",
    "test_schemathesis.py",
)
"""Files with tests of twenty seconds and more."""


def pytest_collection(session: pytest.Session) -> None:
    """Give random tests as many examples as RKLLAMA_TEST_EXAMPLES says, fewer under `-m unit`, and none of
    them a deadline.
    """
    if session.config.pluginmanager.hasplugin("dsession"):
        return  # xdist's own process runs no test
    _import_a_share(session.config)
    from hypothesis import settings

    whole = int(os.environ.get("RKLLAMA_TEST_EXAMPLES", "40"))
    settings.register_profile("whole", deadline=None, max_examples=whole)
    settings.register_profile("unit", deadline=None, max_examples=15)
    settings.load_profile("unit" if _only_units(session.config) else "whole")


def _import_a_share(config: pytest.Config) -> None:
    """Import other files first than the other workers do: an assertion is rewritten and a package compiled
    by one of them, where all would do it at the same time, and the others read what it has written.
    """
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not worker or not whole or _only_units(config):
        return
    tests = Path(__file__).parent
    number = int(worker["workerid"].removeprefix("gw"))
    for path in sorted(tests.rglob("test_*.py"))[number :: worker["workercount"]]:
        with suppress(Exception, pytest.skip.Exception):  # collecting it tells what is wrong
            import_module(".".join(path.relative_to(config.rootpath).with_suffix("").parts))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test that is marked `serial` while no other worker runs any, and with processes started anew."""
    alone = item.get_closest_marker("serial") is not None
    with _room(item.config, alone), prepared.whole() if alone else nullcontext():
        return (yield)


@contextmanager
def _room(config: pytest.Config, alone: bool) -> Iterator[None]:
    """Hold a place among the workers of this run, or all of them. Whoever waits is next: the door is
    closed behind it until it is in.
    """
    run = getattr(config, "workerinput", {}).get("testrunuid")
    if run is None:  # there is one process
        yield
        return
    place = f"{tempfile.gettempdir()}/rkllama-tests-{run}"
    with open(f"{place}-door", "a") as door, open(f"{place}-room", "a") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For `-m unit`, do not import files without a unit test: the clients' packages take seconds."""
    if _only_units(config) and collection_path.suffix == ".py":
        return _is_integration(collection_path) or None
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what `-m unit` has not even counted as deselected."""
    if _only_units(terminalreporter.config):
        files = filter(_is_integration, Path(__file__).parent.rglob("test_*.py"))
        terminalreporter.write_line(
            f"unit tests only: left out are integration tests, among them {len([*files])} whole files"
        )


def _only_units(config: pytest.Config) -> bool:
    return str(config.getoption("markexpr")) == "unit"


def _is_integration(path: Path) -> bool:
    return "\npytestmark = pytest.mark.integration\n" in path.read_text()


@pytest.fixture(autouse=True)
def _unit_tests_start_no_process(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.get_closest_marker("unit") is not None:
        monkeypatch.setattr(subprocess.Popen, "__init__", _refuse_to_start)
        for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system"):
            monkeypatch.setattr(os, name, _refuse_to_start)


def _refuse_to_start(*_: object, **__: object) -> None:
    pytest.fail("a unit test starts no process: mark it with pytest.mark.integration")


def isolate(patch: pytest.MonkeyPatch, directory: Path) -> Path:
    """An empty home in `directory`, and an environment that knows no other; answers the home."""
    for name in list(os.environ):
        if name.startswith(("RKLLAMA_", "HF_", "RKLLM_", "VNPU_")):
            patch.delenv(name)
    home = directory / "home"
    home.mkdir()
    patch.setenv("HOME", str(home))
    patch.setenv("HF_HOME", str(home / "hf"))
    patch.setenv("RKLLAMA_LOCK", str(directory / "npu.lock"))
    # No test finds a server that happens to run on this machine: nothing listens on port 0.
    patch.setenv("RKLLAMA_HOST", "127.0.0.1:0")
    return home


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A directory of the test's own: pytest's, without looking for the next free number, which takes it half
    as long as a short test.
    """
    name = re.sub(r"\W", "_", request.node.name)[:30]
    path = tmp_path_factory.getbasetemp() / f"{next(NUMBERS)}-{name}"
    path.mkdir(0o700)
    return path


NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory; nothing of the real one is seen or touched."""
    return isolate(monkeypatch, tmp_path)


@pytest.fixture
def models(home: Path) -> Path:
    """The default models directory, empty."""
    directory = home / "RKLLAMA" / "models"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def npu(monkeypatch: pytest.MonkeyPatch) -> str:
    """The virtual NPU as this test's librkllmrt."""
    path = library("1.2.3")
    monkeypatch.setenv("RKLLAMA_RKLLM_LIB", path)
    return path


@pytest.fixture
def server(models: Path, npu: str) -> Iterator[Server]:
    """A running `rkllama serve` over the virtual NPU and the empty models directory."""
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running `rkllama serve` over the virtual NPU, for all tests of a file that leave it as it was."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("shared"))
        patch.setenv("RKLLAMA_RKLLM_LIB", library("1.2.3"))
        with Server() as running:
            yield running


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of an RK3588 where all is well, in the place of this machine's."""
    root = build_board("rk3588", tmp_path)
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(root))
    return root


@pytest.fixture(params=["alone", "through a server"])
def where(request: pytest.FixtureRequest, models: Path) -> Iterator[dict[str, str]]:
    """The environment of commands that do the work themselves, or have a server do it."""
    if request.param == "alone":
        yield {}
        return
    with Server() as server:
        yield {"RKLLAMA_HOST": server.url}
