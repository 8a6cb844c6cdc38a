"""Write the man pages: rkllama(1) and one for each command, made of what `--help` prints.

python tools/man_pages.py FOLDER
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cli_help import CONVENTIONS
from typer.main import get_command

from rkllama import __version__
from rkllama.cli import app

PROGRAM = "rkllama"


def pages() -> Iterator[tuple[str, str]]:
    """Every page as its file's name and its text."""
    group = get_command(app)
    context = group.make_context(PROGRAM, [], resilient_parsing=True)
    shown = list(_commands(group))
    others = [f"{PROGRAM}-{command.name}" for command in shown]
    yield f"{PROGRAM}.1", _page(PROGRAM, group, context, others)
    for command, name in zip(shown, others, strict=True):
        own = _context(command, context)
        yield f"{name}.1", _page(name, command, own, [PROGRAM])


def _page(name: str, command: Any, context: Any, others: list[str]) -> str:
    """A whole page: rkllama(1) names its commands, another group tells all of each of its own."""
    summary, *rest = _paragraphs(command.help)
    top = context.parent is None
    lines = [
        f'.TH "{_text(name.upper())}" "1" "{_date()}" "{PROGRAM} {__version__}" "User Commands"',
        '.SH "NAME"',
        _text(f"{name} - {summary.rstrip('.')}"),
        *_synopsis(command, context),
    ]
    if rest:
        lines += ['.SH "DESCRIPTION"', *_flowing(rest)]
    lines += _parameters(command, context)
    if top:
        lines.append('.SH "COMMANDS"')
    for child in _commands(command):
        lines += _child(child, context, brief=top)
    lines += ['.SH "EXIT STATUS"', *_flowing(_paragraphs(CONVENTIONS))]
    last = max(others)
    references = (
        f'.BR "{_text(other)}" "{"(1)" if other == last else "(1),"}"' for other in sorted(others)
    )
    return "\n".join([*lines, '.SH "SEE ALSO"', *references]) + "\n"


def _child(command: Any, context: Any, *, brief: bool) -> Iterator[str]:
    """One command of a group: a line that names its page, or all there is to say."""
    if brief:
        yield from (".TP", f"\\fB{_text(command.name)}\\fR", _text(_paragraphs(command.help)[0]))
        return
    own = _context(command, context)
    yield f'.SH "{_text(own.command_path.removeprefix(PROGRAM + " ")).upper()}"'
    yield from _synopsis(command, own)[1:]
    yield ".PP"
    yield from _flowing(_paragraphs(command.help))
    yield from _parameters(command, own, level="SS")
    for child in _commands(command):
        yield from _child(child, own, brief=False)


def _synopsis(command: Any, context: Any) -> list[str]:
    # Typer writes what is required as {FILE}; the braces are for choices, such as {RELEASE|auto}.
    words = [re.sub(r"^\{([^|]*)\}$", r"\1", w) for w in command.collect_usage_pieces(context)]
    usage = " ".join(map(_text, words))
    return ['.SH "SYNOPSIS"', f"\\fB{_text(context.command_path)}\\fR {usage}"]


def _parameters(command: Any, context: Any, level: str = "SH") -> Iterator[str]:
    """The arguments and the options, in the words of `--help`."""
    records: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            records[parameter.param_type_name].append(record)
    for kind, found in records.items():
        if found:
            yield f'.{level} "{kind.upper()}S"'
        for names, help_text in found:
            yield from (".TP", f"\\fB{_text(names)}\\fR", _text(help_text or ""))


def _commands(command: Any) -> Iterator[Any]:
    """The commands of a group that its help lists."""
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            child.name = name
            yield child


def _context(command: Any, parent: Any) -> Any:
    return command.make_context(command.name, [], parent=parent, resilient_parsing=True)


def _paragraphs(text: str | None) -> list[str]:
    return [
        " ".join(part.split())
        for part in re.split(r"\n\s*\n", (text or "").replace("\b", "").strip())
    ]


def _flowing(paragraphs: list[str]) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        yield _text(paragraph)


def _text(text: str) -> str:
    """Text as roff takes it: nothing in it is a request, and what stands in backticks is bold."""
    text = textwrap.fill(text, 76, break_long_words=False, break_on_hyphens=False)
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("…", r"\&...")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.M)


def _date() -> str:
    """The day of the release, for builds that can be repeated; else today."""
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def main(folder: str) -> None:
    """Write every page into `folder`."""
    os.environ["COLUMNS"] = "200"
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (Path(folder) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
