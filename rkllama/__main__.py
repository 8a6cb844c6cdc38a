"""The entry point: `rkllama` and `python -m rkllama`.

`list` and `--version` are answered before Typer is imported: on a small ARM core that import takes
longer than all the rest of the command.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; answers the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        return _run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        from . import __version__

        sys.stdout.write(f"rkllama {__version__}\n")
        return 0
    if arguments in (["list"], ["ls"], ["list", "--json"], ["ls", "--json"]):
        from .listing import run

        return run(None, as_json="--json" in arguments)
    from .cli import run_app

    return run_app()


if __name__ == "__main__":
    sys.exit(main())
