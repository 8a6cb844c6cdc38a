"""The commands: which there are, and how a command line becomes a call. Data goes to stdout, everything
else to stderr.

A command's module is imported when the command is run: each one is a Typer application in `commands/`, or
a function there. Annotations are values here and not strings (there is no `from __future__ import
annotations`): Typer would compile each string at every start.
"""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .errors import Cancelled, RKLLamaError

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Commands have those of the group."""

COMMANDS = {
    "run": ("run:run", "Answer a prompt, or start a chat."),
    "chats": ("chats:app", "List the saved chats; go on with one, show or delete one."),
    "pull": ("models:pull", "Download a model, or resume an interrupted download."),
    "search": ("hub.search:search", "Search Hugging Face for models that run on this board."),
    "list": ("models:list_models", "List the models on disk."),
    "show": ("models:show", "Show the details of a model."),
    "rm": ("models:remove", "Delete models from disk; loaded ones are unloaded first."),
    "ps": ("memory:ps", "List the models in memory."),
    "stop": ("memory:stop", "Unload a model from memory."),
    "serve": (
        "server.serve:serve",
        "Serve models over HTTP to Ollama, OpenAI and Anthropic clients.",
    ),
    "drain": (
        "server.drain:drain",
        "End the running server without losing an answer.",
    ),
    "doctor": (
        "doctor:doctor",
        "Find what keeps this board from running models, and say how to cure it.",
    ),
    "top": ("top:top", "Show clocks, load, temperatures, models and requests, live."),
    "bench": ("bench:bench", "Measure how fast a model reads prompts and writes answers."),
    "logs": ("logs:logs", "Show what the models' processes, or the server, have logged."),
    "config": (
        "config.settings:app",
        "Show the settings and where each was set; change them in config.toml.",
    ),
    "service": ("service.install:app", "Run the server as a service of systemd."),
    "runtime": ("hub.runtime:app", "Manage the releases of librkllmrt, the NPU's runtime."),
    "import": (
        "hub.importing:import_model",
        "Take in a model file of this machine, with what lies beside it.",
    ),
    "outdated": (
        "hub.outdated:outdated",
        "List the pulled models of which the Hub has a newer file.",
    ),
    "cp": ("models:copy", "Give a model another name, without using more disk space."),
    "create": ("models:create", "Create a model from a Modelfile, based on a model or a file."),
    "cache": (
        "cache:app",
        "List or delete the KV caches of conversations that are saved on the disk.",
    ),
    "fleet": ("fleet.app:app", "Put several boards behind one address, with HAProxy."),
    "embed": ("embed:embed", "Print the embeddings of texts, one JSON object per line."),
    "rerank": (
        "embed:rerank",
        "Print texts by how well they answer a query, one JSON object per line.",
    ),
}
"""In the order that a newcomer needs them: each command's module and function below `commands/`, and the
first sentence of its help.
"""

_HIDDEN = {
    "ls": "models:list_models",
    "info": "models:show",
    "delete": "models:remove",
    "unload": "memory:stop",
    "load": "memory:load",
    "update": "memory:update",
}
"""Names that users of other tools type."""


class _OnDemand(Mapping[str, Any]):
    """The commands by name, each imported when it is asked for; which Click's they are depends on Typer."""

    def __getitem__(self, name: str) -> Any:
        command = _load(COMMANDS[name][0] if name in COMMANDS else _HIDDEN[name])
        command.name, command.hidden = name, name in _HIDDEN
        return command

    def __iter__(self) -> Iterator[str]:
        return iter((*COMMANDS, *_HIDDEN))

    def __len__(self) -> int:
        return len(COMMANDS) + len(_HIDDEN)


class _Commands(TyperGroup):
    """The group, which needs no command to tell which there are.

    Typer reads the signature of every one at each start; on a small ARM core that takes longer than most
    commands.
    """

    def __init__(self, **values: Any) -> None:
        super().__init__(**{**values, "commands": _OnDemand()})

    def list_commands(self, _context: Any) -> list[str]:
        return [*COMMANDS]

    def format_commands(self, _context: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(import_module(f".commands.{module}", __package__), attribute)
    if not isinstance(found, typer.Typer):
        own = typer.Typer(add_completion=False, rich_markup_mode=None)
        own.command()(found)
        found = own
    command: Any = typer.main.get_command(found)
    for below in getattr(command, "commands", {}).values():  # Click would cut their sentences off
        below.short_help = below.get_short_help_str(_SENTENCE)
    return command


_SENTENCE = 200
"""Characters that the first sentence of a help text has at most."""

app = typer.Typer(
    name="rkllama",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would be imported for --help alone
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)


def run_app() -> int:
    """Run the command line and return the exit code; print our errors as one clear message.

    Typer itself exits with 2 for wrong usage and with 130 for Ctrl-C.
    """
    try:
        app(_as_known(sys.argv[1:]))
    except Cancelled:
        return 130
    except RKLLamaError as error:
        from .console.output import print_error

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
            from .console.output import print_note

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
    del models, version  # commands/common.py reads the one, the callback of the other has answered
