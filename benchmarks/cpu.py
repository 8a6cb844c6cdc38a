"""The CPU backend beside the wheel's own HTTP server: one model, both servers, asked in turn.

The wheel's server runs as it comes (its threads, its batches); RKLLama as `serve` starts it. The ratios
count, in one run on one machine: 1 is as fast as the wheel's own.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

from rkllama.models.gguf import read_header
from tests.llama_server import write_program
from tests.running import Server, free_port

_ROUNDS = 5
_CONTEXT = "4096"
_WORDS = [
    "river",
    "stone",
    "cloud",
    "light",
    "paper",
    "glass",
    "green",
    "silent",
    "winter",
    "market",
    "window",
    "garden",
]
_LONG = 800
"""Words of a prompt whose evaluation is measured; fewer in a short context."""
_QUESTION = "<|im_start|>user\nHow do I download a model?<|im_end|>\n<|im_start|>assistant\n"
_TOKENS = 96


def measure(model: str, report: Callable[..., None]) -> None:
    """Report the speed of prompts and of answers with the file `model`, for one client and for several at a
    time, and the ratios to the wheel's own.
    """
    with tempfile.TemporaryDirectory(prefix="rkllama-bench-") as home:
        models = Path(home) / "RKLLAMA" / "models"
        models.mkdir(parents=True)
        (models / "model.gguf").symlink_to(os.path.abspath(model))
        os.environ.update(HOME=home, RKLLAMA_HOST="127.0.0.1:0", RKLLAMA_CONTEXT_LENGTH=_CONTEXT)
        context = read_header(model).context_length or int(_CONTEXT)
        words = min(_LONG, context // 8)
        with _both(Path(home), model, slots=1) as places:  # RKLLama has as many as by default
            _compare(places, words, report)
        for clients in (4, 8):
            os.environ["RKLLAMA_PARALLEL"] = str(clients)
            with _both(Path(home), model, slots=clients) as places:
                _compare_clients(places, clients, report)
                if clients == 4:
                    _compare_stalls(places, words, report)
        del os.environ["RKLLAMA_PARALLEL"]


@contextmanager
def _both(home: Path, model: str, *, slots: int) -> Iterator[dict[str, tuple[str, int]]]:
    """Run both servers; `slots` are the wheel's."""
    with _wheel(home, model, slots) as wheel, Server("--log-level", "warning") as server:
        yield {"the wheel's own": wheel, "RKLLama": (server.host, server.port)}


def _compare_clients(
    places: dict[str, tuple[str, int]], clients: int, report: Callable[..., None]
) -> None:
    """Tokens a second of all clients together, each with a question of its own."""
    names = list(places)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, _ROUNDS):
        for name in names if number % 2 else reversed(names):
            started = time.perf_counter()
            with ThreadPoolExecutor(clients) as threads:
                prompts = [f"{_QUESTION}{number} {client}: " for client in range(clients)]
                list(threads.map(partial(_ask, places[name], tokens=_TOKENS), prompts))
            if number >= 0:  # the first round loads the model
                rates[name].append(clients * _TOKENS / (time.perf_counter() - started))
    for name in names:
        rate = statistics.median(rates[name])
        report(f"CPU: {clients} clients, {name}", f"{rate:.1f} tokens/s in all")
    pairs = zip(rates[names[1]], rates[names[0]], strict=True)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    report(f"CPU: {clients} clients, ratio to the wheel's own", f"{ratio:.2f}", ">= 0.95")


def _compare_stalls(
    places: dict[str, tuple[str, int]], words: int, report: Callable[..., None]
) -> None:
    """The longest time that one client's tokens stop while another's long prompt is evaluated."""
    for name, place in places.items():
        gaps = []
        for number in range(_ROUNDS):
            with ThreadPoolExecutor(1) as thread:
                begun = threading.Event()
                decoding = thread.submit(_times, place, _QUESTION, 3 * _TOKENS, begun)
                begun.wait()
                _ask(place, _prompt(words, random.Random(100 + number)), 1)
                times = decoding.result()
            gaps.append(max(b - a for a, b in pairwise(times)))
        report(
            f"CPU: tokens stop for another's {words} words, {name}",
            f"{statistics.median(gaps) * 1000:.0f} ms",
            "<= 300 ms" if name == "RKLLama" else "",
        )


def _compare(places: dict[str, tuple[str, int]], words: int, report: Callable[..., None]) -> None:
    names = list(places)
    prefill: dict[str, list[float]] = {name: [] for name in names}
    decode: dict[str, list[float]] = {name: [] for name in names}
    for address in places.values():
        _ask(address, _QUESTION, 4)
    for number in range(_ROUNDS):
        for name in names if number % 2 else reversed(names):
            dice = random.Random(number)
            first, _ = _ask(places[name], _prompt(words, dice), 1)
            prefill[name].append(1 / first)
            _, rate = _ask(places[name], _QUESTION, _TOKENS)
            decode[name].append(rate)
    for what, unit, values in (
        (f"prompts of {words} words", "/s", prefill),
        ("decode", "tokens/s", decode),
    ):
        for name in names:
            report(f"CPU: {what}, {name}", f"{statistics.median(values[name]):.2f} {unit}")
        pairs = zip(values[names[1]], values[names[0]], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        report(f"CPU: {what}, ratio to the wheel's own", f"{ratio:.2f}", ">= 0.97")


def _prompt(words: int, dice: random.Random) -> str:
    return "Go on: " + " ".join(dice.choice(_WORDS) for _ in range(words))


def _ask(address: tuple[str, int], prompt: str, tokens: int) -> tuple[float, float]:
    """(seconds to the first token, tokens a second after it) of a streamed completion."""
    asked = time.perf_counter()
    times = _times(address, prompt, tokens)
    passed = times[-1] - times[0]
    return times[0] - asked, (len(times) - 1) / passed if passed else 0.0


def _times(
    address: tuple[str, int], prompt: str, tokens: int, begun: threading.Event | None = None
) -> list[float]:
    """When each token of a streamed completion came (performance counter); `begun` is set at the first."""
    body = {
        "model": "model",
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    client = http.client.HTTPConnection(*address)
    client.request(
        "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
    )
    times = []
    for line in client.getresponse():
        if line.startswith(b"data: {") and b'"text":""' not in line.replace(b": ", b":"):
            times.append(time.perf_counter())
            if begun is not None:
                begun.set()
    client.close()
    if not times:
        raise RuntimeError("no token came")
    return times


@contextmanager
def _wheel(directory: Path, model: str, slots: int) -> Iterator[tuple[str, int]]:
    """Run llama.cpp's own server out of the wheel."""
    port = free_port()
    program = write_program(directory / "llama-server")
    context = str(slots * int(_CONTEXT))
    command = [program, "--model", model, "--ctx-size", context, "--parallel", str(slots)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log = (directory / "llama-server.log").open("w")
    with log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            _until_it_serves(server, port)
            yield "127.0.0.1", port
        finally:
            server.send_signal(signal.SIGTERM)


def _until_it_serves(server: subprocess.Popen[bytes], port: int) -> None:
    while server.poll() is None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            client.request("GET", "/health")
            if client.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            client.close()
        time.sleep(0.05)
    raise RuntimeError(f"the wheel's server ended with status {server.returncode}")
