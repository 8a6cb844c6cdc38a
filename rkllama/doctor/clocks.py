"""Checks of the clocks of NPU, memory and CPU, of their governors, and of heat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote

from ..board.governors import SOCKET
from ..board.sysroot import exists
from ..board.telemetry import (
    Clock,
    megahertz,
    read_cpu_clocks,
    read_ddr_clock,
    read_npu_clock,
    read_temperatures,
    read_throttled,
)
from .finding import Finding, Subject
from .machine import has_npu, in_container, is_root

HOT = 85.0
"""Degrees Celsius from which on the vendor's kernels lower the clocks."""
_ENOUGH = 0.9
"""The part of its highest clock that something should run at."""
_THERMAL = "/sys/class/thermal"
_CPUS = "/sys/devices/system/cpu/cpufreq"
_SETTING = "`rkllama config set governors performance` raises clocks while a model is loaded."


def check_npu_clock(subject: Subject) -> Iterator[Finding]:
    """Does the NPU run at its highest clock?"""
    clock = read_npu_clock() if has_npu() else None
    if clock is not None and clock.current is not None:
        why = "Some kernels leave it at its lowest clock, where it is several times slower."
        yield _about(subject, "npu-clock", "NPU clock", [clock], why)


def check_ddr_clock(subject: Subject) -> Iterator[Finding]:
    """Does the memory run at its highest clock? Each token reads the whole model from it."""
    if not has_npu():
        return
    clock = read_ddr_clock()
    if clock is not None and clock.current is not None:
        why = "Others report answers twice as fast at its highest clock."
        yield _about(subject, "ddr-clock", "Memory clock", [clock], why)
    elif clock is None and read_npu_clock() is not None and not in_container():
        yield Finding(
            check="ddr-clock",
            status="warning",
            title="Memory clock",
            found="the kernel does not scale it: it stays where the firmware has set it",
            good="/sys/class/devfreq/dmc, with which it can be raised",
            advice="Newer firmware or a newer kernel of the board's vendor may bring it. If answers are "
            "as fast as others report for this board, all is well.",
            source="/sys/class/devfreq",
        )


def check_cpu_governor(subject: Subject) -> Iterator[Finding]:
    """Are the CPU's clocks high before there is load?"""
    if not has_npu():
        return
    clocks = [clock for clock in read_cpu_clocks() if clock.governor is not None]
    if clocks:
        why = "Others report answers slower by a twentieth to a third."
        yield _about(subject, "cpu-governor", "CPU governors", clocks, why)


def _about(subject: Subject, check: str, title: str, clocks: Sequence[Clock], why: str) -> Finding:
    """Tell of clocks; a warning about those that are low, if RKLLama does not raise them itself."""
    low = [clock for clock in clocks if _is_low(clock)]
    wanted = subject.settings.governors == "performance"
    raised = wanted and (is_root() or exists(SOCKET))
    shown = ", ".join(map(_shown, low or clocks))
    if not low or raised:
        return Finding(
            check=check,
            status="good",
            title=title,
            found=f"{shown}; raised while a model is loaded" if low else shown,
            source=_folder(clocks),
        )
    good = "the governor performance while a model runs"
    if not _is_cpu(low[0]):
        good = f"{_mhz(low[0].highest)}: {good}"
    cure = _raise(low, clocks)
    if cure and wanted:
        why = (
            "The setting `governors` asks for it, but root's helper is not here. This installs it:"
        )
        cure = ("sudo rkllama service install",)
    elif cure:
        why = f"{why} {_SETTING} {_where()}"
    return Finding(
        check=check,
        status="warning",
        title=title,
        found=shown,
        good=good,
        advice=why,
        cure=cure,
        source=_folder(low),
    )


def _raise(low: Sequence[Clock], clocks: Sequence[Clock]) -> tuple[str, ...]:
    """The lines that raise the low ones of all clocks: one line where it may raise all CPUs."""
    if len(low) == len(clocks) > 1 and all(_is_cpu(clock) and _offers(clock) for clock in low):
        return (f"echo performance | sudo tee {_CPUS}/policy*/scaling_governor",)
    return tuple(_set("performance", clock.governor_file) for clock in low if _offers(clock))


def _where() -> str:
    if in_container():
        return "For a shell on the host, and until its next start:"
    return "Until the next start of the board:"


def _set(value: str, file: str) -> str:
    return f"echo {value} | sudo tee {quote(file)}"


def _offers(clock: Clock) -> bool:
    return "performance" in clock.governors


def _is_low(clock: Clock) -> bool:
    """Whether a clock is low, and nothing but load raises it."""
    if clock.governor == "performance":
        return False
    if _is_cpu(clock):  # its clock is high at this moment because we compute
        return _offers(clock) and (clock.governor != "userspace" or not _is_high(clock))
    return not _is_high(clock)


def _is_cpu(clock: Clock) -> bool:
    return clock.name.startswith("cpu")


def _is_high(clock: Clock) -> bool:
    if clock.current is None or clock.highest is None:
        return True
    return clock.current >= _ENOUGH * clock.highest


def _shown(clock: Clock) -> str:
    if _is_cpu(clock):
        return f"{clock.name} {clock.governor}"
    return f"{_mhz(clock.current)} ({clock.governor})"


def _mhz(hertz: int | None) -> str:
    return "unknown" if hertz is None else megahertz(hertz)


def _folder(clocks: Sequence[Clock]) -> str:
    if len(clocks) > 1 and all(map(_is_cpu, clocks)):
        return _CPUS
    return ", ".join(clock.governor_file.rpartition("/")[0] for clock in clocks)


def check_clock_limit(_subject: Subject) -> Iterator[Finding]:
    """Has somebody limited a clock below what the hardware has?"""
    if not has_npu() or read_throttled():
        return  # or it is the heat, of which its own check tells
    clocks = [read_npu_clock(), read_ddr_clock(), *read_cpu_clocks()]
    limited = [clock for clock in clocks if clock is not None and _is_limited(clock)]
    if limited:
        yield Finding(
            check="clock-limit",
            status="warning",
            title="Clock limits",
            found=", ".join(f"{clock.name} at most {_mhz(clock.limit)}" for clock in limited),
            good=", ".join(f"{clock.name} {_mhz(clock.highest)}" for clock in limited),
            advice=f"Something has set them, such as a service that saves energy. {_where()}",
            cure=tuple(map(_unlimit, limited)),
            source=_folder(limited),
        )


def _is_limited(clock: Clock) -> bool:
    # Old kernels write 0 for no limit.
    return bool(clock.limit and clock.highest and clock.limit < _ENOUGH * clock.highest)


def _unlimit(clock: Clock) -> str:
    folder = clock.governor_file.rpartition("/")[0]
    if _is_cpu(clock):  # in kHz
        return _set(str((clock.highest or 0) // 1000), f"{folder}/scaling_max_freq")
    return _set(str(clock.highest), f"{folder}/max_freq")


def check_heat(_subject: Subject) -> Iterator[Finding]:
    """Is the board so hot that it slows down?"""
    temperatures = list(read_temperatures())
    if not temperatures:
        return
    hottest = max(temperatures, key=lambda sensor: sensor.celsius)
    found = f"{hottest.celsius:.0f} °C ({hottest.zone})"
    throttled = read_throttled()
    if hottest.celsius < HOT and not throttled:
        yield Finding(check="heat", status="good", title="Heat", found=found, source=_THERMAL)
        return
    yield Finding(
        check="heat",
        status="warning",
        title="Heat",
        found=f"{found}, which holds clocks down" if throttled else found,
        good=f"below {HOT:.0f} °C, at full clocks",
        advice="The board is slowed down now or soon: give it a heat sink, a fan, or air.",
        source=_THERMAL,
    )


CHECKS = (check_npu_clock, check_ddr_clock, check_cpu_governor, check_clock_limit, check_heat)
