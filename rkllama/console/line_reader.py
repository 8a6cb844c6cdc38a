"""Reading what the user types: line editing, a history that outlives the chat, texts of several lines."""

from __future__ import annotations

import contextlib
import os
import readline
import sys

from ..files import make_directory

_FENCE = '"""'
_OPENERS = (_FENCE, f"/set system {_FENCE}")
_LIMIT = 1000
"""Lines of history that are kept."""


class LineReader:
    """Texts from the terminal. `history` is the file of earlier lines; readable by its owner only."""

    def __init__(self, history: str) -> None:
        self._history = history
        self._keep = True
        self._several = False
        readline.set_auto_history(False)
        readline.set_history_length(_LIMIT)
        # A pasted text of several lines is one text, not one question per line.
        readline.parse_and_bind("set enable-bracketed-paste on")
        with contextlib.suppress(OSError):
            readline.read_history_file(history)

    def keep_history(self, keep: bool) -> None:
        """Set whether further lines are remembered."""
        self._keep = keep

    def read(self) -> str | None:
        """Return the next text, "" for one that was discarded by Ctrl-C; None at the end of input."""
        try:
            return self._text()
        except EOFError:
            sys.stderr.write("\n")
            return None
        except KeyboardInterrupt:
            abandoned = self._several or readline.get_line_buffer().strip()
            sys.stderr.write("\n" if abandoned else "\nPress Ctrl-D or type /bye to leave.\n")
            return ""

    def _text(self) -> str:
        self._several = False
        text = self._line(">>> ").lstrip()
        opener = next((opener for opener in _OPENERS if text.startswith(opener)), None)
        if opener is None:
            return text
        self._several = True
        return opener[: -len(_FENCE)] + self._rest(text[len(opener) :])

    def _rest(self, line: str) -> str:
        """Return the lines up to the closing quotes."""
        lines = []
        while not line.rstrip().endswith(_FENCE):
            lines.append(line)
            line = self._line("... ")
        lines.append(line.rstrip()[: -len(_FENCE)])
        return "\n".join(lines).strip("\n")

    def _line(self, prompt: str) -> str:
        if not sys.stdout.isatty():
            # Python would write the prompt to stdout, into whatever collects the answers.
            sys.stderr.write(prompt)
            sys.stderr.flush()
            prompt = ""
        text = input(prompt)
        if text.strip() and self._keep:
            self._remember(text)
        return text

    def _remember(self, text: str) -> None:
        last = readline.get_current_history_length()
        if last and readline.get_history_item(last) == text:
            return
        readline.add_history(text)
        with contextlib.suppress(OSError):
            make_directory(os.path.dirname(self._history))
            # Only the new line: another chat may be writing its own at the same time.
            os.close(os.open(self._history, os.O_WRONLY | os.O_CREAT, 0o600))
            if hasattr(readline, "append_history_file"):
                readline.append_history_file(1, self._history)
            else:  # if libedit replaces readline
                readline.write_history_file(self._history)
