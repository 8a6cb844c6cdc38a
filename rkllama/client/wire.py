"""The values of types.py to and from the JSON of the Ollama dialect, as the client needs them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal, get_args

from ..errors import ModelIncomplete
from ..types import (
    BoardState,
    ChatRequest,
    Clock,
    CoreTime,
    EmbeddingResult,
    EncoderInfo,
    Event,
    Finished,
    FinishReason,
    LoadedModel,
    Memory,
    Message,
    ModelDetails,
    ModelInfo,
    Part,
    PullProgress,
    ReasoningDelta,
    RerankResult,
    SentImage,
    Temperature,
    TextDelta,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)

Json = Mapping[str, Any]

_REASONS: dict[str, FinishReason] = {reason: reason for reason in get_args(FinishReason)}
_STEPS: dict[str, Literal["resolving", "verifying", "done"]] = {
    "pulling manifest": "resolving",
    "verifying sha256 digest": "verifying",
    "success": "done",
}
_FAR_YEAR = 2300
"""From this year on a model's expiry means "never", in Ollama's API."""


# --- What is asked -----------------------------------------------------------------------------


def not_none(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def chat_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """Return a conversation as `/api/chat` takes it; a separate system text becomes its first message."""
    messages = [_message(message) for message in request.messages]
    if request.system is not None:
        messages.insert(0, {"role": "system", "content": request.system})
    return {
        **_common_body(request, model),
        "messages": messages,
        "tools": [_tool(tool) for tool in request.tools],
        "tool_choice": request.tool_choice,
        "truncate": request.truncate,
    }


def prompt_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """Return a prompt as `/api/generate` takes it; without one, a load or unload."""
    return {
        **_common_body(request, model),
        "prompt": request.prompt or "",
        "raw": bool(request.raw),
        **_images(request.images),
        **not_none(system=request.system, suffix=request.suffix),
    }


def _common_body(request: ChatRequest, model: str) -> dict[str, Any]:
    options = not_none(
        **asdict(request.sampling),
        num_predict=request.max_tokens,
        stop=list(request.stop) or None,
        num_ctx=request.context_length,
    )
    body = not_none(
        model=model,
        template=request.template,
        think=request.think,
        chat_template_kwargs=dict(request.template_variables) or None,
        format=request.format,
        keep_alive=request.keep_alive,
        top_logprobs=request.top_logprobs,
    )
    return {**body, "options": options, "logprobs": request.top_logprobs is not None}


def _message(message: Message) -> dict[str, Any]:
    return not_none(
        role=message.role,
        content=message.text,
        **_images(message.content),
        thinking=message.reasoning,
        tool_calls=[_call(call) for call in message.tool_calls] or None,
        tool_call_id=message.tool_call_id,
        tool_name=message.tool_name,
    )


def _images(parts: Iterable[Part]) -> dict[str, Any]:
    """Return the pictures among parts as `images` has them, which come before the text."""
    images = [part.data for part in parts if isinstance(part, SentImage)]
    return {"images": images} if images else {}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}


def _tool(tool: Tool) -> dict[str, Any]:
    return {"type": "function", "function": asdict(tool)}


# --- What is answered --------------------------------------------------------------------------


def queue_position(line: Json) -> int | None:
    """Return how many requests are before this one; None for a line that does not tell it."""
    position = line.get("queue_position")
    return position if isinstance(position, int) else None


class EventReader:
    """Reads the lines of `/api/chat` or `/api/generate` into events; `finished` after the last."""

    def __init__(self) -> None:
        self.finished = False
        self._calls = 0

    def events(self, line: Json) -> list[Event]:
        """Return the events of one line."""
        events: list[Event] = []
        part = line.get("message") or line
        if thinking := part.get("thinking"):
            events.append(ReasoningDelta(thinking))
        if text := part.get("content") or part.get("response"):
            items = line.get("logprobs") or ()
            events.append(TextDelta(text, tuple(TokenLogprob.from_dict(item) for item in items)))
        for call in part.get("tool_calls") or ():
            events.append(ToolCallDelta(self._calls, self._tool_call(call)))
            self._calls += 1
        if line.get("done"):
            self.finished = True
            events.append(self._finished(line))
        return events

    def _tool_call(self, call: Json) -> ToolCall:
        function = call["function"]
        return ToolCall(
            id=call.get("id") or f"call_{self._calls}",
            name=function["name"],
            arguments=function["arguments"],
        )

    def _finished(self, line: Json) -> Finished:
        reason = _REASONS.get(line.get("done_reason", ""), "stop")
        return Finished(
            reason="tool_calls" if self._calls and reason == "stop" else reason,
            model=_untagged(line.get("model", "")),
            usage=_usage(line),
            timings=_timings(line),
            stop=line.get("stop_string"),
            dropped=line.get("dropped_messages", 0),
            repeats=line.get("repeats", False),
            error=line.get("error") or line.get("incomplete"),
        )


def embedding_result(reply: Json) -> EmbeddingResult:
    """Return the vectors of `/api/embed`."""
    return EmbeddingResult(
        model=_untagged(reply["model"]),
        vectors=tuple(reply["embeddings"]),
        usage=_usage(reply),
        timings=_timings(reply),
    )


def rerank_result(reply: Json) -> RerankResult:
    """Return the scores of `/api/rerank`, in the order of the documents."""
    results = sorted(reply["results"], key=lambda result: int(result["index"]))
    return RerankResult(
        model=reply["model"],
        scores=tuple(float(result["relevance_score"]) for result in results),
        usage=Usage(prompt_tokens=(reply.get("usage") or {}).get("prompt_tokens")),
    )


def _usage(line: Json) -> Usage:
    return Usage(
        prompt_tokens=line.get("prompt_eval_count"),
        completion_tokens=line.get("eval_count"),
        cached_tokens=line.get("cached_count"),
    )


def _timings(line: Json) -> Timings:
    return Timings(
        queue=_seconds(line.get("queue_duration")),
        load=_seconds(line.get("load_duration")),
        prompt=_seconds(line.get("prompt_eval_duration")),
        generation=_seconds(line.get("eval_duration")),
        total=_seconds(line.get("total_duration")),
    )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


# --- Models ------------------------------------------------------------------------------------


def model_info(entry: Json) -> ModelInfo:
    """Return a model of `/api/tags`, `/api/ps` or `/api/show`."""
    details = entry["details"]
    return ModelInfo(
        name=_untagged(entry["name"]),
        file=details["file"],
        path=details["path"],
        format=details["format"],
        size=entry.get("file_size", entry["size"]),
        modified=_time(entry["modified_at"]),
        quantization=details["quantization_level"] or None,
        platform=details["platform"],
        parameter_size=details["parameter_size"] or None,
        family=details["family"] or None,
        context_length=details.get("context_length"),
        digest=entry["digest"],
    )


def incomplete_info(error: ModelIncomplete) -> ModelInfo:
    """Return a model whose download is not complete, as far as its error tells."""
    return ModelInfo(
        name=error.name, file=error.name, path="", format="rkllm", size=error.completed, modified=0
    )


def model_details(body: Json) -> ModelDetails:
    """Return the answer of `/api/show`."""
    return ModelDetails(
        info=model_info(body),
        system=body["system"] or None,
        template=body["template"] or None,
        parameters=tuple(_parameter(line) for line in body["parameters"].split("\n") if line),
        messages=tuple(
            Message.of(turn["role"], turn["content"]) for turn in body.get("messages", ())
        ),
        license=body["license"] or None,
        modelfile=body["modelfile"],
        parent=body["details"]["parent_model"] or None,
        capabilities=tuple(body["capabilities"]),
        metadata=body["metadata"],
        notes=tuple(body.get("notes", ())),
        template_guess=body.get("template_guess"),
        encoder=_encoder(body.get("encoder")),
    )


def _encoder(body: Json | None) -> EncoderInfo | None:
    if body is None:
        return None
    return EncoderInfo(**{**body, "platforms": tuple(body["platforms"])})


def _parameter(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    value = value.strip()
    return name, json.loads(value) if value.startswith('"') else value


def loaded_model(entry: Json) -> LoadedModel:
    """Return a model of `/api/ps`."""
    return LoadedModel(
        info=model_info(entry),
        state=entry["state"],
        context_length=entry["context_length"] or None,
        expires=_expiry(entry["expires_at"]),
        memory=entry["memory"],
        runtime=entry["runtime"],
        pid=entry["pid"],
        uses_npu=entry["size_vram"] > 0,
        # A server of an earlier release does not tell these.
        backend=entry.get("backend"),
        threads=entry.get("threads"),
        toolkit=entry.get("toolkit"),
        tokens_per_second=entry.get("tokens_per_second"),
    )


def board_state(body: Json) -> BoardState:
    """Return the answer of `/api/rkllama/board`."""
    memory = body["memory"]
    return BoardState(
        soc=body.get("soc"),
        npu=_clock(body["npu"]) if "npu" in body else None,
        ddr=_clock(body["ddr"]) if "ddr" in body else None,
        cpus=tuple(map(_clock, body.get("cpus", ()))),
        core_times=tuple(
            CoreTime(core=one["core"], busy=one["busy_seconds"], idle=one["idle_seconds"])
            for one in body.get("core_times", ())
        ),
        temperatures=tuple(
            Temperature(zone=one["zone"], celsius=one["celsius"])
            for one in body.get("temperatures", ())
        ),
        throttled=body.get("throttled"),
        memory=Memory(
            total=memory.get("total_bytes"),
            available=memory.get("available_bytes"),
            cma_total=memory.get("cma_total_bytes"),
            cma_free=memory.get("cma_free_bytes"),
        ),
    )


def _clock(body: Json) -> Clock:
    return Clock(
        name=body["name"],
        current=body.get("current_hz"),
        highest=body.get("highest_hz"),
        limit=body.get("limit_hz"),
        governor=body.get("governor"),
        governors=tuple(body.get("governors", ())),
        cores=tuple(body.get("cores", ())),
        load=tuple(body.get("load_percent", ())),
    )


def pull_progress(line: Json) -> PullProgress | None:
    """Return a line of `/api/pull`; None for one that says nothing new."""
    status = line["status"]
    if status == "writing manifest":
        return None
    file = line["file"]
    if not isinstance(file, str):
        raise TypeError("no name of a file")
    if note := line.get("note"):
        return PullProgress(status="resolving", file=file, note=note)
    return PullProgress(
        status=_STEPS.get(status, "downloading"),
        file=file,
        total=None if line.get("total") is None else _bytes(line["total"]),
        completed=_bytes(line.get("completed", 0)),
        digest=(line.get("digest") or "").removeprefix("sha256:") or None,
        name=line.get("model"),
        resumed=_bytes(line.get("resumed", 0)),
    )


def _bytes(value: object) -> int:
    """Return a number of bytes. Raises ValueError for what is none."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("no number of bytes")
    return value


def _untagged(name: str) -> str:
    return name.removesuffix(":latest")


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _expiry(text: str) -> float | None:
    return None if int(text[:4]) >= _FAR_YEAR else _time(text)
