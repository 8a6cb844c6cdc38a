"""Reading what the user types: line editing, a history that outlives the chat, texts of several lines."""

from __future__ import annotations

import contextlib
import os
import readline
import sys
from collections.abc import Callable, Iterable

from ..files import make_directory, write_file

_FENCE = '"""'
_OPENERS = (_FENCE, f"/set system {_FENCE}")
_LIMIT = 1000
"""Texts of history that are kept."""
_NEWLINE = "\u2028"
"""What stands for a newline in the file of the history, in which each text has one line."""

Complete = Callable[[str], Iterable[str]]
"""Given what is typed up to the cursor, what the word there may become."""


class LineReader:
    """Texts from the terminal. `history` is the file of earlier ones, readable by its owner only."""

    def __init__(self, history: str, complete: Complete = lambda _: ()) -> None:
        self._history = history
        self._complete = complete
        self._choices: list[str] = []
        self._keep = True
        self._several = False
        readline.set_auto_history(False)
        # A pasted text of several lines is one text, not one question per line.
        readline.parse_and_bind("set enable-bracketed-paste on")
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        readline.set_completer_delims(" \n")
        readline.set_completer(self._choice)
        with contextlib.suppress(OSError):
            self._read_history()

    def _choice(self, word: str, number: int) -> str | None:
        """Return what readline offers for the word at the cursor: its n-th choice."""
        if number == 0:
            before = readline.get_line_buffer()[: readline.get_endidx()]
            self._choices = [text for text in self._complete(before) if text.startswith(word)]
        return self._choices[number] if number < len(self._choices) else None

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
            self._remember(text)
            return text
        self._several = True
        rest = self._rest(text[len(opener) :])
        self._remember(f"{opener}{rest}{_FENCE}")
        return opener[: -len(_FENCE)] + rest

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
        return input(prompt)

    def _read_history(self) -> None:
        with open(self._history, encoding="utf-8", errors="replace", newline="\n") as stream:
            lines = stream.read().split("\n")[:-1]
        for line in lines[-_LIMIT:]:
            readline.add_history(line.replace(_NEWLINE, "\n"))
        if len(lines) > 2 * _LIMIT:
            kept = "".join(f"{line}\n" for line in lines[-_LIMIT:])
            write_file(self._history, kept.encode(), 0o600)

    def _remember(self, text: str) -> None:
        last = readline.get_current_history_length()
        if not text.strip() or not self._keep or (last and readline.get_history_item(last) == text):
            return
        readline.add_history(text)
        line = text.replace("\n", _NEWLINE) + "\n"
        with contextlib.suppress(OSError):
            make_directory(os.path.dirname(self._history))
            # Only the new line: another chat may be writing its own at the same time.
            fd = os.open(self._history, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(fd, "wb") as stream:
                stream.write(line.encode(errors="replace"))
