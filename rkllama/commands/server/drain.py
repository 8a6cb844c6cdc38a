"""`rkllama drain`."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import RKLLamaError
from ..common import JSONFlag, print_json, server_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def drain(
    context: typer.Context,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Give the requests that are there this long. [default: the setting drain_timeout, or 10m]",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until all of them are answered.")
    ] = True,
    as_json: JSONFlag = False,
) -> None:
    """End the running server without losing an answer.

    It takes no new requests, and ends when those that it has are answered. A server that systemd's socket
    starts is back with the next connection.
    """
    seconds = _seconds(timeout)
    server = server_of(context, always_said=False)
    if server is None:
        raise RKLLamaError("no server is running")
    for state in server.drain(seconds, wait=wait):
        if not as_json:
            _say(state)
    if as_json:
        print_json(state)
    if state["status"] == "timed out":
        raise RKLLamaError(
            "the time was up before all requests were answered; the rest were cancelled",
            hint="Give them longer with --timeout.",
        )


def _say(state: "Mapping[str, Any]") -> None:
    if state["status"] == "draining":
        sys.stderr.write(
            f"The server takes no new requests. Running: {state['running']}, "
            f"waiting: {state['waiting']}, time left: {state['timeout']:.0f} s\n"
        )
    elif state["status"] == "drained":
        sys.stderr.write("All requests are answered; the server ends.\n")


def _seconds(text: str | None) -> float | None:
    from ...config import LONGEST_WAIT, parse_duration

    if text is None:
        return None
    try:
        seconds = parse_duration(text)
        if not 0 <= seconds <= LONGEST_WAIT:
            raise ValueError
    except ValueError:
        text = "it must be a duration such as 30s or 5m, up to 24h"
        raise typer.BadParameter(text, param_hint="--timeout") from None
    return seconds
