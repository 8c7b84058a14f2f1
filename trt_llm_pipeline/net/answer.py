"""What goes around a body is bounded: heads, interim answers, chunk sizes, trailers.

`http.client` waits for the end of each for as long as a byte comes now and then, and takes a negative size of
a chunk for one. Bodies are limited by whoever reads them.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

from trt_llm_pipeline.net.failures import BrokenAnswer

# Up to here the buffer that http.client reads the head with may hold bytes of the body.
HEAD_BUFFER = 8192
# In all, of what may pass between two bytes.
_SILENCES = 3
_MOST_BYTES = 1 << 20
_LONGEST_LINE = 4096
_MOST_TRAILERS = 100
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


class _Watched(io.RawIOBase):
    """A socket's stream that gives up what comes too slowly or without end, for as long as it is told to.

    Raises:
        TimeoutError: it took too long.
        BrokenAnswer: it was too much.
    """

    def __init__(self, raw: io.RawIOBase, silence: float | None) -> None:
        super().__init__()
        self._raw, self._seconds = raw, None if silence is None else silence * _SILENCES
        self._watching = False
        self._deadline = float("inf")
        self._left = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        count = self._raw.readinto(buffer)
        if self._watching:
            self._left -= count or 0
            if self._left < 0:
                raise BrokenAnswer("the server's answer has a head without an end")
            if time.monotonic() > self._deadline:
                raise TimeoutError("its head did not come to an end")
        return count

    def watch(self) -> None:
        """From now on; see `unwatch`."""
        self._watching, self._left = True, _MOST_BYTES
        self._deadline = float("inf") if self._seconds is None else time.monotonic() + self._seconds

    def unwatch(self) -> None:
        self._watching = False

    def close(self) -> None:
        self._raw.close()
        super().close()


class Answer(http.client.HTTPResponse):
    """An answer whose head must come to an end."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._watched = _Watched(self.fp.detach(), sock.gettimeout())
        self.fp = io.BufferedReader(self._watched, HEAD_BUFFER)
        self._watched.watch()

    def begin(self) -> None:
        super().begin()
        self._watched.unwatch()

    @contextlib.contextmanager
    def watched(self) -> Iterator[io.BufferedReader]:
        """The stream, while something is read that must come to an end."""
        self._watched.watch()
        yield self.fp
        self._watched.unwatch()


class Chunks:
    """The body of an answer in chunks (RFC 9112, 7.1).

    Attributes:
        ended: it was read to its end, trailers included.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._left = 0
        self._begun = False
        self.ended = False

    def receive(self, into: memoryview) -> int:
        """Fills the memory with what is there, waiting for the first byte; returns how many, 0 at the end.

        Raises:
            BrokenAnswer: these are no chunks.
            http.client.IncompleteRead: it was cut off.
            OSError: the network failed.
        """
        if not self._left and not self.ended and into:
            self._next()
        if self.ended or not into:
            return 0
        count = self._answer.fp.readinto1(into[: self._left])
        if not count:
            raise http.client.IncompleteRead(b"", self._left)
        self._left -= count
        return count

    def _next(self) -> None:
        with self._answer.watched() as stream:
            if self._begun and self._line(stream) not in (b"\r\n", b"\n"):
                raise BrokenAnswer("the server's answer has a chunk that is longer than it says")
            self._begun = True
            size = _SIZE.fullmatch(self._line(stream))
            if size is None:
                raise BrokenAnswer("the server's answer has a chunk whose size is no number")
            self._left = int(size[1], 16)
            if not self._left:
                self._read_trailers(stream)
                self.ended = True

    def _read_trailers(self, stream: io.BufferedReader) -> None:
        for _ in range(_MOST_TRAILERS + 1):
            line = stream.readline(_LONGEST_LINE)
            if line in (b"\r\n", b"\n", b""):  # some servers leave the last line out
                return
        raise BrokenAnswer("the server's answer has no end of lines after its last chunk")

    def _line(self, stream: io.BufferedReader) -> bytes:
        line = stream.readline(_LONGEST_LINE)
        if not line:
            raise http.client.IncompleteRead(b"")
        return line
