"""The pieces of an address that are in memory: on their way, or waiting until it is their turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trt_llm_pipeline.errors import TrtLlmPipelineError
from trt_llm_pipeline.net.client import Response
from trt_llm_pipeline.net.failures import BadAddress, HttpStatusError, Transient, transient_failure
from trt_llm_pipeline.net.pool import Pool
from trt_llm_pipeline.net.ranged import UNKNOWN_SIZE, RangedSource
from trt_llm_pipeline.net.ranges import Claim, strong_etag
from trt_llm_pipeline.units import in_words

PIECE = 4 << 20
#: Pieces in memory at once.
MOST_PIECES = 24


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


def judge(error: Exception, wording: Wording) -> Transient:
    problem = transient_failure(error)
    if problem is not None:
        return problem
    if isinstance(error, BadAddress):
        raise wording.unavailable(str(error)) from error
    if isinstance(error, TrtLlmPipelineError):
        raise error
    if isinstance(error, HttpStatusError):
        raise wording.refused(error) from error
    if isinstance(error, OSError):
        reason = str(error) or type(error).__name__
        raise wording.unavailable(f"{wording.shown} could not be downloaded: {reason}") from error
    raise error


@dataclass(eq=False)
class Piece:
    """Bytes of the file that are in memory. `waited_for` counts who has not finished with it yet."""

    claim: Claim
    memory: memoryview
    waited_for: int
    full: bool = False

    @property
    def content(self) -> memoryview:
        return self.memory[: self.claim.end - self.claim.start]


class Window(RangedSource):
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
        self._pieces: dict[int, Piece] = {}
        self._stream: Claim | None = None
        # Known before the first range is asked for, by whichever connection.
        self.validator = self.validator_of(opened)
        self.location = opened.url if opened.url != url else None
        # Without an ETag nobody can tell whether two answers are of the same file.
        self.single = opened.length is None or strong_etag(opened.headers) is None

    # For the reader and the hasher.

    def piece(self, index: int) -> Piece | None:
        with self._pool.lock:
            piece = self._pieces.get(index)
            return piece if piece is not None and piece.full else None

    def is_end(self, index: int) -> bool:
        with self._pool.lock:
            return index * PIECE >= self.ranges.size

    def consumed(self, piece: Piece) -> None:
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
        claim = self._claim_next()
        if claim is not None and not claim.start and self._opened is not None:
            self._stream = claim  # from now on: another answer may come before this one is read
        return claim

    def _claim_next(self) -> Claim | None:
        if len(self._pieces) >= MOST_PIECES:
            return None
        claim = self.ranges.claim(PIECE)
        if claim is not None:
            memory = self._free.pop() if self._free else memoryview(bytearray(PIECE))
            self._pieces[claim.start // PIECE] = Piece(claim, memory, self._readers)
        return claim

    def take_opened(self, claim: Claim) -> Response | None:
        if claim.position:
            return None
        opened, self._opened = self._opened, None
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
        return judge(error, self._wording)

    def given_up(self, reason: str) -> Exception:
        return self._wording.unavailable(f"{self._wording.shown} could not be downloaded: {reason}")

    def say(self, problem: Transient, announcement: str) -> None:
        self._say(f"{self._wording.shown}: {problem.reason} at {in_words(self.ranges.done)}; {announcement}")

    def _unclaim(self, claim: Claim) -> None:
        self.ranges.drop(claim)
        self.ranges.remove(claim.start, claim.position)  # a piece is in one memory, or not there
        piece = self._pieces.pop(claim.start // PIECE)
        self._free.append(piece.memory)
