"""ctypes types for a release of a C library, made from its declarations by one loop."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

from .declarations import Header, Member, Struct, declarator


class Pointer32(ctypes.c_uint32):
    """A 32-bit pointer on a machine with others, for its place in a layout only."""


class Pointer64(ctypes.c_uint64):
    """A 64-bit pointer on a machine with others, for its place in a layout only."""


_SCALARS: dict[str, Any] = {
    "void": None,
    "int": ctypes.c_int,
    "char": ctypes.c_char,
    "int8_t": ctypes.c_int8,
    "uint8_t": ctypes.c_uint8,
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "float": ctypes.c_float,
    "bool": ctypes.c_bool,
}
_SIZES: dict[Any, Any] = {
    None: ctypes.c_size_t,
    Pointer32: ctypes.c_uint32,
    Pointer64: ctypes.c_uint64,
}


class Prototype(NamedTuple):
    """The ctypes types of a C function."""

    arguments: tuple[Any, ...]
    returns: Any


class CTypes:
    """The ctypes types of one release's header: `structs`, `callbacks`, `functions` and `enums`.

    `wide` asks for pointers and size_t of
    64 (True) or 32 bits; where that is not this machine's width, the types only show the layout.
    """

    def __init__(self, header: Header, *, wide: bool | None = None) -> None:
        native = ctypes.sizeof(ctypes.c_void_p) == 8
        self.header = header
        self.enums = self.header.enums
        self.structs: dict[str, Any] = {}
        self.callbacks: dict[str, Any] = {}
        self.functions: dict[str, Prototype] = {}
        self._foreign: Any = None
        if wide is not None and wide != native:
            self._foreign = Pointer64 if wide else Pointer32
        self._build()

    def _build(self) -> None:
        for callback in self.header.callbacks.values():
            arguments = [declarator(argument).type for argument in callback.arguments]
            self.callbacks[callback.name] = self._callback(callback.returns, arguments)
        for struct in self.header.structs.values():
            self.structs[struct.name] = self._structure(struct)
        for function in self.header.functions.values():
            arguments = [declarator(argument).type for argument in function.arguments]
            self.functions[function.name] = Prototype(
                arguments=tuple(self.type(argument) for argument in arguments),
                returns=self.type(function.returns),
            )

    def _callback(self, returns: str, arguments: list[str]) -> Any:
        if self._foreign:
            return self._foreign
        # A struct comes as its address: wrapping each in a pointer object costs every token.
        types = (
            ctypes.c_void_p if name.removesuffix("*") in self.header.structs else self.type(name)
            for name in arguments
        )
        return ctypes.CFUNCTYPE(self.type(returns), *types)

    def _structure(self, struct: Struct) -> Any:
        base = ctypes.Union if struct.kind == "union" else ctypes.Structure
        fields = []
        for position, member in enumerate(struct.members):
            name = member.name or f"_{member.type}{position}"
            fields.append((name, self._member_type(member)))
        anonymous = [name for name, _ in fields if name.startswith("_")]
        # Made by a call and not by a statement: ctypes reads the fields while it makes the class, and
        # here they are data.
        return type(
            struct.name or struct.kind, (base,), {"_anonymous_": anonymous, "_fields_": fields}
        )

    def _member_type(self, member: Member) -> Any:
        if member.block is not None:
            return self._structure(member.block)
        element = self.type(member.type)
        return element * member.length if member.length else element

    def type(self, name: str) -> Any:
        """Return the ctypes type of the C type `name`; KeyError for one that this release lacks."""
        plain = name.removeprefix("const ")
        if plain == "LLMHandle" or plain == "void*":
            return self._pointer(ctypes.c_void_p)
        if plain == "char*":
            return self._pointer(ctypes.c_char_p)
        if plain.endswith("*"):
            return self._pointer(ctypes.POINTER(self.type(plain[:-1])))
        if plain in ("size_t", "rknn_context"):  # the latter has 32 bits on armhf, else 64
            return _SIZES[self._foreign]
        if plain in self.enums:
            return ctypes.c_int
        for table in (self.structs, self.callbacks):
            if plain in table:
                return table[plain]
        return _SCALARS[plain]

    def _pointer(self, native: Any) -> Any:
        return native if self._foreign is None else self._foreign
