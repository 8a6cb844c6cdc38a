"""The documented REST API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..api import native
from ..errors import RKLLamaError
from ..types import PullProgress
from .routing import Call, Reply, Route, generate, log, ok, one_line


def error(error: RKLLamaError, call: Call) -> tuple[int, dict[str, Any]]:
    """The documented status and text of an error."""
    return native.error_reply(error, call.path, call.language)


def _welcome(call: Call) -> Reply:
    return ok(native.welcome_body(call.language))


def _models(call: Call) -> Reply:
    return ok(native.models_body(call.service.models()))


def _load_model(call: Call) -> Reply:
    name = native.decode_load(call.json())
    if not call.service.load_if_none(name, call.caller()):
        return ok(native.already_loaded_body(call.language), status=400)
    return ok(native.loaded_body(name, call.language))


def _unload_model(call: Call) -> Reply:
    call.service.unload()
    return ok(native.unloaded_body(call.language))


def _current_model(call: Call) -> Reply:
    return ok(native.current_model_body(call.service.current()))


def _generate(call: Call) -> Reply:
    return generate(call, native.decode_generate(call.json(), call.language))


def _rm(call: Call) -> Reply:
    call.service.remove(native.decode_name(call.json()))
    return ok(native.removed_body(call.language))


def _pull(call: Call) -> Reply:
    lines = native.PullLines(call.language)
    try:
        steps = call.service.pull(native.decode_name(call.json()))
        # Nothing is sent before the Hub has answered, so that an error has its status.
        first = next(step for step in steps if step.status != "resolving")
    except RKLLamaError as problem:
        text = native.pull_error_text(problem, call.language)
        return Reply(body=text.encode(), status=400, content_type=lines.content_type)
    return Reply(body=_pull_lines(lines, first, steps), content_type=lines.content_type)


def _pull_lines(
    lines: native.PullLines, first: PullProgress, steps: Iterator[PullProgress]
) -> Iterator[bytes]:
    try:
        yield lines.encode(first)
        for step in steps:
            if data := lines.encode(step):
                yield data
    except RKLLamaError as problem:
        log.error("/pull: %s", one_line(problem.text))
        yield lines.error(problem)


ROUTES = tuple(
    Route(methods=methods, path=path, handler=handler, dialect=error, summary=summary)
    for methods, path, handler, summary in (
        (("GET",), "/", _welcome, "Welcome message"),
        (("GET",), "/models", _models, "File names of the models"),
        (("POST",), "/load_model", _load_model, "Load a model"),
        (("POST",), "/unload_model", _unload_model, "Unload the current model"),
        (("GET",), "/current_model", _current_model, "Name of the current model"),
        (("POST",), "/generate", _generate, "Generate an answer"),
        (("POST",), "/pull", _pull, "Download a model"),
        (("DELETE", "POST"), "/rm", _rm, "Delete a model"),
    )
)
