"""Watts and joules, from a sensor of the board or from the plug that feeds it; never estimated.

A counter of energy is read at the beginning and the end of what is measured. Watts are sampled meanwhile by
one thread, at a rate that neither plugs (most renew their figure once a second) nor sensors (an INA226
averages over up to a second) could use more of, and at which the samples themselves cost nothing that can
be measured: twice a second, less than a millisecond each.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from ..board.sysroot import list_names, read_number, read_text
from ..client.http import request
from ..errors import InvalidRequest, RKLLamaError
from .results import PowerFacts

INTERVAL = 0.5
"""Seconds between two samples."""
_TIMEOUT = 2.0
"""Seconds that a plug may take."""
_LARGEST = 64 << 10
"""Bytes of a plug's answer."""
_HWMON = "/sys/class/hwmon"
_SENSOR = re.compile(r"(?:power|energy)\d+_(?:input|average)")
_FEWEST = 2
"""Samples from which on their mean says something about a stretch of time."""


class Meter(Protocol):
    """Tells the energy of stretches of time; these are monotonic seconds."""

    @property
    def facts(self) -> PowerFacts | None:
        """Where it reads; None for no meter."""

    def note(self) -> None:
        """Remember how it stands now: a stretch begins or ends."""

    def joules(self, begin: float, end: float) -> float | None:
        """Return the energy between two times; None where too little was read to tell."""

    def start(self) -> None:
        """Begin to read."""

    def stop(self) -> None:
        """End that."""


class _NoMeter:
    """No power meter."""

    facts = None

    def note(self) -> None:
        pass

    def joules(self, begin: float, end: float) -> float | None:  # noqa: ARG002 - as Meter has it
        return None

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


NO_METER: Meter = _NoMeter()


class Reading(NamedTuple):
    """What was read, and when."""

    at: float
    value: float


class EnergyCounter:
    """A counter of joules that only grows."""

    _SLACK = 0.05
    """Seconds by which a reading may miss the time that is asked for."""

    def __init__(self, source: str, read: Callable[[], float | None]) -> None:
        self.facts = PowerFacts(source=source, method="counter", interval=None)
        self._read = read
        self._readings: list[Reading] = []

    def note(self) -> None:
        """Read it."""
        value = self._read()
        if value is not None:
            self._readings.append(Reading(time.monotonic(), value))

    def joules(self, begin: float, end: float) -> float | None:
        """Return what it has counted from one note to another; None where it was reset."""
        first, last = self._at(begin), self._at(end)
        if first is None or last is None or last.value < first.value or last.at <= first.at:
            return None
        return last.value - first.value

    def _at(self, moment: float) -> Reading | None:
        near = min(self._readings, key=lambda one: abs(one.at - moment), default=None)
        return near if near is not None and abs(near.at - moment) <= self._SLACK else None

    def start(self) -> None:
        """Do nothing: it counts by itself."""

    def stop(self) -> None:
        """Do nothing."""


class Sampler:
    """Watts, read again and again by a thread from `start` to `stop`."""

    def __init__(
        self, source: str, read: Callable[[], float | None], interval: float = INTERVAL
    ) -> None:
        self.facts = PowerFacts(source=source, method="samples", interval=interval)
        self._read = read
        self._interval = interval
        self._samples: list[Reading] = []
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self) -> None:
        """Do nothing: the thread reads."""

    def joules(self, begin: float, end: float) -> float | None:
        """Return the mean of the samples in a stretch, times its length."""
        inside = [sample.value for sample in list(self._samples) if begin <= sample.at <= end]
        if len(inside) < _FEWEST:
            return None
        return sum(inside) / len(inside) * (end - begin)

    def start(self) -> None:
        """Start the thread."""
        thread = threading.Thread(target=self._sample, name="power", daemon=True)
        thread.start()  # Ctrl-C may keep it from starting: then there is none to wait for
        self._thread = thread

    def stop(self) -> None:
        """End the thread; a plug that does not answer is not waited for longer than it may take."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(2 * _TIMEOUT)

    def _sample(self) -> None:
        due = time.monotonic()
        while True:
            value = self._read()
            if value is not None:
                self._samples.append(Reading(time.monotonic(), value))
            due = max(due + self._interval, time.monotonic())
            if self._stopped.wait(due - time.monotonic()):
                return


def open_meter(source: str | None) -> Meter:
    """Return the meter that the user names: `http://HOST/PATH#KEY.KEY` for a plug that tells watts as JSON, a
    file below /sys/class/hwmon, or "hwmon" for the only one there.

    It is tried once. Raises InvalidRequest for a source that makes no sense, RKLLamaError for one that tells
    nothing.
    """
    if source is None:
        return NO_METER
    if "://" in source:
        return _open_plug(source)
    path = _only_sensor() if source == "hwmon" else source
    if not _SENSOR.fullmatch(path.rpartition("/")[2]):
        raise _unusable(
            source, "it is neither hwmon, nor a powerN_input or energyN_input, nor a URL"
        )
    return _open_sensor(path)


def _open_sensor(path: str) -> Meter:
    """A file of the kernel's, in millionths of a watt or joule."""

    def read() -> float | None:
        value = read_number(path)
        return None if value is None or value < 0 else value / 1e6

    if read() is None:
        raise RKLLamaError(
            f"{path} tells no figure",
            hint="Check that the file is there, and that you may read it.",
        )
    name = read_text(f"{path.rpartition('/')[0]}/name")
    source = f"{path} ({name})" if name else path
    if path.rpartition("/")[2].startswith("energy"):
        return EnergyCounter(source, read)
    return Sampler(source, read)


def _only_sensor() -> str:
    """Return the file of the only sensor of power or energy. Raises RKLLamaError where it is not the only."""
    found = [
        f"{_HWMON}/{device}/{name}"
        for device in list_names(_HWMON)
        for name in list_names(f"{_HWMON}/{device}")
        if _SENSOR.fullmatch(name)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise RKLLamaError(
            "this machine has no sensor of power or energy in /sys/class/hwmon",
            hint="A plug that measures can tell instead: --power http://HOST/PATH#KEY.",
        )
    named = [f"{path} ({read_text(path.rpartition('/')[0] + '/name') or '?'})" for path in found]
    raise RKLLamaError(
        "this machine has several sensors of power or energy",
        hint="Name one of them after --power:\n  " + "\n  ".join(named),
    )


def _open_plug(source: str) -> Meter:
    address, _, keys = source.partition("#")
    parts = urlsplit(address)
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not keys or not port:
        raise _unusable(source, "it is not of the form http://HOST[:PORT]/PATH#KEY.KEY")
    if parts.username is not None:
        raise _unusable(source, "a name and a password cannot be part of it")
    host = parts.hostname
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def ask() -> float:
        with request(host, port, "GET", path, timeout=_TIMEOUT, within=_TIMEOUT) as response:
            if response.status != 200:
                raise ValueError(f"it replied with status {response.status}")
            return watts_in(response.read(_LARGEST), keys)

    def read() -> float | None:
        try:
            return ask()
        except (RKLLamaError, ValueError):  # one sample is missing
            return None

    try:
        ask()
    except (RKLLamaError, ValueError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise RKLLamaError(
            f"the power meter at {address} tells no watts: {reason}",
            hint="What follows the # is the way to the watts in its JSON, such as emeters.0.power.",
        ) from None
    return Sampler(source, read)


def watts_in(body: bytes, keys: str) -> float:
    """Return the watts to which `keys` lead in JSON. Raises ValueError where there are none."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("its answer is not JSON") from None
    for key in keys.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise ValueError(f"its answer has no {key!r} where {keys} leads")
    return _watts(value, keys)


def _watts(value: object, keys: str) -> float:
    """Some write numbers as texts."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            watts = float(value)
        except (ValueError, OverflowError):
            watts = math.nan
        if math.isfinite(watts) and watts >= 0:
            return watts
    raise ValueError(f"what {keys} leads to is not a number of watts")


def _unusable(source: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{source!r} cannot be used as a power meter: {reason}", param="power")
