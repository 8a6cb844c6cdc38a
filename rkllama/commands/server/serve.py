"""`rkllama serve`."""

import sys
from typing import Annotated

import typer

from ..common import model_names, models_option


def serve(
    context: typer.Context,
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Listen on this address. [default: 127.0.0.1]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="Listen on this port. [default: 8080]"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Load this model at startup and keep it loaded.",
            autocompletion=model_names,
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Use this models directory. [default: ~/RKLLAMA/models]"),
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Unload a model this long after its last use; -1: never. [default: 5m]",
        ),
    ] = None,
    max_loaded: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=64, help="Keep at most N models in memory. [default: 1]"
        ),
    ] = None,
    max_queue: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=1024, help="Let at most N requests wait. [default: 64]"
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY,...", help="Require one of these API keys; @FILE reads them from a file."
        ),
    ] = None,
    origins: Annotated[
        str | None,
        typer.Option(metavar="URL,...", help="Let web pages from these origins call the server."),
    ] = None,
    exit_idle: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="End after this long without a request and a loaded model; -1: never. [default: -1]",
        ),
    ] = None,
    drain_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="After a first SIGTERM, give the requests that are there up to this long. "
            "[default: 0]",
        ),
    ] = None,
    no_page: Annotated[
        bool,
        typer.Option("--no-page", help="Serve the APIs only, and no page to browsers."),
    ] = False,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="Level: debug, info, warning or error. [default: info]"),
    ] = None,
) -> None:
    """Serve models over HTTP to Ollama, OpenAI and Anthropic clients."""
    from ...config import load_settings

    settings = load_settings(
        {
            "models": models or models_option(context),
            "host": _address(host, port),
            "keep_alive": keep_alive,
            "max_loaded": max_loaded,
            "max_queue": max_queue,
            "api_keys": api_key,
            "origins": origins,
            "exit_idle": exit_idle,
            "drain_timeout": drain_timeout,
            "page": False if no_page else None,
            "log_level": log_level,
        }
    )
    import logging

    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    from ...serve import serve as serve_until_stopped

    serve_until_stopped(settings, model, ready=lambda url: _tell_where(url, page=settings.page))


def _tell_where(url: str, *, page: bool) -> None:
    sys.stderr.write(f"RKLLama listens on {url}\n")
    if page:
        sys.stderr.write(f"Open {_browsers_url(url)}/ in a browser to use it there\n")


def _browsers_url(url: str) -> str:
    """Return the server's address as other machines may know it."""
    from ...config import outer_host, server_address, server_url

    host, port = server_address(url)
    return server_url(outer_host(host), port)


def _address(host: str | None, port: int | None) -> str | None:
    """Return HOST:PORT from the two options; what is missing comes from the settings."""
    if host is None and port is None:
        return None
    from ...config import load_settings, server_address

    given_host, given_port = server_address(host or load_settings().host)
    if host is not None and host.count(":") != 1 and "]:" not in host:
        given_port = server_address(load_settings().host)[1]
    name = f"[{given_host}]" if ":" in given_host else given_host
    return f"{name}:{given_port if port is None else port}"
