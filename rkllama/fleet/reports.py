"""What the boards of a fleet tell of themselves, all asked at the same time and within a deadline.

A board is not believed more than any stranger: of what it sends only texts, numbers and names of the right
kind are taken, and what is missing stays unknown.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..client.discover import ServerAddress
from ..config import Settings
from ..errors import ConfigError, RKLLamaError, ServerUnreachable
from .boards import Board

T = TypeVar("T")

SECONDS = 5.0
"""Within which a board has to tell how it is."""
_WORKERS = 64
"""Boards that are asked at a time."""
_LARGEST = 16 << 20
"""Bytes of an answer."""
_MODELS = 10_000
_SAMPLE = re.compile(r"(\w+)(?:\{[^\n]*\})? ([0-9.e+-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardModel:
    """A model on a board. `digest` is its sha256 where it is known."""

    name: str
    digest: str | None = None
    loaded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a board is. None is not known; `error` is why it told nothing."""

    board: Board
    error: str | None = None
    refused: bool = False
    """Whether it runs, and asks for another API key."""
    version: str | None = None
    soc: str | None = None
    unready: str | None = None
    """Why it would not serve a request now; None: it would, or it does not tell."""
    tells_ready: bool = False
    """Whether it has `/ready`; older releases have not."""
    running: int | None = None
    waiting: int | None = None
    npu_load: int | None = None
    """Percent, of all its cores."""
    celsius: float | None = None
    throttled: bool | None = None
    models: tuple[BoardModel, ...] = ()
    aliases: tuple[str, ...] = ()
    """Further names that requests may have."""
    cached: float | None = None
    """The share of all prompt tokens so far that came out of a cache, 0 to 1."""
    clock: float | None = None
    """Seconds that its clock is ahead of this machine's."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that a request may have, as the board tells them."""
        return (*(model.name for model in self.models), *self.aliases)


def ask_all(
    boards: Sequence[Board], question: Callable[[Board], T], seconds: float
) -> list[T | None]:
    """Return each board's answer, in their order; None for one that has none after `seconds`.

    A question must not raise. One that hangs is left to itself, and dies with the process.
    """
    tasks: SimpleQueue[int] = SimpleQueue()
    answers: SimpleQueue[tuple[int, T]] = SimpleQueue()
    for number in range(len(boards)):
        tasks.put(number)

    def work() -> None:
        with contextlib.suppress(Empty):
            while True:
                number = tasks.get_nowait()
                answers.put((number, question(boards[number])))

    for _ in range(min(_WORKERS, len(boards))):
        threading.Thread(target=work, daemon=True).start()
    found: list[T | None] = [None] * len(boards)
    until = time.monotonic() + seconds
    with contextlib.suppress(Empty):
        for _ in boards:
            number, answer = answers.get(timeout=max(0.0, until - time.monotonic()))
            found[number] = answer
    return found


def read_reports(
    boards: Sequence[Board], settings: Settings, seconds: float = SECONDS
) -> list[Report]:
    """Return how each board is, in their order."""
    answers = ask_all(boards, lambda board: read_report(board, settings, seconds), seconds)
    late = f"it has not answered within {seconds:g} s"
    return [
        answer or Report(board=board, error=late)
        for board, answer in zip(boards, answers, strict=True)
    ]


def read_report(board: Board, settings: Settings, seconds: float = SECONDS) -> Report:
    """Return how one board is."""
    try:
        return _read(_Asker(board, settings, seconds))
    except ConfigError as error:
        return Report(board=board, error=error.message, refused=True)
    except ServerUnreachable as error:
        reason = error.message.removeprefix(f"no server answers at {board.url}: ")
        return Report(board=board, error=reason)
    except RKLLamaError as error:
        return Report(board=board, error=text(str(error.message)[:256]) or "it does not tell why")
    except Exception as error:  # what a board has sent makes no sense
        return Report(board=board, error=f"what it tells makes no sense: {type(error).__name__}")


class _Asker:
    """Quick questions to one board, which has so many seconds for all of them."""

    def __init__(self, board: Board, settings: Settings, seconds: float) -> None:
        self.board = board
        self.server = ServerAddress(settings, board.url)
        self._until = time.monotonic() + seconds
        self.clock: float | None = None

    def fetch(self, path: str) -> tuple[int, bytes]:
        """Return status and body. Raises ServerUnreachable."""
        left = max(0.1, self._until - time.monotonic())
        with self.server.request("GET", path, timeout=left, within=left) as response:
            self.clock = _clock(response.headers.get("date"))
            return response.status, response.read(_LARGEST)

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at a path, {} where there is none. Raises ServerUnreachable, ConfigError."""
        status, body = self.fetch(path)
        if status == 404:
            return {}
        if status != 200:
            raise self.server.refusal(status, body)
        return self.server.parse(body)


def _read(board: _Asker) -> Report:
    health = board.get("/health")
    if text(health.get("version")) is None or not isinstance(health.get("models"), list):
        raise board.server.stranger()
    tags = board.get("/api/tags")
    state = board.get("/api/rkllama/board")
    _, figures = board.fetch("/metrics")
    status, ready = board.fetch("/ready")
    samples = _samples(figures)
    loaded = {name for entry in rows(health, "models") if (name := text(entry.get("name")))}
    models = tuple(_models(tags, loaded))
    waiting = number(health.get("queue"))
    return Report(
        board=board.board,
        version=text(health.get("version")),
        soc=text(state.get("soc")),
        unready=None if status in (200, 404) else _reason(board.server, ready),
        tells_ready=status in (200, 503),
        running=_whole(samples.get("rkllama_requests_running")),
        waiting=_whole(waiting),
        npu_load=_npu_load(state),
        celsius=_hottest(state),
        throttled=state["throttled"] if isinstance(state.get("throttled"), bool) else None,
        models=models,
        aliases=tuple(sorted(_names(tags, aliases=True))),
        cached=_cached(samples),
        clock=board.clock,
    )


def _models(tags: Mapping[str, Any], loaded: set[str]) -> list[BoardModel]:
    found = [
        BoardModel(name=name, digest=digest, loaded=name in loaded)
        for name, digest in _names(tags, aliases=False).items()
    ]
    return sorted(found, key=lambda model: model.name.lower())


def _names(tags: Mapping[str, Any], *, aliases: bool) -> dict[str, str | None]:
    """Return the models of a list, or the aliases in it, each with its sha256 if that is known."""
    found: dict[str, str | None] = {}
    for entry in rows(tags, "models"):
        name = text(entry.get("name"))
        if name is not None and (entry.get("alias_of") is not None) is aliases:
            digest = (text(entry.get("digest")) or "").removeprefix("sha256:")
            known = re.fullmatch(r"[0-9a-f]{64}", digest) and digest.strip("0")
            found[name.removesuffix(":latest")] = digest if known else None
    return found


def _npu_load(state: Mapping[str, Any]) -> int | None:
    npu = state.get("npu")
    loads = npu.get("load_percent") if isinstance(npu, Mapping) else None
    found = map(number, loads if isinstance(loads, list) else ())
    cores = [load for load in found if load is not None]
    return round(sum(cores) / len(cores)) if cores else None


def _hottest(state: Mapping[str, Any]) -> float | None:
    found = [number(sensor.get("celsius")) for sensor in rows(state, "temperatures")]
    return max((value for value in found if value is not None), default=None)


def _cached(samples: Mapping[str, float]) -> float | None:
    """Return the share of prompt tokens from caches; None before the first prompt, or where nothing tells."""
    cached = samples.get("rkllama_cached_tokens_total")
    prompt = samples.get("rkllama_prompt_tokens_total")
    return None if cached is None or not prompt else max(0.0, min(1.0, cached / prompt))


def _reason(server: ServerAddress, body: bytes) -> str:
    try:
        values = server.parse(body)
    except ServerUnreachable:
        return "unready"
    return text(values.get("error")) or text(values.get("reason")) or "unready"


def _samples(body: bytes) -> dict[str, float]:
    """Return the figures of Prometheus' text format, those with labels summed up."""
    sums: dict[str, float] = {}
    for line in body.decode("utf-8", "replace").splitlines():
        if match := _SAMPLE.fullmatch(line):
            with contextlib.suppress(ValueError):
                value = float(match[2])
                if number(value) is not None:
                    sums[match[1]] = sums.get(match[1], 0.0) + value
    return sums


def _clock(date: str | None) -> float | None:
    """Return how many seconds a `Date` header is ahead of this machine's clock; it has whole seconds."""
    try:
        return parsedate_to_datetime(date or "").timestamp() - time.time() + 0.5
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


# --- Values of others --------------------------------------------------------------------------


def rows(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the objects in the list `name` of a JSON object, at most as many as a board can mean."""
    value = body.get(name)
    found = value[:_MODELS] if isinstance(value, list) else []
    return [entry for entry in found if isinstance(entry, Mapping)]


def text(value: object) -> str | None:
    """Return a text that can be seen and is not too long; None for anything else."""
    if isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable():
        return value
    return None


def number(value: object) -> float | None:
    """Return a finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 else None


def _whole(value: object) -> int | None:
    found = number(value)
    return None if found is None else int(found)
