"""A program on a real pseudo-terminal, and what a person would see on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte

COLUMNS, LINES = 80, 30
_WITHIN_S = 60.0
_QUIET_S = 0.04  # between two pictures there are 0.125 s
_PICTURES = re.compile(rb"(?=\r\x1b\[2K)")  # rich begins each by erasing the line it is in


class Screen:
    """A program whose stdin, stdout and stderr are one terminal. Use as a context manager.

    Attributes:
        seen: every picture that was drawn, also where several of them were read at once, and the last state.
        raw: all that it has written.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        columns: int = COLUMNS,
        cwd: Path | None = None,
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, LINES, history=1000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self._argv = list(map(str, argv))
        self._env = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **env}
        self._columns = columns
        self._cwd = cwd
        self.seen: list[str] = []
        self.raw = b""

    def __enter__(self) -> Screen:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, self._columns, 0, 0))
        try:
            self._process = subprocess.Popen(
                self._argv,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C arrives
            )
        finally:
            os.close(theirs)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._ours)

    @property
    def text(self) -> str:
        """The screen as it is, and above it what has scrolled away."""
        above = ["".join(line[x].data for x in range(self._columns)) for line in self._screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self._screen.display]).rstrip()

    def row(self, name: str) -> str:
        """The line of the screen that shows a stage; empty where there is none."""
        return next((line for line in self.text.splitlines() if line[1:].split()[:1] == [name]), "")

    def color(self, text: str) -> str:
        """In which color that text is shown."""
        for y, line in enumerate(self._screen.display):
            if (x := line.find(text)) >= 0:
                return str(self._screen.buffer[y][x].fg)
        raise AssertionError(f"{text!r} is not on the screen:\n{self.text}")

    def type(self, text: str) -> None:
        """Types on the keyboard."""
        os.write(self._ours, text.encode())

    def until(self, condition: Callable[[Screen], bool], what: str) -> Screen:
        """Waits until the screen is as wanted, and not being written just now."""
        deadline = time.monotonic() + _WITHIN_S
        while self._is_written() or not condition(self):
            assert self._read(deadline), f"{what}; the screen when the program ended:\n{self.text}"
            assert time.monotonic() < deadline, f"{what}; the screen after a minute:\n{self.text}"
        return self

    def end(self) -> int:
        """Waits for the program's end; its exit code."""
        deadline = time.monotonic() + _WITHIN_S
        while self._read(deadline):
            assert time.monotonic() < deadline, self.text
        return self._process.wait(_WITHIN_S)

    def _is_written(self) -> bool:
        return bool(select.select([self._ours], [], [], _QUIET_S)[0])

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return True
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:  # nobody has the terminal open any more
            return False
        self.raw += data
        for drawn in _PICTURES.split(data):
            self._stream.feed(drawn)
            if not self.seen or self.seen[-1] != self.text:
                self.seen.append(self.text)
        return bool(data)
