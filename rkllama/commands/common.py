"""What several commands begin and end with: their settings, the service, a model's name, and JSON."""

import sys
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ..errors import RKLLamaError

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..client.remote import RemoteService
    from ..config import Settings
    from ..service import Service


def command_group(name: str, help: str | None = None) -> typer.Typer:
    """Return a command that has others below it; without a `help` its callback does something, and tells."""
    group = typer.Typer(
        name=name,
        add_completion=False,
        no_args_is_help=help is not None,
        invoke_without_command=help is None,
        rich_markup_mode=None,
    )
    if help is not None:
        group.info.help = help
    return group


def model_names(incomplete: str) -> list[str]:
    """Return the names that the shell completes a model's name to."""
    from ..console.list import collect

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
        autocompletion=model_names,
    ),
]
JSONFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings_of(context: typer.Context) -> "Settings":
    """Return the settings, with what stands before the command (`rkllama --models DIRECTORY …`)."""
    from ..config import load_settings

    return load_settings({"models": models_option(context)})


def models_option(context: typer.Context) -> str | None:
    """Return the directory of `rkllama --models DIRECTORY …`; it is used without a server."""
    directory: str | None = context.find_root().params.get("models")
    return directory


def service_of(context: typer.Context, command: str) -> "Service":
    """Return the running server if there is one, else this process."""
    server = server_of(context, always_said=False)
    if server is not None:
        return server
    from ..console.terminal import show_warnings
    from ..engine.service import LocalService

    show_warnings()
    return LocalService(settings_of(context), f"rkllama {command}", exact_sampling=True)


def server_of(context: typer.Context, *, always_said: bool) -> "RemoteService | None":
    """Return the running server if there is one that may be asked.

    A terminal is told which it is where settings of this command do not reach it, or always.
    """
    if models_option(context) is not None:
        return None
    from ..client.discover import find_server, unused_settings

    settings = settings_of(context)
    server = find_server(settings)
    if server is None:
        return None
    from ..client.remote import RemoteService

    if always_said or unused_settings(server, settings):
        from ..console.list import say_server

        say_server(server, settings)
    return RemoteService(server)


def print_json(values: object) -> None:
    """Print an answer for programs."""
    import json

    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def try_each(items: "Iterable[T]", action: "Callable[[T], object]") -> bool:
    """Do something with each; what fails is told, and keeps none of the others. Return whether all went."""
    from ..console.output import print_error

    done = True
    for item in items:
        try:
            action(item)
        except RKLLamaError as error:
            print_error(error)
            done = False
    return done
