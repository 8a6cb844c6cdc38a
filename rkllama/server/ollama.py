"""Ollama's API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from .. import __version__
from ..api import ollama, ollama_models
from ..api.common import Generation
from ..errors import RKLLamaError, Unsupported
from ..models.modelfile import Modelfile, render_modelfile
from ..types import Message, ModelDetails, PullProgress
from .routing import Call, Reply, Route, generate, log, ok, one_line

NDJSON = "application/x-ndjson"


def error(error: RKLLamaError, _call: Call) -> tuple[int, dict[str, Any]]:
    """Status and `{"error": …}`."""
    return error.status, ollama.error_body(error)


def _version(_call: Call) -> Reply:
    return ok(ollama_models.version_body(__version__))


def _tags(call: Call) -> Reply:
    return ok(ollama_models.tags_body(call.service.models(), call.service.digest))


def _ps(call: Call) -> Reply:
    return ok(ollama_models.ps_body(call.service.loaded(), call.service.digest))


def _show(call: Call) -> Reply:
    details = call.service.show(ollama_models.decode_name(call.json()))
    context = _context_length(call, details)
    return ok(ollama_models.show_body(details, call.service.digest, context))


def _context_length(call: Call, details: ModelDetails) -> int:
    """Tokens of context that the model has, or will have when it is loaded without a word about it."""
    for loaded in call.service.loaded():
        if loaded.info.path == details.info.path and loaded.context_length:
            return loaded.context_length
    wanted = dict(details.parameters).get("num_ctx", "")
    return int(wanted) if wanted.isdecimal() else call.settings.context_length


def _chat(call: Call) -> Reply:
    return _answer(call, ollama.decode_chat(call.json()))


def _generate(call: Call) -> Reply:
    return _answer(call, ollama.decode_generate(call.json()))


def _answer(call: Call, generation: Generation) -> Reply:
    """Ollama refuses to let a model think that cannot; clients ask again without it."""
    request = generation.request
    asked = request.think and (request.messages or request.prompt)
    if asked and not call.service.can_think(request):
        raise Unsupported(f'"{request.model}" does not support thinking', param="think")
    return generate(call, generation)


def _embed(call: Call) -> Reply:
    request = ollama.decode_embed(call.json())
    result = call.service.embed(request, call.caller())
    return ok(ollama.embed_body(request.model or result.model, result))


def _embeddings(call: Call) -> Reply:
    request = ollama.decode_embeddings(call.json())
    return ok(ollama.embeddings_body(call.service.embed(request, call.caller())))


def _delete(call: Call) -> Reply:
    call.service.remove(ollama_models.decode_name(call.json()))
    return Reply()


def _copy(call: Call) -> Reply:
    call.service.copy(*ollama_models.decode_copy(call.json()))
    return Reply()


def _pull(call: Call) -> Reply:
    wanted = ollama_models.decode_pull(call.json())
    steps = call.service.pull(wanted.reference)
    if not wanted.stream:
        for _ in steps:
            pass
        return ok(ollama_models.SUCCESS)
    # As at Ollama the manifest is announced before the Hub is asked: what goes wrong there is a line.
    first = next(steps)
    return Reply(body=_pull_lines(first, steps), content_type=NDJSON)


def _pull_lines(first: PullProgress, steps: Iterator[PullProgress]) -> Iterator[bytes]:
    encoder = ollama_models.PullEncoder()
    try:
        yield encoder.encode(first)
        for step in steps:
            yield encoder.encode(step)
    except RKLLamaError as problem:
        log.error("/api/pull: %s", one_line(problem.text))
        yield encoder.error(problem)


def _create(call: Call) -> Reply:
    wanted = ollama_models.decode_create(call.json())
    call.service.create(wanted.name, _modelfile(wanted), wanted.files)
    if wanted.stream:
        return Reply(body=ollama_models.create_lines(), content_type=NDJSON)
    return ok(ollama_models.SUCCESS)


def _modelfile(wanted: ollama_models.CreateCall) -> str:
    """The Modelfile that was sent, or what the other fields say."""
    if wanted.modelfile is not None:
        return wanted.modelfile
    return render_modelfile(
        Modelfile(
            source=wanted.source,
            system=wanted.system,
            template=wanted.template,
            license="\n\n".join(wanted.licenses) or None,
            parameters=wanted.parameters,
            messages=tuple(
                Message(role=cast(Any, role), content=content) for role, content in wanted.messages
            ),
        )
    )


def _has_blob(call: Call) -> Reply:
    digest = ollama_models.digest_hex(call.parameters["digest"])
    return Reply(status=200 if call.service.has_upload(digest) else 404)


def _put_blob(call: Call) -> Reply:
    digest = ollama_models.digest_hex(call.parameters["digest"])
    call.service.keep_upload(digest, call.environ["wsgi.input"])
    return Reply(status=201)


ROUTES = tuple(
    Route(
        methods=methods,
        path=path,
        handler=handler,
        dialect=error,
        summary=summary,
        upload=handler is _put_blob,
    )
    for methods, path, handler, summary in (
        (("GET",), "/api/version", _version, "Version of the Ollama API, and of RKLLama"),
        (("GET",), "/api/tags", _tags, "Models on disk"),
        (("GET",), "/api/ps", _ps, "Models in memory"),
        (("POST",), "/api/show", _show, "Details of a model"),
        (("POST",), "/api/chat", _chat, "Answer a conversation"),
        (("POST",), "/api/generate", _generate, "Answer a prompt"),
        (("POST",), "/api/embed", _embed, "Vectors of texts"),
        (("POST",), "/api/embeddings", _embeddings, "Vector of one text (older form)"),
        (("POST",), "/api/pull", _pull, "Download a model"),
        (("DELETE",), "/api/delete", _delete, "Delete a model"),
        (("POST",), "/api/copy", _copy, "Give a model another name"),
        (("POST",), "/api/create", _create, "Make a model out of another one or a file"),
        (("HEAD",), "/api/blobs/<digest>", _has_blob, "Whether an uploaded file is there"),
        (("POST",), "/api/blobs/<digest>", _put_blob, "Upload a file for a later create"),
    )
)
