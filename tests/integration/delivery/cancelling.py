"""Cancelling a delivery as Cog does, while the receiver takes nothing."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trt_llm_pipeline.server.cancellation import delivered


@contextmanager
def cancelled_once_stuck(stalled: threading.Event) -> Iterator[Callable[[int, int], None]]:
    """Raises KeyboardInterrupt in this thread when the receiver stalls and nothing more can be read.

    Args:
        stalled: is set by the receiver.

    Yields:
        What the delivery is to call with its progress.
    """
    here = ctypes.c_ulong(threading.get_ident())
    calls: list[int] = []

    def cancel() -> None:
        if not stalled.wait(60):
            return
        before = -1
        while len(calls) > before:
            before = len(calls)
            time.sleep(0.5)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(here, ctypes.py_object(KeyboardInterrupt))

    thread = threading.Thread(target=cancel)
    thread.start()
    with delivered(KeyboardInterrupt):
        yield lambda done, _total: calls.append(done)
    thread.join()
