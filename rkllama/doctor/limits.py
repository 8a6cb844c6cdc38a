"""Checks of what the board gives to models: memory, CPUs, open files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from shlex import quote

from ..board.lock import holder
from ..board.soc import cpus, npu_cores, read_soc
from ..board.sysroot import exists, list_names, read_kernel_log, read_text
from ..board.telemetry import Memory, core_ranges, parse_cores, read_memory
from ..files import gigabytes
from ..models.scan import Entry
from .finding import Finding, Subject, Topic
from .machine import has_npu, in_container
from .software.inventory import read_models

_PLATFORM = "/sys/bus/platform/devices"
_MORE_FILES = "echo '* - nofile 16384' | sudo tee /etc/security/limits.d/99-rkllama.conf"
_CPU = "/sys/devices/system/cpu"
_WHO_LIMITS = (
    "Look at taskset, at CPUAffinity= in the systemd unit, and at --cpuset-cpus of the container."
)
_FILES = 4096
"""Open files that a model may need: the runtime has one for each of its buffers."""
_REST = 0.85
"""The part of the board's memory that a model can have beside the system."""


_affinity = Topic(
    check="affinity", title="CPU affinity", source="/proc/self/status (Cpus_allowed_list)"
).tell


def models_of(subject: Subject) -> list[Entry]:
    """Return the models that are looked at, without aliases."""
    models = read_models(subject)
    return [*models.of_format("rkllm"), *models.of_format("gguf")]


# --- Memory ------------------------------------------------------------------------------------


def check_iommu(subject: Subject) -> Iterator[Finding]:
    """Does the NPU reach all of the board's memory, or only what is set aside for it (CMA)?"""
    if not has_npu():
        return
    enabled = _has_iommu()
    if enabled is None:
        yield Finding(
            check="iommu",
            status="unseen",
            title="NPU memory",
            found="whether the NPU has its IOMMU is for root to see",
            source="dmesg",
        )
    elif enabled:
        yield Finding(
            check="iommu",
            status="good",
            title="NPU memory",
            found="all of the board's, by its IOMMU",
            source=_PLATFORM,
        )
    else:
        yield _without_iommu(subject)


def _has_iommu() -> bool | None:
    """Whether the NPU works with its IOMMU: the driver says so, and its device has a group of it."""
    if match := re.search(r"rknpu iommu is (enabled|disabled)", read_kernel_log() or ""):
        return match[1] == "enabled"
    devices = [name for name in list_names(_PLATFORM) if name.endswith(".npu")]
    if not devices:
        return None
    return any(exists(f"{_PLATFORM}/{name}/iommu_group") for name in devices)


def _without_iommu(subject: Subject) -> Finding:
    total = read_memory().cma_total or 0
    larger = [one for one in read_models(subject).of_format("rkllm") if one.size > total]
    models = f", less than {larger[0].name} needs" if larger else ""
    return Finding(
        check="iommu",
        status="broken" if larger or not total else "warning",
        title="NPU memory",
        found=f"the NPU has no IOMMU, and so only the CMA's {gigabytes(total)}{models}",
        good="an IOMMU, as the vendor's device trees have it",
        advice="Use the vendor's kernel and device tree; or set more memory aside: add `cma=` with a "
        "size, such as cma=4G, to the kernel's command line, and restart.",
        source="/proc/meminfo (CmaTotal)",
    )


def check_memory(subject: Subject) -> Iterator[Finding]:
    """Do the models that are here fit the board's memory?"""
    memory = read_memory()
    if memory.total is None or memory.available is None:
        return
    models = models_of(subject)
    most = _REST * memory.total
    for entry in models:
        if entry.size > most:
            yield _too_large(entry, memory)
    if any(entry.size > most for entry in models):
        return
    largest = max(models, key=lambda entry: entry.size, default=None)
    if (
        largest is not None
        and largest.size > memory.available
        and holder(subject.settings.lock) is None
    ):
        yield _not_now(largest, memory)
        return
    beside = f"; the largest model: {gigabytes(largest.size)}" if largest else ""
    yield Finding(
        check="memory",
        status="good",
        title="Memory",
        found=f"{gigabytes(memory.available)} of {gigabytes(memory.total)} free{beside}",
        source="/proc/meminfo",
    )


def _too_large(entry: Entry, memory: Memory) -> Finding:
    return Finding(
        check="memory",
        status="warning",
        title="Memory",
        found=f"{entry.name} is {gigabytes(entry.size)}, the board has {gigabytes(memory.total or 0)}",
        good="models that leave room for the system",
        advice="Use a smaller model or a stronger quantization; this removes it:",
        cure=(f"rkllama rm {quote(entry.name)}",),
        source="/proc/meminfo (MemTotal)",
    )


def _not_now(entry: Entry, memory: Memory) -> Finding:
    return Finding(
        check="memory",
        status="warning",
        title="Memory",
        found=f"{gigabytes(memory.available or 0)} free, and {entry.name} is {gigabytes(entry.size)}",
        good=f"more than {gigabytes(entry.size)} free",
        advice="End other programs before it is used. The largest ones are:",
        cure=("ps -eo rss,pid,comm --sort=-rss | head",),
        source="/proc/meminfo (MemAvailable)",
    )


# --- CPUs and files ----------------------------------------------------------------------------


def check_affinity(_subject: Subject) -> Iterator[Finding]:
    """May RKLLama use as many CPUs as the NPU has cores, and the fast ones among them?"""
    soc = read_soc()
    allowed = _allowed_cpus()
    if not allowed or not has_npu():
        return
    if len(allowed) < npu_cores(soc):
        yield _affinity(
            "broken",
            f"only CPU {core_ranges(allowed)}; librkllmrt refuses fewer CPUs than the NPU has cores",
            good=f"{npu_cores(soc)} CPUs or more",
            advice=_WHO_LIMITS,
        )
        return
    mask, _ = cpus(soc, set(range(8)))
    fast = {cpu for cpu in range(8) if mask >> cpu & 1}
    if fast <= allowed:
        yield _affinity("good", f"CPU {core_ranges(allowed)}")
        return
    off = sorted(fast & parse_cores(read_text(f"{_CPU}/present") or "") - _online_cpus())
    yield _affinity(
        "warning",
        f"CPU {core_ranges(allowed)}: not all of those that feed the NPU best",
        good=f"CPU {core_ranges(fast)} among them",
        advice="Some are switched off:" if off else _WHO_LIMITS,
        cure=tuple(f"echo 1 | sudo tee {_CPU}/cpu{cpu}/online" for cpu in off),
    )


def _allowed_cpus() -> set[int]:
    """The CPUs that this process may run on and that are switched on."""
    match = re.search(r"(?m)^Cpus_allowed_list:\s*(\S+)", read_text("/proc/self/status") or "")
    allowed = parse_cores(match[1]) if match else set()
    online = _online_cpus()
    return allowed & online if online else allowed


def _online_cpus() -> set[int]:
    return parse_cores(read_text(f"{_CPU}/online") or "")


def check_open_files(_subject: Subject) -> Iterator[Finding]:
    """May a model open as many files as the runtime needs?"""
    match = re.search(r"(?m)^Max open files +(\w+) +(\w+)", read_text("/proc/self/limits") or "")
    if match is None or not has_npu():
        return
    soft, hard = (int(word) if word.isdigit() else None for word in match.groups())
    if hard is not None and hard < _FILES:
        yield Finding(
            check="open-files",
            status="warning",
            title="Open files",
            found=f"{hard} at most; the runtime has one open for each of its buffers",
            good=f"{_FILES} or more",
            advice="Raise the limit: LimitNOFILE=16384 in the systemd unit, --ulimit nofile=16384 for a "
            "container, or for logins this line; then log in again.",
            cure=() if in_container() else (_MORE_FILES,),
            source="/proc/self/limits",
        )
        return
    raised = soft is not None and soft < _FILES
    yield Finding(
        check="open-files",
        status="good",
        title="Open files",
        found=f"{match[1]}, which RKLLama raises for models" if raised else match[1],
        source="/proc/self/limits",
    )


CHECKS = (check_iommu, check_memory, check_affinity, check_open_files)
