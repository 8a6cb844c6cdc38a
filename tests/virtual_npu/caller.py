"""A bare ctypes caller of the virtual NPU, without the binding that the project makes of it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from rkllama.clib.ctypes_types import CTypes
from rkllama.rkllm.abi import header

from .build import library

NORMAL, WAITING, FINISH, ERROR = range(4)


class Piece(NamedTuple):
    """What one call of the callback was given (for a batch: for its first input)."""

    state: int
    text: bytes | None
    token: int
    prefill_tokens: int | None = None
    generate_tokens: int | None = None


class Run(NamedTuple):
    """One run: rkllm_run's result and everything that the callback saw."""

    result: int
    pieces: list[Piece]

    @property
    def text(self) -> str:
        """All text, as UTF-8."""
        return b"".join(piece.text or b"" for piece in self.pieces).decode()

    @property
    def given(self) -> list[Piece]:
        """The pieces that are tokens."""
        return [piece for piece in self.pieces if piece.state in (NORMAL, WAITING)]

    @property
    def last(self) -> Piece:
        """The last call: FINISH or ERROR where the run came to its end."""
        return self.pieces[-1]


class Caller:
    """A loaded model: parameters by keyword, functions by name, `run` for a prompt.

    `on_piece` is called for each Piece, with the raw results; its result is the callback's.
    """

    def __init__(self, model: str, version: str = "1.2.3", **parameters: Any) -> None:
        self.version = version
        self.types = CTypes(header(version))
        self.structs = self.types.structs
        self.library = ctypes.CDLL(library(version))
        for name, (arguments, result) in self.types.functions.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = arguments, result
        self.on_piece: Callable[[Piece, Any], int | None] = lambda piece, results: 0
        self._pieces: list[Piece] = []
        self._batch = parameters.get("n_batch", 1)
        self.handle = ctypes.c_void_p()
        self.result = self._init(model, parameters)

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.handle:
            assert self.call("destroy") == 0

    def param(self, model: str, **parameters: Any) -> Any:
        """Return the library's default RKLLMParam with `parameters` set in it or in its extend_param."""
        param = self.library.rkllm_createDefaultParam()
        param.model_path = model.encode()
        param.skip_special_token = True
        for name, value in parameters.items():
            owner = param if hasattr(param, name) else param.extend_param
            setattr(owner, name, value)
        return param

    def _init(self, model: str, parameters: dict[str, Any]) -> int:
        self._param = self.param(model, **parameters)
        self._callback: Any = self.types.callbacks["LLMResultCallback"](self._on_result)
        if "RKLLMCallback" in self.structs:
            callback = self.structs["RKLLMCallback"](result_callback=self._callback)
        else:
            callback = self._callback
        handle = ctypes.byref(self.handle)
        return int(self.library.rkllm_init(handle, self._param, callback))

    def _on_result(self, results: int, userdata: int | None, state: int) -> int | None:
        result = self.structs["RKLLMResult"].from_address(results)
        perf = result.perf if state == FINISH and hasattr(result, "perf") else None
        piece = Piece(
            state,
            result.text,
            result.token_id,
            perf and perf.prefill_tokens,
            perf and perf.generate_tokens,
        )
        self._pieces.append(piece)
        array = (self.structs["RKLLMResult"] * self._batch).from_address(results)
        return self.on_piece(piece, array)

    def call(self, name: str, *arguments: Any) -> int:
        """rkllm_`name` with the handle before the arguments."""
        return int(getattr(self.library, f"rkllm_{name}")(self.handle, *arguments))

    def input(self, prompt: str, role: str = "user", think: bool = True) -> Any:
        """Return an RKLLMInput for a text prompt."""
        made = self.structs["RKLLMInput"](prompt_input=prompt.encode())
        if hasattr(made, "role"):
            made.role, made.enable_thinking = role.encode(), think
        return made

    def run(
        self, prompt: Any, *, sync: bool = True, userdata: int | None = None, **infer: Any
    ) -> Run:
        """Run a prompt, or an RKLLMInput or an array of them, with RKLLMInferParam's fields."""
        made = self.input(prompt) if isinstance(prompt, str) else prompt
        self._pieces = []
        self._infer = self.structs["RKLLMInferParam"](**infer)
        self._input = made
        pointer = ctypes.cast(ctypes.pointer(made), ctypes.POINTER(self.structs["RKLLMInput"]))
        function = self.library.rkllm_run if sync else self.library.rkllm_run_async
        result = function(self.handle, pointer, self._infer, userdata)
        return Run(int(result), self._pieces)

    def raw(self) -> Caller:
        """Take prompts as they are from now on, without the runtime's own template."""
        assert self.call("set_chat_template", b"", b"", b"") == 0
        return self

    def cached(self) -> int:
        """Return the tokens in the KV cache."""
        sizes = (ctypes.c_int * self._batch)()
        assert self.call("get_kv_cache_size", sizes) == 0
        return int(sizes[0])


def flush() -> None:
    """Write out what the libraries of this process have left in stdio's buffers."""
    ctypes.CDLL(None).fflush(None)
