"""`rkllama cache`: the conversations that are saved on this board, for models to go on from."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RKLLamaError
from .common import JSONFlag, command_group, print_json, settings_of

if TYPE_CHECKING:
    from ..states.folder import Folder
    from ..states.header import Header

app = command_group(
    "cache", "List or delete the KV caches of conversations that are saved on the disk."
)


@app.command("list")
def list_states(context: typer.Context, as_json: JSONFlag = False) -> None:
    """List the saved conversations, the last used one first.

    A beginning is what several conversations share: system prompt and tools.
    """
    folder = _folder(context)
    found = sorted(folder.headers(), key=lambda each: each[2], reverse=True)
    if as_json:
        print_json([_as_json(*each) for each in found])
        return
    from ..console.output import human_size, human_time, table, write_styled

    rows = [
        (
            header.model,
            f"{header.tokens:,}",
            human_size(header.size),
            "beginning" if header.pinned else "conversation",
            human_time(used / 1e9),
            state,
        )
        for state, header, used in found
    ]
    head = ("MODEL", "TOKENS", "SIZE", "KIND", "USED", "ID")
    write_styled(table(head, rows, lesser=("ID", "KIND")))
    sys.stdout.flush()
    total = human_size(sum(header.size for _, header, _ in found))
    sys.stderr.write(f"{len(found)} saved, {total} in {folder.path}\n")


def _as_json(state: str, header: "Header", used: int) -> dict[str, object]:
    return {
        "id": state,
        "model": header.model,
        "tokens": header.tokens,
        "size": header.size,
        "pinned": header.pinned,
        "created": header.created,
        "used": used / 1e9,
    }


@app.command("clear")
def clear(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Only those of this model, by its full name."),
    ] = None,
) -> None:
    """Delete the saved conversations; their next prompts are evaluated anew."""
    from ..states.folder import Folder, trial_of

    folder = _folder(context)
    found = [
        (state, header) for state, header, _ in folder.headers() if model in (None, header.model)
    ]
    if model is not None and not found:
        raise RKLLamaError(
            f"no conversation of {model} is saved",
            hint="`rkllama cache list` shows those that are.",
        )
    for state, _ in found:
        folder.remove(state)
    if model is None:
        folder.forget_failed()
        Folder(trial_of(folder.path)).delete()  # what a `bench --cache` has left that was killed
    from ..console.output import human_size

    total = human_size(sum(header.size for _, header in found))
    what = "conversation" if len(found) == 1 else "conversations"
    sys.stderr.write(f"Deleted {len(found)} saved {what}, {total}\n")


def _folder(context: typer.Context) -> "Folder":
    from ..states.folder import Folder

    return Folder(settings_of(context).states)
