"""A file that appears complete or not at all."""

from __future__ import annotations

import errno
import os
import queue
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trt_llm_pipeline.errors import ArtifactError, DiskFull, PipelineError

PARTIAL_SUFFIX = ".partial"


_FLUSH_EVERY_BYTES = 64 << 20


class FileSink:
    """Writes all of what it is given to an open descriptor, and has it brought to the disk meanwhile.

    Left to itself the system begins with that so late that the last `fsync` waits for most of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unflushed = 0
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._problem: OSError | None = None

    def write(self, data: bytes | memoryview, /) -> None:
        view = memoryview(data)
        self._unflushed += len(view)
        while view:
            view = view[os.write(self._descriptor, view) :]
        if self._unflushed >= _FLUSH_EVERY_BYTES:
            self._unflushed = 0
            if self._thread is None:
                self._thread = threading.Thread(target=self._flush, name="flush", daemon=True)
                self._thread.start()
            self._wanted.put(True)

    def settle(self) -> None:
        """Waits for the disk to be idle; to be called before the descriptor is closed."""
        if self._thread is not None:
            self._wanted.put(False)
            self._thread.join()
            self._thread = None

    def sync(self) -> None:
        """Returns when everything is on the disk. Raises `OSError` where that failed at any time."""
        self.settle()
        if self._problem is not None:  # the system tells of a failed write only once
            raise self._problem
        os.fsync(self._descriptor)

    def _flush(self) -> None:
        while self._wanted.get():
            try:
                os.fdatasync(self._descriptor)
            except OSError as problem:
                self._problem = problem


@contextmanager
def appearing(path: Path) -> Iterator[FileSink]:
    """A sink whose content is at `path` after the block, whole and on the disk; or nothing, if it raises.

    The unfinished file lies in the same folder, with a name that begins with a dot and ends in `.partial`.

    Raises:
        DiskFull: there is no room.
        ArtifactError: the file cannot be written for another reason.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}{PARTIAL_SUFFIX}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            sink = FileSink(descriptor)
            try:
                yield sink
                sink.sync()
            finally:
                sink.settle()
                os.close(descriptor)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as problem:
        raise _translated(problem, path) from problem


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _translated(problem: OSError, path: Path) -> PipelineError:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"no room on the disk for {path}; nothing was kept of it: free some space, then build again"
        )
    return ArtifactError(f"cannot write {path}: {problem.strerror or problem}")
