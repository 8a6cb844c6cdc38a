"""`rkllama` on a terminal of its own: what it writes is waited for, never slept for."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Mapping, Sequence

from tests import prepared
from tests.running import LIMIT

_SPINNER = re.compile(r"\r[^\r\n]*\x1b\[K")
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CTRL_C, CTRL_D, CTRL_Z, UP = "\x03", "\x04", "\x1a", "\x1b[A"
RKLLAMA = (sys.executable, "-m", "rkllama")


class Terminal:
    """A command on a pseudo-terminal. `screen` is what it wrote without control sequences."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        columns: int = 80,
        program: Sequence[str] = RKLLAMA,
    ) -> None:
        self._command = [*program, *arguments]
        self._env = {"TERM": "xterm", **(env or {})}
        self._columns = columns
        self.raw = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._seen = 0

    def __enter__(self) -> Terminal:
        self._fd, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self._columns, 0, 0))
        try:
            self.process = prepared.Popen(
                self._command,
                stdin=other,
                stdout=other,
                stderr=other,
                env={**os.environ, **self._env},
                start_new_session=True,
                terminal=True,  # so that Ctrl-C works
            )
        finally:
            os.close(other)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT)
        os.close(self._fd)

    @property
    def screen(self) -> str:
        """All that was written and not wiped away again, without control sequences."""
        return _SEQUENCE.sub("", _SPINNER.sub("", self.raw)).replace("\r", "")

    def type(self, text: str | bytes) -> None:
        """Press keys."""
        os.write(self._fd, text.encode() if isinstance(text, str) else text)

    def resize(self, columns: int) -> None:
        """Make the terminal so wide; the kernel tells the command."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def interrupt(self, text: str) -> str:
        """Press Ctrl-C at a prompt and wait for `text`, as `expect` does.

        Python's input() sleeps on when the signal comes just before it waits for a key: then, as a
        user would, press again.
        """
        for patience in (3.0, 3.0, LIMIT):
            self.type(CTRL_C)
            try:
                return self.expect(text, patience)
            except AssertionError:
                if patience == LIMIT:
                    raise
        raise AssertionError("unreachable")

    def expect(self, text: str, limit: float = LIMIT) -> str:
        """Wait until `text` appears after what was expected last; answers what came up to its end."""
        deadline = time.monotonic() + limit
        while (found := self.screen.find(text, self._seen)) < 0:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} did not come: {self.screen[self._seen :]!r}")
        begin, self._seen = self._seen, found + len(text)
        return self.screen[begin : self._seen]

    def expect_raw(self, text: str) -> None:
        """Wait until this has been written, control sequences included."""
        deadline = time.monotonic() + LIMIT
        while text not in self.raw:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} did not come: {self.raw!r}")

    def expect_spinner(self, text: str) -> None:
        """Wait until the spinner says this."""
        deadline = time.monotonic() + LIMIT
        while text + "\x1b[K" not in self.raw:
            if not self._read(deadline):
                raise AssertionError(f"no spinner said {text!r}: {self.raw!r}")

    def ask(self, text: str) -> str:
        """Type a line and wait for the next prompt; answers what came after the line."""
        self.type(text + "\n")
        self.expect(text.splitlines()[-1])
        return self.expect(">>> ").removesuffix(">>> ").strip("\n")

    def end(self) -> int:
        """Wait for the command's end; answers its exit status."""
        deadline = time.monotonic() + LIMIT
        while self._read(deadline):
            pass
        return self.process.wait(LIMIT)

    def _read(self, deadline: float) -> bool:
        """Read some more; False at the end, and when the time is over."""
        if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # Linux's way to say that nobody has the terminal open any more
            return False
        self.raw += self._decoder.decode(data)  # a read may end within a character
        return bool(data)
