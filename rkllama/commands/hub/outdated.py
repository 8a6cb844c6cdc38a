"""`rkllama outdated`, and `pull --update`: which models have a newer file on the Hub, and fetching those."""

import os
import sys
from typing import TYPE_CHECKING

import typer

from ...errors import InvalidRequest, PullError
from ..common import JSONFlag, print_json, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...config import Settings
    from ...hub.updates import Pulled, Update
    from ...service import Service


def outdated(
    context: typer.Context,
    as_json: JSONFlag = False,
) -> None:
    """List the pulled models of which the Hub has a newer file."""
    from ...console.output import human_size, table, write_styled

    settings = settings_of(context)
    found, failed = _updates(settings, None)
    if as_json:
        rows = [
            {
                "name": update.pulled.name,
                "repo": update.pulled.repo,
                "file": update.pulled.file,
                "revision": update.pulled.revision,
                "size": update.pulled.size,
                "new_size": update.remote.size,
            }
            for update in found
        ]
        print_json(rows)
    elif found:
        cells = [
            (update.pulled.name, human_size(update.remote.size), update.pulled.repo)
            for update in found
        ]
        write_styled(table(("NAME", "SIZE", "FROM"), cells))
        sys.stdout.flush()
        sys.stderr.write("Fetch them: rkllama pull --update\n")
    elif not failed:
        sys.stderr.write("No pulled model is outdated.\n")
    if failed:
        raise typer.Exit(1)


def update_models(service: "Service", settings: "Settings", name: str | None) -> None:
    """Fetch the newer files of all pulled models, or of the one that is named."""
    from ...console.progress import show_progress

    found, failed = _updates(settings, name)
    for update in found:
        reference = update.pulled.reference
        show_progress(service.pull(reference), reference)
        sys.stderr.write(f"Updated {update.pulled.name}\n")
    if not found and not failed:
        sys.stderr.write("Nothing to update.\n")
    if failed:
        raise typer.Exit(1)


def _updates(settings: "Settings", name: str | None) -> "tuple[list[Update], bool]":
    """Return the models that the Hub has newer, and whether some could not be asked about, which is told."""
    from ...console.terminal import Spinner
    from ...hub.api import Hub
    from ...hub.updates import newer, pulled_models

    hub, found, failed = Hub(), [], False
    known = _named(list(pulled_models(os.path.realpath(settings.models))), name)
    with Spinner("Asking the Hub…") as spinner:
        for pulled in known:
            spinner.text = f"Asking the Hub: {pulled.name}"
            try:
                update = newer(hub, pulled)
            except PullError as error:
                sys.stderr.write(f"{pulled.name}: {error.text}\n")
                failed = True
                continue
            if update is not None:
                found.append(update)
    return found, failed


def _named(known: "list[Pulled]", name: str | None) -> "Iterator[Pulled]":
    if name is None:
        return iter(known)
    chosen = [pulled for pulled in known if pulled.name.lower() == name.lower()]
    if not chosen:
        raise InvalidRequest(
            f"'{name[:100]}' was not pulled", param="model", hint="`rkllama list` shows the models."
        )
    return iter(chosen)
