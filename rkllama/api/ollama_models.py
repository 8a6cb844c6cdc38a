"""The Ollama dialect's requests about models: tags, show, ps, pull, copy, delete, create, blobs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InvalidRequest, RKLLamaError, Unsupported
from ..types import Alias, IncompleteDownload, LoadedModel, ModelDetails, ModelInfo, PullProgress
from .common import Fields, dumps, timestamp
from .ollama import API_VERSION, error_line, read_body, read_model

FOR_EVER = "2318-01-01T00:00:00.000000+00:00"
"""`expires_at` of a model that stays: Ollama too writes a year that far away."""

_SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_HEX = frozenset("0123456789abcdef")

Digest = Callable[[ModelInfo], str]
"""Gives a model's sha256 as 64 hex digits, without waiting for it to be computed."""


# --- What is asked -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PullCall:
    """A `POST /api/pull`."""

    reference: str
    stream: bool
    unverified: bool = False
    """Take a file also where no hash of it is known; Ollama's "insecure" is as little concerned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateCall:
    """A `POST /api/create`. The new model is made from the model `source`, or from `files`.

    `modelfile` is the whole text that older clients send; else it is in the other fields.
    `parameters` are Modelfile lines, `messages` pairs of role and content, `files` and `adapters` name and
    digest.
    """

    name: str
    stream: bool
    source: str | None = None
    modelfile: str | None = None
    system: str | None = None
    template: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    licenses: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    adapters: tuple[tuple[str, str], ...] = ()


def decode_name(body: object) -> str:
    """Decode the model of a `/api/show` or `/api/delete`; older clients call it "name"."""
    return read_model(read_body(body), "model", "name")


def decode_pull(body: object) -> PullCall:
    """A `POST /api/pull`."""
    fields = read_body(body)
    return PullCall(
        reference=read_model(fields, "model", "name"),
        stream=_stream(fields),
        unverified=bool(fields.flag("insecure")),
    )


def decode_copy(body: object) -> tuple[str, str]:
    """Source and destination of a `POST /api/copy`."""
    fields = read_body(body)
    return _name(fields, "source"), _name(fields, "destination")


def decode_create(body: object) -> CreateCall:
    """Decode a `POST /api/create`."""
    fields = read_body(body)
    if fields.text("quantize"):
        raise Unsupported("a model cannot be quantized here")
    call = CreateCall(
        name=read_model(fields, "model", "name"),
        stream=_stream(fields),
        source=fields.text("from") or None,
        modelfile=fields.text("modelfile") or None,
        system=fields.text("system"),
        template=fields.text("template"),
        parameters=_parameters(fields),
        messages=tuple(_message(item) for item in fields.objects("messages") or ()),
        licenses=fields.texts("license") or (),
        files=_files(fields, "files"),
        adapters=_files(fields, "adapters"),
    )
    if not (call.source or call.modelfile or call.files):
        raise InvalidRequest("'from' is required: the model to start from", param="from")
    return call


def digest_hex(digest: str) -> str:
    """Return the 64 hex digits of a blob's `sha256:…`."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not _HEX.issuperset(value):
        raise InvalidRequest(f"invalid digest format: {digest!r}", param="digest")
    return value


def _stream(fields: Fields) -> bool:
    stream = fields.flag("stream")
    return True if stream is None else stream


def _name(fields: Fields, key: str) -> str:
    name = (fields.text(key) or "").strip()
    if not name:
        raise InvalidRequest(f"{key} is required", param=key)
    return name


def _parameters(fields: Fields) -> tuple[tuple[str, str], ...]:
    """Return one line per value: a list, as `stop` is, makes several."""
    lines: list[tuple[str, str]] = []
    parameters = fields.object("parameters") or Fields({})
    for name in fields.mapping("parameters") or ():
        value = parameters.raw(name)
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str | int | float):
                raise parameters.fail(name, "a string, a number or a list of strings")
            lines.append((name, str(item).lower() if isinstance(item, bool) else str(item)))
    return tuple(lines)


def _message(fields: Fields) -> tuple[str, str]:
    role = fields.need("role", fields.text).lower()
    if role not in ("system", "user", "assistant"):
        raise fields.fail("role", "system, user or assistant")
    return role, fields.need("content", fields.text)


def _files(fields: Fields, key: str) -> tuple[tuple[str, str], ...]:
    files = fields.object(key) or Fields({})
    return tuple(
        (name, digest_hex(files.need(name, files.text))) for name in fields.mapping(key) or ()
    )


# --- What is answered --------------------------------------------------------------------------


def version_body(own: str, models: str, home: str) -> dict[str, Any]:
    """`/api/version`: the Ollama API that is implemented; RKLLama's own version, models directory, and the
    home where its logs and settings are.
    """
    return {"version": API_VERSION, "rkllama": own, "models": models, "home": home}


def tags_body(
    models: Iterable[ModelInfo],
    digest: Digest,
    incomplete: Sequence[IncompleteDownload] = (),
    aliases: Iterable[Alias] = (),
    states: Mapping[str, str] | None = None,
    seeing: Collection[str] = (),
) -> dict[str, Any]:
    """`/api/tags`. Downloads that are not complete are no models to clients, but told to ours; aliases are
    models to clients. `states` is how the models in memory are, by path; `seeing` names those that see.
    """
    states = states or {}

    def entry(info: ModelInfo) -> dict[str, Any]:
        vision = {"vision": True} if info.name in seeing else {}
        return _entry(info, digest) | _state(info, states) | vision

    entries = [entry(info) for info in models]
    for alias in aliases:
        if alias.info is not None:
            name = tagged(alias.name)
            named = {"name": name, "model": name, "alias_of": alias.info.name}
            entries.append(entry(alias.info) | named)
    body: dict[str, Any] = {"models": entries}
    if incomplete:
        body["incomplete"] = [asdict(download) for download in incomplete]
    return body


def _state(info: ModelInfo, states: Mapping[str, str]) -> dict[str, str]:
    """Return the state of a model in memory; nothing for others."""
    return {"state": states[info.path]} if info.path in states else {}


def ps_body(loaded: Iterable[LoadedModel], digest: Digest) -> dict[str, Any]:
    """`/api/ps`. Only the weights of a model on the NPU are not in ordinary memory."""
    return {"models": [_loaded_entry(model, digest) for model in loaded]}


def show_body(details: ModelDetails, digest: Digest, context: int | None = None) -> dict[str, Any]:
    """`/api/show`; it also holds what `/api/tags` says of the model.

    `context` is the context that the model gets here; it stands for the limit of a model that tells none,
    since clients (VS Code) need the figure.
    """
    messages = [{"role": turn.role, "content": turn.text} for turn in details.messages]
    return {
        **_entry(details.info, digest),
        "license": details.license or "",
        "modelfile": details.modelfile,
        "parameters": _parameter_text(details.parameters),
        "template": details.template or "",
        "system": details.system or "",
        "details": _details(details.info, details.parent),
        "model_info": _model_info(details, context),
        **({"messages": messages} if messages else {}),
        "capabilities": list(details.capabilities),
        "notes": list(details.notes),
        **({"template_guess": details.template_guess} if details.template_guess else {}),
        **({"encoder": asdict(details.encoder)} if details.encoder else {}),
        "metadata": {name: _plain(value) for name, value in details.metadata.items()},
    }


def tagged(name: str) -> str:
    """Return a model's name with a tag, as Ollama always writes it."""
    return name if ":" in name else f"{name}:latest"


def _entry(info: ModelInfo, digest: Digest) -> dict[str, Any]:
    name = tagged(info.name)
    return {
        "name": name,
        "model": name,
        "modified_at": timestamp(info.modified),
        "size": info.size,
        "digest": digest(info),
        "details": _details(info),
    }


def _details(info: ModelInfo, parent: str | None = None) -> dict[str, Any]:
    """Ollama's details, whose texts are "" where nothing is known, and ours."""
    details: dict[str, Any] = {
        "parent_model": parent or "",
        "format": info.format,
        "family": info.family or "",
        "families": [info.family] if info.family else [],
        "parameter_size": info.parameter_size or "",
        "quantization_level": info.quantization or "",
        "platform": info.platform,
        "file": info.file,
        "path": info.path,
    }
    if info.context_length is not None:
        details["context_length"] = info.context_length
    return details


def _loaded_entry(model: LoadedModel, digest: Digest) -> dict[str, Any]:
    info = model.info
    size = info.size if model.memory is None else model.memory
    return {
        **_entry(info, digest),
        "size": size,
        "size_vram": size if model.uses_npu else 0,
        "expires_at": FOR_EVER if model.expires is None else timestamp(model.expires),
        "context_length": model.context_length or 0,
        "file_size": info.size,
        "memory": model.memory,
        "state": model.state,
        "runtime": model.runtime,
        "pid": model.pid,
        "backend": model.backend,
        "threads": model.threads,
        "toolkit": model.toolkit,
        "tokens_per_second": _rounded(model.tokens_per_second),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _parameter_text(parameters: Iterable[tuple[str, str]]) -> str:
    """Return one line per parameter; a text is quoted as in JSON, which is how clients read it back."""
    return "\n".join(f"{name:<30} {_literal(value)}" for name, value in parameters)


def _literal(value: str) -> str:
    try:
        float(value)
    except ValueError:
        return value if value in ("true", "false") else json.dumps(value, ensure_ascii=False)
    return value.strip()


def _model_info(details: ModelDetails, context: int | None) -> dict[str, Any]:
    """Return the file's own metadata, completed with what clients look for in it."""
    info = details.info
    metadata = {name: _plain(value) for name, value in details.metadata.items()}
    architecture = str(metadata.get("general.architecture") or info.family or info.format)
    known: dict[str, Any] = {"general.architecture": architecture, **metadata}
    # VS Code shows this name; the one in the file is seldom the one that users know.
    known["general.basename"] = info.name
    limit = context if info.context_length is None else info.context_length
    if limit is not None:
        known[f"{architecture}.context_length"] = limit
    count = _parameter_count(info.parameter_size)
    if count is not None:
        known.setdefault("general.parameter_count", count)
    return known


def _parameter_count(size: str | None) -> int | None:
    """1500000000 for "1.5B"; None for what does not read so."""
    if not size or size[-1].upper() not in _SUFFIXES:
        return None
    try:
        return round(float(size[:-1]) * _SUFFIXES[size[-1].upper()])
    except (ValueError, OverflowError):
        return None


def _plain(value: Any) -> Any:
    """Return a metadata value as JSON can hold it."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return str(value)


SUCCESS = {"status": "success"}
"""The whole answer of a pull or create that is not streamed, the last line of one that is."""


def create_lines() -> bytes:
    """Return the streamed answer of a `/api/create` that went well."""
    steps = ("reading model metadata", "writing manifest")
    return b"".join(
        dumps(line) + b"\n" for line in (*({"status": step} for step in steps), SUCCESS)
    )


class PullEncoder:
    """The streamed answer of one `/api/pull`; further keys tell RKLLama's client what a step knows."""

    content_type = "application/x-ndjson"

    def encode(self, progress: PullProgress) -> bytes:
        """Return the lines of a step."""
        lines: tuple[dict[str, Any], ...]
        if progress.status == "resolving":
            line = {"status": progress.note or "pulling manifest", "file": progress.file}
            lines = ({**line, "note": progress.note} if progress.note else line,)
        elif progress.status == "downloading":
            lines = (_download_line(progress),)
        elif progress.status == "verifying":
            lines = ({**_download_line(progress), "status": "verifying sha256 digest"},)
        else:
            done = {**_download_line(progress), **SUCCESS, "model": progress.name}
            done.pop("digest", None)  # to Open WebUI's page a line with one is never the last
            lines = ({"status": "writing manifest"}, done)
        return b"".join(dumps(line) + b"\n" for line in lines)

    def error(self, error: RKLLamaError) -> bytes:
        """Return the line that ends a stream in which something went wrong."""
        return error_line(error)


def _download_line(progress: PullProgress) -> dict[str, Any]:
    what = progress.digest[:12] if progress.digest else progress.file
    line: dict[str, Any] = {"status": f"pulling {what}", "file": progress.file}
    if progress.digest:
        line["digest"] = f"sha256:{progress.digest}"
    if progress.total is not None:
        line["total"] = progress.total
    return {**line, "completed": progress.completed, "resumed": progress.resumed}
