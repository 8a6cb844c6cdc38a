"""llama-servers for tests: llama.cpp's own HTTP server out of the xllamacpp wheel, started as a program of
its own, and one of this machine where there is any.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

WHEEL = "xllamacpp's"
REAL = "a real one"
SERVERS = (WHEEL, REAL)
"""Which llama-servers there are; `command` starts one."""
_REAL = os.environ.get("TEST_LLAMA_SERVER") or shutil.which("llama-server")
"""Its path; read here, since each test runs in a clean environment."""

_PROGRAM = """#!{python}
import sys
{before}
import signal
import xllamacpp as llama

if "--help" in sys.argv:
    print("--host HOST  address, or a unix socket if it ends with {ending}")
    print("--cache-ram N  and  --slot-save-path PATH  and  --mmproj FILE")
    sys.exit()
p = llama.CommonParams()
p.verbosity, p.warmup, p.n_gpu_layers, p.ui = 3, False, 0, False
words = iter(sys.argv[1:])
for word in words:
    match word:
        case "--model": p.model.path = next(words)
        case "--ctx-size": p.n_ctx = int(next(words))
        case "--parallel": p.n_parallel = int(next(words))
        case "--host": p.hostnames = [next(words)]
        case "--port": p.port = int(next(words))
        case "--api-key-file": p.api_keys = open(next(words)).read().split()
        case "--chat-template": p.chat_template = next(words)
        case "--threads": p.cpuparams.n_threads = int(next(words))
        case "--batch-size": p.n_batch = int(next(words))
        case "--ubatch-size": p.n_ubatch = int(next(words))
        case "--slot-save-path": p.slot_save_path = next(words)
        case "--cache-ram": p.cache_ram_mib = int(next(words))
        case "--mmproj": p.mmproj.path, p.mmproj_use_gpu = next(words), False
        case "--embeddings": p.embedding = True
        case "--reranking": p.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
        case "--pooling": p.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN; next(words)
        case _: sys.exit(f"error: invalid argument: {{word}}")
# Threads inherit the mask: only the last line gets the signal.
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM, signal.SIGUSR1}})
try:
    server = llama.Server(p)
except RuntimeError:
    sys.exit(1)
signal.sigwait({{signal.SIGTERM}})
"""


def write_program(path: Path, *, before: str = "", unix: bool = True) -> str:
    """Make `path` a program: llama.cpp's server, after the statements `before`; gives its path.

    `unix`: whether it says that it knows unix sockets.
    """
    ending = ".sock" if unix else "nothing"
    path.write_text(_PROGRAM.format(python=sys.executable, before=before, ending=ending))
    path.chmod(0o755)
    return str(path)


def command(server: str, directory: Path) -> tuple[str, ...] | None:
    """The words that start a llama-server; None for a real one where there is none."""
    if server == WHEEL:
        return write_program(directory / "llama-server"), "--threads", "1"
    return None if _REAL is None else (_REAL, "--threads", "1", "--no-warmup")
