"""The Rockchip SoC of this machine, its NPU's driver, and the CPUs that librkllmrt should use on it."""

from __future__ import annotations

import os
import re

from ..errors import LoadFailed
from ..files import open_regular
from .sysroot import read_kernel_log, read_text, system_path

COMPATIBLE = "/proc/device-tree/compatible"
DRIVER_VERSIONS = (
    "/sys/module/rknpu/version",
    "/sys/kernel/debug/rknpu/version",
    "/proc/rknpu/version",
)
"""Where the NPU's driver tells its version; the second is for root."""
_LARGEST = 1 << 16

_BIG, _FIRST = range(4, 8), range(4)
_CORES = {"RK3588": 3, "RK3582": 2, "RK3583": 2, "RK3576": 2}
"""Cores of the NPU where there are several: the runtime refuses to work with fewer CPUs."""
_CPUS = {"RK3588": _BIG, "RK3576": _BIG, "RK3562": _FIRST, "RV1126B": _FIRST}
_WITHOUT_LLM = frozenset({"RK3566", "RK3568", "RK3399", "RK3399PRO", "RV1103", "RV1106", "RV1126"})


def read_soc(path: str | None = None) -> str | None:
    """Return the SoC's name as Rockchip writes it, "RK3588"; None on a machine without one."""
    try:
        with open_regular(path or system_path(COMPATIBLE)) as stream:
            entries = stream.read(_LARGEST).decode("ascii", "replace").split("\0")
    except OSError:
        return None
    # From the most special (the board) to the most general (the SoC).
    for entry in reversed(entries):
        if match := re.fullmatch(r"rockchip,((?:rk|rv)\d{4}[a-z]*)", entry):
            return match[1].upper()
    return None


def require_llm(soc: str | None) -> None:
    """Raise LoadFailed on a SoC whose NPU cannot run language models."""
    if soc in _WITHOUT_LLM:
        raise LoadFailed(
            f"the NPU of this board's {soc} cannot run language models",
            hint="librkllmrt supports RK3588, RK3576, RK3562 and RV1126B. Models in .gguf format "
            "run on the CPU of any board.",
        )


def runs_llm(soc: str | None) -> bool:
    """Return whether the NPU of `soc` runs language models, as far as the vendor says."""
    return _family(soc) in (_CPUS.keys() | _CORES.keys())


def npu_cores(soc: str | None) -> int:
    """Return how many cores the NPU of `soc` has."""
    return _CORES.get(_family(soc), 1)


def _family(soc: str | None) -> str:
    """The SoC of which this one is a variant: RK3588 for RK3588S and RK3588J."""
    match = re.match(r"RK\d{4}", soc or "")
    return match[0] if match else soc or ""


def read_driver() -> tuple[str, str] | None:
    """Return the version of the NPU's driver, "0.9.8", and where it stands; None where none can be read."""
    for path in DRIVER_VERSIONS:
        if match := re.search(r"\d+\.\d+\.\d+", read_text(path) or ""):
            return match[0], path
    if match := re.search(r"Initialized rknpu (\d+\.\d+\.\d+)", read_kernel_log() or ""):
        return match[1], "dmesg"
    return None


def has_domains(soc: str | None) -> bool:
    """Return whether the NPU of `soc` has several domains of memory, as far as the vendor uses them."""
    return soc not in ("RK3562", "RV1126B")


def cpus(
    soc: str | None,
    available: set[int] | None = None,
    *,
    mask: int | None = None,
    number: int | None = None,
) -> tuple[int, int]:
    """(mask, number) of the CPUs to use: the vendor's choice for `soc` where it may be used here.

    Where fewer of those may be used than the NPU has cores, others join them. Elsewhere it is the last
    four of those that this process may run on; the big cores come last. `mask` and `number` are what the
    user wants: these CPUs, so many; without a mask the others join where the choice has fewer.
    """
    if mask is not None:
        chosen = [cpu for cpu in range(8) if mask >> cpu & 1]
    else:
        chosen = _choose(soc, available or os.sched_getaffinity(0), number)
    if number is not None:
        chosen = chosen[-number:]
    return sum(1 << cpu for cpu in chosen), len(chosen)


def _choose(soc: str | None, available: set[int], number: int | None) -> list[int]:
    usable = {cpu for cpu in available if cpu < 8} or {0}
    family = _family(soc)
    chosen = sorted(usable.intersection(_CPUS.get(family, range(8))))[-4:]
    if len(chosen) < (number or _CORES.get(family, 1)):
        chosen = sorted(usable)[-(number or 4) :]
    return chosen
