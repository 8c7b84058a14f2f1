"""Sees to it that a cancellation reaches the thread it is meant for.

Cog cancels a prediction by raising an exception in the thread that runs it, with
`PyThreadState_SetAsyncExc`. Up to Python 3.11 a thread that is just being started bears the identifier of
the thread that starts it until it runs (CPython `init_threadstate`), and is found first: the new thread dies
of the exception at its first instruction, the starter waits for it for ever, and the server stays BUSY. Who
starts a bare thread sees to it that the wait is none for ever, as `process.tree` does.
An exception that is raised in a destructor is lost in the same way, in every version.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

_LOOK_EVERY_S = 0.001


@contextmanager
def delivered(cancellation: type[BaseException]) -> Iterator[None]:
    """While it is open, a `cancellation` that is lost elsewhere is raised in the calling thread after all."""
    meant_for = threading.get_ident()
    before = sys.unraisablehook

    def send_again(lost: Any) -> None:
        if lost.exc_type is None or not issubclass(lost.exc_type, cancellation):
            before(lost)
        elif threading.get_ident() == meant_for:  # sent from here, it would be lost once more
            again = (meant_for, lost.exc_type, send_again.__code__)
            threading.Thread(target=_raise_outside, args=again, daemon=True).start()
        else:
            _raise_in(meant_for, lost.exc_type)
            thread = getattr(lost.object, "__self__", None)
            if isinstance(thread, threading.Thread):
                thread._started.set()  # type: ignore[attr-defined]  # its starter waits for this, without limit

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _raise_outside(thread: int, error: type[BaseException], code: CodeType) -> None:
    """Raises an error in a thread once that has left `code`."""
    while _runs(thread, code):
        time.sleep(_LOOK_EVERY_S)
    _raise_in(thread, error)


def _runs(thread: int, code: CodeType) -> bool:
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _raise_in(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
