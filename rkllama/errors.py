"""Every error that RKLLama raises on purpose.

    RKLLamaError
    ├── InvalidRequest            400  invalid_request      a value in the request is wrong
    │   ├── PromptTooLong         400  prompt_too_long      the prompt does not fit the context
    │   ├── ModelfileError        400  invalid_modelfile    a Modelfile cannot be understood (modelfile.py)
    │   ├── NoPreviousResponse    400  previous_response_not_found  the response to go on from is not kept
    │   └── Unsupported           400  unsupported          this model or runtime cannot do that
    ├── ModelNotFound             404  model_not_found      no model of that name
    │   └── ModelIncomplete       404  model_incomplete     its download is not complete
    ├── NotStored                 404  not_stored           no response or item of that id is kept
    ├── AmbiguousName             400  ambiguous_name       several models fit the name
    ├── NoModelLoaded             400  no_model_loaded      nothing is loaded and none was named
    ├── ModelsDirMissing          500  models_dir_missing   the models directory does not exist
    ├── QueueFull                 503  queue_full           try again after `retry_after` seconds
    ├── LoadFailed                500  load_failed          the runtime refused the model
    │   ├── LibraryNotFound       500  library_not_found    a library of the vendor's is not there or unusable
    │   ├── UnknownRuntime        500  unknown_runtime      a version whose layout is not known
    │   ├── BackendMissing        500  backend_missing      a package or program is not there
    │   ├── OutOfMemory           500  out_of_memory        the memory does not suffice for the model
    │   ├── WrongRuntime          500  wrong_runtime        another release of librkllmrt may load the model
    │   ├── GGUFError             500  gguf                 the file is damaged or no .gguf (gguf.py)
    │   └── NPUBusy               503  npu_busy             another process owns the NPU
    ├── WorkerError               500  worker_error
    │   ├── WorkerCrashed         500  worker_crashed       the runtime's process died
    │   ├── WorkerHung            504  worker_hung          the runtime stopped answering
    │   └── RuntimeFailed         500  runtime_failed       the runtime reported an error
    ├── PullError                 400  pull_failed
    │   ├── HubNotFound           404  hub_not_found        no such repository, revision or file
    │   ├── HubGated              403  hub_gated            the licence has to be accepted first
    │   ├── HubUnreachable        502  hub_unreachable      no connection to the Hub
    │   ├── DiskFull              507  disk_full            not enough room
    │   └── IntegrityError        502  integrity            size or sha256 differ
    ├── ConfigError               400  config               a setting has an unusable value
    ├── ServerUnreachable         502  server_unreachable   no RKLLama server at that address
    ├── Unauthorized              401  unauthorized         an API key is needed
    ├── Forbidden                 403  forbidden            this Host or Origin may not call
    ├── BodyTooLarge              413  body_too_large       the request's body is over the limit
    ├── UnsupportedEncoding       415  unsupported_encoding the body's Content-Encoding is not known
    ├── TooManyBodies             503  too_many_bodies      the bodies of requests fill their room
    ├── NoSuchRoute               404  no_such_route        no endpoint of that path
    ├── MethodNotAllowed          405  method_not_allowed   the endpoint takes other methods
    ├── NoWebSocket               426  no_websocket         the endpoint is for plain HTTP requests
    ├── ServerStopping            503  server_stopping      the server is about to end
    └── Cancelled                 499  cancelled            the client disconnected before it was served

An error knows its HTTP status and a code for programs; what it is about is in typed attributes.
`str(error)` says what happened and with which value; `hint` says what to do next. Nothing reads messages.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing alone would cost `rkllama list` a tenth of its time
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any


DOCTOR = "Run `rkllama doctor` to see what is wrong."


def see_doctor(hint: str) -> str:
    """Return a hint that ends with the command which finds what is wrong with the machine."""
    return f"{hint.replace(DOCTOR, '').strip()} {DOCTOR}"


class RKLLamaError(Exception):
    """Base of all: `status` is the HTTP status, `code` a word for programs, `hint` the next step."""

    status = 500
    code = "internal"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    @property
    def text(self) -> str:
        """Message and hint as one text, for a terminal or an error field."""
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def to_dict(self) -> dict[str, Any]:
        """Code, message, hint and attributes as JSON values: what `from_dict` rebuilds the error from."""
        return {"code": self.code, **self.__dict__}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> RKLLamaError:
        """Return the error of the class that has this code; an unknown code gives a plain RKLLamaError."""
        attributes = dict(values)
        code = attributes.pop("code", None)
        kind = next((cls for cls in _classes(RKLLamaError) if cls.code == code), RKLLamaError)
        error = kind.__new__(kind)
        attributes.setdefault("message", "unknown error")
        attributes.setdefault("hint", None)
        Exception.__init__(error, attributes["message"])
        error.__dict__.update(attributes)
        return error


class InvalidRequest(RKLLamaError):
    """A value that the client sent is wrong; `param` names its field where one is to blame."""

    status = 400
    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class PromptTooLong(InvalidRequest):
    """The prompt's tokens do not fit; None where a count is not known."""

    code = "prompt_too_long"
    at_limit = False
    """Whether the model takes no longer context than this one."""

    def __init__(
        self,
        message: str,
        *,
        prompt_tokens: int | None = None,
        context_length: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length

    @staticmethod
    def of_pictures(pictures: int, tokens: int, context_length: int) -> PromptTooLong:
        """Return the error for pictures that leave no room in the context by themselves."""
        return PromptTooLong(
            f"{pictures} pictures take {tokens} tokens, and the context has only {context_length}",
            prompt_tokens=tokens,
            context_length=context_length,
        )


class Unsupported(InvalidRequest):
    """The model, the runtime's version or the backend cannot do what was asked."""

    code = "unsupported"


_KEPT = (
    "Responses are kept in memory, the last ones only and until the server ends, unless 'store' is "
    "false. Send the whole conversation as 'input'."
)


class NoPreviousResponse(InvalidRequest):
    """The response that a request goes on from is not kept, or is another key's."""

    code = "previous_response_not_found"

    def __init__(self, response_id: str) -> None:
        super().__init__(
            f"Previous response with id '{response_id[:100]}' not found",
            param="previous_response_id",
            hint=_KEPT,
        )
        self.response_id = response_id


class NotStored(RKLLamaError):
    """No response or item (`kind`) of that id is kept, or it is another key's."""

    status = 404
    code = "not_stored"

    def __init__(self, kind: str, id: str, *, param: str | None = None) -> None:
        super().__init__(f"{kind.capitalize()} with id '{id[:100]}' not found", hint=_KEPT)
        self.kind = kind
        self.id = id
        self.param = param


class ModelNotFound(RKLLamaError):
    """No model is called `name`; `candidates` are similar names, best first."""

    status = 404
    code = "model_not_found"

    def __init__(
        self, name: str, *, candidates: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        if candidates:
            hint = f"Did you mean {', '.join(candidates)}?"
        super().__init__(f"model '{name}' not found", hint=hint)
        self.name = name
        self.candidates = candidates


class ModelIncomplete(ModelNotFound):
    """The download of the model `name` is not complete: `completed` bytes of `total` are there.

    `reference` is what `pull` takes to continue it; None for a total or a reference that is not known.
    """

    code = "model_incomplete"

    def __init__(
        self, name: str, *, completed: int, total: int | None = None, reference: str | None = None
    ) -> None:
        super().__init__(name)
        part = "" if total is None else f" of {total / 1e6:.1f}"
        self.message = f"the download of '{name}' is incomplete: {completed / 1e6:.1f}{part} MB"
        way = f"Continue it: rkllama pull {reference}" if reference else "Pull it again"
        self.hint = f"{way}; or remove it: rkllama rm {name}"
        self.completed = completed
        self.total = total
        self.reference = reference


class AmbiguousName(RKLLamaError):
    """Several models match `name`: `candidates`; `reason` says why none of them is the one."""

    status = 400
    code = "ambiguous_name"

    def __init__(
        self, name: str, candidates: tuple[str, ...], *, reason: str | None = None
    ) -> None:
        what = f"'{name}' matches several models" if reason is None else reason
        super().__init__(
            f"{what}: {', '.join(candidates)}", hint="Use the full name of one of them."
        )
        self.name = name
        self.candidates = candidates
        self.reason = reason


class NoModelLoaded(RKLLamaError):
    """No model is loaded and the request names none."""

    status = 400
    code = "no_model_loaded"

    def __init__(self) -> None:
        super().__init__("no model is loaded", hint="Load one first, or name one in the request.")


class ModelsDirMissing(RKLLamaError):
    """The models directory `path` does not exist."""

    code = "models_dir_missing"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the models directory {path} does not exist",
            hint="Create it, pull a model, or set RKLLAMA_MODELS.",
        )
        self.path = path


class QueueFull(RKLLamaError):
    """Too many requests wait already; try again after `retry_after` seconds."""

    status = 503
    code = "queue_full"

    def __init__(self, limit: int, *, retry_after: int = 5) -> None:
        super().__init__(
            f"the server is busy: {limit} "
            + ("request is already waiting" if limit == 1 else "requests are already waiting"),
            hint="Try again later, or raise --max-queue.",
        )
        self.limit = limit
        self.retry_after = retry_after


class LoadFailed(RKLLamaError):
    """The runtime could not load the model; `log` holds its last words."""

    code = "load_failed"

    def __init__(self, message: str, *, hint: str | None = None, log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.log = log


class LibraryNotFound(LoadFailed):
    """A vendor's library is missing or unusable; `tried` pairs each place with what was wrong there."""

    code = "library_not_found"

    def __init__(
        self, tried: tuple[tuple[str, str], ...], *, hint: str, file: str = "librkllmrt.so"
    ) -> None:
        places = "; ".join(f"{place}: {reason}" for place, reason in tried)
        super().__init__(f"{file} cannot be used ({places})", hint=hint)
        self.tried = tried


class UnknownRuntime(LoadFailed):
    """The library's version fits no known layout; `version` is None where it names none."""

    code = "unknown_runtime"

    def __init__(self, message: str, *, version: str | None, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.version = version


class BackendMissing(LoadFailed):
    """The package that runs this kind of model is not installed."""

    code = "backend_missing"


class OutOfMemory(LoadFailed):
    """The NPU or the board lacks the memory that the model needs; other models may hold it."""

    code = "out_of_memory"


class WrongRuntime(LoadFailed):
    """The runtime cannot use the model, or not on this CPU; `release` is one that may, to be installed."""

    code = "wrong_runtime"

    def __init__(
        self, message: str, *, hint: str | None = None, log: str = "", release: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, log=log)
        self.release = release


class NPUBusy(LoadFailed):
    """Another process owns the NPU; `holder` says which."""

    status = 503
    code = "npu_busy"

    def __init__(self, holder: str) -> None:
        super().__init__(
            f"the NPU is in use by {holder}",
            hint="Stop it first: two processes on the NPU at once can freeze the board.",
        )
        self.holder = holder


class WorkerError(RKLLamaError):
    """Something went wrong in a model's child process; `log` holds its last lines."""

    code = "worker_error"

    def __init__(self, message: str, *, hint: str | None = None, log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.log = log


class WorkerCrashed(WorkerError):
    """The model's process died; `exit_status` is negative for a signal, as in subprocess."""

    code = "worker_crashed"

    def __init__(
        self, message: str, *, exit_status: int | None, hint: str | None = None, log: str = ""
    ) -> None:
        super().__init__(message, hint=hint, log=log)
        self.exit_status = exit_status


def load_failure(cause: str) -> type[LoadFailed]:
    """Return the class of a failed load whose Diagnosis has this cause."""
    return {"memory": OutOfMemory, "runtime": WrongRuntime}.get(cause, LoadFailed)


class WorkerHung(WorkerError):
    """The runtime sent nothing for `seconds` and its process was ended."""

    status = 504
    code = "worker_hung"

    def __init__(self, message: str, *, seconds: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.seconds = seconds


class RuntimeFailed(WorkerError):
    """The runtime reported that a call or a run failed."""

    code = "runtime_failed"


class PullError(RKLLamaError):
    """A download failed."""

    status = 400
    code = "pull_failed"


class HubNotFound(PullError):
    """The Hub has no such repository, revision or file."""

    status = 404
    code = "hub_not_found"


class HubGated(PullError):
    """The repository asks for its licence to be accepted, or for a token."""

    status = 403
    code = "hub_gated"


class HubUnreachable(PullError):
    """The Hub cannot be reached, or the connection broke too often."""

    status = 502
    code = "hub_unreachable"


class DiskFull(PullError):
    """The disk has only `available` bytes, but `needed` are needed."""

    status = 507
    code = "disk_full"

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        super().__init__(message, hint="Free some space (rkllama rm) and run the command again.")
        self.needed = needed
        self.available = available


class IntegrityError(PullError):
    """What arrived is not what the Hub announced."""

    status = 502
    code = "integrity"


class ConfigError(RKLLamaError):
    """A setting has a value that cannot be used."""

    status = 400
    code = "config"


class ServerUnreachable(RKLLamaError):
    """No RKLLama server answers at `url`."""

    status = 502
    code = "server_unreachable"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"no server answers at {url}: {reason}",
            hint="Start one with `rkllama serve`, or correct or unset RKLLAMA_HOST.",
        )
        self.url = url


class Unauthorized(RKLLamaError):
    """The request carries no valid API key."""

    status = 401
    code = "unauthorized"

    def __init__(self) -> None:
        super().__init__(
            "a valid API key is needed",
            hint="Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
        )


class Forbidden(RKLLamaError):
    """The request comes from an origin or host that is not allowed."""

    status = 403
    code = "forbidden"


class BodyTooLarge(RKLLamaError):
    """The request's body has more than `limit` bytes."""

    status = 413
    code = "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the request body is larger than {limit} bytes",
            hint="Raise RKLLAMA_MAX_BODY on the server to allow larger ones.",
        )
        self.limit = limit


class UnsupportedEncoding(RKLLamaError):
    """The request's body has the Content-Encoding `encoding`, which cannot be unpacked here."""

    status = 415
    code = "unsupported_encoding"

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"a body of the Content-Encoding {encoding!r} cannot be read",
            hint="Send it as it is, or with gzip or deflate; zstd needs Python 3.14 or rkllama[zstd].",
        )
        self.encoding = encoding


class TooManyBodies(RKLLamaError):
    """The bodies of all requests together would have more than `limit` bytes."""

    status = 503
    code = "too_many_bodies"

    def __init__(self, limit: int, *, retry_after: int = 5) -> None:
        super().__init__(
            f"the server is busy: the bodies of its requests would have more than {limit} bytes",
            hint="Try again later, or raise RKLLAMA_MAX_BODY: together they may have 8 times that.",
        )
        self.limit = limit
        self.retry_after = retry_after


class NoSuchRoute(RKLLamaError):
    """The server has no endpoint of that path."""

    status = 404
    code = "no_such_route"

    def __init__(self, path: str) -> None:
        super().__init__(f"there is no endpoint {path}")
        self.path = path


class MethodNotAllowed(RKLLamaError):
    """The endpoint takes `allowed` methods only."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: str) -> None:
        super().__init__(f"{path} does not accept {method}, only {allowed}")
        self.allowed = allowed


class NoWebSocket(RKLLamaError):
    """The endpoint takes `allowed` methods only, and no WebSocket: by 426 Codex knows that at once."""

    status = 426
    code = "no_websocket"

    def __init__(self, path: str, allowed: str) -> None:
        super().__init__(f"{path} is not served as a WebSocket, only for {allowed}")
        self.allowed = allowed


class ServerStopping(RKLLamaError):
    """The server is about to end and begins nothing new; try again after `retry_after` seconds."""

    status = 503
    code = "server_stopping"

    def __init__(self, *, retry_after: int = 5) -> None:
        super().__init__("the server is stopping", hint="Try again once it is running again.")
        self.retry_after = retry_after


class Cancelled(RKLLamaError):
    """The client disconnected before its turn came."""

    status = 499
    code = "cancelled"

    def __init__(self, message: str = "the client disconnected") -> None:
        super().__init__(message)


def _classes(base: type[RKLLamaError]) -> Iterator[type[RKLLamaError]]:
    yield base
    for cls in base.__subclasses__():
        yield from _classes(cls)
