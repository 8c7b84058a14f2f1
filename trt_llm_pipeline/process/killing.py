"""Ends a process that does not end by itself, and everything below it."""

from __future__ import annotations

import contextlib
import time

import psutil

_WITHIN_S = 5.0
_OVER = (None, psutil.STATUS_ZOMBIE)


def kill_tree(pid: int) -> None:
    """Kills a process, and before it what is below it: as long as it is there it inherits the orphans."""
    deadline = time.monotonic() + _WITHIN_S
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        while time.monotonic() < deadline:
            below = [one for one in top.children(recursive=True) if _state_of(one.pid) not in _OVER]
            if not below:
                break
            for process in below:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.01)
        top.kill()


def is_stopped(pid: int) -> bool:
    """Whether a process was sent SIGSTOP and has not been continued."""
    return _state_of(pid) == psutil.STATUS_STOPPED


def _state_of(pid: int) -> str | None:
    with contextlib.suppress(psutil.Error):
        return str(psutil.Process(pid).status())
    return None
