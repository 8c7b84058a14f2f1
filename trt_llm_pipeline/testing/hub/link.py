"""The line between the loopback Hub and its clients: how fast, how far, how reliable."""

from __future__ import annotations

import random
import socket
import threading
import time
from dataclasses import dataclass
from typing import BinaryIO

_CHUNK_SECONDS = 0.004
_SMALLEST_CHUNK = 1 << 16


@dataclass(frozen=True)
class Link:
    """What a connection to the Hub is like. The default is the bare loopback.

    Attributes:
        bytes_per_second: what one connection carries at most, as wide-area storage limits it; None is all.
        latency: seconds that pass before a new connection is answered, and before every answer.
        cut_share: of all connections, how many are cut at a random byte of a body; 0 to 1.
        most_requests: beyond so many downloads at once, HTTP 503 is answered; None is no limit.
        seed: which connections are cut, and where.
    """

    bytes_per_second: float | None = None
    latency: float = 0.0
    cut_share: float = 0.0
    most_requests: int | None = None
    seed: int = 0


class LinkState:
    """A link in use by a server's threads.

    Attributes:
        most: how many downloads there have been at once.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self._random = random.Random(link.seed)  # noqa: S311  which connections are cut, nothing secret
        self._lock = threading.Lock()
        self._busy = 0
        self.most = 0

    def is_cut(self) -> bool:
        """Whether a new connection is one of those that will be cut."""
        with self._lock:
            return self._random.random() < self.link.cut_share

    def cut_after(self, start: int, end: int) -> int:
        """Where in a body to cut."""
        with self._lock:
            return self._random.randrange(start, max(start + 1, end))

    def admit(self) -> bool:
        """Counts a download that begins; False where there are too many."""
        with self._lock:
            if self.link.most_requests is not None and self._busy >= self.link.most_requests:
                return False
            self._busy += 1
            self.most = max(self.most, self._busy)
            return True

    def leave(self) -> None:
        """The download has ended."""
        with self._lock:
            self._busy -= 1

    def send(self, connection: socket.socket, stream: BinaryIO, start: int, end: int) -> None:
        """Sends part of a file, at the link's speed."""
        rate = self.link.bytes_per_second
        if rate is None:
            connection.sendfile(stream, start, end - start)
            return
        began, sent = time.monotonic(), 0
        chunk = max(_SMALLEST_CHUNK, int(rate * _CHUNK_SECONDS))
        while start + sent < end:
            count = min(chunk, end - start - sent)
            connection.sendfile(stream, start + sent, count)
            sent += count
            early = began + sent / rate - time.monotonic()
            if early > 0:
                time.sleep(early)
