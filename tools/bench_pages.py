"""Write what the documents hold of measurements anew: the README's example, the rows of docs/results.md, and
docs/bench.schema.json.

python tools/bench_pages.py

The figures are those of the files in docs/results/, which `rkllama bench MODEL --json` has written.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from typer.testing import CliRunner

from rkllama.bench.cache.results import CacheReport
from rkllama.bench.report import markdown_head, markdown_row
from rkllama.bench.results import Report, read_report
from rkllama.bench.schema import schema_of
from rkllama.cli import app

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = "x86-64-smollm2-135m"
"""The file in docs/results/ that the README shows."""


def example() -> str:
    """What `rkllama bench` prints of the example."""
    return CliRunner().invoke(app, ["bench", str(DOCS / "results" / f"{EXAMPLE}.json")]).stdout


def rows() -> str:
    """The table of docs/results.md."""
    files = sorted((DOCS / "results").glob("*.json"))
    return markdown_head() + "".join(markdown_row(read_report(str(file))) for file in files)


def schema() -> str:
    """docs/bench.schema.json."""
    return json.dumps(schema_of(Report | CacheReport), indent=1) + "\n"


def main() -> None:
    """Write all three."""
    readme = DOCS.parent / "README.md"
    shown = re.sub(
        r"(<!-- bench -->\n```\n)(?:.*\n)*?(```\n)",
        lambda match: f"{match[1]}{example()}{match[2]}",
        readme.read_text(),
    )
    readme.write_text(shown)
    results = DOCS / "results.md"
    results.write_text(re.sub(r"(?m)^\|.*\n", "", results.read_text()).rstrip() + f"\n\n{rows()}")
    (DOCS / "bench.schema.json").write_text(schema())


if __name__ == "__main__":
    main()
