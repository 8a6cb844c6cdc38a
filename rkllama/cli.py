"""The commands: parse, call the service, print. Data goes to stdout, everything else to stderr.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import Cancelled, ConfigError, RKLLamaError

if TYPE_CHECKING:
    from .config import Settings
    from .core import SamplingParams
    from .service import Service

app = typer.Typer(
    name="rkllama",
    help="Run language models on the NPU of Rockchip boards.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would be imported for --help alone
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_models_dir: str | None = None


def run_app() -> int:
    """Run the command line; answers the exit code and turns our errors into one clear message.

    Typer itself exits with 2 for wrong usage and with 130 for Ctrl-C.
    """
    try:
        app()
    except Cancelled:
        return 130
    except RKLLamaError as error:
        _fail(error)
        return 1
    return 0


def _fail(error: RKLLamaError) -> None:
    sys.stderr.write(f"Error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"{error.hint}\n")


def _version(value: bool) -> None:
    if value:
        from . import __version__

        typer.echo(f"rkllama {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    models: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The models directory; commands then act on it directly."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run language models on the NPU of Rockchip boards."""
    del version  # its callback has answered
    global _models_dir
    _models_dir = models


def _settings() -> Settings:
    from .config import load_settings

    return load_settings({"models": _models_dir})


def _service(command: str) -> Service:
    """The running server, where there is one, else this process."""
    settings = _settings()
    if _models_dir is None and (remote := _server(settings)) is not None:
        return remote
    from .local import LocalService

    return LocalService(settings, f"rkllama {command}")


def _server(settings: Settings) -> Service | None:
    """The server at RKLLAMA_HOST, or the one that holds the NPU at another address."""
    from .client import RemoteService, is_serving
    from .config import is_this_machine, load_settings, server_address
    from .lock import holder

    if not is_this_machine(server_address(settings.host)[0]):
        remote = RemoteService(settings)
        remote.version()  # the user has named another machine: its silence is an error
        return remote
    if is_serving(settings):
        return RemoteService(settings)
    owner = holder(settings.lock)
    if owner and owner.get("url"):
        settings = load_settings({"host": owner["url"]})
        if is_serving(settings):
            return RemoteService(settings)
    return None


def _ask(question: str) -> bool:
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes", "o", "oui")


# --- Models on disk ----------------------------------------------------------------------------

JSONFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(as_json: JSONFlag = False) -> None:
    """List the models. (Also: ls)"""
    from .listing import run

    raise typer.Exit(run(_models_dir, as_json=as_json))


app.command("ls", hidden=True)(list_models)


@app.command()
def pull(
    reference: Annotated[
        str, typer.Argument(metavar="[hf/]USER/REPO/FILE", help="A model file on Hugging Face.")
    ],
) -> None:
    """Download a model. Interrupt it at will: the same command goes on where it stopped."""
    from .progress import show_progress

    name = show_progress(_service("pull").pull(reference), reference)
    sys.stderr.write(f"Done. Try it: rkllama run {name}\n")


@app.command("rm")
def remove(
    names: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models to delete.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete models from disk; a loaded one is unloaded first."""
    service = _service("rm")
    failed = False
    for name in names:
        try:
            if not yes and sys.stdin.isatty():
                info = service.show(name).info
                if not _ask(f"Delete {info.name} ({info.file})?"):
                    continue
            sys.stderr.write(f"Deleted {service.remove(name).name}\n")
        except RKLLamaError as error:
            _fail(error)
            failed = True
    raise typer.Exit(1 if failed else 0)


app.command("delete", hidden=True)(remove)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="MODEL")],
    as_json: JSONFlag = False,
    modelfile: Annotated[
        bool, typer.Option("--modelfile", help="Print the Modelfile only.")
    ] = False,
) -> None:
    """Show what is known about a model."""
    from .showing import details_json, details_text

    details = _service("show").show(name)
    if modelfile:
        typer.echo(details.modelfile)
    else:
        typer.echo(details_json(details) if as_json else details_text(details))


@app.command("cp")
def copy(
    source: Annotated[str, typer.Argument(metavar="MODEL")],
    destination: Annotated[str, typer.Argument(metavar="NAME")],
) -> None:
    """Give a model another name."""
    _service("cp").copy(source, destination)
    sys.stderr.write(f"{destination} is now another name of {source}\n")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    file: Annotated[
        str, typer.Option("--file", "-f", help="The Modelfile; - is stdin.")
    ] = "Modelfile",
) -> None:
    """Make a model out of an existing one and a Modelfile."""
    info = _service("create").create(name, _read_text(file))
    sys.stderr.write(f"Created {info.name}\n")


def _read_text(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read()
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


# --- Models in memory --------------------------------------------------------------------------


@app.command()
def ps(as_json: JSONFlag = False) -> None:
    """List the models in memory."""
    from .showing import loaded_json, loaded_text

    loaded = _service("ps").loaded()
    typer.echo(loaded_json(loaded) if as_json else loaded_text(loaded), nl=False)


@app.command()
def stop(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Default: the current one."),
    ] = None,
) -> None:
    """Unload a model from memory."""
    info = _service("stop").unload(name)
    sys.stderr.write(f"Unloaded {info.name}\n")


# --- Answers -----------------------------------------------------------------------------------


@app.command()
def run(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROMPT]", help="Without it, and without stdin: a chat."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=10, help="0 is greedy.")] = None,
    top_k: Annotated[int | None, typer.Option(min=0)] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    min_p: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    repeat_penalty: Annotated[float | None, typer.Option(min=0, max=10)] = None,
    frequency_penalty: Annotated[float | None, typer.Option(min=-2, max=2)] = None,
    presence_penalty: Annotated[float | None, typer.Option(min=-2, max=2)] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    num_predict: Annotated[
        int | None,
        typer.Option(min=-2, help="Most tokens of an answer; -1: until the context is full."),
    ] = None,
    ctx: Annotated[int | None, typer.Option(min=1, help="Tokens of context.")] = None,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Whether the model thinks first, if it can."),
    ] = None,
    hide_thinking: Annotated[bool, typer.Option(help="Do not show the thinking.")] = False,
    keep_alive: Annotated[
        str | None,
        typer.Option(help="How long a server keeps the model loaded, as in 5m."),
    ] = None,
    verbose: Annotated[bool, typer.Option(help="Show token counts and times on stderr.")] = False,
    output: Annotated[
        str | None,
        typer.Option("--format", metavar="json", help="Print the answer as one JSON object."),
    ] = None,
) -> None:
    """Answer a prompt, or chat."""
    from .chat import Chat, Options, answer_once

    if output not in (None, "json"):
        raise typer.BadParameter("only json is known", param_hint="--format")
    options = Options(
        system=system,
        sampling=_sampling(locals()),
        max_tokens=num_predict,
        context_length=ctx,
        think=think,
        hide_thinking=hide_thinking,
        keep_alive=_duration(keep_alive),
        verbose=verbose,
    )
    text = _prompt(prompt)
    service = _service("run")
    try:
        if text is not None:
            answer_once(service, model, text, options, as_json=output == "json")
        elif output == "json":
            raise typer.BadParameter("it needs a prompt", param_hint="--format")
        else:
            Chat(service, model, options, _settings().home).loop()
    finally:
        service.close()


def _sampling(values: dict[str, Any]) -> SamplingParams:
    from .core import SamplingParams

    return SamplingParams(
        **{name: values[name] for name in SamplingParams.__dataclass_fields__ if name in values}
    )


def _duration(text: str | None) -> float | None:
    if text is None:
        return None
    from .config import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--keep-alive") from None


def _prompt(words: list[str] | None) -> str | None:
    """The prompt: stdin's text, then the arguments; None on a terminal without arguments."""
    parts = [" ".join(words)] if words else []
    if not sys.stdin.isatty():
        piped = sys.stdin.read().strip()
        parts = [piped, *parts] if piped else parts
        if not parts:
            raise typer.BadParameter("it is empty", param_hint="PROMPT")
    return "\n\n".join(parts) if parts else None


# --- Server ------------------------------------------------------------------------------------


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="[8080]")] = None,
    model: Annotated[str | None, typer.Option(help="Load this model at once, and keep it.")] = None,
    models: Annotated[str | None, typer.Option(metavar="DIR", help="The models directory.")] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option(help="How long a model stays loaded after its last use; -1: for ever. [5m]"),
    ] = None,
    max_loaded: Annotated[int | None, typer.Option(help="Models loaded at once. [1]")] = None,
    max_queue: Annotated[int | None, typer.Option(help="Requests that may wait. [64]")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="Key that clients must send; several with commas, or @FILE."),
    ] = None,
    origins: Annotated[
        str | None,
        typer.Option(help="Origins of web pages that may call the server, with commas."),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="debug, info, warning or error. [info]"),
    ] = None,
) -> None:
    """Serve the models over HTTP."""
    from .config import load_settings

    settings = load_settings(
        {
            "models": models or _models_dir,
            "host": _address(host, port),
            "keep_alive": keep_alive,
            "max_loaded": max_loaded,
            "max_queue": max_queue,
            "api_keys": api_key,
            "origins": origins,
            "log_level": log_level,
        }
    )
    import logging

    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    from .serve import serve as serve_until_stopped

    serve_until_stopped(
        settings, model, ready=lambda url: sys.stderr.write(f"RKLLama listens on {url}\n")
    )


def _address(host: str | None, port: int | None) -> str | None:
    """HOST:PORT out of the two options; what is not given comes from the settings."""
    if host is None and port is None:
        return None
    from .config import load_settings, server_address

    given_host, given_port = server_address(host or load_settings().host)
    if host is not None and ":" not in host.strip("[]") and port is None:
        given_port = server_address(load_settings().host)[1]
    name = f"[{given_host}]" if ":" in given_host else given_host
    return f"{name}:{given_port if port is None else port}"
