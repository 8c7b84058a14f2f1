"""Stopping what waits: threads that wait for the network, and the main thread that waits for them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_TURN_SECONDS = 0.1


class Stopped(Exception):
    """The stop switch was thrown."""


class StopSwitch:
    """Tells threads to stop and wakes those that wait on a socket."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    def throw(self) -> None:
        self._event.set()
        with self._lock:
            for connection in self._sockets:
                # The plain socket's shutdown: an SSL socket's own would first take its layer apart.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    @property
    def thrown(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Stopped once the switch was thrown."""
        if self._event.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Sleeps unless and until the switch is thrown; then raises Stopped."""
        if self._event.wait(seconds):
            raise Stopped

    def hold(self, connection: socket.socket) -> None:
        """From now on the switch shuts this socket down, in the middle of connecting as well."""
        with self._lock:
            self._sockets.add(connection)
        self.check()

    def release(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)


def run_interruptibly(work: Callable[[], T]) -> T:
    """Runs a blocking call in a thread of its own and waits for it in short turns.

    An exception that another thread sets in this one (a cancelled prediction) arrives between two byte codes
    only: without this, it would wait for the call. A call that is abandoned ends at its own time limit.
    """
    outcome: list[tuple[T | None, BaseException | None]] = []
    done = threading.Event()

    def call() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:  # noqa: BLE001  handed to the caller
            outcome.append((None, error))
        done.set()

    threading.Thread(target=call, name="model-source-request", daemon=True).start()
    while not done.wait(_TURN_SECONDS):
        pass
    value, error = outcome[0]
    if error is not None:
        raise error
    result: Any = value
    return result  # type: ignore[no-any-return]
