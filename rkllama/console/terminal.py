"""What a terminal needs: a spinner, quiet keys, questions, warnings, wrapped text."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

from .output import YELLOW, char_width, display_width, is_terminal, styled, write_styled
from .streams import control, printable

_DELAY, _PACE = 0.15, 0.1
"""Seconds until a spinner appears, so that what is quick doesn't flicker, and between two pictures."""

_NO_LINE_BEGINS_WITH = "、。，．：；？！）］｝」』】〉》〕ーぁぃぅぇぉっゃゅょァィゥェォッャュョ々…"


@contextlib.contextmanager
def quiet_keys() -> Iterator[None]:
    """Do not show what is typed in the middle of an answer; the next prompt shows it."""
    with _keys("ECHO"):
        yield


@contextlib.contextmanager
def single_keys() -> Iterator[int]:
    """Give each key at once, and do not show it; a descriptor to read them from, -1 without a terminal."""
    with _keys("ECHO", "ICANON") as fd:
        yield fd


@contextlib.contextmanager
def _keys(*unset: str) -> Iterator[int]:
    """Take these of termios' local modes from the terminal, whose descriptor this yields."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield -1
        return
    import termios

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    modes = before[3]
    for name in unset:
        modes &= ~getattr(termios, name)
    if _in_foreground(fd):
        termios.tcsetattr(fd, termios.TCSANOW, [*before[:3], modes, *before[4:]])
    try:
        yield fd
    finally:
        if _in_foreground(fd):
            termios.tcsetattr(fd, termios.TCSANOW, before)


def _in_foreground(fd: int) -> bool:
    """Return whether this job may set the terminal up; one in the background is stopped when it tries."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # it is not the terminal that controls this process
        return False


def can_ask() -> bool:
    """Return whether somebody sees a question and can answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str, *, default: bool = False) -> bool:
    """Ask the user a question; `default` is the answer of a mere Enter, and no that of Ctrl-D."""
    answer = ask(f"{question} [{'Y/n' if default else 'y/N'}] ")
    if answer == "\n":
        return default
    return answer.strip().lower() in ("y", "yes", "o", "oui")


def ask(question: str) -> str:
    """Return the line that the user types, with its end; "" for Ctrl-D."""
    answer = ""
    try:
        sys.stderr.write(question)
        sys.stderr.flush()
        answer = sys.stdin.readline()
    finally:
        if not answer.endswith("\n"):  # Ctrl-C or Ctrl-D: what comes next has a line of its own
            sys.stderr.write("\n")
    return answer


def say(text: str) -> None:
    """Write a sentence to stderr, broken between words on a terminal."""
    writer = WrappedText(sys.stderr, wrap=True)
    writer.write(f"{text}\n")
    writer.finish()


def show_warnings() -> None:
    """Have warnings written to stderr, on lines of their own: a spinner may be turning there."""
    import logging  # a command that works through a server does without

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if is_terminal(sys.stderr):
                control(sys.stderr, "\r\x1b[K")
            # A bar's library may stand in for stderr.
            text = printable(record.getMessage())
            write_styled(f"{styled(text, YELLOW, sys.stderr)}\n", sys.stderr)
            sys.stderr.flush()

    logging.basicConfig(level=logging.WARNING, handlers=[Lines()])


class Spinner:
    """Shows on stderr that something takes its time, from `start` to `stop`; only on a terminal.

    A text that is a function is asked for each picture, in a thread of its own.
    """

    def __init__(self, text: str | Callable[[], str]) -> None:
        self.text = text
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Spinner:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Have the spinner turn, also once more after `stop`; one that turns goes on."""
        if self._thread is None and is_terminal(sys.stderr):
            self._stopped.clear()
            thread = threading.Thread(target=self._spin, daemon=True)
            thread.start()  # Ctrl-C may keep it from starting: then there is none to wait for
            self._thread = thread

    def stop(self) -> None:
        """Remove the spinner; calling this again does nothing."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _spin(self) -> None:
        if self._stopped.wait(_DELAY):
            return
        fancy = (sys.stderr.encoding or "").lower().startswith("utf")
        frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if fancy else "-\\|/"
        turn = 0
        while True:
            text = printable(self.text if isinstance(self.text, str) else self.text())
            text = text[: shutil.get_terminal_size().columns - 3]
            control(sys.stderr, f"\r{frames[turn % len(frames)]} {text}\x1b[K")
            sys.stderr.flush()
            turn += 1
            if self._stopped.wait(_PACE):
                break
        control(sys.stderr, "\r\x1b[K")
        sys.stderr.flush()


class WrappedText:
    """Writes text that arrives in pieces, broken between words to the terminal's width.

    The last word is held back until it is complete. Between ``` lines nothing is broken: it is code.
    If the stream is not a terminal, or with `wrap` False, text goes out as it comes.
    """

    def __init__(self, stream: TextIO, wrap: bool) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._wrap = wrap and self._terminal
        self._column = self._gap = 0
        self._word = ""
        self._head = ""
        """What this line began with, as far as a fence can be told from it."""
        self._code = False

    def write(self, text: str) -> None:
        """Write some more."""
        text = printable(text) if self._terminal else text
        if self._wrap:
            for char in text:
                self._add(char)
        else:
            self._stream.write(text)
        self._stream.flush()

    def finish(self) -> None:
        """Write what is held back."""
        self._end_word()
        self._stream.flush()

    def _add(self, char: str) -> None:
        if char == "\n":
            self._end_line()
            return
        if len(self._head) < 3 and not (char == " " and not self._head):
            self._head += char
        if self._code:
            self._stream.write(char)
        elif char in " \t":
            self._end_word()
            self._gap += 1 if char == " " else 8 - (self._column + self._gap) % 8
        else:
            if self._may_break_before(char):
                self._end_word()
            self._word += char

    def _may_break_before(self, char: str) -> bool:
        """Return whether a line may begin with `char` though no space is before it: in scripts without
        spaces.
        """
        if not self._word or char in _NO_LINE_BEGINS_WITH:
            return False
        return char_width(char) == 2 or char_width(self._word[-1]) == 2

    def _end_line(self) -> None:
        self._end_word()
        self._stream.write("\n")
        if self._head == "```":
            self._code = not self._code
        self._column = self._gap = 0
        self._head = ""

    def _end_word(self) -> None:
        if not self._word:
            return
        columns = shutil.get_terminal_size().columns
        width = display_width(self._word)
        if self._column and self._column + self._gap + width > columns:
            self._stream.write("\n")
            self._column = 0
        else:
            self._stream.write(" " * self._gap)
            self._column += self._gap
        self._stream.write(self._word)
        self._column += width
        if self._column > columns:  # a word longer than a line: the terminal has broken it
            self._column %= columns
        self._word, self._gap = "", 0
