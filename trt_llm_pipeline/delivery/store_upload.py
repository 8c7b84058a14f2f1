"""An upload to an object store, in parts, as the bytes come. Nothing is visible there until the last part is
in."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trt_llm_pipeline.delivery.destination import Destination
from trt_llm_pipeline.delivery.store_client import connect, reason
from trt_llm_pipeline.errors import DeliveryError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PARTS = 9_000  # S3 takes 10,000
_SMALLEST_PART = 8 << 20
_CONCURRENT_PARTS = 4
_QUEUED_CHUNKS = 4
_WAIT_SECONDS = 0.1
_ABORT_SECONDS = 2.0


class _Aborted(Exception):
    pass


class StoreUpload:
    """One object being uploaded. An archive's sink: `write` hands over to a thread that uploads.

    A part that fails is sent again by the store's client. An upload that is aborted is withdrawn, so that
    nobody pays for its parts; so is one that the store refuses, from obstore 0.12 on (before, on Python
    3.10, a bucket's rule for incomplete uploads has to do it).
    """

    def __init__(self, destination: Destination, expected_bytes: int) -> None:
        self._destination = destination
        self._part = max(_SMALLEST_PART, -(-expected_bytes // _PARTS))
        self._chunks: queue.Queue[bytes | None] = queue.Queue(_QUEUED_CHUNKS)
        self._thread: threading.Thread | None = None
        self._aborted = threading.Event()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Set up the store's client and begin.

        Raises:
            DeliveryError: the environment lacks what the client needs.
        """
        try:
            store = connect(self._destination.root)
        except Exception as problem:  # noqa: BLE001  a foreign library's errors, translated in one place
            raise _translated(problem, self._destination) from None
        self._thread = threading.Thread(target=self._run, args=(store,), name="store-upload", daemon=True)
        self._thread.start()

    def write(self, data: bytes | memoryview, /) -> None:
        """Hand over a piece; waits while enough is under way.

        Raises:
            DeliveryError: the upload failed.
        """
        self._put(bytes(data))

    def finish(self) -> None:
        """Wait until the object is complete.

        Raises:
            DeliveryError: it could not be completed; nothing of it is visible.
        """
        self._put(None)
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(_WAIT_SECONDS)
        self._raise_failure()

    def abort(self) -> None:
        """Withdraw the upload. Waits a moment for that; a stalled connection is left to end by itself."""
        self._aborted.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_ABORT_SECONDS)

    def _put(self, chunk: bytes | None) -> None:
        while True:
            self._raise_failure()
            try:
                self._chunks.put(chunk, timeout=_WAIT_SECONDS)
                return
            except queue.Full:
                continue

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise _translated(self._failure, self._destination) from None
        if self._aborted.is_set():
            raise DeliveryError(f"the upload to {self._destination.address} was cancelled")

    def _run(self, store: ObjectStore) -> None:
        import obstore

        try:
            obstore.put(
                store,
                self._destination.key,
                self._taken(),
                use_multipart=True,
                chunk_size=self._part,
                max_concurrency=_CONCURRENT_PARTS,
            )
        except BaseException as problem:  # noqa: BLE001  raised again in the caller's thread
            self._failure = problem

    def _taken(self) -> Iterator[bytes]:
        while True:
            if self._aborted.is_set():
                raise _Aborted
            try:
                chunk = self._chunks.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                continue
            if chunk is None:
                return
            yield chunk


def _translated(problem: BaseException, destination: Destination) -> DeliveryError:
    """The client's error in words, without addresses and signatures."""
    if isinstance(problem, DeliveryError):
        return problem
    why = reason(problem, destination.root.partition(":")[0])
    return DeliveryError(f"the archive could not be sent to {destination.address}: {why}")
