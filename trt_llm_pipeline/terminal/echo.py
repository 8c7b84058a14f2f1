"""Ctrl-C at a terminal without `^C`, which would move what is drawn there."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LOCAL_FLAGS = 3  # in what tcgetattr returns


@contextmanager
def unseen_controls() -> Iterator[None]:
    """While it is open, control characters that are typed are not shown as `^` and a letter."""
    fd = _own_terminal()
    if fd is None:
        yield
        return
    shown = termios.tcgetattr(fd)[_LOCAL_FLAGS] & termios.ECHOCTL
    _set(fd, 0)
    try:
        yield
    finally:
        if _own_terminal() is not None:
            _set(fd, shown)


def _own_terminal() -> int | None:
    """stdin, where it is a terminal that this process may set: one in the background would be stopped."""
    with suppress(OSError, ValueError, AttributeError):
        fd = sys.stdin.fileno()
        if os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp():
            return fd
    return None


def _set(fd: int, shown: int) -> None:
    with suppress(termios.error):
        flags = termios.tcgetattr(fd)
        flags[_LOCAL_FLAGS] = (flags[_LOCAL_FLAGS] & ~termios.ECHOCTL) | shown
        termios.tcsetattr(fd, termios.TCSADRAIN, flags)
