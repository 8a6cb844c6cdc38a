"""What this machine has for llama.cpp, its cores and its memory, and what a model needs of them."""

from __future__ import annotations

import os

from ..board.sysroot import read_number, read_text
from ..board.telemetry import read_memory
from ..errors import OutOfMemory
from ..models.gguf import GGUFHeader

_LEAST_BATCH, _MOST_BATCH = 64, 512
"""llama.cpp's own is the most."""
_BATCH_BYTES = 36 << 30
"""A batch's tokens times the model's bytes: some two seconds of two cores."""
_CPUS = "/sys/devices/system/cpu"
_TINY = 16 << 20
"""Bytes up to which a model is computed by one thread."""


def threads_for(path: str) -> int:
    """The number of threads for a model's file.

    One for a tiny model: more of them wait for each other longer than they compute, and for seconds
    where another program has one of the cores.
    """
    return 1 if os.path.getsize(path) < _TINY else physical_cores()


def batch_for(path: str) -> int:
    """Return how many tokens of a prompt to evaluate at once with a model's file.

    llama.cpp reacts to an abort only between two batches, so one should take a second or two; small
    models lose a tenth of their speed with small ones, large models nothing.
    """
    fitting = _BATCH_BYTES // max(1, os.path.getsize(path))
    return max(_LEAST_BATCH, min(_MOST_BATCH, 1 << max(0, fitting.bit_length() - 1)))


def physical_cores() -> int:
    """Return the cores to compute on: one per physical core, on big.LITTLE the big ones only; at least 1."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    capacities: dict[str, int] = {}
    for cpu in allowed:
        siblings = read_text(f"{_CPUS}/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        capacities[siblings] = read_number(f"{_CPUS}/cpu{cpu}/cpu_capacity") or 0
    strongest = max(capacities.values(), default=0)
    # Cores of three classes are common: all but the weakest class count as big.
    big = [capacity for capacity in capacities.values() if 2 * capacity >= strongest]
    return max(1, len(big))


def cache_bytes(header: GGUFHeader, context: int) -> int:
    """The size of the KV cache in 16-bit floats; 0 where the header does not tell."""

    def number(key: str) -> int:
        value = header.metadata.get(f"{header.architecture}.{key}")
        return value if isinstance(value, int) else 0

    heads = max(1, number("attention.head_count"))
    head_size = number("attention.key_length") or number("embedding_length") // heads
    return 2 * 2 * (header.kv_heads or 0) * head_size * context


def slots_for(wanted: int, header: GGUFHeader, context: int, spare: int) -> int:
    """Return how many runs at a time a model gets, `wanted` at most: each has a KV cache of its own, and the
    further ones together get a quarter of the `spare` bytes; 1 where a cache's size is not known.
    """
    cache = cache_bytes(header, context)
    return max(1, min(wanted, 1 + spare // 4 // cache)) if cache else 1


def check_memory(name: str, header: GGUFHeader, size: int, context: int) -> int:
    """The bytes that are left beside the model `name`, 0 where the machine does not tell.

    Raises OutOfMemory for what it cannot hold, before the kernel ends the process for it.
    """
    available = read_memory().available
    if available is None:
        return 0
    needed = size + cache_bytes(header, context)
    if needed > available:
        raise OutOfMemory(
            f"{name} with a context of {context} tokens needs about {needed / 1e9:.1f} GB of memory, "
            f"{available / 1e9:.1f} GB are free",
            hint="Use a shorter context (--ctx N, in the chat /set num_ctx N) or a smaller model.",
        )
    return available - needed


def spare_memory(size: int) -> int:
    """The bytes that are left beside a file of `size` bytes; 0 where the machine does not tell."""
    return max(0, (read_memory().available or 0) - size)
