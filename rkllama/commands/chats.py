"""`rkllama chats`: the chats that were saved, which are no models."""

import sys
from typing import Annotated

import typer

from .common import JSONFlag, command_group, print_json, try_each
from .run import chat_names, converse, saved_chats

app = command_group("chats")

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The chat's name as `rkllama chats` shows it, or a unique prefix.",
        autocompletion=chat_names,
    ),
]


@app.callback()
def chats(context: typer.Context, as_json: JSONFlag = False) -> None:
    """List the saved chats; go on with one, show or delete one.

    In a chat, `/chat save NAME` saves it. Nothing is saved without being asked for.
    """
    if context.invoked_subcommand is None:
        list_chats(context, as_json)


@app.command("list")
def list_chats(context: typer.Context, as_json: JSONFlag = False) -> None:
    """List the saved chats, the one saved last first."""
    from ..console.output import print_note
    from ..repl.keeping import print_chats

    found = saved_chats(context)
    if not as_json:
        print_chats(found)
        return
    all_chats, passed_over = found.all()
    print_json(
        [
            {
                "name": chat.name,
                "model": chat.model,
                "messages": len(chat.messages),
                "saved": chat.saved,
                "title": chat.title,
            }
            for chat in all_chats
        ]
    )
    for text in passed_over:
        print_note(f"passed over: {text}.")


@app.command()
def resume(
    context: typer.Context,
    name: Name,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Go on with this model, not with its own."),
    ] = None,
) -> None:
    """Show what was said in a chat, and go on with it.

    `rkllama run --resume NAME` does the same and takes all options of `run`.
    """
    from ..console.options import ChatOptions

    converse(context, model, None, ChatOptions(), saved=saved_chats(context).get(name))


@app.command()
def show(context: typer.Context, name: Name, as_json: JSONFlag = False) -> None:
    """Print what was said in a chat."""
    from ..repl.conversation import show_messages
    from ..repl.saved import to_json

    chat = saved_chats(context).get(name)
    if as_json:
        print_json(to_json(chat))
    else:
        show_messages(chat.messages, sys.stdout)


@app.command("rm")
def remove(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="The full names of the chats.", autocompletion=chat_names
        ),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Delete without asking for confirmation.")
    ] = False,
) -> None:
    """Delete saved chats."""
    from ..console.terminal import agreed

    found = saved_chats(context)
    ask = sys.stdin.isatty() and not yes

    def delete(name: str) -> None:
        found.check(name)
        if not ask or agreed(f"Delete the chat {name}?"):
            found.remove(name)
            sys.stderr.write(f"Deleted the chat {name}\n")

    raise typer.Exit(0 if try_each(names, delete) else 1)
