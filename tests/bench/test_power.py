"""Watts and joules from sensors in fixture trees and from a plug on the loopback."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rkllama.bench.power import (
    NO_METER,
    EnergyCounter,
    Sampler,
    open_meter,
    watts_in,
)
from rkllama.console import terminal
from rkllama.errors import InvalidRequest, RKLLamaError
from tests.waiting import Task, until

HWMON = "sys/class/hwmon"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty system."""
    monkeypatch.setenv("RKLLAMA_SYSROOT", str(tmp_path))
    return tmp_path


def sensor(root: Path, device: str, name: str, value: int, chip: str = "ina226") -> str:
    folder = root / HWMON / device
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{chip}\n")
    (folder / name).write_text(f"{value}\n")
    return f"/{HWMON}/{device}/{name}"


# --- Sensors -----------------------------------------------------------------------------------


def test_the_only_sensor_is_found(root: Path) -> None:
    path = sensor(root, "hwmon3", "power1_input", 5_250_000)
    sensor(root, "hwmon0", "temp1_input", 40_000, chip="soc_thermal")
    meter = open_meter("hwmon")
    assert meter.facts is not None
    assert meter.facts.source == f"{path} (ina226)"
    assert (meter.facts.method, meter.facts.interval) == ("samples", 0.5)


def test_several_sensors_have_to_be_named(root: Path) -> None:
    one = sensor(root, "hwmon1", "power1_input", 1, chip="ina226")
    other = sensor(root, "hwmon2", "energy1_input", 1, chip="ina233")
    with pytest.raises(RKLLamaError, match="several sensors") as caught:
        open_meter("hwmon")
    assert caught.value.hint is not None
    assert f"{one} (ina226)" in caught.value.hint
    assert f"{other} (ina233)" in caught.value.hint
    named = open_meter(other)
    assert named.facts is not None
    assert named.facts.method == "counter"


def test_without_a_sensor_the_plug_is_suggested(root: Path) -> None:
    with pytest.raises(RKLLamaError, match="no sensor") as caught:
        open_meter("hwmon")
    assert "http://" in str(caught.value.hint)


@pytest.mark.parametrize("value", ["", "broken", "-5"])
def test_a_sensor_without_a_figure_is_refused_before_anything_is_measured(
    value: str, root: Path
) -> None:
    path = sensor(root, "hwmon0", "power1_input", 1)
    (root / path.lstrip("/")).write_text(value)
    with pytest.raises(RKLLamaError, match="tells no figure"):
        open_meter(path)


def test_a_counter_tells_what_it_has_counted_between_two_notes(root: Path) -> None:
    path = sensor(root, "hwmon0", "energy1_input", 1_000_000)
    meter = open_meter(path)
    meter.note()
    begin = time.monotonic()
    sensor(root, "hwmon0", "energy1_input", 3_500_000)
    until(lambda: time.monotonic() > begin + 0.001)
    meter.note()
    end = time.monotonic()
    assert meter.joules(begin, end) == pytest.approx(2.5)
    assert meter.joules(begin - 5, end) is None, "nobody read it then"
    sensor(root, "hwmon0", "energy1_input", 7)
    meter.note()
    assert meter.joules(end, time.monotonic()) is None, "it was reset"


def test_a_counter_that_was_never_read_tells_nothing() -> None:
    meter = EnergyCounter("x", lambda: None)
    meter.note()
    assert meter.joules(0.0, time.monotonic()) is None


# --- Samples -----------------------------------------------------------------------------------


def test_samples_are_taken_from_start_to_stop_only() -> None:
    taken: list[float] = []

    def read() -> float:
        taken.append(time.monotonic())
        return 6.0

    meter = Sampler("x", read, interval=0.001)
    assert not taken
    meter.start()
    until(lambda: len(taken) >= 5)
    meter.stop()
    count, end = len(taken), time.monotonic()
    assert meter.joules(taken[0], end) == pytest.approx(6.0 * (end - taken[0]))
    assert meter.joules(end, end + 10) is None, "no sample is in it"
    assert len(taken) == count
    assert not [one for one in threading.enumerate() if one.name == "power"]


def test_a_thread_that_ctrl_c_kept_from_starting_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    for waiting in (Sampler("x", lambda: 1.0), terminal.Spinner("")):
        with pytest.raises(KeyboardInterrupt):
            waiting.start()
        waiting.stop()


def test_one_sample_is_not_enough() -> None:
    asked: list[float] = []

    def read() -> float | None:
        asked.append(5.0)
        return 5.0 if len(asked) == 1 else None

    meter = Sampler("x", read, interval=0.001)
    begin = time.monotonic()
    meter.start()
    until(lambda: len(asked) >= 3)
    meter.stop()
    assert meter.joules(begin, time.monotonic()) is None


def test_without_a_meter_nothing_is_read() -> None:
    meter = open_meter(None)
    assert meter is NO_METER
    meter.start()
    meter.note()
    meter.stop()
    assert meter.facts is None
    assert meter.joules(0.0, 1.0) is None


# --- Plugs -------------------------------------------------------------------------------------


class Plug:
    """A plug on the loopback that answers `body` to every request, after `gate`."""

    def __init__(self) -> None:
        self.body = b"{}"
        self.status = 200
        self.paths: list[str] = []
        self.gate = threading.Event()
        self.gate.set()


@contextmanager
def running(plug: Plug) -> Iterator[str]:
    """Its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            plug.paths.append(self.path)
            plug.gate.wait(10)
            self.send_response(plug.status)
            self.send_header("Content-Length", str(len(plug.body)))
            self.end_headers()
            self.wfile.write(plug.body)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing of clients that have hung up."""

    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        plug.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.integration
def test_a_plug_is_read_while_something_is_measured() -> None:
    plug = Plug()
    plug.body = json.dumps({"StatusSNS": {"ENERGY": {"Power": [4.5, 1]}}}).encode()
    with running(plug) as address:
        meter = open_meter(f"{address}/cm?cmnd=Status%208#StatusSNS.ENERGY.Power.0")
        assert plug.paths == ["/cm?cmnd=Status%208"], "it is tried once"
        assert isinstance(meter, Sampler)
        begin = time.monotonic()
        meter.start()
        until(lambda: meter.joules(begin, time.monotonic()))
        meter.stop()
        end = time.monotonic()
        assert meter.joules(begin, end) == pytest.approx(4.5 * (end - begin))
        assert meter.facts.source == f"{address}/cm?cmnd=Status%208#StatusSNS.ENERGY.Power.0"


@pytest.mark.integration
def test_a_plug_that_fails_meanwhile_leaves_a_gap() -> None:
    plug = Plug()
    plug.body = b'{"power": 4.5}'
    with running(plug) as address:
        meter = open_meter(f"{address}/#power")
        plug.body = b"resetting"
        begin = time.monotonic()
        meter.start()
        until(lambda: len(plug.paths) >= 3)
        meter.stop()
        assert meter.joules(begin, time.monotonic()) is None


@pytest.mark.integration
def test_a_plug_that_does_not_answer_is_not_waited_for() -> None:
    plug = Plug()
    with running(plug) as address:
        plug.gate.clear()
        with pytest.raises(RKLLamaError, match="has sent nothing for 2 seconds"):
            open_meter(f"{address}/#power")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{}", 404, "replied with status 404"),
        (b"watts: 5", 200, "not JSON"),
        (b"[" * 100_000, 200, "it sent more than 65536 bytes"),
        (b'{"power": true}', 200, "not a number of watts"),
        (b'{"power": -3}', 200, "not a number of watts"),
        (b'{"power": "off"}', 200, "not a number of watts"),
        (b'{"power": NaN}', 200, "not a number of watts"),
        (b'{"watts": 3}', 200, "has no 'power' where power leads"),
    ],
)
def test_a_plug_that_tells_no_watts_is_refused_at_once(
    body: bytes, status: int, reason: str
) -> None:
    plug = Plug()
    plug.body, plug.status = body, status
    with running(plug) as address, pytest.raises(RKLLamaError, match=reason):
        open_meter(f"{address}/#power")


def test_nobody_at_the_address() -> None:
    with pytest.raises(RKLLamaError, match=r"tells no watts.*refused"):
        open_meter("http://127.0.0.1:1/#power")


@pytest.mark.parametrize(
    "source",
    [
        "http://plug.lan/status",
        "https://plug.lan/status#power",
        "ftp://plug.lan/#power",
        "http:///status#power",
        "http://plug.lan:99999/#power",
        "http://user:secret@plug.lan/#power",
        "/etc/passwd",
        "/sys/class/hwmon/hwmon0/temp1_input",
        "hwmon1",
    ],
)
def test_sources_that_make_no_sense(source: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be used as a power meter"):
        open_meter(source)


def test_the_way_to_the_watts() -> None:
    body = json.dumps({"a": [{"b": "12.5"}, 3], "0": {"": 1}}).encode()
    assert watts_in(body, "a.0.b") == 12.5
    assert watts_in(body, "a.1") == 3.0
    assert watts_in(body, "0.") == 1.0
    for keys in ("a.2", "a.b", "a.-1", "a.0.b.c", "b"):
        with pytest.raises(ValueError, match="has no"):
            watts_in(body, keys)


@pytest.mark.parametrize("value", [10**400, "1" * 400, "1e999", "-inf", "nan"])
def test_a_figure_beyond_all_figures_is_none(value: object) -> None:
    with pytest.raises(ValueError, match="not a number of watts"):
        watts_in(json.dumps({"w": value}).encode(), "w")


@pytest.mark.parametrize("piece", [b"\n" * 65536, b" " * 65536, b"1"])
def test_an_answer_without_end_ends(piece: bytes) -> None:
    """Lines without text, a single line, and one that comes byte by byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                while len(piece) > 1 or not done.wait(0.2):
                    connection.sendall(piece)

        done = threading.Event()
        serving = Task(answer)
        source = f"http://127.0.0.1:{listener.getsockname()[1]}/#power"
        trying = Task(lambda: open_meter(source))
        try:
            with pytest.raises(RKLLamaError, match="tells no watts"):
                trying.result()
        finally:
            done.set()
        serving.result()
