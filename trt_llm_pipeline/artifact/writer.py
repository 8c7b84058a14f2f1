"""Files in, one tar stream out: hashed, compressed in parallel and written in a single pass over the data.

The caller's thread reads. One thread hashes the files, several compress, one hashes the archive and writes
it. They share a fixed set of one-megabyte blocks, so memory stays the same whatever the size, and a slow sink
slows the reading down. Blocks are cut by position in the tar stream and compressed without looking at their
neighbours, so the bytes do not depend on how many threads there are. They do depend on the compressor, which
has other code for other processors: an archive's identity is its content's digest (`content`).

Layout of the compressed form: two gzip members (RFC 1952). The first holds the tar stream (POSIX pax) up to,
but not including, its end; the second holds the end-of-archive mark, 1,024 zero bytes, and nothing else. A
reader that stops at the mark has then consumed every compressed byte, which some readers insist on. For the
same reason neither form is padded to tar's traditional 10,240-byte record.
"""

from __future__ import annotations

import hashlib
import os
import queue
import struct
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from isal import isal_zlib

from trt_llm_pipeline.artifact.entries import (
    END_OF_ARCHIVE,
    AbortableSink,
    ArchivedFile,
    Compression,
    Entry,
    FinishedArchive,
    Progress,
    Sink,
)
from trt_llm_pipeline.errors import ArtifactError

BLOCK_BYTES = 1 << 20
_LEVEL = 1  # igzip's level 0 makes float weights larger than they were; above 1 it gains a tenth of a percent
_GZIP_HEADER = struct.pack("<BBBBLBB", 0x1F, 0x8B, 8, 0, 0, 4, 255)  # no name, no time
_LAST_DEFLATE_BLOCK = b"\x03\x00"
_WAIT_SECONDS = 0.1  # an exception meant for a thread arrives only between its waits


def write_archive(
    entries: Sequence[Entry],
    sink: Sink,
    *,
    compression: Compression = "gzip",
    last: Callable[[tuple[ArchivedFile, ...]], Entry] | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> FinishedArchive:
    """Write `entries`, in the order given, to `sink` as one archive.

    Args:
        entries: the files; each is opened when its turn comes and read once.
        sink: takes the archive's bytes, called from a thread of its own.
        compression: `gzip`, or `none` for a plain tar.
        last: given what was written so far, makes one more entry (a manifest of the others).
        progress: called in the caller's thread with bytes of file content read, and their total.
        threads: how many compress; as many as there are processors by default. Does not change the bytes.

    Raises:
        ArtifactError: a name that no archive should hold, or a file whose size is not what its entry says.
        Exception: whatever the sink or a source raised. The sink's content is then incomplete.
    """
    total = sum(entry.size for entry in entries)
    compressors = 0 if compression == "none" else max(1, min(threads or os.cpu_count() or 1, 16))
    with _running(_Pipeline(sink, compressors)) as pipeline:
        done = 0
        names: set[str] = set()
        for entry in entries:
            _check_name(entry.name, names)
            for count in pipeline.add(entry):
                done += count
                if progress is not None:
                    progress(done, total)
        if last is not None:
            entry = last(pipeline.files())
            _check_name(entry.name, names)
            for _ in pipeline.add(entry):
                pass
        return pipeline.finish()


def _check_name(name: str, seen: set[str]) -> None:
    path = PurePosixPath(name)
    if (
        name in ("", ".")
        or str(path) != name
        or path.is_absolute()
        or ".." in path.parts
        or not name.isprintable()
    ):
        raise ArtifactError(
            f"{name!r} cannot be a file's name in the archive; it must be relative, printable, without '..'"
        )
    if name in seen:
        raise ArtifactError(f"two files are named {name!r} in the archive; rename one of them")
    seen.add(name)


def _header(entry: Entry) -> bytes:
    """A tar header that says nothing about when, by whom or where the file was made."""
    info = tarfile.TarInfo(entry.name)  # mtime, owner and group are 0 and unnamed by default
    info.size = entry.size
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


@dataclass
class _Block:
    """A megabyte of tar stream on its way: what to hash of it, then its compressed form."""

    buffer: bytearray
    length: int = 0
    pieces: list[tuple[_FileHash, int, int]] = field(default_factory=list)
    packed: bytes = b""
    crc: int = 0
    ready: threading.Event = field(default_factory=threading.Event)
    holders: int = 2  # the hashing and the writing thread

    def view(self) -> memoryview:
        return memoryview(self.buffer)[: self.length]


@dataclass
class _FileHash:
    name: str
    size: int
    sha256: hashlib._Hash = field(default_factory=hashlib.sha256)


class _Pipeline:
    """The threads, their queues and the blocks that they share. Use through `_running`."""

    def __init__(self, sink: Sink, compressors: int) -> None:
        self._sink = sink
        self._compressors = compressors
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._to_hash: queue.SimpleQueue[_Block | None] = queue.SimpleQueue()
        self._to_compress: queue.SimpleQueue[_Block | None] = queue.SimpleQueue()
        self._to_write: queue.SimpleQueue[_Block | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._block: _Block | None = None
        self._files: list[_FileHash] = []
        self._archive = hashlib.sha256()
        self._written = 0
        self._crc = 0
        self._tar_bytes = 0
        self._blocks = 2 * compressors + 6
        self._threads: list[threading.Thread] = []

    # The caller's thread.

    def start(self) -> None:
        for _ in range(self._blocks):
            self._free.put(bytearray(BLOCK_BYTES))
        jobs = [self._hash, self._write] + [self._compress] * self._compressors
        # All are known before the first one runs: a cancellation in between must find it to wait for it.
        self._threads = [
            threading.Thread(target=job, name=f"archive{job.__name__}", daemon=True) for job in jobs
        ]
        for thread in self._threads:
            thread.start()
        if self._compressors:
            self._emit(_GZIP_HEADER)

    def stop(self, failure: BaseException | None = None) -> None:
        """End the threads: at once after a failure, else when all that was handed over is written."""
        if failure is not None:
            self._fail(failure)
            if isinstance(self._sink, AbortableSink):
                self._sink.abort()
        for jobs in [self._to_hash, self._to_write] + [self._to_compress] * self._compressors:
            jobs.put(None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_WAIT_SECONDS)
        self._threads = []

    def add(self, entry: Entry) -> Iterator[int]:
        """Read one entry into the stream, yielding how many bytes were taken after each block."""
        self._copy_in(_header(entry))
        file = _FileHash(entry.name, entry.size)
        self._files.append(file)
        source = entry.open()
        try:
            left = entry.size
            while left:
                block = self._current()
                start = block.length
                end = min(start + left, BLOCK_BYTES)
                while block.length < end:
                    count = source.readinto(memoryview(block.buffer)[block.length : end])
                    if not count:
                        raise _size_changed(entry)
                    block.length += count
                block.pieces.append((file, start, end))
                left -= end - start
                self._submit_if_full()
                yield end - start
            if source.readinto(memoryview(bytearray(1))):
                raise _size_changed(entry)
        finally:
            source.close()
        self._copy_in(bytes(-entry.size % tarfile.BLOCKSIZE))

    def files(self) -> tuple[ArchivedFile, ...]:
        """What was added so far. Waits until all of it is hashed."""
        self._submit()
        self._drain()
        return tuple(ArchivedFile(file.name, file.size, file.sha256.hexdigest()) for file in self._files)

    def finish(self) -> FinishedArchive:
        """End the stream and wait until all of it is written."""
        if not self._compressors:
            self._copy_in(END_OF_ARCHIVE)
        files = self.files()
        self.stop()
        self._raise_failure()
        if self._compressors:
            self._emit(_LAST_DEFLATE_BLOCK + _gzip_trailer(self._crc, self._tar_bytes) + _end_member())
        return FinishedArchive(self._written, self._archive.hexdigest(), files)

    def _current(self) -> _Block:
        if self._block is None:
            while True:
                self._raise_failure()
                try:
                    self._block = _Block(self._free.get(timeout=_WAIT_SECONDS))
                    break
                except queue.Empty:
                    continue
        return self._block

    def _copy_in(self, data: bytes) -> None:
        while data:
            block = self._current()
            taken = data[: BLOCK_BYTES - block.length]
            block.buffer[block.length : block.length + len(taken)] = taken
            block.length += len(taken)
            data = data[len(taken) :]
            self._submit_if_full()

    def _submit_if_full(self) -> None:
        if self._block is not None and self._block.length == BLOCK_BYTES:
            self._submit()

    def _submit(self) -> None:
        block, self._block = self._block, None
        if block is None:
            return
        self._to_hash.put(block)
        if self._compressors:
            self._to_compress.put(block)
        else:
            block.ready.set()
        self._to_write.put(block)

    def _drain(self) -> None:
        """Wait until every block is back, then hand them out again."""
        buffers: list[bytearray] = []
        while len(buffers) < self._blocks:
            self._raise_failure()
            try:
                buffers.append(self._free.get(timeout=_WAIT_SECONDS))
            except queue.Empty:
                continue
        self._raise_failure()
        for buffer in buffers:
            self._free.put(buffer)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # The other threads. After a failure they go on emptying their queues without doing the work, so that none
    # waits for another.

    def _hash(self) -> None:
        for block in iter(self._to_hash.get, None):
            if self._failure is None:
                view = block.view()
                for file, start, end in block.pieces:
                    file.sha256.update(view[start:end])
            self._release(block)

    def _compress(self) -> None:
        for block in iter(self._to_compress.get, None):
            try:
                if self._failure is None:
                    view = block.view()
                    block.crc = isal_zlib.crc32(view)
                    deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
                    block.packed = deflate.compress(view) + deflate.flush(isal_zlib.Z_SYNC_FLUSH)
            except BaseException as failure:  # noqa: BLE001  it is raised again in the caller's thread
                self._fail(failure)
            finally:
                block.ready.set()

    def _write(self) -> None:
        for block in iter(self._to_write.get, None):
            block.ready.wait()
            try:
                if self._failure is None:
                    self._tar_bytes += block.length
                    if self._compressors:
                        self._crc = isal_zlib.crc32_combine(self._crc, block.crc, block.length)
                    self._emit(block.packed if self._compressors else block.view())
            except BaseException as failure:  # noqa: BLE001  it is raised again in the caller's thread
                self._fail(failure)
            finally:
                block.packed = b""
                self._release(block)

    def _emit(self, data: bytes | memoryview) -> None:
        self._archive.update(data)
        self._written += len(data)
        self._sink.write(data)

    def _release(self, block: _Block) -> None:
        with self._lock:
            block.holders -= 1
            free = block.holders == 0
        if free:
            self._free.put(block.buffer)

    def _fail(self, failure: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or failure


@contextmanager
def _running(pipeline: _Pipeline) -> Iterator[_Pipeline]:
    try:
        pipeline.start()
        yield pipeline
    except BaseException as failure:
        pipeline.stop(failure)
        raise


def _size_changed(entry: Entry) -> ArtifactError:
    return ArtifactError(
        f"{entry.name} changed its size while it was being packed (it had {entry.size:,} bytes at first); "
        "something is still writing to it: wait for that to end, then build again"
    )


def _gzip_trailer(crc: int, size: int) -> bytes:
    return struct.pack("<LL", crc, size & 0xFFFFFFFF)


def _end_member() -> bytes:
    """The second member, as one stored deflate block: the same bytes with every version of every library."""
    length = len(END_OF_ARCHIVE)
    stored = struct.pack("<BHH", 1, length, length ^ 0xFFFF) + END_OF_ARCHIVE
    return _GZIP_HEADER + stored + _gzip_trailer(zlib.crc32(END_OF_ARCHIVE), length)
