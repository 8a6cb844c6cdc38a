"""The documented REST API of RKLLama: `/models`, `/load_model`, `/generate`, `/pull` and the others.

Bodies have the documented keys exactly; where more is known than the documentation has a place for,
it comes under further keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

from ..errors import InvalidRequest, ModelNotFound, NoModelLoaded, RKLLamaError
from ..types import (
    BoardState,
    ChatRequest,
    Clock,
    Event,
    Finished,
    FinishReason,
    FoundModel,
    FoundModels,
    Message,
    ModelInfo,
    PullProgress,
    ReasoningDelta,
    Role,
    TextDelta,
    Timings,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from .common import (
    Fields,
    Generation,
    dump_text,
    dumps,
    fold,
)
from .content.pictures import read_content
from .native_texts import Language, error_text, language, phrase
from .options import (
    read_format,
    read_keep_alive,
    read_max_tokens,
    read_options,
    read_stop,
    read_thinking,
)

__all__ = [
    "GenerateEncoder",
    "Language",
    "PullLines",
    "already_loaded_body",
    "board_body",
    "current_model_body",
    "decode_generate",
    "decode_load",
    "decode_name",
    "decode_search",
    "error_reply",
    "language",
    "loaded_body",
    "models_body",
    "pull_error_text",
    "removed_body",
    "search_body",
    "unloaded_body",
    "welcome_body",
]

GITHUB = "https://github.com/notpunhnox/rkllama"
_ID = "rkllm_chat"
_LONGEST_QUERY = 200
_ROLES: tuple[Role, ...] = get_args(Role)


# --- What is asked -----------------------------------------------------------------------------


def decode_load(body: object) -> str:
    """Return the model's name of a `POST /load_model`."""
    return _name(Fields(body), "model_name")


def decode_name(body: object) -> str:
    """Return the model's name of a `/rm`, the Hub reference of a `/pull`."""
    return _name(Fields(body), "model")


class Search(NamedTuple):
    """A search of the Hub; the first page is 1."""

    text: str
    format: str | None
    page: int


def decode_search(query: Mapping[str, str]) -> Search:
    """Return what the parameters of a `/api/rkllama/search` ask for. Raises InvalidRequest."""
    text, format, page = query.get("query", "").strip(), query.get("format"), query.get("page", "1")
    if not 0 < len(text) <= _LONGEST_QUERY:
        raise InvalidRequest(
            f"'query' must be the name of a model, of at most {_LONGEST_QUERY} characters",
            param="query",
        )
    if format not in (None, "gguf", "rkllm"):
        raise InvalidRequest("'format' must be gguf or rkllm", param="format")
    if not re.fullmatch(r"[1-9]\d{0,3}", page, re.A):
        raise InvalidRequest("'page' must be a number from 1 on", param="page")
    return Search(text, format, int(page))


def _name(fields: Fields, key: str) -> str:
    name = fields.need(key, fields.text).strip()
    if not name:
        raise fields.fail(key, "a name")
    return name


def decode_generate(body: object, language: Language = "fr") -> Generation:
    """Decode a `POST /generate`; without `stream` it is not streamed, without `model` the loaded one
    answers.
    """
    fields = Fields(body)
    options = read_options(fields)
    prompt, messages = _read_messages(fields)
    limit = read_max_tokens(fields, "max_tokens")
    think, variables = read_thinking(fields)
    request = ChatRequest(
        model=_name(fields, "model") if "model" in fields else None,
        messages=messages,
        prompt=prompt,
        raw=False if prompt is None else None,
        sampling=options.sampling,
        max_tokens=options.max_tokens if limit is None else limit,
        stop=read_stop(fields) or options.stop,
        think=think,
        template_variables=variables,
        format=read_format(fields),
        context_length=options.context_length,
        keep_alive=read_keep_alive(fields),
    )
    stream = fields.flag("stream") or False
    return Generation(request=request, stream=stream, encoder=GenerateEncoder(language))


def _read_messages(fields: Fields) -> tuple[str | None, tuple[Message, ...]]:
    """`messages` as a prompt or as a conversation; exactly one of the two is set."""
    if isinstance(fields.raw("messages"), str):
        prompt = fields.need("messages", fields.text)
        if not prompt:
            raise fields.fail("messages", "a prompt or a list of messages, not empty")
        return prompt, ()
    if not isinstance(fields.need("messages", fields.raw), list):
        raise fields.fail("messages", "a prompt or a list of messages")
    messages = tuple(_message(item) for item in fields.need("messages", fields.objects))
    if not messages:
        raise fields.fail("messages", "a prompt or a list of messages, not empty")
    return None, messages


def _message(fields: Fields) -> Message:
    role = fields.need("role", fields.text)
    if role not in _ROLES:
        raise fields.fail("role", "system, user, assistant or tool")
    return Message.of(
        next(known for known in _ROLES if known == role),
        fields.need("content", lambda name: read_content(fields, name)),
    )


# --- What is answered --------------------------------------------------------------------------


def welcome_body(language: Language = "fr") -> dict[str, Any]:
    """`GET /`."""
    return {"message": phrase("welcome", language), "github": GITHUB}


def models_body(models: Iterable[ModelInfo]) -> dict[str, Any]:
    """`GET /models`: the file names, each once: several models may share a file."""
    return {"models": list(dict.fromkeys(info.file for info in models))}


def loaded_body(name: str, language: Language = "fr") -> dict[str, Any]:
    """`POST /load_model`: `name` as the client wrote it."""
    return {"message": phrase("loaded", language, name=name)}


def already_loaded_body(language: Language = "fr") -> dict[str, Any]:
    """Return the 400 of a `POST /load_model` while a model is loaded."""
    return {"error": phrase("already_loaded", language)}


def unloaded_body(language: Language = "fr") -> dict[str, Any]:
    """`POST /unload_model`."""
    return {"message": phrase("unloaded", language)}


def current_model_body(info: ModelInfo) -> dict[str, Any]:
    """`GET /current_model`."""
    return {"model_name": info.name}


def removed_body(language: Language = "fr") -> dict[str, Any]:
    """`DELETE /rm`."""
    return {"message": phrase("removed", language)}


def error_reply(
    error: RKLLamaError, path: str = "", language: Language = "fr"
) -> tuple[int, dict[str, Any]]:
    """Status and body of an error at `path` ("/load_model"); two of them depend on where it arose."""
    if isinstance(error, ModelNotFound) and path == "/load_model":
        return 400, {"error": phrase("load_unknown", language, name=error.name)}
    text = error_text(error, language)
    if isinstance(error, NoModelLoaded) and path == "/current_model":
        return 404, {"error": text}
    return error.status, {"error": text}


class GenerateEncoder:
    """The answer of `/generate`; a streamed line has the shape of the whole answer."""

    content_type = "application/x-ndjson"

    def __init__(self, language: Language = "fr") -> None:
        self._language = language
        line = _answer(_choice("\0", None), _NO_USAGE)
        self._before, _, after = dumps(line).partition(dump_text("\0"))
        self._after = after + b"\n"

    def encode(self, event: Event) -> bytes:
        """Return one line per event; the last one has the finish reason and the figures."""
        if type(event) is TextDelta:
            return self._before + dump_text(event.text) + self._after
        return dumps(self._object(event)) + b"\n"

    def _object(self, event: Event) -> dict[str, Any]:
        if isinstance(event, Finished):
            return _last(_choice("", event.reason), event)
        choice = _choice("", None)
        if isinstance(event, ReasoningDelta):
            choice["reasoning"] = event.text
        elif isinstance(event, ToolCallDelta):
            choice["tool_calls"] = [_tool_call(event.call)]
        return _answer(choice, _NO_USAGE)

    def error(self, error: RKLLamaError) -> bytes:
        """Return the line that ends a stream in which something went wrong."""
        return dumps({"error": error_text(error, self._language)}) + b"\n"

    def alive(self, before: int) -> bytes:  # noqa: ARG002 - the documented keys have no place for it
        """Return a line without text."""
        return self._before + b'""' + self._after

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        """Return the documented object, out of all events."""
        answer = fold(events)
        choice = _choice(answer.text, answer.finished.reason)
        if answer.reasoning:
            choice["reasoning"] = answer.reasoning
        if answer.tool_calls:
            choice["tool_calls"] = [_tool_call(call) for call in answer.tool_calls]
        return _last(choice, answer.finished)


def _answer(choice: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    return {"id": _ID, "object": _ID, "created": None, "choices": [choice], "usage": usage}


def _choice(content: str, finish_reason: FinishReason | None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "finish_reason": finish_reason}


def _last(choice: dict[str, Any], finished: Finished) -> dict[str, Any]:
    answer = _answer(choice, _usage(finished.usage, finished.timings))
    return answer if finished.error is None else {**answer, "error": finished.error}


def _usage(usage: Usage, timings: Timings) -> dict[str, Any]:
    """Return the figures that the runtime reported, null for those that it did not."""
    prompt, completion, seconds = usage.prompt_tokens, usage.completion_tokens, timings.generation
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": None if prompt is None or completion is None else prompt + completion,
        "tokens_per_second": round(completion / seconds, 2) if completion and seconds else None,
    }


_NO_USAGE = _usage(Usage(), Timings())


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "name": call.name, "arguments": dict(call.arguments)}


# --- Downloads ---------------------------------------------------------------------------------


def pull_error_text(error: RKLLamaError, language: Language = "fr") -> str:
    """Return the line for a download that failed: the body of a 400, or the last line of a stream."""
    return phrase("pull_failed", language, error=error_text(error, language)) + "\n"


class PullLines:
    """The text lines of one `/pull`: what is fetched, then each percent once, 100% when all is well."""

    content_type = "text/plain; charset=utf-8"

    def __init__(self, language: Language = "fr") -> None:
        self._language = language
        self._percent = -1
        self._announced = False

    def encode(self, progress: PullProgress) -> bytes:
        """Return the new lines of a step; b"" where it brings none."""
        text = self._announcement(progress) if progress.status != "resolving" else ""
        percent = self._reached(progress)
        if percent > self._percent:
            self._percent = percent
            text += f"{percent}%\n"
        return text.encode()

    def _announcement(self, progress: PullProgress) -> str:
        if self._announced:
            return ""
        self._announced = True
        size = "?" if progress.total is None else f"{progress.total / (1 << 20):.2f}"
        line = phrase("pulling", self._language, file=progress.file, size=size)
        return line + "\n"

    def _reached(self, progress: PullProgress) -> int:
        """Whole percents; 100 is kept for a file that is verified and in its place."""
        if progress.status == "done":
            return 100
        if progress.status == "resolving" or not progress.total:
            return -1
        return min(99, progress.completed * 100 // progress.total)

    def error(self, error: RKLLamaError) -> bytes:
        """Return the last line of a download that failed after its first line."""
        return pull_error_text(error, self._language).encode()


# --- The Hub ------------------------------------------------------------------------------------


def search_body(found: FoundModels) -> dict[str, Any]:
    """Return the answer of `/api/rkllama/search`: what is not known is absent."""
    models = [_found_model(model) for model in found.models]
    return {"models": models, "total": found.total, "more": found.more} | _known(
        warning=found.warning
    )


def _found_model(model: FoundModel) -> dict[str, Any]:
    return {
        "reference": model.reference,
        "repository": model.repository,
        "file": model.file,
        "fits": model.problem is None,
        "best": model.best,
        "here": model.here,
        "gated": model.gated,
    } | _known(
        size=model.size,
        estimated_size=model.estimated_size,
        quantization=model.quantization,
        context_length=model.context_length,
        platform=model.platform,
        capabilities=model.capabilities,
        downloads=model.downloads,
        likes=model.likes,
        updated=model.updated,
        problem=model.problem,
        doubt=model.doubt,
    )


# --- The board ---------------------------------------------------------------------------------


def board_body(state: BoardState) -> dict[str, Any]:
    """Return the answer of `/api/rkllama/board`: units are in the names, what is not known is absent."""
    memory = state.memory
    return _known(
        soc=state.soc,
        npu=_clock(state.npu),
        ddr=_clock(state.ddr),
        cpus=[_clock(clock) for clock in state.cpus],
        core_times=[
            {
                "core": time.core,
                "busy_seconds": round(time.busy, 2),
                "idle_seconds": round(time.idle, 2),
            }
            for time in state.core_times
        ],
        temperatures=[
            {"zone": sensor.zone, "celsius": sensor.celsius} for sensor in state.temperatures
        ],
        throttled=state.throttled,
    ) | {
        "memory": _known(
            total_bytes=memory.total,
            available_bytes=memory.available,
            cma_total_bytes=memory.cma_total,
            cma_free_bytes=memory.cma_free,
        )
    }


def _clock(clock: Clock | None) -> dict[str, Any] | None:
    if clock is None:
        return None
    return _known(
        name=clock.name,
        current_hz=clock.current,
        highest_hz=clock.highest,
        limit_hz=clock.limit,
        governor=clock.governor,
        governors=clock.governors,
        cores=clock.cores,
        load_percent=clock.load,
    )


def _known(**values: Any) -> dict[str, Any]:
    """Return the values without those that are None or empty."""
    return {name: value for name, value in values.items() if value not in (None, (), [])}
