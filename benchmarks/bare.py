"""The yardstick: the same library, driven by as little Python as possible, in a process of its own.

    python -m benchmarks.bare LIBRARY MODEL TOKENS

prints tokens per second through an empty ctypes callback.
"""

from __future__ import annotations

import ctypes
import sys
import time

from rkllama.clib.ctypes_types import CTypes
from rkllama.rkllm.abi import header


def main() -> None:
    """Run once to warm up, once to measure."""
    library, model, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
    sys.stdout.write(f"\n{tokens / _seconds(library, model, tokens):.0f}\n")


def _seconds(path: str, model: str, tokens: int) -> float:
    types = CTypes(header("1.2.3"))
    lib = ctypes.CDLL(path)
    callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    calls = 0

    def count(_result: object, _userdata: object, _state: int) -> int:
        nonlocal calls
        calls += 1
        return 0

    callback = callback_type(count)
    lib.rkllm_createDefaultParam.restype = types.type("RKLLMParam")
    parameters = lib.rkllm_createDefaultParam()
    parameters.model_path = model.encode()
    parameters.max_context_len = tokens + 512
    parameters.max_new_tokens = tokens
    handle = ctypes.c_void_p()
    assert lib.rkllm_init(ctypes.byref(handle), ctypes.byref(parameters), callback) == 0
    request = types.type("RKLLMInput")()
    ctypes.memset(ctypes.byref(request), 0, ctypes.sizeof(request))
    request.role = b"user"
    request.prompt_input = b"hi"
    how = types.type("RKLLMInferParam")()
    ctypes.memset(ctypes.byref(how), 0, ctypes.sizeof(how))
    run = (handle, ctypes.byref(request), ctypes.byref(how), None)
    lib.rkllm_run(*run)
    calls = 0
    started = time.perf_counter()
    lib.rkllm_run(*run)
    seconds = time.perf_counter() - started
    lib.rkllm_destroy(handle)
    assert calls == tokens + 1, f"{calls} callbacks"  # FINISH is one more
    return seconds


if __name__ == "__main__":
    main()
