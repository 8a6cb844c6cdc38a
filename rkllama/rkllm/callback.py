"""The results of a run: what librkllmrt's callback does for every token. The hot path."""

from __future__ import annotations

import ctypes
from codecs import utf_8_decode
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from ..clib.ctypes_types import CTypes
from ..types import MOST_REPEATS

_WAITING, _FINISH, _ERROR, _HIDDEN_1_1 = 1, 2, 3, 4
_GO_ON, _RELEASE = 0, 2  # 1 would pause the run forever


class Perf(NamedTuple):
    """The runtime's own figures of a run; `prefill_tokens` are those that it evaluated."""

    prefill_seconds: float
    prefill_tokens: int
    generate_seconds: float
    generate_tokens: int
    memory: int
    """Bytes."""


class Rows(NamedTuple):
    """A hidden layer or logits: `height` rows of `width` float32 values; valid in the callback only."""

    values: Any
    """A memoryview of them all."""
    height: int
    width: int
    number: int = 0
    """Which input of a batch they belong to."""

    def row(self, index: int) -> bytes:
        """Return one row's float32 bytes, copied."""
        first = (index % self.height) * self.width
        data: bytes = self.values[first : first + self.width].tobytes()
        return data


class Results:
    """Takes one run's results after another; `callback` is given to the runtime once.

    `ask_abort` is called from inside the callback when an answer should end early, and again as long
    as tokens keep coming: the runtime forgets an abort that comes before it has really begun.
    """

    __slots__ = (
        "_address",
        "_again",
        "_again_at",
        "_ask_abort",
        "_decoder_rest",
        "_emit",
        "_eos",
        "_inputs",
        "_limit",
        "_perf_type",
        "_release",
        "_result",
        "_rows",
        "_token",
        "_type",
        "callback",
        "error",
        "failed",
        "finished",
        "perf",
        "perfs",
        "stopped",
        "tokens",
    )

    def __init__(self, types: CTypes, ask_abort: Callable[[], None], n_batch: int = 1) -> None:
        self._inputs = n_batch
        self._type = types.structs["RKLLMResult"]
        self._perf_type = types.structs.get("RKLLMPerfStat")
        self._release = _RELEASE if "RKLLMCallback" in types.structs else _GO_ON
        self._ask_abort = ask_abort
        self._address = 0
        self._result: Any = None
        self.callback = types.callbacks["LLMResultCallback"](self._take)
        self.begin(lambda _: None)

    def begin(
        self,
        emit: Callable[[str], None],
        *,
        eos: Collection[int] = (),
        limit: int = -1,
        rows: Callable[[Rows], None] | None = None,
    ) -> None:
        """Prepare for the results of a new run: text for `emit`, or the output buffers for `rows`.

        `limit` counts tokens, or the times that buffers come: the run is stopped there.
        """
        self._emit = emit
        self._eos = frozenset(eos)
        self._limit = limit
        self._rows = rows
        self._decoder_rest = b""
        self._token: int | None = None
        self._again = self._again_at = 0
        """The last token, how often one has come again in a row, and at which token it last did."""
        self.tokens = 0
        """Tokens of the answer, without one that ends it."""
        self.stopped: str | None = None
        """Why an abort was asked for: "eos", "length", "repeats", "cancelled" or "error"."""
        self.perf: Perf | None = None
        self.perfs: tuple[Perf, ...] = ()
        """Those of each input of a batch."""
        self.failed = False
        """Whether the runtime reported an error."""
        self.finished = False
        self.error: BaseException | None = None
        """What was raised inside the callback."""

    def replace_emit(self, emit: Callable[[str], None]) -> None:
        """Send text elsewhere from now on."""
        self._emit = emit

    def lower_limit(self, limit: int) -> None:
        """End this run after `limit` tokens, if it does not end before."""
        if self._limit < 0 or limit < self._limit:
            self._limit = max(limit, self.tokens)

    def flush(self) -> None:
        """Emit what is left of a character that never became whole."""
        if self._decoder_rest:
            rest, self._decoder_rest = self._decoder_rest, b""
            self._emit(rest.decode("utf-8", "replace"))

    def _take(self, address: int | None, _userdata: int | None, state: int) -> int:
        try:
            if state > _WAITING or self.stopped is not None or self._rows is not None:
                return self._take_rare(address, state)
            if address != self._address:
                self._look_at(address)
            result = self._result
            token = result.token_id
            if token in self._eos:
                return self._stop("eos")
            self.tokens += 1
            if token == self._token:
                self._mind_repeats(result.text)
            else:
                self._token = token
            data = result.text
            if data:
                if self._decoder_rest:
                    data = self._decoder_rest + data
                text, used = utf_8_decode(data, "replace", False)
                self._decoder_rest = data[used:]
                if text:
                    self._emit(text)
            if self.tokens == self._limit:
                self._stop("length")
        except BaseException as error:
            return self._raised(error)
        return _GO_ON

    def _mind_repeats(self, data: bytes | None) -> None:
        """Stop after this token if it has come too often in a row. Spaces and newlines may."""
        self._again = self._again + 1 if self._again_at == self.tokens - 1 else 1
        self._again_at = self.tokens
        if self._again >= MOST_REPEATS and not (data and data.isspace()):
            self._stop("repeats")

    def _look_at(self, address: int | None) -> None:
        """Return one view of the struct, which the runtime passes again and again."""
        self._result = self._type.from_address(address)
        self._address = address or 0

    def _stop(self, reason: str) -> int:
        self.stopped = reason
        self._ask_abort()
        return _GO_ON

    def _raised(self, error: BaseException) -> int:
        if self.error is None:
            self.error = error
        self._stop("error")
        return _GO_ON if self._rows is None else self._release

    def _take_rare(self, address: int | None, state: int) -> int:
        if state == _FINISH:
            self.finished = True
            if address and self._perf_type is not None:
                self.perfs = tuple(_perf(result.perf) for result in self._all(address))
                self.perf = self.perfs[0]
        elif state == _ERROR:
            self.failed = True
        elif self._rows is not None and address:
            return self._take_rows(address)
        elif self.stopped is not None:
            self._ask_abort()
        return _GO_ON

    def _all(self, address: int) -> Iterator[Any]:
        """The result of each input."""
        size = ctypes.sizeof(self._type)
        return (self._type.from_address(address + i * size) for i in range(self._inputs))

    def _take_rows(self, address: int) -> int:
        buffers = [_rows(result, number) for number, result in enumerate(self._all(address))]
        whole = [rows for rows in buffers if rows is not None]
        if not whole:  # also called once without any before the real one
            return _GO_ON
        if self.stopped is not None:
            self._ask_abort()
            return self._release
        assert self._rows is not None
        for rows in whole:
            self._rows(rows)
        self.tokens += 1
        if self.tokens == self._limit:
            self._stop("length")
        return self._release


def _perf(perf: Any) -> Perf:
    return Perf(
        prefill_seconds=perf.prefill_time_ms / 1000,
        prefill_tokens=perf.prefill_tokens,
        generate_seconds=perf.generate_time_ms / 1000,
        generate_tokens=perf.generate_tokens,
        memory=int(perf.memory_usage_mb * (1 << 20)),
    )


def _rows(result: Any, number: int) -> Rows | None:
    """The buffer in the result of an input; None where there is none."""
    hidden, logits = result.last_hidden_layer, getattr(result, "logits", None)
    if hidden.num_tokens > 0 and hidden.embd_size > 0 and hidden.hidden_states:
        pointer, height, width = hidden.hidden_states, hidden.num_tokens, hidden.embd_size
    elif logits is not None and logits.num_tokens > 0 and logits.logits:
        pointer, height, width = logits.logits, logits.num_tokens, logits.vocab_size
    else:
        return None
    array = (ctypes.c_float * (height * width)).from_address(ctypes.addressof(pointer.contents))
    return Rows(memoryview(array).cast("B").cast("f"), height, width, number)


class BatchResults(Results):
    """The results of a runtime that was loaded with `n_batch` > 1: an array of them per call.

    `begin`'s `emit` is unused; text goes to `emit_at(index of the input, text)`.
    """

    __slots__ = ("_rests", "emit_at")

    def __init__(self, types: CTypes, ask_abort: Callable[[], None], n_batch: int) -> None:
        self._rests = [b""] * n_batch
        self.emit_at: Callable[[int, str], None] = lambda _index, _text: None
        super().__init__(types, ask_abort, n_batch)

    def _take(self, address: int | None, _userdata: int | None, state: int) -> int:
        try:
            if state > _WAITING or self.stopped is not None or self._rows is not None:
                return self._take_rare(address, state)
            for index, result in enumerate(self._all(address or 0)):
                self._take_one(index, result)
        except BaseException as error:
            return self._raised(error)
        return _GO_ON

    def _take_one(self, index: int, result: Any) -> None:
        if result.token_id < 0 or result.token_id in self._eos:  # this one has ended
            return
        self.tokens += 1
        data = self._rests[index] + (result.text or b"")
        text, used = utf_8_decode(data, "replace", False)
        self._rests[index] = data[used:]
        if text:
            self.emit_at(index, text)

    def flush(self) -> None:
        """Emit what is left of characters that never became whole."""
        for index, rest in enumerate(self._rests):
            if rest:
                self.emit_at(index, rest.decode("utf-8", "replace"))
                self._rests[index] = b""
