"""Print docs/cli.md: the help of every command, as `rkllama COMMAND --help` prints it.

python tools/cli_help.py > docs/cli.md
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ["COLUMNS"] = "100"

from typer.main import get_command

from rkllama.cli import app

CONVENTIONS = """\
Answers and data go to stdout, everything else to stderr. Exit status: 0 done, 1 failed, 2 wrong usage,
130 interrupted by Ctrl-C.
"""
INTRODUCTION = f"""\
# The command line

This page is generated from the program (`python tools/cli_help.py > docs/cli.md`).

{CONVENTIONS}"""


def page() -> str:
    """The whole document."""
    group = get_command(app)
    context = group.make_context("rkllama", [], resilient_parsing=True)
    parts = [INTRODUCTION, _section("rkllama", group.get_help(context))]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if command.hidden:
            continue
        own = command.make_context(name, [], parent=context, resilient_parsing=True)
        parts.append(_section(f"rkllama {name}", command.get_help(own)))
    return "\n".join(parts)


def _section(title: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return f"## `{title}`\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(page())
