"""How the board is doing at this moment: clocks, governors, load, temperatures, memory.

All of it comes from files that the kernel makes as they are read; nothing is kept or started. What cannot
be read is None or missing, never 0. Paths: the vendor's kernels 5.10 and 6.1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from ..types import BoardState, Clock, CoreTime, Memory, Temperature
from .soc import read_soc
from .sysroot import list_names, read_number, read_text

__all__ = [
    "HOT",
    "BoardState",
    "Clock",
    "CoreTime",
    "Memory",
    "Temperature",
    "core_loads",
    "core_ranges",
    "megahertz",
    "parse_cores",
    "read_core_times",
    "read_cpu_clocks",
    "read_ddr_clock",
    "read_memory",
    "read_npu_clock",
    "read_npu_load",
    "read_state",
    "read_temperatures",
    "read_throttled",
]

_DEVFREQ = "/sys/class/devfreq"
_CPUFREQ = "/sys/devices/system/cpu/cpufreq"
_THERMAL = "/sys/class/thermal"
_LOADS = ("/sys/kernel/debug/rknpu/load", "/proc/rknpu/load")
_TICKS = os.sysconf("SC_CLK_TCK")
_COLDEST, _HOTTEST = -55_000, 200_000
"""Thousandths of a degree between which a sensor's value means something."""
HOT = 80.0
"""Degrees from which the vendor's system monitor may limit clocks without a cooling device: most device
trees say 85, and 5 less until it lets go."""
_NUMBER = re.compile(r"[0-9]{1,20}")
_SLOWS = re.compile(r"cpufreq|devfreq|npu|dmc|Processor")
"""In the types of cooling devices that cool by slowing something; fans are others."""


def read_state() -> BoardState:
    """Return how the board is doing."""
    npu, ddr, cpus = read_npu_clock(), read_ddr_clock(), tuple(read_cpu_clocks())
    thermal = list_names(_THERMAL)
    temperatures = tuple(_temperatures(thermal))
    return BoardState(
        soc=read_soc(),
        npu=npu,
        ddr=ddr,
        cpus=cpus,
        core_times=tuple(read_core_times()),
        temperatures=temperatures,
        throttled=_is_throttled((npu, ddr, *cpus), temperatures, thermal),
        memory=read_memory(),
    )


def read_npu_clock() -> Clock | None:
    """Return the NPU's clock; its device is named after its address, "fdab0000.npu".

    The `load` of that device is 0 on every kernel: the driver counts elsewhere.
    """
    for name in list_names(_DEVFREQ):
        if name.endswith(".npu"):
            return _devfreq("npu", name, read_npu_load())
    return None


def read_ddr_clock() -> Clock | None:
    """Return the memory's clock; None with firmware that does not scale it.

    Its load is that of the bus: "33@528000000Hz".
    """
    if "dmc" not in list_names(_DEVFREQ):
        return None
    load = re.match(r"(\d{1,3})@", read_text(f"{_DEVFREQ}/dmc/load") or "")
    return _devfreq("ddr", "dmc", (int(load[1]),) if load else ())


def read_npu_load() -> tuple[int, ...]:
    """Return the load of each core in percent; none where only root may read it.

    `NPU load:  Core0: 86%, Core1: 84%, Core2: 61%,`, or of a single core `NPU load: 12%`.
    """
    for path in _LOADS:
        load = re.findall(r"(\d{1,3})\s*%", read_text(path) or "")
        if load:
            return tuple(map(int, load))
    return ()


def _devfreq(name: str, device: str, load: tuple[int, ...]) -> Clock:
    folder = f"{_DEVFREQ}/{device}"
    frequencies = _numbers(read_text(f"{folder}/available_frequencies"))
    limit = read_number(f"{folder}/max_freq") or None  # old kernels write 0 for none
    return Clock(
        name=name,
        current=read_number(f"{folder}/cur_freq"),
        highest=max(frequencies, default=limit),
        limit=limit,
        governor=read_text(f"{folder}/governor") or None,
        governors=tuple((read_text(f"{folder}/available_governors") or "").split()),
        governor_file=f"{folder}/governor",
        load=load,
    )


def read_cpu_clocks() -> Iterator[Clock]:
    """Yield the clocks of the CPU's clusters, little cores first; cpufreq writes kHz."""
    for policy in _in_order(list_names(_CPUFREQ), "policy"):
        folder = f"{_CPUFREQ}/{policy}"
        cores = _numbers(read_text(f"{folder}/related_cpus")) or [int(policy[6:])]
        governors = read_text(f"{folder}/scaling_available_governors") or ""
        yield Clock(
            name="cpu" + core_ranges(cores),
            current=_kilo(read_number(f"{folder}/scaling_cur_freq")),
            highest=_kilo(read_number(f"{folder}/cpuinfo_max_freq")),
            limit=_kilo(read_number(f"{folder}/scaling_max_freq")),
            governor=read_text(f"{folder}/scaling_governor") or None,
            governors=tuple(governors.split()),
            governor_file=f"{folder}/scaling_governor",
            cores=tuple(cores),
        )


def read_core_times() -> Iterator[CoreTime]:
    """Yield how long each core has worked and idled; one that is switched off is missing."""
    for line in (read_text("/proc/stat") or "").splitlines():
        # cpu0 user nice system idle iowait irq softirq steal guest guest_nice; guests count as users, too.
        if match := re.match(r"cpu([0-9]{1,5}) ([0-9 ]+)", line):
            ticks = _numbers(match[2])[:8]
            idle = sum(ticks[3:5])
            yield CoreTime(
                core=int(match[1]), busy=(sum(ticks) - idle) / _TICKS, idle=idle / _TICKS
            )


def read_temperatures() -> Iterator[Temperature]:
    """Yield what each thermal zone tells."""
    return _temperatures(list_names(_THERMAL))


def read_throttled() -> bool | None:
    """Return whether heat holds a clock down; None where nothing tells."""
    return read_state().throttled


def _temperatures(names: Sequence[str]) -> Iterator[Temperature]:
    """Yield what each thermal zone tells; the kernel writes thousandths of a degree."""
    seen: set[str] = set()
    for name in _in_order(names, "thermal_zone"):
        zone = read_text(f"{_THERMAL}/{name}/type")
        value = read_number(f"{_THERMAL}/{name}/temp")
        # A sensor that is switched off tells 0 or -273000 or so.
        if zone and value and _COLDEST < value < _HOTTEST:
            # PCs have several zones of one type.
            zone = f"{zone}-{name[12:]}" if zone in seen else zone
            seen.add(zone)
            yield Temperature(zone=zone, celsius=value / 1000)


def _is_throttled(
    clocks: Sequence[Clock | None], sensors: Sequence[Temperature], names: Sequence[str]
) -> bool | None:
    """Return whether heat holds a clock down; None where nothing tells.

    The kernel's thermal framework sets a cooling device to more than 0. The vendor's system monitor limits
    clocks without one, and so may the user: which of them it was, only the temperature hints at.
    """
    states = [
        read_number(f"{_THERMAL}/{name}/cur_state")
        for name in _in_order(names, "cooling_device")
        if _SLOWS.search(read_text(f"{_THERMAL}/{name}/type") or "")
    ]
    known = [state for state in states if state is not None]
    if any(state > 0 for state in known):
        return True
    limited = any(clock is not None and clock.is_limited for clock in clocks)
    if not known or (limited and any(sensor.celsius >= HOT for sensor in sensors)):
        return None
    return False


def read_memory() -> Memory:
    """Return the memory of the machine."""
    text = read_text("/proc/meminfo") or ""
    found = re.findall(r"(?m)^(\w+):\s+([0-9]{1,15}) kB", text)
    sizes = {name: int(size) * 1024 for name, size in found}
    return Memory(
        total=sizes.get("MemTotal"),
        available=sizes.get("MemAvailable"),
        cma_total=sizes.get("CmaTotal") or None,
        cma_free=sizes.get("CmaFree") if sizes.get("CmaTotal") else None,
    )


def _in_order(names: Sequence[str], prefix: str) -> list[str]:
    """Return the names that are `prefix` and a number, by that."""
    numbers = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return [f"{prefix}{number}" for number in sorted(_numbers(" ".join(numbers)))]


def core_ranges(cores: Iterable[int]) -> str:
    """Return the numbers of cores as the kernel writes them: "0-3,6"."""
    numbers = set(cores)
    starts = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number for number in numbers if number + 1 not in numbers)
    return ",".join(
        str(start) if start == end else f"{start}-{end}"
        for start, end in zip(starts, ends, strict=True)
    )


_MOST_CORES = 8192
"""As many as a kernel can be built for."""


def parse_cores(ranges: str) -> set[int]:
    """Return the numbers of the kernel's "0-3,6"."""
    cores: set[int] = set()
    for first, last in re.findall(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", ranges):
        cores.update(range(int(first), min(int(last or first), _MOST_CORES) + 1))
    return cores


def core_loads(before: Iterable[CoreTime], now: Iterable[CoreTime]) -> dict[int, float]:
    """Return the load of each core between two readings, 0 to 1; one that does not tell is missing."""
    loads, earlier = {}, {time.core: time for time in before}
    for time in now:
        if then := earlier.get(time.core):
            busy, idle = time.busy - then.busy, time.idle - then.idle
            if busy >= 0 and idle >= 0 and busy + idle > 0:
                loads[time.core] = busy / (busy + idle)
    return loads


def megahertz(hertz: int) -> str:
    """Return a frequency as people read it: "1000 MHz"."""
    return f"{hertz / 1e6:.0f} MHz"


def _numbers(text: str | None) -> list[int]:
    return [int(word) for word in (text or "").split() if _NUMBER.fullmatch(word)]


def _kilo(value: int | None) -> int | None:
    return None if value is None else value * 1000
