"""An address read from its first byte to its last: fetched ahead in ranges, in bounded memory, hashed."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trt_llm_pipeline.errors import TrtLlmPipelineError
from trt_llm_pipeline.net.client import Client, Response
from trt_llm_pipeline.net.connection_limit import MOST_CONNECTIONS
from trt_llm_pipeline.net.failures import HttpStatusError, Transient, transient_failure
from trt_llm_pipeline.net.pool import Pool
from trt_llm_pipeline.net.ranged import UNKNOWN_SIZE, RangedSource
from trt_llm_pipeline.net.ranges import Claim, strong_etag
from trt_llm_pipeline.net.retrying import Patience, RetryLimits, nap, retry
from trt_llm_pipeline.net.stopping import StopSwitch, run_interruptibly
from trt_llm_pipeline.units import in_words

PIECE = 4 << 20
#: Pieces in memory at once: those on their way, and those that came before it is their turn.
MOST_PIECES = 24
_TURN_SECONDS = 0.1
_JOIN_SECONDS = 2.0
_HEADERS = {"Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Wording:
    """What an address is called, and which errors its failures become.

    Attributes:
        shown: the address as it may be shown, without its query.
        unavailable: makes the error for what may work later, from a sentence.
        refused: the same for an answer that no retry can heal.
    """

    shown: str
    unavailable: Callable[[str], TrtLlmPipelineError]
    refused: Callable[[HttpStatusError], TrtLlmPipelineError]


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
        connections: int = MOST_CONNECTIONS,
        hashed: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._wording, self._log, self._clock = url, wording, log, clock
        self._limits, self._opening, self._connections = limits, opening or limits, connections
        self._hashed = hashed
        self._stop = StopSwitch()
        self._events: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
        self._client = Client(self._stop, silence=self._opening.silence)
        self._response: Response | None = None
        self._pool: Pool | None = None
        self._source: _Window | None = None
        self._hasher: _Hasher | None = None
        self.headers: dict[str, str] = {}
        self.length: int | None = None

    def open(self) -> None:
        """Asks for it and waits for the answer's head, which is in `headers` and `length` then.

        Raises:
            TrtLlmPipelineError: see Wording.
        """
        shown = self._wording.shown

        def judge(error: Exception) -> Transient:
            return _judge(error, self._wording)

        try:
            self._response = retry(
                lambda: run_interruptibly(lambda: self._client.open(self._url, _HEADERS)),
                Patience(self._opening, self._clock),
                judge=judge,
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
        self._source = source = _Window(
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


def _judge(error: Exception, wording: Wording) -> Transient:
    problem = transient_failure(error)
    if problem is not None:
        return problem
    if isinstance(error, TrtLlmPipelineError):
        raise error
    if isinstance(error, HttpStatusError):
        raise wording.refused(error) from error
    if isinstance(error, OSError):
        reason = str(error) or type(error).__name__
        raise wording.unavailable(f"{wording.shown} could not be downloaded: {reason}") from error
    raise error


@dataclass(eq=False)
class _Piece:
    """Bytes of the file that are in memory. `waited_for` counts who has not finished with it yet."""

    claim: Claim
    memory: memoryview
    waited_for: int
    full: bool = False

    @property
    def content(self) -> memoryview:
        return self.memory[: self.claim.end - self.claim.start]


class _Window(RangedSource):
    """The pieces in memory. The first answer, which has no end, is read on for as long as it is of use."""

    def __init__(
        self,
        url: str,
        opened: Response,
        wording: Wording,
        pool: Pool,
        say: Callable[[str], None],
        *,
        hashed: bool,
    ) -> None:
        super().__init__(url, {}, UNKNOWN_SIZE if opened.length is None else opened.length)
        self._opened: Response | None = opened
        self._wording, self._pool, self._say = wording, pool, say
        self._readers = 2 if hashed else 1
        self._free: list[memoryview] = []
        self._pieces: dict[int, _Piece] = {}
        self._stream: Claim | None = None
        # Without an ETag nobody can tell whether two answers are of the same file.
        self.single = opened.length is None or strong_etag(opened.headers) is None

    # For the reader and the hasher.

    def piece(self, index: int) -> _Piece | None:
        with self._pool.lock:
            piece = self._pieces.get(index)
            return piece if piece is not None and piece.full else None

    def is_end(self, index: int) -> bool:
        with self._pool.lock:
            return index * PIECE >= self.ranges.size

    def consumed(self, piece: _Piece) -> None:
        with self._pool.lock:
            piece.waited_for -= 1
            if not piece.waited_for:
                del self._pieces[piece.claim.start // PIECE]
                self._free.append(piece.memory)
                self._pool.wake()

    # For the pool.

    def claim(self, most: int) -> Claim | None:  # noqa: ARG002
        busy = len(self.ranges.claims)
        # Until a range is known to come as one, the stream and one attempt are enough.
        if (self.single and busy) or (not self.confirmed and busy >= 2):
            return None
        return self._claim_next()

    def _claim_next(self) -> Claim | None:
        if len(self._pieces) >= MOST_PIECES:
            return None
        claim = self.ranges.claim(PIECE)
        if claim is not None:
            memory = self._free.pop() if self._free else memoryview(bytearray(PIECE))
            self._pieces[claim.start // PIECE] = _Piece(claim, memory, self._readers)
        return claim

    def take_opened(self, claim: Claim) -> Response | None:
        if claim.position:
            return None
        opened, self._opened = self._opened, None
        if opened is not None:
            self._stream = claim
        return opened

    def asked(self, claim: Claim) -> tuple[int, int | None] | None:
        if not claim.position:
            return None
        whole = self.single or claim.end == self.ranges.size
        if self.single:
            self._stream = claim
        return claim.position, None if whole else claim.end

    def room(self, claim: Claim, own: memoryview) -> memoryview:  # noqa: ARG002
        with self._pool.lock:
            return self._pieces[claim.start // PIECE].memory[claim.position - claim.start :]

    def store(self, claim: Claim, data: memoryview) -> None:
        """It was received into its place."""

    def stored(self, claim: Claim) -> None:
        if not claim.left:
            self._pieces[claim.start // PIECE].full = True
            self._pool.ready.notify_all()

    def follow(self, claim: Claim) -> Claim | None:
        if claim is not self._stream or claim.end >= self.ranges.size:
            return None
        index = claim.end // PIECE
        if index in self._pieces or self.ranges.prefix(claim.end) > claim.end:
            return None if self.confirmed else claim
        if len(self._pieces) >= MOST_PIECES:
            return claim
        following = self._claim_next()
        if following is not None and following.start != claim.end:
            self._unclaim(following)
            return None
        if following is not None:
            following.asked = (following.start, None)
        self._stream = following
        return following

    def ended(self, claim: Claim) -> bool:
        if self.ranges.size != UNKNOWN_SIZE:
            return False
        self.ranges.size = claim.end = claim.position
        self.stored(claim)
        self._pool.ready.notify_all()
        return True

    def closed(self, claim: Claim) -> None:
        super().closed(claim)
        if claim is self._stream:
            self._stream = None

    def restart(self, claim: Claim) -> Claim | None:
        if self._stream is not None and self._stream is not claim:
            # There are no ranges to be had; the stream brings it all.
            self.single = True
            self._unclaim(claim)
            self._pool.wake()
            return None
        raise self._wording.unavailable(
            f"{self._wording.shown} broke off at {in_words(claim.position)} and cannot be resumed: the "
            "server sends it from the start, or it has changed"
        )

    def changed(self, reason: str) -> None:
        raise self._wording.unavailable(f"{self._wording.shown} cannot be used: {reason}")

    def request_headers(self, claim: Claim) -> dict[str, str]:
        headers = super().request_headers(claim)
        if claim.position and "If-Range" not in headers:
            raise self._wording.unavailable(
                f"{self._wording.shown} broke off at {in_words(claim.position)}, and the server sends no "
                "ETag by which it could be resumed safely"
            )
        return headers

    def validator_of(self, response: Response) -> str | None:
        return strong_etag(response.headers) or response.headers.get("last-modified")

    def judge(self, error: Exception) -> Transient:
        if isinstance(error, HttpStatusError) and self.location is not None and not transient_failure(error):
            return Transient(
                f"HTTP {error.status}"
            )  # a signed address may have run out; it is asked for anew
        return _judge(error, self._wording)

    def given_up(self, reason: str) -> Exception:
        return self._wording.unavailable(f"{self._wording.shown} could not be downloaded: {reason}")

    def say(self, problem: Transient, announcement: str) -> None:
        self._say(f"{self._wording.shown}: {problem.reason} at {in_words(self.ranges.done)}; {announcement}")

    def _unclaim(self, claim: Claim) -> None:
        self.ranges.drop(claim)
        piece = self._pieces.pop(claim.start // PIECE)
        self._free.append(piece.memory)


class _Hasher(threading.Thread):
    """Hashes the pieces in order, beside the network's threads and the reader."""

    def __init__(self, source: _Window, pool: Pool, failed: Callable[[BaseException], None]) -> None:
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

    def _wait_for(self, index: int) -> _Piece | None:
        with self._pool.lock:
            while (piece := self._source.piece(index)) is None:
                if self._source.is_end(index) or self._pool.stopped:
                    return None
                self._pool.ready.wait(_TURN_SECONDS)
            return piece
