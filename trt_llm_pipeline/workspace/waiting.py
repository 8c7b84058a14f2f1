"""A lock file that is waited for, in words and interruptibly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

_NAP_S = 0.2
_SAY_EVERY_S = 60.0


@contextmanager
def waited_for(path: Path, what: str, log: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock file, which dies with its holder.

    Args:
        path: the file; its folder must exist.
        what: what is waited for where somebody else holds it, in words.
        log: is told so, once a minute.
    """
    lock = filelock.FileLock(str(path), timeout=0)
    said = -_SAY_EVERY_S
    while True:
        try:
            lock.acquire()
            break
        except filelock.Timeout:
            if time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                log(f"waiting for {what}")
            time.sleep(_NAP_S)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Holds a lock file if nobody else does; yields whether it is held."""
    lock = filelock.FileLock(str(path), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
