"""What the binding makes of libraries on the machine that runs this program, as JSON.

    python -m tests.emulated.binding JOB REPORT

JOB names a file with the paths of the `libraries`, the `model` for them all (rows of `embd_size`),
the `prompts` by name, each for LIMIT tokens, and an `endless` one. Standard output has to be a file:
the runtime's log goes there. Only the standard library and rkllama are imported, for the Python has
nothing else.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import threading
from pathlib import Path
from typing import Any

from rkllama.backends.base import GenerateSpec, LoadSpec
from rkllama.clib.ctypes_types import CTypes
from rkllama.errors import UnknownRuntime
from rkllama.npu import NPUBackend
from rkllama.rkllm.abi import RELEASES, header
from rkllama.rkllm.inputs import MultimodalInput, Pictures
from rkllama.rkllm.library import Defaults, Library, identify, open_library
from rkllama.rkllm.runtime import Runtime
from rkllama.types import SamplingParams

CONTEXT, LIMIT = 1024, 400
SAMPLING = SamplingParams(
    temperature=0.625,
    top_k=17,
    top_p=0.75,
    repeat_penalty=1.25,
    frequency_penalty=0.5,
    presence_penalty=-0.5,
    mirostat=1,
    mirostat_tau=4.5,
    mirostat_eta=0.125,
)


def main(job_file: str, report_file: str) -> None:
    """Do the job, and write the report."""
    job = json.loads(Path(job_file).read_text())
    report = {
        "machine": os.uname().machine,
        "bits": 8 * ctypes.sizeof(ctypes.c_void_p),
        "libraries": [examined(open_library(path, environ={}), job) for path in job["libraries"]],
    }
    Path(report_file).write_text(json.dumps(report))


def examined(library: Library, job: dict[str, Any]) -> dict[str, Any]:
    """What one library is taken for, and what it answers."""
    return {
        "found": [library.release, library.version, *library.notices],
        "written": Defaults.of(library.handle).size,
        "passes_as": [release for release in RELEASES if passes(library, release)],
        "layout": layout(library.release),
        **answers(library, job),
        "pictured": pictured(library, job),
    }


def passes(library: Library, release: str) -> bool:
    """Whether a library that says that it is `release` would be believed."""
    try:
        identify(library.handle, library.path, release, None)
    except UnknownRuntime:
        return False
    return True


# --- Layouts -----------------------------------------------------------------------------------


def layout(release: str, *, wide: bool | None = None) -> dict[str, Any]:
    """[size, members] of each struct as ctypes lays it out; `wide` is as for CTypes."""
    structs = CTypes(header(release), wide=wide).structs
    return {name: [ctypes.sizeof(kind), members(kind)] for name, kind in structs.items()}


def members(kind: Any) -> list[Any]:
    """[name, offset, size, its own members] of each member of a struct or union."""
    found = []
    for name, member in kind._fields_:
        inner = members(member) if hasattr(member, "_fields_") else []
        found.append([name, getattr(kind, name).offset, ctypes.sizeof(member), inner])
    return found


# --- Answers -----------------------------------------------------------------------------------


def answers(library: Library, job: dict[str, Any]) -> dict[str, Any]:
    """What the backend gives for each of the job's prompts, for one that is aborted, and a vector."""
    backend = NPUBackend(compatible=os.devnull)
    backend.load(
        LoadSpec(path=job["model"], context_length=CONTEXT, sampling=SAMPLING, library=library.path)
    )
    try:
        return {
            "answers": {name: answer(backend, prompt) for name, prompt in job["prompts"].items()},
            "aborted": aborted(backend, job["endless"]),
            "vector": vector(backend),
        }
    finally:
        backend.close()


def answer(backend: NPUBackend, prompt: str) -> list[Any]:
    """[text, why it ended, its tokens]"""
    texts: list[str] = []
    spec = GenerateSpec(prompt=prompt, sampling=SAMPLING, max_tokens=LIMIT)
    result = backend.generate(spec, texts.append)
    return ["".join(texts), result.reason, result.completion_tokens]


def aborted(backend: NPUBackend, prompt: str) -> str:
    """Why a run ended that another thread aborts as soon as there is text."""
    begun = threading.Event()

    def abort() -> None:
        begun.wait()
        backend.abort()

    thread = threading.Thread(target=abort, daemon=True)
    thread.start()
    result = backend.generate(GenerateSpec(prompt=prompt), lambda text: begun.set())
    begun.set()
    thread.join()
    return result.reason


def vector(backend: NPUBackend) -> list[float]:
    """The embedding of a text."""
    (row,) = backend.embed(("two words",), truncate=False).vectors
    return list(struct.unpack(f"{len(row) // 4}f", row))


def pictured(library: Library, job: dict[str, Any]) -> str:
    """The answer to a prompt with an image."""
    runtime = Runtime(library)
    runtime.init(job["model"], max_context_len=CONTEXT, max_new_tokens=LIMIT)
    image = Pictures(
        embed=bytes(4 * 4 * job["embd_size"]), tokens=4, width=8, height=8, start="s", end="e"
    )
    texts: list[str] = []
    try:
        runtime.run(MultimodalInput(prompt="<image>what is it?", images=image), texts.append)
    finally:
        runtime.destroy()
    return "".join(texts)


if __name__ == "__main__":
    main(*sys.argv[1:])
