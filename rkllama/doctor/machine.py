"""Checks of the SoC, the kernel and the NPU's driver, and what the other checks of the board ask of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..board.soc import (
    COMPATIBLE,
    DRIVER_VERSIONS,
    npu_cores,
    read_driver,
    read_soc,
    require_llm,
    runs_llm,
)
from ..board.sysroot import exists, list_names, read_node, read_text, read_user
from ..errors import LoadFailed
from ..rkllm.releases import numbers
from .finding import Finding, Subject, Topic

_SUPPORTED = "RK3588, RK3588S, RK3576, RK3562 or RV1126B"
_KERNEL = "/proc/sys/kernel/osrelease"
_SINCE = {(5, 10): 209, (6, 1): 84}
"""The vendor's kernels, and from which of each series on the NPU is known to run language models."""
WANTED_DRIVER = "0.9.8"
_UPGRADE = ("sudo apt update", "sudo apt full-upgrade")


# --- What is there -----------------------------------------------------------------------------


_soc = Topic(check="soc", title="SoC", source=COMPATIBLE).tell


_driver = Topic(check="npu-driver", title="NPU driver", good=f"rknpu {WANTED_DRIVER} or newer").tell


def is_root() -> bool:
    """Return whether this process may see what only root sees."""
    return read_user().uid == 0


def in_container() -> bool:
    """Return whether this is a container of Docker, Podman or Kubernetes."""
    return any(map(exists, ("/.dockerenv", "/run/.containerenv", "/run/secrets/kubernetes.io")))


def npu_nodes() -> list[str]:
    """Return the paths of the NPU's DRM nodes as the kernel tells them, whether or not they are here."""
    names = [
        name for name in list_names("/sys/class/drm") if re.fullmatch(r"(card|renderD)\d+", name)
    ]
    return [f"/dev/dri/{name}" for name in names if _drm_driver(name) == "RKNPU"]


def _drm_driver(name: str) -> str | None:
    return _driver_in(f"/sys/class/drm/{name}/device/uevent")


def _driver_in(uevent: str) -> str | None:
    match = re.search(r"(?m)^DRIVER=(.+)$", read_text(uevent) or "")
    return match[1] if match else None


def has_driver() -> bool:
    """Return whether the vendor's driver is in the kernel, whatever its version."""
    device = read_node("/dev/rknpu")
    return (
        bool(read_driver() or npu_nodes())
        or exists("/sys/module/rknpu")
        or exists("/sys/bus/platform/drivers/RKNPU")
        or (device is not None and device.mode[0] == "c")
    )


def has_npu() -> bool:
    """Return whether there is an NPU for language models with a driver: else the checks of its devices,
    clocks and memory have nothing to say that those of SoC and driver have not said.
    """
    soc = read_soc()
    return (runs_llm(soc) or soc is None) and has_driver() and not _is_switched_off()


def _is_switched_off() -> bool:
    """Whether the device tree disables the NPU."""
    node = _tree_node()
    return node is not None and read_text(f"{node}/status") == "disabled\0"


def _tree_node() -> str | None:
    names = [name for name in list_names("/proc/device-tree") if name.startswith("npu@")]
    return f"/proc/device-tree/{names[0]}" if names else None


# --- The checks --------------------------------------------------------------------------------


def check_soc(_subject: Subject) -> Iterator[Finding]:
    """Which SoC is it, and does its NPU run language models?"""
    soc = read_soc()
    if soc is None:
        yield _no_soc()
        return
    try:
        require_llm(soc)
    except LoadFailed:
        yield _soc(
            "warning",
            f"{soc}, whose NPU cannot run language models",
            good=_SUPPORTED,
            advice="Models in .gguf format run on this board's CPU.",
        )
        return
    if not runs_llm(soc):
        yield _soc("good", f"{soc}, without an NPU that RKLLama knows; .gguf models run on its CPU")
    elif soc in ("RK3582", "RK3583"):
        yield _soc(
            "warning",
            f"{soc}: an RK3588 of which the NPU has {npu_cores(soc)} cores",
            good=_SUPPORTED,
            advice="Use models that were made for one or two cores (npu_core_num); those for three do "
            "not fit.",
        )
    else:
        yield _soc("good", soc)


def _no_soc() -> Finding:
    if not has_driver():
        return _soc("good", "no Rockchip SoC: there is no NPU here; .gguf models run on the CPU")
    return _soc(
        "broken",
        "hidden, though the NPU's driver is there: librkllmrt does not recognise the board",
        good=f"{_SUPPORTED}, named in {COMPATIBLE}",
        advice="Start the container with `--security-opt systempaths=unconfined --device /dev/dri "
        "--device /dev/dma_heap`, which shows it the device tree.",
    )


def check_kernel(_subject: Subject) -> Iterator[Finding]:
    """Is the kernel one of the vendor's that run language models on the NPU?"""
    release = read_text(_KERNEL)
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release or "")
    if release is None or match is None or not runs_llm(read_soc()):
        return
    series, patch = (int(match[1]), int(match[2])), int(match[3] or 0)
    if (series not in _SINCE and not has_driver()) or _is_driver_old():
        return  # the driver is what such a kernel lacks
    is_old = patch < _SINCE.get(series, 0)
    is_good = series in _SINCE and not is_old
    yield Finding(
        check="kernel",
        status="good" if is_good else "warning",
        title="Kernel",
        found=release,
        good=None if is_good else "the vendor's 5.10.209 or 6.1.84, or newer ones of these series",
        advice=None if is_good else _advice_on_kernel(is_old),
        cure=_upgrade() if is_old else (),
        source=_KERNEL,
    )


def _is_driver_old() -> bool:
    version = read_driver()
    return version is not None and numbers(version[0]) < numbers(WANTED_DRIVER)


def _upgrade() -> tuple[str, ...]:
    """The lines that upgrade the kernel, which a container has from its host."""
    return () if in_container() else _UPGRADE


def _advice_on_kernel(is_old: bool) -> str:
    if is_old:
        return "Early kernels of this series have faults of the NPU. Upgrade it, then restart the board."
    return "The NPU's driver was made for the vendor's kernels; on others it is not known to work."


def check_npu_driver(_subject: Subject) -> Iterator[Finding]:
    """Is the vendor's driver there, and new enough?"""
    soc = read_soc()
    if not runs_llm(soc):
        return
    if _is_switched_off():
        yield _driver(
            "broken",
            "the device tree disables the NPU",
            advice="Use the device tree or overlay of the board's vendor that enables it, then restart.",
            source=f"{_tree_node()}/status",
        )
        return
    if not has_driver():
        yield _missing_driver()
        return
    version = read_driver()
    if version is None:
        yield _driver(
            "unseen", "there, but its version is for root to see", source=DRIVER_VERSIONS[1]
        )
        return
    yield _rated(*version)


def _missing_driver() -> Finding:
    kernel = read_text(_KERNEL) or "this kernel"
    if (
        exists("/sys/module/rocket")
        or _driver_in("/sys/class/accel/accel0/device/uevent") == "rocket"
    ):
        return _driver(
            "broken",
            f"the driver `rocket` of the mainline kernel {kernel}, which librkllmrt cannot use",
            advice="Install the vendor's kernel (on Armbian: `armbian-config`, a kernel named vendor).",
            source="/sys/class/accel",
        )
    return _driver(
        "broken",
        f"not in the kernel {kernel}",
        advice="Install the vendor's kernel (on Armbian: `armbian-config`, a kernel named vendor).",
        source=DRIVER_VERSIONS[0],
    )


def _rated(version: str, source: str) -> Finding:
    if numbers(version) >= numbers(WANTED_DRIVER):
        return _driver("good", version, source=source)
    cure = "Upgrade the vendor's kernel, which has the driver in it, and restart the board."
    if numbers(version) >= numbers("0.9.7"):
        return _driver(
            "warning",
            f"{version}: large models may fail",
            advice=cure,
            cure=_upgrade(),
            source=source,
        )
    return _driver(
        "broken",
        f"{version}: models fail, or write nonsense",
        advice=cure,
        cure=_upgrade(),
        source=source,
    )


CHECKS = (check_soc, check_kernel, check_npu_driver)
