"""The kinds of backends: what the rest of the program has to know of one, without importing it.

A backend is chosen by the extension of a model's file, and by whether a program of the user's is to run it.
A new one is a new entry of KINDS.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import LoadFailed
from ..types import Diagnosis
from . import llamacpp_log
from .base import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of backend."""

    name: str
    """What users know it by: "npu"."""
    extension: str
    """What the files of its models end with, in lower case."""
    backend: tuple[str, str]
    """Module and class that run them. They are imported in a model's process only, and by name: the class
    may stand above this module."""
    needs_npu: bool
    """Whether a model's process needs the NPU, which has one owner per machine, and fills its memory."""
    leaks: bool
    """Whether memory that its process takes from run to run is lost; else it is a cache."""
    wraps_prompts: bool
    """Whether the runtime puts a prompt that is not raw into the model's own template."""
    abort_grace: float
    """Seconds that the runtime may take to heed an abort; then the model's process is ended."""
    diagnose: Callable[[str], Diagnosis | None]
    """Reads the cause of a failure out of the log of a model's process; None: the log names none."""
    parallel: bool = False
    """Whether it may do several runs at a time; how many, it says when it has loaded a model."""
    external: bool = False
    """Whether it runs models by starting a program that the user names."""

    def create(self) -> Backend:
        """A backend without a model; imports its module."""
        module, name = self.backend
        backend: Backend = getattr(importlib.import_module(module), name)()
        return backend


def _diagnose_rkllm(log: str) -> Diagnosis | None:
    from ..rkllm.log import diagnose  # needed after a failure only

    return diagnose(log)


KINDS = (
    Kind(
        name="npu",
        extension=".rkllm",
        backend=("rkllama.npu", "NPUBackend"),
        needs_npu=True,
        leaks=True,
        wraps_prompts=True,
        abort_grace=60.0,  # a prefill cannot be interrupted
        diagnose=_diagnose_rkllm,
    ),
    Kind(
        name="cpu",
        extension=".gguf",
        backend=("rkllama.backends.llamacpp", "CPUBackend"),
        needs_npu=False,
        leaks=False,
        wraps_prompts=False,
        # llama.cpp heeds an abort between two batches. Where one takes longer (a large model, a long text to
        # embed) its process is ended, since the next one has the file in the page cache.
        abort_grace=1.0,
        parallel=True,
        diagnose=llamacpp_log.diagnose,
    ),
    Kind(
        name="llama-server",
        extension=".gguf",
        backend=("rkllama.backends.llama_server", "LlamaServerBackend"),
        needs_npu=False,  # whether the program uses it, only the program knows
        leaks=False,
        wraps_prompts=False,
        # An aborted request is given up at once; this is for the batch that llama-server is at.
        abort_grace=5.0,
        parallel=True,
        diagnose=llamacpp_log.diagnose_server,
        external=True,
    ),
)


def kind_of(path: str, *, external: bool = False) -> Kind:
    """The kind that runs a model's file; `external`: with a program of the user's.

    Raises LoadFailed for a file that none runs.
    """
    for kind in KINDS:
        if path.lower().endswith(kind.extension) and kind.external == external:
            return kind
    extensions = " or ".join(dict.fromkeys(kind.extension for kind in KINDS))
    raise LoadFailed(f"{os.path.basename(path)} is not a {extensions} file")
