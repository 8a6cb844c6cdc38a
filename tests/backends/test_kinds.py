"""The kinds of backends: which one a file gets, and that each can be made."""

from __future__ import annotations

from inspect import getmembers, isfunction

import pytest

from rkllama.backends import llamacpp_log
from rkllama.backends.base import Backend
from rkllama.backends.kinds import KINDS, Kind, kind_of
from rkllama.errors import LoadFailed
from rkllama.models.filename import EXTENSIONS


def test_every_file_that_is_a_model_has_its_kind() -> None:
    assert {kind.extension for kind in KINDS} == set(EXTENSIONS)
    for kind in KINDS:
        assert kind_of(f"/models/A.b{kind.extension.upper()}", external=kind.external) is kind


def test_a_file_that_no_backend_runs_is_named() -> None:
    with pytest.raises(LoadFailed, match=r"m\.bin is not a \.rkllm or \.gguf file"):
        kind_of("/models/m.bin")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.backend[1])
def test_every_kind_names_a_backend(kind: Kind) -> None:
    backend = kind.create()
    operations = [name for name, _ in getmembers(Backend, isfunction) if not name.startswith("_")]
    assert {"load", "generate", "close"} <= {*operations}
    assert not [name for name in operations if not callable(getattr(backend, name, None))]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.backend[1])
def test_every_kind_reads_the_log_of_a_crash(kind: Kind) -> None:
    diagnosis = kind.diagnose("I load\nGGML_ASSERT(n > 0) failed\n")
    assert diagnosis is not None
    assert diagnosis.message == "the runtime stopped itself: GGML_ASSERT(n > 0) failed"
    assert kind.diagnose("all is well\n") is None


def test_llama_cpp_runs_out_of_descriptors() -> None:
    diagnosis = llamacpp_log.diagnose("error: Too many open files\n")
    assert diagnosis is not None
    assert "LimitNOFILE" in diagnosis.hint
