"""Ollama's API."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from .. import __version__
from ..api import ollama, ollama_models, rerank
from ..api.common import NDJSON_TYPE, Generation
from ..errors import (
    Cancelled,
    InvalidRequest,
    NoModelLoaded,
    RKLLamaError,
    Unsupported,
    UnsupportedEncoding,
)
from ..models.modelfile import PROGRAM, Modelfile, names_program, parse_modelfile, render_modelfile
from ..types import Message, ModelDetails, Timings
from .routing import Call, EarlyStream, Group, Reply, Route, generate, ok, states, stream


def _word_error(error: RKLLamaError, _environ: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and `{"error": …}`."""
    return error.status, ollama.error_body(error)


GROUP = Group(name="Ollama", prefix="/api/", word_error=_word_error)


def _version(call: Call) -> Reply:
    settings = call.settings
    return ok(ollama_models.version_body(__version__, settings.models, settings.home))


def _tags(call: Call) -> Reply:
    service = call.service
    return ok(
        ollama_models.tags_body(
            service.models(),
            service.digest,
            service.incomplete(),
            service.aliases(),
            states(service),
            service.seeing(),
        )
    )


def _ps(call: Call) -> Reply:
    return ok(ollama_models.ps_body(call.service.loaded(), call.service.digest))


def _show(call: Call) -> Reply:
    details = call.service.show(ollama_models.decode_name(call.json()))
    context = _context_length(call, details)
    return ok(ollama_models.show_body(details, call.service.digest, context))


def _context_length(call: Call, details: ModelDetails) -> int:
    """Return tokens of context that the model has, or will have when it is loaded without a word about it."""
    for loaded in call.service.loaded():
        if loaded.info.path == details.info.path and loaded.context_length:
            return loaded.context_length
    parameter = dict(details.parameters).get("num_ctx", "")
    return int(parameter) if parameter.isdecimal() else call.settings.context_length


def _chat(call: Call) -> Reply:
    return _answer(call, ollama.decode_chat(call.json()))


def _generate(call: Call) -> Reply:
    return _answer(call, ollama.decode_generate(call.json()))


def _answer(call: Call, decoded: Generation | ollama.LoadCall) -> Reply:
    """Refuse thinking for a model that cannot think, as Ollama does; clients then ask again without it."""
    if isinstance(decoded, ollama.LoadCall):
        if decoded.format is not None:
            call.service.check_format(decoded.format)
        return _unload(call, decoded) if decoded.unloads else _load(call, decoded)
    request = decoded.request
    if request.think and not call.service.can_think(request):
        raise Unsupported(f'"{request.model}" does not support thinking', param="think")
    return generate(call, decoded)


def _load(call: Call, load: ollama.LoadCall) -> Reply:
    """Signs of life make a stream of the answer, so only our own client gets them here."""
    early = EarlyStream(call, load.encoder)
    started = time.monotonic()
    try:
        call.service.load(
            load.model,
            keep_alive=load.keep_alive,
            context_length=load.context_length,
            sampling=load.sampling,
            caller=early.caller() if call.watching else call.caller(),
        )
    except Exception as error:
        if not early.begun:
            raise
        return early.failed(error)
    seconds = time.monotonic() - started
    return ok(load.encoder.without_words("load", Timings(load=seconds, total=seconds)))


def _unload(call: Call, load: ollama.LoadCall) -> Reply:
    """A model that is not in memory is as good as unloaded."""
    with contextlib.suppress(NoModelLoaded):
        call.service.unload(load.model)
    return ok(load.encoder.without_words("unload", Timings()))


def _embed(call: Call) -> Reply:
    request = ollama.decode_embed(call.json())
    result = call.service.embed(request, call.caller())
    return ok(ollama.embed_body(request.model or result.model, result))


def _rerank(call: Call) -> Reply:
    """Not Ollama's: for RKLLama's own client, which reads its errors."""
    wanted = rerank.decode_rerank(call.json())
    return ok(wanted.body(call.service.rerank(wanted.request, call.caller())))


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
    pull = ollama_models.decode_pull(call.json())
    steps = call.service.pull(pull.reference, unverified=pull.unverified)
    if not pull.stream:
        with contextlib.closing(steps):
            for _ in steps:
                if call.caller().has_left():
                    raise Cancelled
        return ok(ollama_models.SUCCESS)
    # As at Ollama the manifest is announced before the Hub is asked: what goes wrong there is a line.
    return stream(call, ollama_models.PullEncoder(), steps, next(steps))


def _create(call: Call) -> Reply:
    create = ollama_models.decode_create(call.json())
    text = _modelfile(create)
    _refuse_programs(text)
    call.service.create(create.name, text, create.files, create.adapters)
    if create.stream:
        return Reply(body=ollama_models.create_lines(), content_type=NDJSON_TYPE)
    return ok(ollama_models.SUCCESS)


def _refuse_programs(modelfile: str) -> None:
    """Raise InvalidRequest for a Modelfile that names a program: a client must not choose what runs."""
    if names_program(parse_modelfile(modelfile)):
        raise InvalidRequest(
            f"the parameter {PROGRAM} names a program, so it is not taken over HTTP",
            param="modelfile",
            hint="Write it into the model's Modelfile on the machine of the server.",
        )


def _modelfile(create: ollama_models.CreateCall) -> str:
    """Return the Modelfile that was sent, or what the other fields say."""
    if create.modelfile is not None:
        return create.modelfile
    return render_modelfile(
        Modelfile(
            source=create.source,
            system=create.system,
            template=create.template,
            license="\n\n".join(create.licenses) or None,
            parameters=create.parameters,
            messages=tuple(
                Message.of(cast(Any, role), content) for role, content in create.messages
            ),
        )
    )


def _has_blob(call: Call) -> Reply:
    digest = ollama_models.digest_hex(call.parameters["digest"])
    return Reply(status=200 if call.service.has_upload(digest) else 404)


def _put_blob(call: Call) -> Reply:
    digest = ollama_models.digest_hex(call.parameters["digest"])
    if encoding := call.environ.get("HTTP_CONTENT_ENCODING"):
        raise UnsupportedEncoding(encoding)  # a file is kept as it comes
    call.service.keep_upload(digest, call.environ["wsgi.input"])
    return Reply(status=201)


_route = partial(Route, group=GROUP)
ROUTES = (
    _route(
        ("GET",),
        "/api/version",
        _version,
        "Version of the Ollama API, and of RKLLama",
        returns=("version",),
    ),
    _route(("GET",), "/api/tags", _tags, "Models on disk", returns=("models",)),
    _route(("GET",), "/api/ps", _ps, "Models in memory", returns=("models",)),
    _route(
        ("POST",),
        "/api/show",
        _show,
        "Details of a model",
        accepts="Named",
        returns=("details", "model_info", "capabilities", "modified_at"),
    ),
    _route(
        ("POST",),
        "/api/chat",
        _chat,
        "Answer a conversation",
        accepts="OllamaChat",
        returns=("model", "created_at", "message", "done"),
        content_type=NDJSON_TYPE,
    ),
    _route(
        ("POST",),
        "/api/generate",
        _generate,
        "Answer a prompt",
        accepts="OllamaGenerate",
        returns=("model", "created_at", "response", "done"),
        content_type=NDJSON_TYPE,
    ),
    _route(
        ("POST",),
        "/api/embed",
        _embed,
        "Embeddings of texts",
        accepts="OllamaEmbed",
        returns=("model", "embeddings"),
    ),
    _route(
        ("POST",),
        "/api/embeddings",
        _embeddings,
        "Embedding of one text (older form)",
        accepts="OllamaEmbeddings",
        returns=("embedding",),
    ),
    _route(
        ("POST",),
        "/api/rerank",
        _rerank,
        "Documents by how well they answer a query",
        accepts="Rerank",
        returns=("id", "model", "results"),
    ),
    _route(
        ("POST",),
        "/api/pull",
        _pull,
        "Download a model",
        accepts="OllamaPull",
        returns=("status",),
        content_type=NDJSON_TYPE,
    ),
    _route(("DELETE",), "/api/delete", _delete, "Delete a model", accepts="Named"),
    _route(("POST",), "/api/copy", _copy, "Give a model another name", accepts="OllamaCopy"),
    _route(
        ("POST",),
        "/api/create",
        _create,
        "Create a model from another one or a file",
        accepts="OllamaCreate",
        returns=("status",),
        content_type=NDJSON_TYPE,
    ),
    _route(("HEAD",), "/api/blobs/<digest>", _has_blob, "Check whether a file has been uploaded"),
    _route(
        ("POST",),
        "/api/blobs/<digest>",
        _put_blob,
        "Upload a file for a later create",
        status=201,
        upload=True,
    ),
)
