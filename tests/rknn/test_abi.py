"""The declarations against what a C++ compiler measured from the vendor's header."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import pytest

from rkllama.clib.ctypes_types import CTypes
from rkllama.rknn.abi import CODES, header

MEASURED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "rknn-abi.json").read_text()
)
MODELS = {"lp64": True, "ilp32": False}


@pytest.mark.parametrize("model", MODELS)
def test_every_struct_has_the_measured_layout(model: str) -> None:
    types = CTypes(header(), wide=MODELS[model])
    measured = MEASURED["structs"][model]
    assert set(types.structs) == set(measured)
    for name, expected in measured.items():
        struct = types.structs[name]
        offsets = {member: getattr(struct, member).offset for member, _ in struct._fields_}
        assert offsets == expected["members"], name
        assert ctypes.sizeof(struct) == expected["size"], name
    assert ctypes.sizeof(types.type("rknn_context")) == MEASURED["rknn_context"][model]


def test_members_have_the_kinds_of_the_header() -> None:
    for name, kinds in MEASURED["kinds"].items():
        members = {member.name: member.type for member in header().structs[name].members}
        assert {member: members[member] for member in kinds} == kinds


def test_enums_and_codes_have_the_headers_values() -> None:
    enums = {name: dict(values) for name, values in header().enums.items()}
    assert enums.pop("rknn_tensor_qnt_type")  # a member's type only
    assert enums == MEASURED["enums"]
    assert list(CODES) == MEASURED["codes"]


def test_an_array_is_passed_by_its_address() -> None:
    types = CTypes(header())
    inputs = types.functions["rknn_inputs_set"].arguments[2]
    assert inputs is ctypes.POINTER(types.structs["rknn_input"])
    assert types.functions["rknn_init"].returns is ctypes.c_int
