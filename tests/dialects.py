"""Scripted answers, transcripts of what a dialect makes of them, and request bodies that are nearly right.

`RKLLAMA_UPDATE_GOLDEN=1 pytest …` writes the golden files anew; read the difference before committing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from rkllama.api.common import Generation, dumps
from rkllama.errors import InvalidRequest, RKLLamaError
from rkllama.types import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)

GOLDEN = Path(__file__).parent / "golden"
UPDATE = "RKLLAMA_UPDATE_GOLDEN" in os.environ  # read here: each test runs in a clean environment

# --- Scripted answers --------------------------------------------------------------------------


def finished(reason: FinishReason = "stop", **values: Any) -> Finished:
    """The end of an answer, with token counts unless `values` says otherwise."""
    usage = Usage(prompt_tokens=24, completion_tokens=7, cached_tokens=16)
    return Finished(reason=reason, model="qwen", **{"usage": usage, **values})


def call(index: int, name: str, arguments: Mapping[str, Any]) -> ToolCallDelta:
    """A call that the model made."""
    return ToolCallDelta(index, ToolCall(id=f"call_{index:08}", name=name, arguments=arguments))


UNLIKELY = TokenLogprob(token="Ho", logprob=float("-inf"))
TEXT: list[Event] = [TextDelta("Bon"), TextDelta('jour, "ça" va ?\n'), finished()]
SCORED: list[Event] = [
    TextDelta("Hé", (TokenLogprob(token="Hé", logprob=-0.25, top=(UNLIKELY,)),)),
    TextDelta("!", (TokenLogprob(token="!", logprob=-1.5),)),
    finished(),
]
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
CUT_OFF: list[Event] = [TextDelta("Once"), finished("cancelled")]
UNCOUNTED: list[Event] = [TextDelta("Hi"), finished(usage=Usage())]
NOT_MET: list[Event] = [
    TextDelta('{"a":'),
    finished(error="the answer does not meet the schema: 'a' is required"),
]
STOPPED: list[Event] = [TextDelta("One, two"), finished(stop="###")]
SILENT: list[Event] = [finished()]
ALL: dict[str, list[Event]] = {
    "text": TEXT,
    "scored": SCORED,
    "thinking": THINKING,
    "tools": TOOLS,
    "cut": CUT,
    "uncounted": UNCOUNTED,
    "not_met": NOT_MET,
    "stopped": STOPPED,
    "silent": SILENT,
}

# --- Transcripts -------------------------------------------------------------------------------


def pretty(value: object) -> str:
    """JSON as it goes out, indented."""
    return json.dumps(json.loads(dumps(value)), indent=2, ensure_ascii=False) + "\n"


def streamed(
    generation: Generation, events: Iterable[Event], error: RKLLamaError | None = None
) -> bytes:
    """The stream; with `error`, it breaks off where the events end."""
    frames = b"".join(generation.encoder.encode(event) for event in events)
    return frames + (b"" if error is None else generation.encoder.error(error))


def decoded(decode: Callable[[Any], object], body: object) -> Generation:
    """What `decode` makes of a request for text."""
    generation = decode(body)
    assert isinstance(generation, Generation)
    return generation


def transcript(
    call: str,
    body: dict[str, Any],
    decode: Callable[[dict[str, Any]], object],
    events: list[Event],
    error: RKLLamaError | None = None,
) -> str:
    """A request, its answer as a stream, and, unless an error breaks that off, as a whole."""
    generation = decoded(decode, body)
    stream = streamed(generation, events, error).decode()
    content_type = generation.encoder.content_type
    sections = [f"> {call}\n{pretty(body)}", f"< 200 {content_type}\n{stream}"]
    if error is None:
        whole = decoded(decode, body).encoder.whole(iter(events))
        sections.append(f"< 200 application/json\n{pretty(whole)}")
    return "\n".join(sections)


def assert_golden(name: str, text: str) -> None:
    """Compare `text` with the file `name` in the golden directory."""
    path = GOLDEN / name
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path} differs from today's answer"


def sse_events(stream: bytes) -> list[tuple[str | None, Any]]:
    """(event name, data) of each server-sent event; data is parsed unless it is [DONE]."""
    assert stream.endswith(b"\n\n")
    events = []
    for frame in stream.decode().removesuffix("\n\n").split("\n\n"):
        lines = frame.split("\n")
        name = lines.pop(0).removeprefix("event: ") if lines[0].startswith("event: ") else None
        (data,) = lines
        assert data.startswith("data: ")
        text = data.removeprefix("data: ")
        events.append((name, text if text == "[DONE]" else json.loads(text)))
    return events


# --- Bodies that are nearly right --------------------------------------------------------------


def json_values(words: Iterable[str] = ()) -> st.SearchStrategy[Any]:
    """Any JSON value, with `words` among the strings and keys."""
    texts = st.text(max_size=8) | st.sampled_from(["", "\ud800\0", *words])
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.just(10**400)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=5),
        max_leaves=20,
    )


@st.composite
def bodies(draw: st.DrawFn, valid: dict[str, Any], words: Iterable[str] = ()) -> Any:
    """A valid body in which some places, at any depth, hold something else or are gone."""
    body = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(0, 3))):
        _spoil(draw, body, json_values(words))
    return body


def _spoil(draw: st.DrawFn, value: Any, other: st.SearchStrategy[Any]) -> None:
    """Replace or remove one place in a JSON container."""
    while value:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        if isinstance(value[key], dict | list) and draw(st.booleans()):
            value = value[key]
        elif draw(st.booleans()):
            value[key] = draw(other)
            return
        else:
            del value[key]
            return


def assert_survives(decode: Callable[[Any], object], body: Any) -> None:
    """`decode` refuses the body in words that can be sent, or what it makes of it can answer."""
    try:
        value = decode(body)
    except InvalidRequest as error:
        dumps(error.text)
        return
    if isinstance(value, Generation):
        for events in ALL.values():
            streamed(value, events)
            dumps(value.encoder.whole(events))
