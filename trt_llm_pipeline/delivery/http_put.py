"""An upload by one HTTP PUT, as signed addresses of object stores take it.

Such addresses want the length first (S3's refuse chunked encoding), and a compressed stream's length is
known only at its end. The archive is reproducible, so it is made twice instead of stored: once to measure
it, once to send it.
"""

from __future__ import annotations

import http.client
import socket
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

from trt_llm_pipeline.delivery.destination import Destination, is_loopback
from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.net.connection import dial
from trt_llm_pipeline.net.failures import BadAddress

_TIMEOUT_SECONDS = 60.0
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class PutFailed(Exception):
    """One attempt failed.

    Attributes:
        passing: whether another attempt may succeed.
    """

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


class HttpPut:
    """One PUT whose body is written piece by piece. An archive's sink."""

    def __init__(self, destination: Destination, size: int) -> None:
        self._parts = urlsplit(destination.url)
        self._reach = destination.reach
        self._size = size
        self._connection: http.client.HTTPConnection | None = None

    def start(self) -> None:
        """Connect and send the head.

        Raises:
            PutFailed: no connection, or none is allowed.
        """
        host = self._parts.hostname or ""
        connection = _connection(self._parts, self._reach)
        try:
            connection.putrequest("PUT", _target(self._parts), skip_accept_encoding=True)
            connection.putheader("Content-Length", str(self._size))
            if host.endswith(".blob.core.windows.net"):
                connection.putheader("x-ms-blob-type", "BlockBlob")  # Azure refuses a PUT without it
            connection.endheaders()
        except BadAddress as refused:
            connection.close()
            raise PutFailed(str(refused), passing=False) from None
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            raise PutFailed(_reason(problem), passing=not is_loopback(host)) from None
        self._connection = connection

    def write(self, data: bytes | memoryview, /) -> None:
        """Send a piece.

        Raises:
            PutFailed: the server went away, or answered before it had read everything.
        """
        connection = self._open()
        try:
            connection.send(data)
        except OSError as problem:
            self._settle(problem)

    def finish(self) -> None:
        """Wait for the answer.

        Raises:
            PutFailed: it is not a success, or there is none.
        """
        self._settle(None)

    def abort(self) -> None:
        """Make a `write` in another thread fail."""
        if self._connection is not None and self._connection.sock is not None:
            with suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is None:
            raise PutFailed("not connected", passing=False)
        return self._connection

    def _settle(self, problem: OSError | None) -> None:
        """Judge by the server's answer; where there is none, by what went wrong while sending."""
        connection = self._open()
        try:
            response = connection.getresponse()
            status = response.status
            response.read(1 << 16)
        except (OSError, http.client.HTTPException) as silence:
            raise PutFailed(_reason(problem or silence), passing=True) from None
        if problem is None and 200 <= status < 300:
            return
        raise PutFailed(
            f"HTTP {status} {http.client.responses.get(status, '')}".rstrip(), passing=status in _TRY_AGAIN
        )


def ask(destination: Destination) -> None:
    """Asks whether anything answers at the address, by its head. What it answers does not matter.

    Raises:
        PutFailed: nothing does.
    """
    parts = urlsplit(destination.url)
    connection = _connection(parts, destination.reach)
    try:
        connection.request("HEAD", _target(parts))
        connection.getresponse().read(1)
    except BadAddress as refused:
        raise PutFailed(str(refused), passing=False) from None
    except (OSError, http.client.HTTPException) as problem:
        raise PutFailed(_reason(problem), passing=False) from None
    finally:
        connection.close()


def _connection(parts: SplitResult, reach: Reach) -> http.client.HTTPConnection:
    """A connection that is not open yet, and will be where it may be."""
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection: Any = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)

    def dialled(address: tuple[str, int], timeout: float, _source: object = None) -> socket.socket:
        return dial(*address, timeout, lambda _socket: None, reach)

    connection._create_connection = dialled
    made: http.client.HTTPConnection = connection
    return made


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _reason(problem: Exception) -> str:
    """What went wrong, in words that hold no part of the address."""
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return type(problem).__name__
