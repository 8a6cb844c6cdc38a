"""What the tests of the dialects share: example answers, golden transcripts, and broken request bodies.

`RKLLAMA_UPDATE_GOLDEN=1 pytest …` writes the golden files anew; read the difference before committing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from rkllama.api.common import Generation
from rkllama.core import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from rkllama.errors import InvalidRequest, RKLLamaError

GOLDEN = Path(__file__).parent / "golden"

# --- Example answers ---------------------------------------------------------------------------


def finished(reason: FinishReason = "stop", **values: Any) -> Finished:
    """The end of an answer, with figures."""
    usage = Usage(prompt_tokens=24, completion_tokens=7, cached_tokens=16)
    timings = Timings(queue=0.0, load=0.25, prompt=0.1, generation=0.5, total=0.9)
    return Finished(reason=reason, model="qwen", **{"usage": usage, "timings": timings, **values})


def call(index: int, name: str, arguments: Mapping[str, Any]) -> ToolCallDelta:
    """A tool call."""
    return ToolCallDelta(index, ToolCall(id=f"call_{index:08}", name=name, arguments=arguments))


_UNLIKELY = TokenLogprob(token="Ho", logprob=float("-inf"))

TEXT: list[Event] = [TextDelta("Bon"), TextDelta('jour, "ça" va ?\n'), finished()]
UNCOUNTED: list[Event] = [TextDelta("Hi"), finished(usage=Usage(), timings=Timings())]
THINKING: list[Event] = [
    ReasoningDelta("Two and"),
    ReasoningDelta(" two."),
    TextDelta("Four."),
    finished(),
]
TOOLS: list[Event] = [
    TextDelta("I look."),
    call(0, "weather", {"city": "Zürich", "days": 2}),
    call(1, "clock", {}),
    finished("tool_calls"),
]
CUT: list[Event] = [TextDelta("Once upon"), finished("length")]
STOPPED: list[Event] = [TextDelta("One, two"), finished(stop="###")]
SILENT: list[Event] = [finished()]
SCORED: list[Event] = [
    TextDelta("Hé", (TokenLogprob(token="Hé", logprob=-0.25, top=(_UNLIKELY,)),)),
    TextDelta("!", (TokenLogprob(token="!", logprob=-1.5),)),
    finished(),
]
NOT_MET: list[Event] = [
    TextDelta('{"a":'),
    finished(error="the answer does not meet the schema: 'a' is required"),
]
ALL: dict[str, list[Event]] = {
    "text": TEXT,
    "uncounted": UNCOUNTED,
    "thinking": THINKING,
    "tools": TOOLS,
    "cut": CUT,
    "stopped": STOPPED,
    "silent": SILENT,
    "scored": SCORED,
    "not_met": NOT_MET,
}

# --- Transcripts -------------------------------------------------------------------------------


def pretty(value: object) -> str:
    """JSON to read."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def streamed(
    generation: Generation, events: Iterable[Event], error: RKLLamaError | None = None
) -> bytes:
    """All bytes of a streamed answer, with the error that ends it, if one does."""
    frames = [generation.encoder.encode(event) for event in events]
    if error is not None:
        frames.append(generation.encoder.error(error))
    return b"".join(frames)


def sse_events(stream: bytes) -> list[tuple[str | None, Any]]:
    """Name and data of each server-sent event; data that is not JSON comes as text."""
    events: list[tuple[str | None, Any]] = []
    for frame in stream.decode().split("\n\n")[:-1]:
        name: str | None = None
        data: Any = None
        for line in frame.split("\n"):
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            else:
                assert field == "data"
                data = value if value == "[DONE]" else json.loads(value)
        events.append((name, data))
    return events


def transcript(
    line: str,
    body: Any,
    decode: Callable[[Any], Generation],
    events: list[Event],
    error: RKLLamaError | None = None,
) -> str:
    """The request, the streamed answer and, where no error ends it, the one that is not streamed."""
    text = f"{line}\n{pretty(body)}\n"
    text += f"\n--------\n{streamed(decode(body), events, error).decode()}"
    if error is None:
        text += f"\n--------\n{pretty(decode(body).encoder.whole(events))}\n"
    return text


def check(name: str, text: str) -> None:
    """Compare `text` with the golden file `name`."""
    path = GOLDEN / name
    if os.environ.get("RKLLAMA_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path} differs from today's answer"


# --- Broken bodies -----------------------------------------------------------------------------


def json_values(words: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """Any value that json.loads can give, NaN, lone surrogates and huge numbers among them."""
    texts = st.text(st.characters(codec=None), max_size=8)
    if words:
        texts = texts | st.sampled_from(words)
    leaves = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | texts
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    )


def bodies(valid: dict[str, Any], words: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """Any JSON value, and often `valid` with some of its fields replaced, at any depth."""
    values = json_values(words)
    return values | _mutated(valid, values)


def _mutated(value: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    kept = st.just(value)
    if isinstance(value, dict) and value:
        kept = st.fixed_dictionaries(
            {}, optional={name: _mutated(item, values) for name, item in value.items()}
        )
    elif isinstance(value, list) and value:
        kept = st.lists(st.one_of(*(_mutated(item, values) for item in value)), max_size=3)
    return st.one_of(kept, kept, values)


def survives(decode: Callable[[Any], Any], body: Any) -> None:
    """Whatever the body: it is decoded or refused as an invalid request."""
    with contextlib.suppress(InvalidRequest):
        decode(body)
