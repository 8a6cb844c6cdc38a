"""How the board is doing at this moment: clocks, governors, load, temperatures, memory.

All of it comes from files that the kernel makes as they are read; nothing is kept or started. What cannot
be read is None or missing, never 0. Paths: the vendor's kernels 5.10 and 6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .soc import read_soc
from .sysroot import list_names, read_number, read_text

_DEVFREQ = "/sys/class/devfreq"
_CPUFREQ = "/sys/devices/system/cpu/cpufreq"
_THERMAL = "/sys/class/thermal"
_LOADS = ("/sys/kernel/debug/rknpu/load", "/proc/rknpu/load")


class Clock(NamedTuple):
    """A clock that the kernel scales; frequencies are in Hz."""

    name: str
    """"npu", "ddr", or "cpu" with the numbers of its cores, "cpu4-5"."""
    current: int | None
    highest: int | None
    """The highest that the hardware has."""
    limit: int | None
    """The highest that is allowed now: heat, or somebody's setting, makes it lower."""
    governor: str | None
    governors: tuple[str, ...]
    """Those that the kernel offers."""
    governor_file: str
    """Where the governor is set, as an absolute path of the system."""


class Temperature(NamedTuple):
    """What a sensor tells."""

    zone: str
    celsius: float


class Memory(NamedTuple):
    """The board's memory in bytes; CMA is what an NPU without IOMMU works in."""

    total: int | None
    available: int | None
    cma_total: int | None
    cma_free: int | None


class BoardState(NamedTuple):
    """The board at one moment."""

    soc: str | None
    npu: Clock | None
    npu_load: tuple[int, ...]
    """Percent per core over the last second; none without root."""
    ddr: Clock | None
    cpus: tuple[Clock, ...]
    temperatures: tuple[Temperature, ...]
    throttled: bool | None
    """Whether heat holds a clock down; None where the board has no cooling devices."""
    memory: Memory


def read_state() -> BoardState:
    """Return how the board is doing."""
    return BoardState(
        soc=read_soc(),
        npu=read_npu_clock(),
        npu_load=read_npu_load(),
        ddr=read_ddr_clock(),
        cpus=tuple(read_cpu_clocks()),
        temperatures=tuple(read_temperatures()),
        throttled=read_throttled(),
        memory=read_memory(),
    )


def read_npu_clock() -> Clock | None:
    """Return the NPU's clock; its device is named after its address, "fdab0000.npu"."""
    for name in list_names(_DEVFREQ):
        if name.endswith(".npu"):
            return _devfreq("npu", name)
    return None


def read_ddr_clock() -> Clock | None:
    """Return the memory's clock; None with firmware that does not scale it."""
    return _devfreq("ddr", "dmc") if "dmc" in list_names(_DEVFREQ) else None


def _devfreq(name: str, device: str) -> Clock:
    folder = f"{_DEVFREQ}/{device}"
    frequencies = _numbers(read_text(f"{folder}/available_frequencies"))
    limit = read_number(f"{folder}/max_freq")
    return Clock(
        name=name,
        current=read_number(f"{folder}/cur_freq"),
        highest=max(frequencies, default=limit),
        limit=limit,
        governor=read_text(f"{folder}/governor") or None,
        governors=tuple((read_text(f"{folder}/available_governors") or "").split()),
        governor_file=f"{folder}/governor",
    )


def read_cpu_clocks() -> Iterator[Clock]:
    """Yield the clocks of the CPU's clusters, little cores first; cpufreq writes kHz."""
    policies = [name for name in list_names(_CPUFREQ) if re.fullmatch(r"policy\d+", name)]
    for policy in sorted(policies, key=lambda name: int(name[6:])):
        folder = f"{_CPUFREQ}/{policy}"
        cores = _numbers(read_text(f"{folder}/related_cpus")) or [int(policy[6:])]
        governors = read_text(f"{folder}/scaling_available_governors") or ""
        yield Clock(
            name=f"cpu{cores[0]}" + (f"-{cores[-1]}" if len(cores) > 1 else ""),
            current=_kilo(read_number(f"{folder}/scaling_cur_freq")),
            highest=_kilo(read_number(f"{folder}/cpuinfo_max_freq")),
            limit=_kilo(read_number(f"{folder}/scaling_max_freq")),
            governor=read_text(f"{folder}/scaling_governor") or None,
            governors=tuple(governors.split()),
            governor_file=f"{folder}/scaling_governor",
        )


def read_npu_load() -> tuple[int, ...]:
    """Return the load of each core in percent; none where only root may read it.

    `NPU load:  Core0: 86%, Core1: 84%, Core2: 61%,`, or of a single core `NPU load: 12%`.
    """
    for path in _LOADS:
        text = read_text(path)
        if text is not None:
            return tuple(map(int, re.findall(r"(\d{1,3})\s*%", text)))
    return ()


def read_temperatures() -> Iterator[Temperature]:
    """Yield what each thermal zone tells; the kernel writes thousandths of a degree."""
    for name in _in_order("thermal_zone"):
        zone = read_text(f"{_THERMAL}/{name}/type")
        value = read_number(f"{_THERMAL}/{name}/temp")
        # A sensor that is switched off tells 0 or -273000 or so.
        if zone and value is not None and 0 < value < 200_000:
            yield Temperature(zone, value / 1000)


def read_throttled() -> bool | None:
    """Return whether a cooling device holds a clock down; None where none can tell."""
    states = [
        read_number(f"{_THERMAL}/{name}/cur_state")
        for name in _in_order("cooling_device")
        # Fans cool too, and that slows nothing.
        if re.search("cpufreq|devfreq|npu|dmc", read_text(f"{_THERMAL}/{name}/type") or "")
    ]
    known = [state for state in states if state is not None]
    return any(known) if known else None


def read_memory() -> Memory:
    """Return the memory of the machine."""
    text = read_text("/proc/meminfo") or ""
    sizes = {name: int(size) * 1024 for name, size in re.findall(r"(?m)^(\w+):\s+(\d+) kB", text)}
    return Memory(
        total=sizes.get("MemTotal"),
        available=sizes.get("MemAvailable"),
        cma_total=sizes.get("CmaTotal") or None,
        cma_free=sizes.get("CmaFree") if sizes.get("CmaTotal") else None,
    )


def _in_order(prefix: str) -> list[str]:
    names = [name for name in list_names(_THERMAL) if re.fullmatch(rf"{prefix}\d+", name)]
    return sorted(names, key=lambda name: int(name[len(prefix) :]))


def _numbers(text: str | None) -> list[int]:
    return [int(word) for word in (text or "").split() if word.isdigit()]


def _kilo(value: int | None) -> int | None:
    return None if value is None else value * 1000
