"""The commands: parse, call the service, print. Data goes to stdout, everything else to stderr.

Nothing heavy is imported before a command needs it. Annotations are values here and not strings (there is
no `from __future__ import annotations`): Typer would compile each string at every start.
"""

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .commands import runtime
from .commands.common import JSONFlag
from .commands.importing import import_model
from .commands.outdated import outdated
from .commands.search import search
from .config import INTEGER_BOUNDS, NUMBER_BOUNDS
from .console.output import forget_stdout, print_error, print_note, write_styled
from .errors import Cancelled, InvalidRequest, ModelIncomplete, NoModelLoaded, RKLLamaError

if TYPE_CHECKING:
    from .config import Settings
    from .console.options import ChatOptions
    from .service import Service
    from .types import ModelDetails

app = typer.Typer(
    name="rkllama",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would be imported for --help alone
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_models_dir: str | None = None


def run_app() -> int:
    """Run the command line and return the exit code; print our errors as one clear message.

    Typer itself exits with 2 for wrong usage and with 130 for Ctrl-C.
    """
    try:
        app(_as_known(sys.argv[1:]))
    except Cancelled:
        return 130
    except RKLLamaError as error:
        print_error(error)
        return 1
    return 0


_OTHER_NAMES = {"--hidethinking": "--hide-thinking", "--keepalive": "--keep-alive"}
_THINKING = {
    **dict.fromkeys(("true", "low", "medium", "high", "max"), "--think"),
    **dict.fromkeys(("false", "none"), "--no-think"),
}


def _as_known(arguments: list[str]) -> list[str]:
    """Return the arguments in the words of these commands; some come from users of Ollama."""
    if arguments[:1] == ["-v"]:
        return ["--version"]
    if arguments[:1] == ["help"]:
        return [*arguments[1:2], "--help"]
    if arguments[:1] == ["serve"]:
        return _as_known_to_serve(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    known = []
    for argument in arguments[:end]:
        name, _, value = argument.partition("=")
        if name == "--think" and value.lower() in _THINKING:
            known.append(_THINKING[value.lower()])
        elif name in _OTHER_NAMES:
            known.append(_OTHER_NAMES[name] + argument[len(name) :])
        else:
            known.append(argument)
    return known + arguments[end:]


def _as_known_to_serve(arguments: list[str]) -> list[str]:
    known: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--debug":
            known.append("--log-level=debug")
        elif argument.partition("=")[0] == "--processor":
            if argument == "--processor":
                next(rest, None)
            print_note("--processor is not needed: the SoC is detected.")
        elif argument.startswith("--keepalive"):
            known.append(argument.replace("--keepalive", "--keep-alive"))
        else:
            known.append(argument)
    return known


def _version(value: bool) -> None:
    if value:
        from . import __version__

        typer.echo(f"rkllama {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    models: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Use this models directory, even if a server is running."),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Run language models on the NPU of Rockchip boards.

    If a server is running (`rkllama serve`), the commands work through it; otherwise they do the work
    themselves. Set RKLLAMA_HOST if the server's address is not 127.0.0.1:8080.
    """
    del version  # its callback has answered
    global _models_dir
    _models_dir = models


def _settings() -> "Settings":
    from .config import load_settings

    return load_settings({"models": _models_dir})


def _service(command: str) -> "Service":
    """Return the running server if there is one, else this process."""
    settings = _settings()
    if _models_dir is None:
        from .client.discover import find_server, unused_settings

        server = find_server(settings)
        if server is not None:
            from .client.remote import RemoteService

            if command == "ps" or unused_settings(server, settings):
                from .console.list import say_server

                say_server(server, settings)
            return RemoteService(server)
    from .console.terminal import show_warnings
    from .engine.service import LocalService

    show_warnings()
    return LocalService(settings, f"rkllama {command}", exact_sampling=True)


def _model_names(incomplete: str) -> list[str]:
    """Return the names that the shell completes a model's name to."""
    from .console.list import collect

    try:
        names = [str(row["name"]) for row in collect()]
    except RKLLamaError:
        return []
    return [name for name in names if name.lower().startswith(incomplete.lower())]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The model's name as shown by `rkllama list`, or a unique prefix.",
        autocompletion=_model_names,
    ),
]


def _range(name: str) -> dict[str, Any]:
    """The bounds of an option, for Typer to show and to check."""
    low, high = NUMBER_BOUNDS[name]
    return {"min": low, "max": high}


def _least(name: str) -> int:
    """The smallest value of a whole number without a limit that is worth showing."""
    return INTEGER_BOUNDS[name][0]


# --- Answers -----------------------------------------------------------------------------------


@app.command()
def run(
    model: Model,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...",
            help="The prompt; text on stdin (or - on a terminal) precedes it. Without either, a chat starts.",
        ),
    ] = None,
    no_stdin: Annotated[
        bool, typer.Option("--no-stdin", help="Do not read stdin, as in a loop that reads it.")
    ] = False,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Set the system message.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="X", **_range("temperature"), help="Set the randomness; 0 is deterministic."
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=_least("top_k"), help="Sample only from the N most likely tokens."
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            **_range("top_p"),
            help="Sample from the top tokens whose probabilities add up to X.",
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            **_range("min_p"),
            help="Drop tokens less likely than X times the top one (CPU only).",
        ),
    ] = None,
    repeat_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="X", **_range("repeat_penalty"), help="Discourage repetition if X is above 1."
        ),
    ] = None,
    frequency_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            **_range("frequency_penalty"),
            help="Discourage tokens by how often they occur.",
        ),
    ] = None,
    presence_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            **_range("presence_penalty"),
            help="Discourage tokens that already occurred.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Use this seed, to get the same answer again (CPU only)."),
    ] = None,
    num_predict: Annotated[
        int | None,
        typer.Option(
            "--num-predict",
            "-n",
            metavar="N",
            min=_least("num_predict"),
            help="Generate at most N tokens; -1 fills the context.",
        ),
    ] = None,
    ctx: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=_least("num_ctx"),
            help="Set the context length (prompt and answer).",
        ),
    ] = None,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Let the model think before it answers, or not."),
    ] = None,
    hide_thinking: Annotated[
        bool, typer.Option("--hide-thinking", help="Do not show the model's thinking.")
    ] = False,
    nowordwrap: Annotated[
        bool, typer.Option("--nowordwrap", help="Do not wrap lines at word boundaries.")
    ] = False,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="json|FILE",
            help="Have the answer be JSON, of the JSON schema in FILE if one is named.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the answer and its figures as one JSON object."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show token counts and timings on stderr.")
    ] = False,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Set how long the idle model stays loaded, e.g. 5m; -1: forever.",
        ),
    ] = None,
    pull: Annotated[
        bool | None,
        typer.Option(
            "--pull/--no-pull",
            help="Fetch a model that is not here, or do not; by default a terminal asks.",
        ),
    ] = None,
) -> None:
    """Answer a prompt, or start a chat.

    MODEL may be the path of a .rkllm or .gguf file, such as ./model.gguf, which runs without a server.
    """
    wanted = _format(format)
    text = _prompt(prompt, no_stdin=no_stdin)
    if as_json and text is None:
        raise typer.BadParameter("it needs a prompt", param_hint="--json")
    from .commands.fetch import ensure_model
    from .console.one_file import service_for
    from .console.options import ChatOptions
    from .console.repl import Chat, answer_once

    options = _with_numbers(
        ChatOptions(
            system=system,
            think=think,
            hide_thinking=hide_thinking,
            keep_alive=_duration(keep_alive),
            verbose=verbose,
            wordwrap=not nowordwrap,
            format=wanted,
        ),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        seed=seed,
        num_predict=num_predict,
        num_ctx=ctx,
    )
    service, model = service_for(model, _settings().models, lambda: _service("run"))
    try:
        model = ensure_model(service, model, _settings(), decision=pull)

        def answer() -> None:
            if text is None:
                Chat(service, model, options, _settings().home).loop()
            else:
                answer_once(service, model, text, options, as_json=as_json)

        runtime.with_runtime(answer, service, _settings(), decision=pull)
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
    finally:
        service.close()


def _with_numbers(options: "ChatOptions", **numbers: float | None) -> "ChatOptions":
    for name, number in numbers.items():
        try:
            options = options.with_number(name, number)
        except InvalidRequest as error:
            # What Typer lets pass: NaN, and what is larger than it asks.
            raise typer.BadParameter(error.message) from None
    return options


def _format(text: str | None) -> Literal["json"] | dict[str, Any] | None:
    if text is None or text == "json":
        return "json" if text else None
    import json

    try:
        with open(text, encoding="utf-8") as stream:
            schema = json.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise typer.BadParameter(
            f"{text!r} is neither json nor a file with a JSON schema: {reason}",
            param_hint="--format",
        ) from None
    if not isinstance(schema, dict):
        raise typer.BadParameter(f"{text} holds no JSON schema", param_hint="--format")
    return schema


def _duration(text: str | None) -> float | None:
    if text is None:
        return None
    from .config import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a duration such as 30s, 5m or -1", param_hint="--keep-alive"
        ) from None


def _prompt(words: list[str] | None, *, no_stdin: bool) -> str | None:
    """Return the prompt: stdin's text, then the arguments; None on a terminal without arguments.

    An argument `-` asks for stdin, also for what is typed on a terminal.
    """
    from .console.inputs import check_no_picture, read_stdin

    # Bytes of a command line that are not UTF-8 arrive as lone surrogates, which nothing can encode.
    asked = "-" in (words or ())
    if asked and no_stdin:
        raise typer.BadParameter("- asks for stdin, which it refuses", param_hint="--no-stdin")
    typed = (
        " ".join(word for word in words or () if word != "-")
        .encode(errors="surrogateescape")
        .decode(errors="replace")
    )
    unread = no_stdin or (sys.stdin.isatty() and not asked)
    check_no_picture(typed)
    piped = "" if unread else read_stdin().strip()
    parts = [part for part in (piped, typed) if part.strip()]
    if not parts and (words or not sys.stdin.isatty()):
        raise typer.BadParameter("it is empty, and so is stdin", param_hint="PROMPT")
    return "\n\n".join(parts) if parts else None


# --- Models on disk ----------------------------------------------------------------------------


@app.command()
def pull(
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A name such as qwen3:4b, or USER/REPO[/FILE[/NAME]][@REVISION] on Hugging Face.",
        ),
    ] = None,
    unverified: Annotated[
        bool,
        typer.Option("--unverified", help="Take the file even if the Hub tells no hash of it."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what a name may mean, with scores.")
    ] = False,
    update: Annotated[
        bool,
        typer.Option("--update", help="Fetch newer files of the pulled models, or of MODEL alone."),
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="With --dry-run: do not use answers of the last hour.")
    ] = False,
) -> None:
    """Download a model, or resume an interrupted download."""
    from .commands.fetch import pull_model, show_candidates

    if update:
        from .commands.outdated import update_models

        update_models(_service("pull"), _settings(), reference)
        return
    if reference is None:
        raise typer.BadParameter("it is missing", param_hint="MODEL")
    if dry_run:
        show_candidates(_settings(), reference, refresh=refresh)
        return
    name = pull_model(_service("pull"), reference, unverified=unverified)
    sys.stderr.write(f"Done. Try it: rkllama run {name}\n")


app.command()(search)
app.add_typer(runtime.app)
app.command("import")(import_model)
app.command()(outdated)


@app.command("list")
def list_models(as_json: JSONFlag = False) -> None:
    """List the models on disk."""
    from .console.list import run

    raise typer.Exit(run(_models_dir, as_json=as_json))


app.command("ls", hidden=True)(list_models)


@app.command()
def show(
    model: Model,
    as_json: JSONFlag = False,
    modelfile: Annotated[
        bool, typer.Option("--modelfile", help="Print only the model's Modelfile.")
    ] = False,
    template: Annotated[
        bool, typer.Option("--template", help="Print only its chat template.")
    ] = False,
    parameters: Annotated[
        bool, typer.Option("--parameters", help="Print only its parameters.")
    ] = False,
    system: Annotated[
        bool, typer.Option("--system", help="Print only its system message.")
    ] = False,
    license: Annotated[bool, typer.Option("--license", help="Print only its license.")] = False,
) -> None:
    """Show the details of a model."""
    from .console.show import details_json, details_text, part_text

    given = {
        "modelfile": modelfile,
        "template": template,
        "parameters": parameters,
        "system": system,
        "license": license,
    }
    parts = [name for name, wanted in given.items() if wanted]
    if len(parts) + as_json > 1:
        raise typer.BadParameter("choose one of them", param_hint=f"--{parts[-1]}")
    details = _service("show").show(model)
    if parts:
        text = part_text(details, parts[0])
        sys.stdout.write(text + "\n" * (bool(text) and not text.endswith("\n")))
    elif as_json:
        sys.stdout.write(f"{details_json(details)}\n")
    else:
        write_styled(f"{details_text(details)}\n")


@app.command("info", hidden=True)
def _info(model: Model, as_json: JSONFlag = False) -> None:
    """Show the details of a model, as `show` does."""
    show(model, as_json=as_json)


@app.command("rm")
def remove(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="The full names of the models.", autocompletion=_model_names
        ),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Delete without asking for confirmation.")
    ] = False,
) -> None:
    """Delete models from disk; loaded ones are unloaded first."""
    service = _service("rm")
    ask = sys.stdin.isatty() and not yes
    failed = False
    wanted: list[ModelDetails | ModelIncomplete | str] = []
    for name in models:  # before anything is asked: a typo may change the answers
        try:
            wanted.append(service.show(name) if ask else name)
        except ModelIncomplete as incomplete:
            wanted.append(incomplete)
        except RKLLamaError as error:
            print_error(error)
            failed = True
    for model in wanted:
        try:
            sure = model if isinstance(model, str) else _confirmed(model)
            if sure is not None:
                sys.stderr.write(f"Deleted {service.remove(sure).name}\n")
        except RKLLamaError as error:
            print_error(error)
            failed = True
    raise typer.Exit(1 if failed else 0)


def _confirmed(details: "ModelDetails | ModelIncomplete") -> str | None:
    """Return the full name of the model, if the user wants it deleted."""
    from .console.output import human_size
    from .console.terminal import agreed
    from .files import link_target

    if isinstance(details, ModelIncomplete):
        what = f"incomplete, {human_size(details.completed)}"
        return details.name if agreed(f"Delete {details.name} ({what})?") else None
    info = details.info
    what = f"{info.file}, {human_size(info.size)}"
    if details.parent is not None:
        what = f"made from {details.parent}, which stays"
    elif (target := link_target(info.path)) is not None:
        what = f"a link; {target} stays"
    return info.name if agreed(f"Delete {info.name} ({what})?") else None


app.command("delete", hidden=True)(remove)


@app.command("cp")
def copy(
    model: Model,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The additional name.")],
) -> None:
    """Give a model another name, without using more disk space."""
    _service("cp").copy(model, name)
    sys.stderr.write(f"{name} is now another name for {model}\n")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the new model.")],
    file: Annotated[
        str,
        typer.Option("--file", "-f", metavar="FILE", help="Read this Modelfile; - is stdin."),
    ] = "Modelfile",
) -> None:
    """Create a model from a Modelfile, based on a model or a file."""
    from .console.inputs import read_modelfile
    from .console.progress import show_upload
    from .models.uploads import adapter_of, source_of

    text, models = read_modelfile(file), _settings().models
    service = _service("create")
    files, adapters = (
        [show_upload(service, path) for path in [find(text, file, models)] if path is not None]
        for find in (source_of, adapter_of)
    )
    info = service.create(name, text, files, adapters)
    sys.stderr.write(f"Created {info.name}. Try it: rkllama run {info.name}\n")


# --- Models in memory --------------------------------------------------------------------------


@app.command()
def ps(as_json: JSONFlag = False) -> None:
    """List the models in memory."""
    from .client.remote import RemoteService
    from .console.show import loaded_json, loaded_text

    service = _service("ps")
    loaded = service.loaded()
    if as_json:
        sys.stdout.write(loaded_json(loaded))
    else:
        write_styled(loaded_text(loaded))
    if not loaded:
        from .board.lock import describe_holder, holder

        # A server keeps the NPU's lock even without a model, so its lock says nothing here.
        owner = None if isinstance(service, RemoteService) else holder(_settings().lock)
        note = f"The NPU is in use by {describe_holder(owner)}." if owner else "No model is loaded."
        sys.stderr.write(f"{note}\n")


@app.command()
def stop(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="The model to unload; by default the one used last.",
            autocompletion=_model_names,
        ),
    ] = None,
) -> None:
    """Unload a model from memory."""
    try:
        info = _service("stop").unload(model)
    except NoModelLoaded:
        text = "no model is loaded" if model is None else f"{model} is not loaded"
        raise RKLLamaError(text) from None
    sys.stderr.write(f"Unloaded {info.name}\n")


app.command("unload", hidden=True)(stop)


@app.command("load", hidden=True)
def _load(model: Model) -> None:
    """Have the running server load a model."""
    from .client.remote import RemoteService

    service = _service("load")
    if not isinstance(service, RemoteService):
        raise RKLLamaError(
            "no server is running, and only a server keeps a model loaded",
            hint=f"Start one with the model: rkllama serve --model {model}",
        )
    sys.stderr.write(f"Loaded {service.load(model).info.name}\n")


@app.command("update", hidden=True)
def _update() -> None:
    """Tell how RKLLama is updated."""
    raise RKLLamaError(
        "RKLLama does not update itself",
        hint="Run the command that installed it once more, such as: pip install --upgrade rkllama",
    )


# --- Server ------------------------------------------------------------------------------------


@app.command()
def serve(
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
            autocompletion=_model_names,
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
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="Level: debug, info, warning or error. [default: info]"),
    ] = None,
) -> None:
    """Serve models over HTTP to Ollama, OpenAI and Anthropic clients."""
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
    """Return HOST:PORT from the two options; what is missing comes from the settings."""
    if host is None and port is None:
        return None
    from .config import load_settings, server_address

    given_host, given_port = server_address(host or load_settings().host)
    if host is not None and host.count(":") != 1 and "]:" not in host:
        given_port = server_address(load_settings().host)[1]
    name = f"[{given_host}]" if ":" in given_host else given_host
    return f"{name}:{given_port if port is None else port}"
