"""A tar's bytes as they come from the network: fetched ahead by a thread, hashed, gunzipped."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from trt_llm_pipeline.errors import ModelSourceError, ModelUnavailable, TrtLlmPipelineError
from trt_llm_pipeline.net.retrying import Patience, RetryLimits
from trt_llm_pipeline.net.stream import (
    HttpStatusError,
    ResponseStream,
    Stopped,
    StopSwitch,
    Transient,
    open_stream,
    transient_failure,
)
from trt_llm_pipeline.units import in_words

CHUNK = 1 << 20
_AHEAD = 32  # chunks
_PIECE = 4 * CHUNK
_TICK = 0.1
_GZIP = b"\x1f\x8b"
_OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"<!DO": "a web page",
    b"<htm": "a web page",
}
# Deflate cannot do better than about 1030; weights hardly compress at all.
MOST_RATIO = 200
_RATIO_COUNTS_FROM = 64 << 20


class Fetcher:
    """Reads an address ahead of its consumer, in a thread; a broken connection is resumed.

    Args:
        url: http or https.
        shown: the URL as it may be shown, without its query.
        limits, log, clock: as in `model_source.fetch`.
        refused: turns an HTTP status that no retry can heal into an error.
        opening: other limits for the first answer, if given.
    """

    def __init__(
        self,
        url: str,
        shown: str,
        *,
        limits: RetryLimits,
        log: Callable[[str], None],
        refused: Callable[[HttpStatusError], TrtLlmPipelineError],
        opening: RetryLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opening = opening or limits
        self._url, self._shown = url, shown
        self._limits, self._log, self._refused, self._clock = limits, log, refused, clock
        self._stop = StopSwitch()
        self._queue: queue.Queue[bytes | BaseException | str | None] = queue.Queue(_AHEAD)
        self._hasher = hashlib.sha256()
        self._thread: threading.Thread | None = None
        self._opened = threading.Event()
        self.headers: dict[str, str] = {}
        self.length: int | None = None
        self.received = 0

    def __enter__(self) -> Fetcher:
        """Starts, and waits until the answer's headers are there or it is clear that none will come."""
        self._thread = threading.Thread(target=self._run, name="model-tar-download", daemon=True)
        self._thread.start()
        try:
            while not self._opened.wait(_TICK):
                self._drain_log()
            self._drain_log()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.throw()
        if self._thread is not None:
            self._thread.join(2.0)

    @property
    def validators(self) -> dict[str, str]:
        """What tells one version of the file from another: ETag, Last-Modified, Content-Length."""
        names = ("etag", "last-modified", "content-length")
        return {name: self.headers[name] for name in names if name in self.headers}

    @property
    def sha256(self) -> str:
        """Of all the bytes, once `chunks` is exhausted."""
        return self._hasher.hexdigest()

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order.

        Raises:
            ModelSourceError: see `refused`; ModelUnavailable when retrying did not help.
        """
        while True:
            try:
                item = self._queue.get(timeout=_TICK)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, str):
                self._log(item)
            else:
                yield item

    def raise_if_failed(self) -> None:
        """Raises what went wrong before the first byte, if anything did."""
        with self._queue.mutex:
            first = self._queue.queue[0] if self._queue.queue else None
        if isinstance(first, BaseException):
            raise first

    def _drain_log(self) -> None:
        while True:
            with self._queue.mutex:
                spoken = bool(self._queue.queue) and isinstance(self._queue.queue[0], str)
            if not spoken:
                return
            self._log(str(self._queue.get()))

    def _put(self, item: bytes | BaseException | str | None) -> None:
        while True:
            self._stop.check()
            try:
                return self._queue.put(item, timeout=_TICK)
            except queue.Full:
                continue

    def _run(self) -> None:
        try:
            self._fetch()
            self._put(None)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  raised in the caller's thread
            with contextlib.suppress(Stopped):
                self._put(error)
        finally:
            self._opened.set()

    def _fetch(self) -> None:
        patience = Patience(self._opening, self._clock)
        while True:
            try:
                with self._open() as stream:
                    self._take(stream)
                    if not self._opened.is_set():
                        self._opened.set()
                        patience = Patience(self._limits, self._clock)
                    while chunk := stream.read(CHUNK):
                        self._stop.check()
                        self._hasher.update(chunk)
                        self.received += len(chunk)
                        patience.progressed()
                        self._put(chunk)
                self._stop.check()
                if self.length is None or self.received == self.length:
                    return
                problem: Transient | None = Transient("the server ended too early")
            except (Stopped, TrtLlmPipelineError):
                raise
            except Exception as error:
                self._stop.check()
                problem = transient_failure(error)
                if problem is None:
                    if isinstance(error, HttpStatusError):
                        raise self._refused(error) from error
                    raise ModelUnavailable(
                        f"{self._shown} could not be downloaded: {type(error).__name__}"
                    ) from error
            wait = None if problem is None else patience.next_wait(problem)
            if problem is None or wait is None:
                reason = "it failed" if problem is None else patience.describe(problem)
                raise ModelUnavailable(
                    f"{self._shown} could not be downloaded: {reason}. Check the address, and run the build "
                    "again later"
                )
            self._put(
                f"{self._shown}: {problem.reason} at {in_words(self.received)}; attempt "
                f"{patience.failures + 1} of {self._limits.attempts} in {wait:.0f} s"
            )
            self._stop.wait(wait)

    def _open(self) -> ResponseStream:
        headers = {"Accept-Encoding": "identity"}
        if self.received:
            validator = self.headers.get("etag") or self.headers.get("last-modified")
            if validator is None or validator.startswith("W/"):
                raise ModelUnavailable(
                    f"{self._shown} broke off at {in_words(self.received)}, and the server sends no "
                    "ETag by which one could go on safely; run the build again"
                )
            headers |= {"Range": f"bytes={self.received}-", "If-Range": validator}
        return open_stream(self._url, headers, self._stop, silence=self._limits.silence)

    def _take(self, stream: ResponseStream) -> None:
        if not self.received:
            self.headers, self.length = stream.headers, stream.length
            return
        begins = stream.headers.get("content-range", "").startswith(f"bytes {self.received}-")
        if stream.status != 206 or not begins:
            raise ModelUnavailable(
                f"{self._shown} broke off at {in_words(self.received)} and cannot be resumed: the "
                "server sends it from the start, or it has changed; run the build again"
            )


def uncompressed(chunks: Iterator[bytes], shown: str) -> Iterator[bytes]:
    """The tar itself, from a tar or a tar.gz; told apart by their first bytes.

    Raises:
        ModelSourceError: it is neither, is damaged or cut short, or expands beyond MOST_RATIO.
    """
    first = b""
    for chunk in chunks:
        first += chunk
        if len(first) >= 512:
            break
    if first.startswith(_GZIP):
        yield from _gunzip(_chain(first, chunks), shown)
        return
    for magic, name in _OTHERS.items():
        if first.startswith(magic):
            raise ModelSourceError(f"{shown} is {name}; model_tar_url takes a .tar or a .tar.gz")
    yield first
    yield from chunks


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _gunzip(chunks: Iterator[bytes], shown: str) -> Iterator[bytes]:
    from isal import isal_zlib

    damaged: Any = isal_zlib.error  # its stub has an instance where the class is
    into, out = 0, 0
    decompressor: Any = isal_zlib.decompressobj(31)
    for chunk in chunks:
        into += len(chunk)
        data, more = chunk, True
        while more:
            if decompressor.eof:
                data = data.lstrip(b"\0")  # padding between or after members
                if not data:
                    break
                decompressor = isal_zlib.decompressobj(31)
            try:
                piece = decompressor.decompress(data, _PIECE)
            except damaged as error:
                raise ModelSourceError(f"{shown} is damaged: its gzip data cannot be read") from error
            out += len(piece)
            if out > _RATIO_COUNTS_FROM and out > MOST_RATIO * into:
                raise ModelSourceError(
                    f"{shown} expands to more than {MOST_RATIO} times its size, which no model does; refused"
                )
            if piece:
                yield piece
            data = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
            # A full piece may leave some that is held back although all input is used up.
            more = bool(data) or len(piece) == _PIECE
    if not decompressor.eof:
        raise ModelSourceError(f"{shown} is cut short: its gzip data has no end")
