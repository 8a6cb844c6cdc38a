"""Golden transcripts: what a dialect answered once, kept as a text to read and compared with today's.

`RKLLAMA_UPDATE_GOLDEN=1 pytest …` writes them anew; look at the difference before committing it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rkllama.api.common import Encoder, Generation
from rkllama.core import Event
from rkllama.errors import RKLLamaError

GOLDEN = Path(__file__).parent / "golden"


def check(name: str, text: str) -> None:
    """Compare `text` with the file `name` in the golden directory."""
    path = GOLDEN / name
    if os.environ.get("RKLLAMA_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path} differs from today's answer"


def exchange(call: str, body: Any, answers: Iterable[tuple[str, str]]) -> str:
    """One request and its answers, each under a line that says what it is."""
    parts = [f"> {call}\n", json.dumps(body, ensure_ascii=False, indent=2), "\n"]
    for title, answer in answers:
        parts += [f"\n< {title}\n", answer, "" if answer.endswith("\n") else "\n"]
    return "".join(parts)


def streamed(encoder: Encoder, events: Iterable[Event], error: RKLLamaError | None = None) -> str:
    """What a client reads of a stream, with the error that ends it, if one does."""
    frames = [encoder.encode(event) for event in events]
    if error is not None:
        frames.append(encoder.error(error))
    return b"".join(frames).decode()


def whole(generation: Generation, events: Iterable[Event]) -> str:
    """The answer that is not streamed, indented."""
    return pretty(generation.encoder.whole(events))


def pretty(value: object) -> str:
    """JSON to read."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
