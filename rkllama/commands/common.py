"""What several commands begin and end with: their settings, and JSON."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..config import Settings

JSONFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings_of(context: typer.Context) -> "Settings":
    """Return the settings, with what stands before the command (`rkllama --models DIRECTORY …`)."""
    from ..config import load_settings

    return load_settings({"models": context.find_root().params.get("models")})


def print_json(values: object) -> None:
    """Print an answer for programs."""
    import json

    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
