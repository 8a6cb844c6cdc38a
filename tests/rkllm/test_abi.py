"""The declarations against what a C++ compiler measured from each released header."""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkllama.clib.ctypes_types import CTypes, Pointer32, Pointer64
from rkllama.clib.declarations import declarator
from rkllama.rkllm.abi import RELEASES, first_release, header
from tests.cases import cases

MEASURED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "rkllm-abi.json").read_text()
)["versions"]
MODELS = {"lp64": True, "ilp32": False}

_INTEGERS = "int|u?int(8|16|32|64)_t|size_t|LLMCallState|RKLLMInputType|RKLLMInferMode"


def kind_of_c(name: str) -> str:
    """int, float, pointer, bool, void or struct, judged by the C type's name alone."""
    if name.endswith(("*", "Callback")) or name == "LLMHandle":
        return "pointer"
    if name in ("float", "bool", "void"):
        return name
    return "int" if re.fullmatch(rf"({_INTEGERS})(\[\d+\])?", name) else "struct"


def kind_of_ctypes(kind: Any) -> str:
    """The same, judged by what ctypes will do with a value."""
    if kind is None:
        return "void"
    if issubclass(kind, ctypes.Array):
        return kind_of_ctypes(kind._type_)
    if issubclass(kind, ctypes.Structure | ctypes.Union):
        return "struct"
    if issubclass(kind, Pointer32 | Pointer64) or hasattr(kind, "contents"):
        return "pointer"
    if hasattr(kind, "_restype_"):
        return "pointer"
    return {"P": "pointer", "z": "pointer", "f": "float", "?": "bool"}.get(kind._type_, "int")


def flat(struct: Any, base: int = 0, prefix: str = "") -> Iterator[tuple[str, int, int, str]]:
    """(name, offset, size, kind) of each member; nested anonymous types as the table writes them."""
    for name, kind in struct._fields_:
        offset = base + getattr(struct, name).offset
        if kind_of_ctypes(kind) == "struct" and not kind.__name__.startswith("RKLLM"):
            yield from flat(kind, offset, prefix if name.startswith("_") else f"{prefix}{name}.")
        else:
            yield prefix + name, offset, ctypes.sizeof(kind), kind_of_ctypes(kind)


@cases("model", MODELS)
@cases("release", MEASURED)
def test_every_struct_has_the_measured_layout(release: str, model: str) -> None:
    measured = MEASURED[release]["structs"][model]
    structs = CTypes(header(release), wide=MODELS[model]).structs
    assert set(structs) == set(measured)
    for name, expected in measured.items():
        assert ctypes.sizeof(structs[name]) == expected["size"], name
        assert list(flat(structs[name])) == [
            (field, offset, size, kind_of_c(c_type))
            for field, offset, size, c_type in expected["fields"]
        ], name


@pytest.mark.parametrize("release", MEASURED)
def test_every_declaration_has_the_measured_names_and_types(release: str) -> None:
    measured, declared = MEASURED[release], header(release)
    assert declared.enums == measured["enums"]
    for table, ours in (("callbacks", declared.callbacks), ("functions", declared.functions)):
        assert {
            name: {"returns": function.returns, "arguments": list(function.arguments)}
            for name, function in ours.items()
        } == measured[table]
    for name, expected in measured["structs"]["lp64"].items():
        kinds = [field[3] for field in expected["fields"]]
        assert list(_member_types(declared.structs[name])) == kinds


def _member_types(struct: Any) -> Iterator[str]:
    for member in struct.members:
        if member.block is not None:
            yield from _member_types(member.block)
        else:
            yield f"{member.type}[{member.length}]" if member.length else member.type


@pytest.mark.parametrize("release", MEASURED)
def test_every_function_takes_the_measured_kinds(release: str) -> None:
    types = CTypes(header(release))
    for name, expected in MEASURED[release]["functions"].items():
        arguments, returns = types.functions[name]
        assert [kind_of_ctypes(kind) for kind in arguments] == [
            kind_of_c(declarator(text).type) for text in expected["arguments"]
        ], name
        assert kind_of_ctypes(returns) == kind_of_c(expected["returns"]), name
    for name, expected in MEASURED[release]["callbacks"].items():
        callback = types.callbacks[name]
        assert [kind_of_ctypes(kind) for kind in callback._argtypes_] == [
            kind_of_c(declarator(text).type) for text in expected["arguments"]
        ], name
        assert kind_of_ctypes(callback._restype_) == kind_of_c(expected["returns"]), name


def test_releases_that_share_a_header_share_everything() -> None:
    for release in RELEASES[:5]:
        assert header(release)._replace(release="") == header("1.1.4")._replace(release="")


def test_pointers_to_structs_are_typed_so_that_a_wrong_struct_is_refused() -> None:
    types = CTypes(header("1.3.0"))
    run = ctypes.CFUNCTYPE(types.functions["rkllm_run"][1], *types.functions["rkllm_run"][0])
    call = run(lambda *_: 0)
    with pytest.raises(ctypes.ArgumentError):
        call(None, ctypes.byref(types.structs["RKLLMParam"]()), None, None)


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("rkllm_init", "1.1.0"),
        ("rkllm_set_chat_template", "1.2.0"),
        ("rkllm_clear_kv_cache", "1.2.0"),
        ("rkllm_get_kv_cache_size", "1.2.1"),
        ("RKLLM_INFER_GET_LOGITS", "1.2.0"),
        ("RKLLMSamplingParam", "1.3.0"),
        ("max_new_tokens", "1.1.0"),
        ("RKLLMInferParam.max_new_tokens", "1.3.0"),
        ("n_image", "1.2.1b1"),
        ("rkllm_version", None),
    ],
)
def test_first_release(name: str, release: str | None) -> None:
    assert first_release(name) == release


def test_an_unknown_release_has_no_header() -> None:
    with pytest.raises(ValueError, match=r"1\.4\.0"):
        header("1.4.0")
