"""Print docs/doctor.md: what each check of `rkllama doctor` asks, and what it says on boards of the tests.

python tools/doctor_page.py > docs/doctor.md
"""

from __future__ import annotations

import os
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from rkllama.config import load_settings
from rkllama.doctor.checks import BOARD, GROUPS, examine, name_of
from rkllama.doctor.finding import Check, Finding, Subject
from tests.boards import build_board, names, put_models, read_board

_COLUMNS = 110

INTRODUCTION = """\
# When something does not work: `rkllama doctor`

This page is generated from the checks and from the boards of the tests
(`python tools/doctor_page.py > docs/doctor.md`); none of it was seen on hardware.

```sh
rkllama doctor                 # everything; `sudo rkllama doctor` also sees what only root may see
rkllama doctor MODEL           # what this model needs
rkllama doctor --json          # for programs
rkllama doctor --fix           # cures what needs no root, and prints the rest as a script
rkllama doctor --report        # writes a file for a bug report, without keys, prompts and names of users
```

Each finding has a status: *good*; *warning*, it works, but slowly or not for long; *broken*; *unseen*, this
user cannot see it. What is not good comes with what should be there, where it was read, and the lines that
cure it. The exit code is 1 if something is broken, else 0. What has one cause is told once: without the
driver, nothing is said about its devices and clocks.

With `--json`, `version` is that of the form (now 1), `status` the worst one, and each of `findings` has
`group`, `check`, `status`, `title`, `found`, `good`, `advice`, `cure` (lines for a shell) and `source`; what
does not apply is null.

`RKLLAMA_SYSROOT=DIR` looks at the board whose `/proc`, `/sys`, `/dev` and `/usr/lib` lie below DIR, such as
the folder `sysroot` of a report; models, server, disk and network stay those of this machine.
"""


def page() -> str:
    """The whole document."""
    examples = _examples()
    parts = [INTRODUCTION]
    for group in GROUPS:
        parts.append(f"## {group.title}\n")
        parts += [_section(check, examples.get(name_of(check), [])) for check in group.checks]
    return "\n".join(parts)


def _section(check: Check, examples: list[Finding]) -> str:
    question = " ".join((check.__doc__ or "").split("\n\n")[0].split())
    lines = [f"**`{name_of(check)}`** – {question}", ""]
    if examples:
        lines += ["```text", *(line for one in examples for line in _lines(one)), "```", ""]
    return "\n".join(lines)


def _lines(finding: Finding) -> Iterator[str]:
    texts = (
        f"{finding.status}: {finding.title}: {finding.found}",
        f"  Good: {finding.good}.",
        f"  {finding.advice}" if finding.advice else "",
    )
    for text in texts:
        yield from textwrap.wrap(text, _COLUMNS, subsequent_indent="  ", break_long_words=False)
    for line in finding.cure:
        yield f"    {line}"


def _examples() -> dict[str, list[Finding]]:
    """What the checks of the board say where something is wrong, each text once."""
    found: dict[str, list[Finding]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name in names():
            if read_board(name).first is None:
                continue
            for one in _wrong(name, Path(directory)):
                mine = found.setdefault(one.check, [])
                if all(
                    (one.advice, len(one.cure)) != (seen.advice, len(seen.cure)) for seen in mine
                ):
                    mine.append(one)
    return found


def _kind(finding: Finding) -> tuple[object, ...]:
    return finding.status, finding.advice, len(finding.cure)


def _wrong(name: str, directory: Path) -> Iterator[Finding]:
    models = directory / f"{name}-models"
    put_models(name, models)
    os.environ["RKLLAMA_SYSROOT"] = str(build_board(name, directory))
    try:
        settings = load_settings({"models": str(models)}, environ={})
        for told in examine(Subject(settings=settings), BOARD):
            if told.finding.status in ("broken", "warning"):
                yield told.finding
    finally:
        del os.environ["RKLLAMA_SYSROOT"]


if __name__ == "__main__":
    sys.stdout.write(page())
