"""One model in librkllmrt: an owning object whose methods check every return code.

What the loaded release lacks raises Unsupported and says which release has it. All methods belong to
one thread, but for `abort`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..clib.ctypes_types import CTypes
from ..errors import LoadFailed, RuntimeFailed, Unsupported
from ..types import SamplingParams
from .abi import RELEASES, first_release, header, names
from .abort import Aborter
from .callback import BatchResults, Results, Rows
from .inputs import Input, c_string, fill
from .library import Library

Mode = Literal["generate", "hidden", "logits"]

_MODES = {
    "generate": "RKLLM_INFER_GENERATE",
    "hidden": "RKLLM_INFER_GET_LAST_HIDDEN_LAYER",
    "logits": "RKLLM_INFER_GET_LOGITS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to run. `sampling` and `max_new_tokens` per run exist from 1.3 on.

    `eos` are token ids that end the answer, `limit` the number of tokens after which it is ended
    (-1: none); both are watched here, in the callback, with any release.
    """

    mode: Mode = "generate"
    keep_history: bool = False
    lora: str | None = None
    save_prompt_cache: str | None = None
    sampling: SamplingParams | None = None
    max_new_tokens: int | None = None
    eos: Collection[int] = ()
    limit: int = -1


class Runtime:
    """librkllmrt with at most one model; `init` loads it, `destroy` frees it."""

    def __init__(self, library: Library) -> None:
        self.release = library.release
        self.types = CTypes(header(library.release))
        self._names = names(library.release)
        self._handle = ctypes.c_void_p()
        self._functions: dict[str, Any] = {}
        for name, prototype in self.types.functions.items():
            function = library.handle[name]  # a new object: types are set on it
            function.argtypes, function.restype = prototype.arguments, prototype.returns
            self._functions[name] = function
        self._keep: list[Any] = []
        """What C holds pointers to for as long as the model lives."""
        self._params: Any = None
        self._aborter = Aborter(self._call_abort)
        self.results = Results(self.types, self._aborter.ask)

    def has(self, name: str) -> bool:
        """Whether this release declares `name`, as abi.names writes it."""
        return name in self._names

    def _since(self, release: str) -> bool:
        return RELEASES.index(self.release) >= RELEASES.index(release)

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a function of the loaded model. Raises Unsupported, RuntimeFailed."""
        function = self._functions.get(name)
        if function is None:
            raise self._lacks(name)
        if not self._handle:
            raise RuntimeFailed(f"{name} was called without a loaded model")
        if code := function(self._handle, *arguments):
            raise RuntimeFailed(f"{name} failed with code {code}")

    def _lacks(self, name: str) -> Unsupported:
        return Unsupported(
            f"librkllmrt {self.release} has no {name}",
            hint=f"It was added in {first_release(name)}.",
        )

    # --- Life ----------------------------------------------------------------------------------

    def init(
        self, path: str, *, sampling: SamplingParams | None = None, **parameters: float | str
    ) -> None:
        """Load the model file `path`. Raises LoadFailed, Unsupported.

        `parameters` are members of RKLLMParam and RKLLMExtendParam; the others keep the runtime's
        defaults.
        """
        if self._handle:
            raise RuntimeFailed("a model is loaded already")
        params = self._functions["rkllm_createDefaultParam"]()
        # Some releases leave these bytes as they were, which is whatever lay on the stack.
        ctypes.memset(params.extend_param.reserved, 0, ctypes.sizeof(params.extend_param.reserved))
        params.model_path = os.fsencode(path)
        for name, value in {**sampling_values(sampling), **parameters}.items():
            self._set(params, name, value)
        if parameters.get("n_batch", 1) != 1:
            count = int(parameters["n_batch"])
            self.results = BatchResults(self.types, self._aborter.ask, count)
        callback = self._callback_argument()
        self._params = params
        self._keep = [params, callback]
        code = self._functions["rkllm_init"](
            ctypes.byref(self._handle), ctypes.byref(params), callback
        )
        if code:
            self._handle = ctypes.c_void_p()
            raise LoadFailed(f"rkllm_init failed with code {code} for {path}")
        if not self._handle:
            raise LoadFailed(f"rkllm_init reported success but returned no model for {path}")

    def _set(self, params: Any, name: str, value: float | str) -> None:
        target = params if hasattr(params, name) else params.extend_param
        if not hasattr(target, name):
            raise self._lacks(name)
        setattr(target, name, c_string(value) if isinstance(value, str) else value)

    def _callback_argument(self) -> Any:
        """Return the callback as rkllm_init of this release takes it."""
        struct = self.types.structs.get("RKLLMCallback")
        if struct is None:
            return self.results.callback
        return ctypes.pointer(struct(result_callback=self.results.callback))

    def destroy(self) -> None:
        """Free the model, if one is loaded. Raises RuntimeFailed."""
        self._aborter.close()
        if self._handle:
            try:
                self._call("rkllm_destroy")
            finally:
                self._handle = ctypes.c_void_p()

    # --- Running -------------------------------------------------------------------------------

    def run(
        self,
        inputs: Input | Sequence[Input],
        emit: Callable[[str], None] = lambda _text: None,
        options: RunOptions | None = None,
        *,
        rows: Callable[[Rows], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Results:
        """Run to the end and tell how it went: see Results. Blocks; `emit` gets the text.

        In the modes "hidden" and "logits" `rows` gets the buffers, one of each input. `cancelled` is asked
        once, when `abort` has begun to work and the runtime has not. A sequence of inputs is for a
        model that was loaded with `n_batch`. Raises RuntimeFailed, Unsupported, and what `emit`
        raised.
        """
        options = options or RunOptions()
        keep: list[Any] = []
        array = self._input_array(inputs if isinstance(inputs, Sequence) else [inputs], keep)
        infer = self._infer(options)
        results = self.results
        results.begin(emit, eos=options.eos, limit=options.limit, rows=rows)
        with self._aborter.running(results):
            if cancelled():
                results.stopped = "cancelled"
            else:
                code = self._functions["rkllm_run"](self._handle, array, ctypes.byref(infer), None)
                if code and results.stopped is None:
                    results.failed = True
        results.flush()
        if results.error is not None:
            raise results.error
        return results

    def _input_array(self, inputs: Sequence[Input], keep: list[Any]) -> Any:
        if not self._handle:
            raise RuntimeFailed("rkllm_run was called without a loaded model")
        if len(inputs) != self._n_batch():
            raise RuntimeFailed(f"{len(inputs)} inputs for a batch of {self._n_batch()}")
        array = (self.types.structs["RKLLMInput"] * len(inputs))()
        for target, source in zip(array, inputs, strict=True):
            fill(target, source, self.types, keep)
        return array

    def _n_batch(self) -> int:
        return max(1, getattr(self._params.extend_param, "n_batch", 1))

    def _infer(self, options: RunOptions) -> Any:
        structs = self.types.structs
        infer = structs["RKLLMInferParam"]()
        mode = _MODES[options.mode]
        if mode not in self.types.enums["RKLLMInferMode"]:
            raise self._lacks(mode)
        infer.mode = self.types.enums["RKLLMInferMode"][mode]
        if options.lora is not None:
            infer.lora_params = ctypes.pointer(
                structs["RKLLMLoraParam"](lora_adapter_name=c_string(options.lora))
            )
        if options.save_prompt_cache is not None:
            infer.prompt_cache_params = ctypes.pointer(
                structs["RKLLMPromptCacheParam"](
                    save_prompt_cache=1, prompt_cache_path=os.fsencode(options.save_prompt_cache)
                )
            )
        for name, value in (
            ("keep_history", 1 if options.keep_history else None),
            ("max_new_tokens", options.max_new_tokens),
        ):
            if value is not None:
                if not hasattr(infer, name):
                    raise self._lacks(f"RKLLMInferParam.{name}")
                setattr(infer, name, value)
        if options.sampling is not None:
            if not hasattr(infer, "sampling_params"):
                raise self._lacks("RKLLMInferParam.sampling_params")
            infer.sampling_params = ctypes.pointer(self._sampling(options.sampling))
        return infer

    def _sampling(self, sampling: SamplingParams) -> Any:
        """Return an RKLLMSamplingParam: what `sampling` leaves open is as at init."""
        struct = self.types.structs["RKLLMSamplingParam"]
        values = {name: getattr(self._params, name) for name, _ in struct._fields_}
        return struct(**{**values, **sampling_values(sampling)})

    def abort(self) -> None:
        """End the current run as soon as the runtime allows; from any thread, without one nothing."""
        self._aborter.cancel()

    def _call_abort(self) -> None:
        # A code other than 0 means that it had ended by itself.
        self._functions["rkllm_abort"](self._handle)

    def is_running(self) -> bool:
        """Return whether a run is in progress, as the runtime sees it."""
        if not self._handle:
            return False
        answer: int = self._functions["rkllm_is_running"](self._handle)
        return answer == (1 if self._since("1.3.0") else 0)

    # --- Between runs --------------------------------------------------------------------------

    def set_chat_template(self, system: str, prefix: str, postfix: str) -> None:
        """Replace the model's own template; all three empty: prompts go in as written. Clears the
        KV cache and turns thinking control and tool injection off.
        """
        self._call("rkllm_set_chat_template", c_string(system), c_string(prefix), c_string(postfix))

    def set_function_tools(self, system: str, tools: str, response_tag: str) -> None:
        """Let the runtime's template describe `tools`, a JSON array; it replaces the system prompt."""
        self._call(
            "rkllm_set_function_tools", c_string(system), c_string(tools), c_string(response_tag)
        )

    def clear_kv_cache(
        self, *, keep_system_prompt: bool = False, ranges: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """Forget what was evaluated; with `ranges` (from 1.2.1 on) only [start, end) of each batch."""
        if not self._since("1.2.1"):
            if ranges is not None:
                raise Unsupported(
                    f"librkllmrt {self.release} cannot clear a part of the KV cache",
                    hint="Release 1.2.1 can.",
                )
            self._call("rkllm_clear_kv_cache", int(keep_system_prompt))
            return
        bounds: list[Any] = [None, None]
        if ranges is not None:
            numbers = ctypes.c_int * len(ranges)
            bounds = [numbers(*(pair[0] for pair in ranges)), numbers(*(p[1] for p in ranges))]
        self._call("rkllm_clear_kv_cache", int(keep_system_prompt), *bounds)

    def get_kv_cache_size(self) -> list[int]:
        """Return the tokens in the KV cache, for each input of a batch."""
        sizes = (ctypes.c_int * (self._n_batch() if self._handle else 1))()
        self._call("rkllm_get_kv_cache_size", sizes)
        return list(sizes)

    def load_prompt_cache(self, path: str) -> None:
        """Load a file that a run with `save_prompt_cache` wrote."""
        self._call("rkllm_load_prompt_cache", os.fsencode(path))

    def release_prompt_cache(self) -> None:
        """Forget the loaded prompt cache; needed before another is loaded."""
        self._call("rkllm_release_prompt_cache")

    def load_lora(self, path: str, name: str, scale: float = 1.0) -> None:
        """Load a LoRA adapter; a run uses it by `name`."""
        adapter = self.types.structs["RKLLMLoraAdapter"](
            lora_adapter_path=os.fsencode(path), lora_adapter_name=c_string(name), scale=scale
        )
        self._keep.append(adapter)
        self._call("rkllm_load_lora", ctypes.byref(adapter))

    def set_cross_attn_params(
        self, k_cache: bytes, v_cache: bytes, mask: bytes, positions: Sequence[int], tokens: int
    ) -> None:
        """The encoder's output for a model that was loaded with `use_cross_attn`; float32 bytes."""
        struct = self.types.structs.get("RKLLMCrossAttnParam")
        if struct is None:
            raise self._lacks("rkllm_set_cross_attn_params")
        floats = ctypes.POINTER(ctypes.c_float)
        params = struct(num_tokens=tokens)
        params.encoder_k_cache = ctypes.cast(ctypes.c_char_p(k_cache), floats)
        params.encoder_v_cache = ctypes.cast(ctypes.c_char_p(v_cache), floats)
        params.encoder_mask = ctypes.cast(ctypes.c_char_p(mask), floats)
        params.encoder_pos = (ctypes.c_int32 * len(positions))(*positions)
        self._keep += [params, k_cache, v_cache, mask]
        self._call("rkllm_set_cross_attn_params", ctypes.byref(params))


_BOUNDS: dict[str, tuple[float, float]] = {
    "top_k": (-1, 1 << 20),
    "top_p": (0.0, 1.0),
    "temperature": (0.0, 10.0),
    "repeat_penalty": (0.01, 10.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "mirostat": (0, 2),
    "mirostat_tau": (0.01, 100.0),
    "mirostat_eta": (0.0001, 1.0),
}
"""The range that the runtime accepts; a value outside is clamped instead of failing the load."""


_NOTHING = 1e-6
"""Anything closer to 0 counts as 0: a subnormal float32 must not become a divisor in sampling."""


def _bounded(value: float | None, low: float, high: float) -> float | None:
    if value is None:
        return None
    return min(max(0 if abs(value) < _NOTHING else value, low), high)


def sampling_values(sampling: SamplingParams | None) -> dict[str, float]:
    """Return the members of RKLLMParam and RKLLMSamplingParam that `sampling` sets.

    Temperature 0, or as good as that, becomes top_k 1, which is greedy without a division by zero.
    """
    if sampling is None:
        return {}
    values = {name: _bounded(getattr(sampling, name), *_BOUNDS[name]) for name in _BOUNDS}
    if sampling.repeat_penalty == 0:  # what clients send for "none", where it would be a divisor
        values["repeat_penalty"] = 1.0
    if values["temperature"] == 0:
        values |= {"temperature": 1.0, "top_k": 1, "top_p": 1.0, "mirostat": 0}
    return {name: value for name, value in values.items() if value is not None}
