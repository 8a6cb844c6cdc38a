"""`rkllama ps`, `stop` and `load`: the models in memory."""

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..console.output import DIM, styled, write_styled
from ..errors import NoModelLoaded, RKLLamaError
from .common import JSONFlag, Model, model_names, server_of, service_of, settings_of

if TYPE_CHECKING:
    from ..client.remote import RemoteService


def ps(context: typer.Context, as_json: JSONFlag = False) -> None:
    """List the models in memory."""
    from ..console.show import loaded_json, loaded_text

    server = server_of(context, always_said=True)
    loaded = [] if server is None else server.loaded()
    if as_json:
        sys.stdout.write(loaded_json(loaded))
    else:
        _say_board(server)
        write_styled(loaded_text(loaded))
    if not loaded:
        from ..board.lock import describe_holder, holder

        # A server keeps the NPU's lock even without a model, so its lock says nothing here.
        owner = holder(settings_of(context).lock) if server is None else None
        note = f"The NPU is in use by {describe_holder(owner)}." if owner else "No model is loaded."
        sys.stderr.write(f"{note}\n")


def _say_board(server: "RemoteService | None") -> None:
    """Tell on a terminal how the board is doing, as far as the server does."""
    if not sys.stderr.isatty():
        return
    from ..board.telemetry import read_state
    from ..console.top import summary

    with contextlib.suppress(RKLLamaError):  # a server of an older release
        if text := summary(read_state() if server is None else server.board()):
            write_styled(f"{styled(text, DIM, sys.stderr)}\n", sys.stderr)


def stop(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="The model to unload; by default the one used last.",
            autocompletion=model_names,
        ),
    ] = None,
) -> None:
    """Unload a model from memory."""
    try:
        info = service_of(context, "stop").unload(model)
    except NoModelLoaded:
        text = "no model is loaded" if model is None else f"{model} is not loaded"
        raise RKLLamaError(text) from None
    sys.stderr.write(f"Unloaded {info.name}\n")


def load(context: typer.Context, model: Model) -> None:
    """Have the running server load a model."""
    from ..client.remote import RemoteService

    service = service_of(context, "load")
    if not isinstance(service, RemoteService):
        raise RKLLamaError(
            "no server is running, and only a server keeps a model loaded",
            hint=f"Start one with the model: rkllama serve --model {model}",
        )
    sys.stderr.write(f"Loaded {service.load(model).info.name}\n")


def update() -> None:
    """Tell how RKLLama is updated."""
    from ..board.installation import how_to_update

    raise RKLLamaError("RKLLama does not update itself", hint=how_to_update())
