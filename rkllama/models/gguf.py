"""The header of a .gguf file: what a model says about itself, read without loading it.

A reader of our own: the `gguf` package needs numpy and maps the file (a file that shrinks meanwhile
then kills the process with SIGBUS), and makes a Python object of every token of the vocabulary. This
one reads through a window of 1 MiB, steps over arrays, and refuses what no real model has, so that a
damaged or hostile file costs a bounded amount of time and memory. `rkllama list` imports it where there
are .gguf files, hence no dataclass.

Layout, little-endian, of versions 2 and 3: "GGUF", u32 version, u64 tensors, u64 pairs; each pair a
string key, u32 type, value; each tensor a string name, u32 dimensions, u64 sizes, u32 type, u64 offset.
A string is its u64 length and its bytes, an array u32 type, u64 length and the items.
"""

from __future__ import annotations

import os
import stat
import struct
from collections import namedtuple
from collections.abc import Mapping

from ..errors import LoadFailed
from .scan import open_nonblocking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO
    from typing import Any

Scalar = str | int | float | bool

_WINDOW = 1 << 20
_BRIEF_WINDOW = 1 << 16
"""For what lies before the vocabulary: an SD card takes its time for a mebibyte."""
_MAX_PAIRS = 1 << 16
_MAX_TENSORS = 1 << 17
_MAX_KEY = 1 << 16
_MAX_STRING = 1 << 22
_MAX_ITEMS = 1 << 24
"""Of all arrays of strings together; the largest vocabularies have under 2^20 tokens and merges."""
_MAX_LAYERS = 1 << 12
_CHECKPOINT = 256

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32, _U64 = _SCALARS[4], _SCALARS[10]
_INTEGERS = (4, 5)
"""The types of whole numbers that arrays about layers are written in."""
_KV_HEADS = ".attention.head_count_kv"

# llama.cpp's enum llama_ftype, as `general.file_type`; gaps were formats that are gone.
_RANK = 4
"""llama.cpp's pooling type of rerankers."""
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
}


class GGUFError(LoadFailed):
    """The file at `path` cannot be read, or is not a .gguf file."""

    code = "gguf"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"{os.path.basename(path)} is not a usable GGUF file: {reason}",
            hint="Delete it and pull it again.",
        )
        self.path = path


class GGUFHeader(
    namedtuple(
        "GGUFHeader",
        [
            "version",
            "architecture",
            "name",
            "parameters",
            "size_label",
            "quantization",
            "context_length",
            "embedding_length",
            "kv_heads",
            "pooling",
            "chat_template",
            "tokenizer",
            "bos_token",
            "eos_token",
            "eos_tokens",
            "license",
            "metadata",
        ],
    )
):
    """What a header says; None where it is silent. A brief one (`read_header(brief=True)`) ends where
    the vocabulary starts: it has no template, no tokens and no count of the weights.
    """

    __slots__ = ()

    version: int
    architecture: str | None
    name: str | None
    parameters: int | None
    """The number of weights."""
    size_label: str | None
    """The same in the words of whoever converted the model: "1.5B"."""
    quantization: str | None
    """As "Q4_K_M"."""
    context_length: int | None
    embedding_length: int | None
    kv_heads: int | None
    """Key-value heads of all layers together; hybrid models have them in some of their layers only."""
    pooling: int | None
    """How an embedding is made of the tokens' vectors; 0 and None: not an embedding model."""
    chat_template: str | None
    tokenizer: str | None
    bos_token: str | None
    eos_token: str | None
    eos_tokens: tuple[int, ...]
    """The ids that end an answer."""
    license: str | None
    metadata: Mapping[str, Scalar]
    """Every key whose value is neither an array nor a long text."""

    @property
    def parameter_size(self) -> str | None:
        """The number of weights as people write it: counted, else as the converter labelled it."""
        return parameter_size(self.parameters) if self.parameters else self.size_label

    @property
    def ranks(self) -> bool:
        """Whether it has a head that scores how well a document answers a query."""
        return self.pooling == _RANK

    @property
    def only_embeds(self) -> bool:
        """Whether it embeds or ranks only, or is an encoder such as BERT: then it can write nothing."""
        causal = self.metadata.get(f"{self.architecture}.attention.causal")
        return bool(self.pooling) or causal is False


def read_header(path: str, *, brief: bool = False) -> GGUFHeader:
    """Return the header of the file `path`; `brief` takes microseconds where all of it takes 0.1 s.

    Raises GGUFError for a file that is missing, truncated or no GGUF of version 2 or 3.
    """
    try:
        with open(path, "rb", buffering=0, opener=open_nonblocking) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise GGUFError(path, "it is not a regular file")
            window = _BRIEF_WINDOW if brief else _WINDOW
            return _Reader(stream, status.st_size, window).header(brief)
    except OSError as error:
        raise GGUFError(path, error.strerror or str(error)) from None
    except _BrokenError as error:
        raise GGUFError(path, str(error)) from None


class _BrokenError(Exception):
    """What is wrong with the bytes."""


class _Reader:
    """A window that moves forward over the file."""

    def __init__(self, stream: FileIO, size: int, reach: int) -> None:
        self._stream = stream
        self._reach = reach  # bytes that are read at a time
        self._size = size
        self._start = 0  # of the window in the file
        self._window = b""
        self._at = 0  # in the window
        self._items = 0
        self._tokens: _Strings | None = None
        self._kv_heads: int | None = None

    # --- Bytes ---------------------------------------------------------------------------------

    @property
    def _left(self) -> int:
        """Bytes from here to the end of the file."""
        return self._size - self._start - self._at

    def _need(self, count: int) -> None:
        """Have `count` bytes in the window from here on."""
        if self._at + count <= len(self._window):
            return
        if count > self._left:
            raise _BrokenError("it is truncated")
        self._move(self._start + self._at, max(count, self._reach))

    def _move(self, position: int, count: int) -> None:
        self._stream.seek(position)
        self._start, self._at = position, 0
        parts = []
        while count > 0 and (part := self._stream.read(count)):
            parts.append(part)
            count -= len(part)
        self._window = b"".join(parts)

    def _skip(self, count: int) -> None:
        if count > self._left:
            raise _BrokenError("it is truncated")
        self._at += count
        if self._at > len(self._window):
            self._move(self._start + self._at, self._reach)

    def _number(self, layout: struct.Struct) -> Any:
        self._need(layout.size)
        if self._at + layout.size > len(self._window):
            raise _BrokenError("it is truncated")  # the file shrank meanwhile
        (value,) = layout.unpack_from(self._window, self._at)
        self._at += layout.size
        return value

    def _bytes(self, limit: int) -> bytes:
        """Return a string's bytes. One that is longer than `limit` makes the file unusable."""
        length = self._number(_U64)
        if length > limit:
            raise _BrokenError(f"it contains a string of {length} bytes")
        self._need(length)
        content = self._window[self._at : self._at + length]
        if len(content) < length:
            raise _BrokenError("it is truncated")
        self._at += length
        return content

    # --- Structure -----------------------------------------------------------------------------

    def header(self, brief: bool) -> GGUFHeader:
        if self._size < 24 or self._take(4) != b"GGUF":
            raise _BrokenError("it does not begin with GGUF")
        version = self._number(_U32)
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = "big-endian" if swapped in (2, 3) else f"version {version}"
            raise _BrokenError(f"{kind} files are not supported")
        tensors, pairs = self._number(_U64), self._number(_U64)
        if tensors > _MAX_TENSORS or pairs > _MAX_PAIRS:
            raise _BrokenError(f"it declares {tensors} tensors and {pairs} values")
        values, complete = self._pairs(pairs, brief)
        summed = self._count_parameters(tensors) if complete and not brief else None
        return self._summary(version, values, summed)

    def _take(self, count: int) -> bytes:
        self._need(count)
        self._at += count
        return self._window[self._at - count : self._at]

    def _pairs(self, count: int, brief: bool) -> tuple[dict[str, Scalar], bool]:
        """Return the scalar values by key, and whether the end of the pairs was reached."""
        values: dict[str, Scalar] = {}
        for _ in range(count):
            key = self._bytes(_MAX_KEY).decode("utf-8", "replace")
            if brief and key.startswith("tokenizer."):
                return values, False
            kind = self._number(_U32)
            if kind == _ARRAY:
                self._array(key)
            elif kind == _STRING:
                values[key] = self._bytes(_MAX_STRING).decode("utf-8", "replace")
            elif kind in _SCALARS:
                values[key] = self._number(_SCALARS[kind])
            else:
                raise _BrokenError(f"it contains a value of the unknown type {kind}")
        return values, True

    def _array(self, key: str) -> None:
        """Step over an array, but for what is needed of it."""
        kind, count = self._number(_U32), self._number(_U64)
        if kind == _STRING:
            strings = self._skip_array_of_strings(count)
            if key == "tokenizer.ggml.tokens":
                self._tokens = strings
        elif kind not in _SCALARS:
            raise _BrokenError(f"it contains an array of the type {kind}")
        elif key.endswith(_KV_HEADS) and kind in _INTEGERS and count <= _MAX_LAYERS:
            self._kv_heads = sum(self._number(_SCALARS[kind]) for _ in range(count))
        else:
            self._skip(count * _SCALARS[kind].size)

    def _skip_array_of_strings(self, count: int) -> _Strings:
        self._items += count
        if count * 8 > self._left or self._items > _MAX_ITEMS:
            raise _BrokenError(f"it contains an array of {count} strings")
        strings = _Strings(count)
        while count:
            strings.positions.append(self._start + self._at)
            step = min(count, _CHECKPOINT)
            self._skip_strings(step)
            count -= step
        return strings

    def _skip_strings(self, count: int) -> None:
        """Step over `count` strings; the loop over a vocabulary, hence the local names."""
        unpack = _U64.unpack_from
        window, at = self._window, self._at
        last = len(window) - 8
        while count:
            if at > last:
                self._at = at
                self._need(8)
                window, at = self._window, self._at
                last = len(window) - 8
                if at > last:
                    raise _BrokenError("it is truncated")
            (length,) = unpack(window, at)
            at += 8 + length
            count -= 1
            if at > last + 8:
                self._at = at - length
                self._skip(length)
                window, at = self._window, self._at
                last = len(window) - 8
        self._at = at

    def _count_parameters(self, tensors: int) -> int:
        """Return the number of weights: the product of each tensor's sizes, summed."""
        total = 0
        for _ in range(tensors):
            self._bytes(_MAX_KEY)
            dimensions = self._number(_U32)
            if dimensions > 8:
                raise _BrokenError(f"it contains a tensor of {dimensions} dimensions")
            weights = 1
            for _ in range(dimensions):
                weights *= self._number(_U64)
            total += weights
            self._skip(4 + 8)
        return total

    # --- Meaning -------------------------------------------------------------------------------

    def _summary(self, version: int, values: dict[str, Scalar], summed: int | None) -> GGUFHeader:
        architecture = _text(values, "general.architecture")
        prefix = f"{architecture}."
        file_type = _id(values, "general.file_type")
        ids = [_id(values, f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
        return GGUFHeader(
            version=version,
            architecture=architecture,
            name=_text(values, "general.name"),
            parameters=_id(values, "general.parameter_count") or summed or None,
            size_label=_text(values, "general.size_label"),
            quantization=None if file_type is None else _FILE_TYPES.get(file_type),
            context_length=_id(values, prefix + "context_length"),
            embedding_length=_id(values, prefix + "embedding_length"),
            kv_heads=self._all_kv_heads(values, prefix),
            pooling=_id(values, prefix + "pooling_type"),
            chat_template=_text(values, "tokenizer.chat_template"),
            tokenizer=_text(values, "tokenizer.ggml.model"),
            bos_token=self._token(_id(values, "tokenizer.ggml.bos_token_id")),
            eos_token=self._token(ids[0]),
            eos_tokens=tuple(dict.fromkeys(number for number in ids if number is not None)),
            license=_text(values, "general.license"),
            metadata={key: value for key, value in values.items() if _is_short(value)},
        )

    def _all_kv_heads(self, values: Mapping[str, Scalar], prefix: str) -> int | None:
        if self._kv_heads is not None:
            return self._kv_heads
        heads = _id(values, prefix + _KV_HEADS[1:]) or _id(values, prefix + "attention.head_count")
        layers = _id(values, prefix + "block_count")
        return None if heads is None or layers is None else heads * layers

    def _token(self, number: int | None) -> str | None:
        """Return the text of a token, found by walking from the checkpoint before it."""
        tokens = self._tokens
        if tokens is None or number is None or number >= tokens.count:
            return None
        position = tokens.positions[number // _CHECKPOINT]
        self._move(position, self._reach)
        self._skip_strings(number % _CHECKPOINT)
        return self._bytes(_MAX_KEY).decode("utf-8", "replace")


class _Strings:
    """An array of strings that was stepped over: every 256th one's position in the file."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.positions: list[int] = []


def _text(values: Mapping[str, Scalar], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) and value else None


def _id(values: Mapping[str, Scalar], key: str) -> int | None:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return value


def _is_short(value: Scalar) -> bool:
    if isinstance(value, float):
        return value == value and abs(value) != float("inf")  # JSON has no others
    return not isinstance(value, str) or len(value) <= 256


def parameter_size(count: int) -> str:
    """Return a number of weights as people write it: "1.5B", "135M", "12.3K"."""
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.{1 if count < 100 * unit else 0}f}".removesuffix(".0") + letter
    return str(count)
