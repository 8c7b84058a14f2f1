"""Hashes files from their first byte on while the rest of them still arrives, and tells which are right."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable

from trt_llm_pipeline.model_source.file_source import FileSource
from trt_llm_pipeline.model_source.partial import PartialFile, Piece
from trt_llm_pipeline.net.pool import Pool
from trt_llm_pipeline.net.stopping import Stopped, StopSwitch

_CHUNK = 1 << 19
_MOST_THREADS = 4
_WAIT_SECONDS = 0.2
_JOIN_SECONDS = 2.0


class Verifier:
    """Threads that read back what the pool wrote. Use as a context manager, inside the pool's.

    They read from the page cache, where the bytes still are, so the network's threads never wait for a hash,
    and what is verified is what lies on the disk.

    Args:
        pool: whose sources are hashed; its lock guards them.
        stop: ends the threads.
        settle: puts a file whose digest is right into its place; called in a thread of the verifier.
        failed: is given the error that ends it all.
    """

    def __init__(
        self,
        pool: Pool,
        stop: StopSwitch,
        *,
        settle: Callable[[FileSource, PartialFile], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._pool, self._stop, self._settle, self._failed = pool, stop, settle, failed
        self._ready: deque[FileSource] = deque()
        count = min(_MOST_THREADS, os.cpu_count() or 1)
        self._threads = [
            threading.Thread(target=self._work, name="model-hash", daemon=True) for _ in range(count)
        ]

    def __enter__(self) -> Verifier:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.throw()
        with self._pool.lock:
            self._pool.ready.notify_all()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def hash_more(self, source: FileSource) -> None:
        """The source has bytes that were not hashed yet, or none at all. In the pool's lock."""
        if not source.queued:
            source.queued = True
            self._ready.append(source)
            self._pool.ready.notify()

    def _work(self) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        try:
            while True:
                source = self._next()
                while self._advance(source, buffer):
                    self._stop.check()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001  raised in the caller's thread
            self._failed(error)

    def _next(self) -> FileSource:
        with self._pool.lock:
            while not self._ready:
                self._stop.check()
                self._pool.ready.wait(_WAIT_SECONDS)
            return self._ready.popleft()

    def _advance(self, source: FileSource, buffer: memoryview) -> bool:
        """Hashes the next piece; False where there is none for now, or the file is finished."""
        with self._pool.lock:
            part, start = source.part or source.open(), source.hashed
            complete = start == source.file.size
            piece = source.restored[0] if source.restored and source.restored[0][0] == start else None
            end = piece[1] if piece else source.ranges.prefix(start)
            if source.restored and not piece:
                end = min(end, source.restored[0][0])
            if not complete and end == start:
                source.queued = False
                return False
            part.users += 1
        try:
            if complete:
                self._finish(source, part)
                return False
            return self._hash(source, part, start, end, piece, buffer)
        finally:
            with self._pool.lock:
                part.release()

    def _hash(
        self,
        source: FileSource,
        part: PartialFile,
        start: int,
        end: int,
        piece: Piece | None,
        buffer: memoryview,
    ) -> bool:
        if piece is not None and end - start > len(buffer):
            buffer = memoryview(bytearray(end - start))
        wanted = buffer[: end - start]
        count = 0
        while count < len(wanted):
            read = part.read(wanted[count:], start + count)
            if not read:
                break
            count += read
        from isal import isal_zlib

        good = count == len(wanted) and (piece is None or isal_zlib.crc32(wanted) == piece[2])
        if good:
            source.hasher.update(wanted)
        with self._pool.lock:
            if source.part is not part:
                return True  # it was begun anew meanwhile
            if piece is not None:
                source.restored.popleft()
            if good:
                source.hashed += len(wanted)
            else:
                source.damaged(piece or (start, end, 0))
                self._pool.reopen(source)
        return True

    def _finish(self, source: FileSource, part: PartialFile) -> None:
        kind, _, expected = source.file.digest.partition(":")
        if kind and source.hasher.hexdigest() != expected:
            with self._pool.lock:
                if source.part is part:
                    source.queued = False
                    source.changed("its digest is another")
                    self._pool.reopen(source)
                    if not source.file.size:
                        self.hash_more(source)
            return
        self._settle(source, part)
