"""librknnrt with one loaded file: each call's return code is checked, and what is taken is given back."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..clib.ctypes_types import CTypes
from ..errors import LoadFailed, OutOfMemory, RuntimeFailed
from .abi import CODES, FLAG_NONE, header

_MOST_DIMENSIONS = 16
_MOST_TENSORS = 64
"""No encoder has more inputs or outputs: a greater number is a wrong layout."""


class Tensor(NamedTuple):
    """What the library says of an input or output."""

    dims: tuple[int, ...]
    format: int
    elements: int


class Context:
    """A file that librknnrt has loaded, until `close`. Not safe from several threads at a time."""

    def __init__(self, library: ctypes.CDLL, path: str) -> None:
        """Load the file `path`. Raises LoadFailed, OutOfMemory."""
        self._types = CTypes(header())
        self._functions: dict[str, Any] = {}
        for name, prototype in self._types.functions.items():
            function = library[name]  # a new object: types are set on it
            function.argtypes, function.restype = prototype.arguments, prototype.returns
            self._functions[name] = function
        self._context = self._types.type("rknn_context")()
        self._loaded = False
        # A size of 0 says that `model` is a path.
        code = self._functions["rknn_init"](
            ctypes.byref(self._context), os.fsencode(path), 0, FLAG_NONE, None
        )
        if code:
            raise _load_failed("rknn_init", code, path)
        self._loaded = True

    def close(self) -> None:
        """Free the file's memory; again, do nothing. Raises RuntimeFailed."""
        if self._loaded:
            self._loaded = False
            self._checked("rknn_destroy", self._functions["rknn_destroy"](self._context))

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a function of the loaded file. Raises RuntimeFailed."""
        if not self._loaded:
            raise RuntimeFailed(f"{name} was called without a loaded encoder")
        self._checked(name, self._functions[name](self._context, *arguments))

    @staticmethod
    def _checked(name: str, code: int) -> None:
        if code:
            raise RuntimeFailed(_failure(name, code))

    # --- What it is ----------------------------------------------------------------------------

    def set_core_mask(self, mask: int) -> None:
        """Run on these cores of the NPU: the bits of rknn_core_mask; 0 leaves the choice to the library."""
        self._call("rknn_set_core_mask", mask)

    def counts(self) -> tuple[int, int]:
        """Return the number of inputs and of outputs."""
        numbers = self._query(
            "RKNN_QUERY_IN_OUT_NUM", self._types.structs["rknn_input_output_num"]()
        )
        counts = numbers.n_input, numbers.n_output
        if not all(0 < count <= _MOST_TENSORS for count in counts):
            raise RuntimeFailed(
                f"the encoder has {counts[0]} inputs and {counts[1]} outputs, which cannot be"
            )
        return counts

    def input(self, index: int) -> Tensor:
        """Return what the input `index` takes."""
        return self._tensor("RKNN_QUERY_INPUT_ATTR", index)

    def output(self, index: int) -> Tensor:
        """Return what the output `index` gives."""
        return self._tensor("RKNN_QUERY_OUTPUT_ATTR", index)

    def version(self) -> tuple[str, str]:
        """Return the versions of the library and of the driver, as they name themselves."""
        version = self._query("RKNN_QUERY_SDK_VERSION", self._types.structs["rknn_sdk_version"]())
        library, driver = version.api_version, version.drv_version
        return library.decode("utf-8", "replace"), driver.decode("utf-8", "replace")

    def _tensor(self, command: str, index: int) -> Tensor:
        attr = self._query(command, self._types.structs["rknn_tensor_attr"](index=index))
        if not 0 < attr.n_dims <= _MOST_DIMENSIONS:
            raise RuntimeFailed(f"a tensor of the encoder has {attr.n_dims} dimensions")
        return Tensor(tuple(attr.dims[: attr.n_dims]), attr.fmt, attr.n_elems)

    def _query(self, command: str, struct: Any) -> Any:
        number = self._types.enums["rknn_query_cmd"][command]
        self._call("rknn_query", number, ctypes.byref(struct), ctypes.sizeof(struct))
        return struct

    # --- Running -------------------------------------------------------------------------------

    def run(self, pixels: bytes, outputs: Sequence[Tensor]) -> list[bytes]:
        """Return each output as float32 bytes for one picture: uint8, RGB, NHWC. Raises RuntimeFailed."""
        enums = self._types.enums
        given = self._types.structs["rknn_input"](
            index=0,
            buf=ctypes.cast(ctypes.c_char_p(pixels), ctypes.c_void_p),
            size=len(pixels),
            pass_through=0,
            type=enums["rknn_tensor_type"]["RKNN_TENSOR_UINT8"],
            fmt=enums["rknn_tensor_format"]["RKNN_TENSOR_NHWC"],
        )
        self._call("rknn_inputs_set", 1, ctypes.byref(given))
        self._call("rknn_run", None)
        array = (self._types.structs["rknn_output"] * len(outputs))()
        for index, output in enumerate(array):
            output.index, output.want_float = index, 1
        self._call("rknn_outputs_get", len(array), array, None)
        try:
            return [_floats(output, tensor) for output, tensor in zip(array, outputs, strict=True)]
        finally:
            self._call("rknn_outputs_release", len(array), array)


def _floats(output: Any, tensor: Tensor) -> bytes:
    """Return a copy of an output; it is as long as the tensor has elements, or the library is wrong."""
    if not output.buf or output.size != tensor.elements * 4:
        raise RuntimeFailed(
            f"output {output.index} of the encoder has {output.size} bytes instead of "
            f"{tensor.elements * 4}"
        )
    return ctypes.string_at(output.buf, output.size)


def _failure(name: str, code: int) -> str:
    return f"{name} failed with code {code}: {CODES.get(code, 'an unknown one')}"


def _load_failed(name: str, code: int, path: str) -> LoadFailed:
    kind = OutOfMemory if code == -4 else LoadFailed
    return kind(
        f"the image encoder {os.path.basename(path)} could not be loaded: {_failure(name, code)}"
    )
