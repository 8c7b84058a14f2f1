"""Ends this process when the process that started it is gone.

A server that is killed leaves the worker that it started running. The worker must not go on building for
nobody, and with it everything it has started.
"""

from __future__ import annotations

import os
import signal
import threading

_LOOK_EVERY_S = 0.5


def exit_when_orphaned() -> None:
    """Starts a daemon thread that kills this process once its parent is another one than now."""
    parent = os.getppid()
    never = threading.Event()

    def watch() -> None:
        while os.getppid() == parent:
            never.wait(_LOOK_EVERY_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
