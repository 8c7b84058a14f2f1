"""An address read from its first byte to its last: fetched ahead in ranges, in bounded memory, hashed."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator

from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.net.client import Client, Response
from trt_llm_pipeline.net.connection_limit import MOST_CONNECTIONS
from trt_llm_pipeline.net.failures import BrokenAnswer
from trt_llm_pipeline.net.pool import Pool
from trt_llm_pipeline.net.ranged import UNKNOWN_SIZE
from trt_llm_pipeline.net.retrying import Patience, RetryLimits, nap, retry
from trt_llm_pipeline.net.stopping import StopSwitch, run_interruptibly
from trt_llm_pipeline.net.window import MOST_PIECES, PIECE, Piece, Window, Wording, judge

_TURN_SECONDS = 0.1
_JOIN_SECONDS = 2.0
_HEADERS = {"Accept-Encoding": "identity"}


def _nothing() -> None:
    """For readers with nothing to do meanwhile."""


class ReadAhead:
    """Reads an address over several connections, in order. `open` first; then use as a context manager.

    Args:
        url: http or https.
        wording: see there.
        limits: for every range by itself.
        opening: for the first answer.
        log: is told each failed attempt, in the calling thread.
        reach: which addresses may be connected to.
        connections: at most so many at once.
        hashed: whether `sha256` is wanted.
    """

    def __init__(
        self,
        url: str,
        wording: Wording,
        *,
        limits: RetryLimits,
        opening: RetryLimits | None = None,
        log: Callable[[str], None],
        reach: Reach,
        connections: int = MOST_CONNECTIONS,
        hashed: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._wording, self._log, self._clock = url, wording, log, clock
        self._limits, self._opening, self._connections = limits, opening or limits, connections
        self._hashed = hashed
        self._stop = StopSwitch()
        self._events: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
        self._client = Client(self._stop, silence=self._opening.silence, reach=reach)
        self._response: Response | None = None
        self._pool: Pool | None = None
        self._source: Window | None = None
        self._hasher: _Hasher | None = None
        self.headers: dict[str, str] = {}
        self.length: int | None = None

    def open(self) -> None:
        """Asks for it and waits for the answer's head, which is in `headers` and `length` then.

        Raises:
            TrtLlmPipelineError: see Wording.
        """
        shown = self._wording.shown

        try:
            self._response = retry(
                lambda: run_interruptibly(self._ask),
                Patience(self._opening, self._clock),
                judge=lambda error: judge(error, self._wording),
                given_up=lambda reason: self._wording.unavailable(
                    f"{shown} could not be downloaded: {reason}"
                ),
                say=lambda problem, announcement: self._log(f"{shown}: {problem.reason}; {announcement}"),
                wait=nap,
            )
        except BaseException:
            self.__exit__()
            raise
        self.headers, self.length = self._response.headers, self._response.length

    def _ask(self) -> Response:
        response = self._client.open(self._url, _HEADERS)
        if response.status != 200:
            response.__exit__()
            raise BrokenAnswer(f"the server answered HTTP {response.status}")
        return response

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.throw()
        if self._hasher is not None:
            self._hasher.join(_JOIN_SECONDS)
        if self._pool is not None:
            self._pool.__exit__()
        if self._response is not None:
            self._response.__exit__()
        self._client.__exit__()

    @property
    def done(self) -> int:
        """How many bytes are there, in order or not."""
        return 0 if self._source is None else self._source.ranges.done

    @property
    def received(self) -> int:
        """How many bytes came over the network."""
        return 0 if self._pool is None else self._pool.received

    @property
    def sha256(self) -> str:
        """Of all the bytes, once `chunks` is exhausted."""
        if self._hasher is None:
            raise RuntimeError("nothing was hashed")
        while self._hasher.is_alive():
            self._hasher.join(_TURN_SECONDS)
            self._tell()
        return self._hasher.digest.hexdigest()

    def chunks(self, tick: Callable[[], None] = _nothing) -> Iterator[memoryview]:
        """The bytes in order. A chunk's memory is used again when the next one is asked for.

        Args:
            tick: called several times a second while nothing is there to be given; may raise.

        Raises:
            TrtLlmPipelineError: see Wording.
        """
        if self._response is None:
            raise RuntimeError("open it first")
        self._client.silence = self._limits.silence
        self._pool = pool = Pool(
            self._client,
            self._stop,
            self._limits,
            connections=min(self._connections, MOST_PIECES),
            failed=self._events.put,
            clock=self._clock,
        )
        self._source = source = Window(
            self._url, self._response, self._wording, pool, self._events.put, hashed=self._hashed
        )
        if self._hashed:
            self._hasher = _Hasher(source, pool, self._events.put)
            self._hasher.start()
        pool.add(source)
        pool.start(1 + min(source.ranges.size // PIECE, MOST_PIECES))
        for index in range(UNKNOWN_SIZE):
            while (piece := source.piece(index)) is None and not source.is_end(index):
                self._tell()
                with pool.lock:
                    if source.piece(index) is None and not source.is_end(index):
                        pool.ready.wait(_TURN_SECONDS)
                tick()
            self._tell()
            if piece is None:
                return
            yield piece.content
            source.consumed(piece)

    def _tell(self) -> None:
        """Says what the threads had to say, in the calling thread."""
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return
            if isinstance(event, BaseException):
                raise event
            self._log(event)


class _Hasher(threading.Thread):
    """Hashes the pieces in order, beside the network's threads and the reader."""

    def __init__(self, source: Window, pool: Pool, failed: Callable[[BaseException], None]) -> None:
        super().__init__(name="model-hash", daemon=True)
        self.digest = hashlib.sha256()
        self._source, self._pool, self._failed = source, pool, failed

    def run(self) -> None:
        try:
            for index in range(UNKNOWN_SIZE):
                piece = self._wait_for(index)
                if piece is None:
                    return
                self.digest.update(piece.content)
                self._source.consumed(piece)
        except BaseException as error:  # noqa: BLE001  raised in the caller's thread
            self._failed(error)

    def _wait_for(self, index: int) -> Piece | None:
        with self._pool.lock:
            while (piece := self._source.piece(index)) is None:
                if self._source.is_end(index) or self._pool.stopped:
                    return None
                self._pool.ready.wait(_TURN_SECONDS)
            return piece


class AddressFile:
    """What a ReadAhead reads, as a binary file that is only read forward."""

    def __init__(self, reader: ReadAhead) -> None:
        self._chunks = reader.chunks()
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        if not self._rest:
            self._rest = next(self._chunks, self._rest)
        piece, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return piece
