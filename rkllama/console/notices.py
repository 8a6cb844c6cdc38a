"""What this process logs as warnings, on the terminal of a command."""

from __future__ import annotations

import logging
import sys

from .terminal import is_terminal


def show_warnings() -> None:
    """Have warnings written to stderr, on lines of their own: a spinner may be turning there."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()])


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        wipe = "\r\x1b[K" if is_terminal(sys.stderr) else ""
        sys.stderr.write(f"{wipe}{record.getMessage()}\n")
        sys.stderr.flush()
