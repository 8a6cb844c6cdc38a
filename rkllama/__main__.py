"""The entry point: `rkllama` and `python -m rkllama`.

`list` and `--version` are answered before Typer is imported: on a small ARM core that import takes
longer than all the rest of the command.
"""

from __future__ import annotations

import gc
import io
import os
import sys


def main() -> int:
    """Run the command line and return the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    if sys.version_info < (3, 10):  # noqa: UP036 - a clone needs no installation
        sys.stderr.write(
            "Error: RKLLama needs Python 3.10 or newer; README.md tells how to get it.\n"
        )
        return 1
    _prepare_streams()
    try:
        try:
            return _run(sys.argv[1:])
        finally:
            sys.stdout.flush()  # at interpreter exit nobody could catch an exception raised by this
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # for example because the disk behind stdout is full
        from .console.output import forget_stdout

        forget_stdout()
        # Where the reader has gone there is nobody to tell.
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"Error: {error}\n")
        return 1


def _prepare_streams() -> None:
    """Open the null device for streams that the caller has closed; let the others take any character.

    Terminals get text only, whoever writes it: see console.streams.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            # The lowest free number is the stream's own: no other file must get it.
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - it stays open
        elif isinstance(stream, io.TextIOWrapper):
            # Not every terminal knows every character, nor does each one send UTF-8.
            stream.reconfigure(errors="replace")
            if name != "stdin" and stream.isatty():
                from .console.streams import guarded

                setattr(sys, name, guarded(stream))


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        from . import __version__

        sys.stdout.write(f"rkllama {__version__}\n")
        return 0
    if arguments in (["list"], ["ls"], ["list", "--json"], ["ls", "--json"]):
        gc.disable()  # it ends before there is anything to collect
        from .console.list import run

        return run(None, as_json="--json" in arguments)
    if arguments[:1] == ["governor-helper"]:  # root's part of the setting `governors`, for systemd
        from .board.governor_helper import main as serve_governors

        return serve_governors(arguments[1:])
    if "_RKLLAMA_COMPLETE" in os.environ:
        # A shell waits for completions. Typer would import rich, to take markup out of help texts that
        # have none: half of the time. None stands for a module that is not there.
        sys.modules["rich"] = None  # type: ignore[assignment]
    from .cli import run_app

    return run_app()


if __name__ == "__main__":
    sys.exit(main())
