"""A process that writes states until it is killed, and what has to hold afterwards.

python -m tests.states.killed DIRECTORY BUDGET SEED
"""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from rkllama.states.header import Header
from rkllama.states.index import Entry
from rkllama.states.store import StateStore

KEY = "a" * 64
_BLOCK = 1 << 16
BUDGET = 8 << 20


def content(name: str, size: int) -> bytes:
    """What belongs into the file of the state of a text."""
    block = hashlib.sha256(name.encode()).digest() * (_BLOCK // 32)
    return (block * (size // _BLOCK + 1))[:size]


def main() -> None:
    """Write states of up to 1 MB, one after the other, as a runtime does: in pieces."""
    path, budget, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    store, chance = StateStore(path, budget, 1 << 40), random.Random(seed)
    assert store.open()
    sys.stdout.write("open\n")
    sys.stdout.flush()
    last: Entry | None = None
    number = 0
    while True:
        number += 1
        name, size = f"{seed} {number}", chance.randrange(1 << 16, 1 << 20)
        draft = store.draft(size, last)
        assert draft is not None
        data = content(name, size)
        with open(draft.path, "wb") as stream:
            for start in range(0, size, _BLOCK):
                stream.write(data[start : start + _BLOCK])
        header = Header(key=KEY, tokens=size, prefill=1.0, model=name)
        last = store.keep(draft, name.encode(), header, last if number % 3 else None)


class Aftermath(NamedTuple):
    """What was found after some kills."""

    loadable: int
    torn: int
    """Of them, those whose file is not what was written."""
    largest: int
    """Bytes that lay in the directory at most after a kill."""


def kill_writers(path: Path, kills: int) -> Aftermath:
    """Start and kill so many writers, at a moment of chance each, and look at what they leave."""
    chance, loadable, torn, largest = random.Random(9), 0, 0, 0
    for number in range(kills):
        command = [sys.executable, "-m", "tests.states.killed", str(path), str(BUDGET), str(number)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        time.sleep(chance.random() * 0.1)  # the moment, not a wait
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        largest = max(largest, sum(each.stat().st_size for each in path.iterdir()))
        store = StateStore(str(path), BUDGET, 1 << 40)
        assert store.open()
        for entry in store._index:
            file = store.path(entry)
            loadable += file is not None
            if file is not None:
                expected = content(entry.header.model, entry.header.size)
                torn += Path(file).read_bytes() != expected
        store.close()
    return Aftermath(loadable, torn, largest)


if __name__ == "__main__":
    main()
