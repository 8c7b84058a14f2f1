"""Files, handled once: whole or not at all, JSON, hashes, verified copies, free space, a full disk in words.

Files of a workspace may have been replaced by anything: a step is a stranger's program. So nothing here opens
one in a way that can block, follows a link to it, or reads more of it than was asked for.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trt_llm_pipeline.errors import ArtifactError, DiskFull, PipelineError
from trt_llm_pipeline.units import in_words

PARTIAL_SUFFIX = ".partial"
_RANDOM_BYTES = 6
_RANDOM_PATTERN = "[0-9a-f]" * 2 * _RANDOM_BYTES
PIECE_BYTES = 4 << 20
# For a write of some MB the system looks for large stretches of free memory: up to five times as long.
_WRITE_BYTES = 1 << 17
#: More than any record of the service holds; a larger file is not one.
MAX_JSON_BYTES = 64 << 20
_FLUSH_EVERY_BYTES = 64 << 20
_MACHINES = frozenset(
    {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT}
)
_TOO_MANY_FILES = "raise the limit of open files (ulimit -n)"
_REMEDIES = {
    errno.EIO: "the disk or its connection is faulty: the system's log (dmesg) says more",
    errno.EMFILE: _TOO_MANY_FILES,
    errno.ENFILE: _TOO_MANY_FILES,
    errno.ENOMEM: "the machine has no memory left",
    errno.ENAMETOOLONG: "the path is longer than the file system takes",
    errno.EROFS: "it can only be read",
}


def walk(top: Path | str, *, follow: bool = False) -> Iterator[tuple[str, list[str], list[str]]]:
    """What is below a directory, as `os.walk` has it, which leaves out silently what cannot be listed.

    Args:
        top: the directory; without one there is nothing.
        follow: whether links to directories are followed.

    Raises:
        OSError: a directory cannot be listed. One that has just gone is passed over.
    """
    return os.walk(top, onerror=_unless_gone, followlinks=follow)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def open_regular(path: Path) -> int:
    """Opens a regular file for reading; its descriptor. Never blocks, never follows a link at `path`.

    Raises:
        OSError: it cannot be opened; or is not a regular file (`EINVAL`) but a FIFO, a device or a directory;
            or is a link (`ELOOP`).
    """
    # O_NONBLOCK: opening a FIFO that nobody writes to would otherwise wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: as for `open_regular`; or it holds more than `limit_bytes` (`EFBIG`).
    """
    with os.fdopen(open_regular(path), "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise OSError(errno.EFBIG, f"larger than {in_words(limit_bytes)}", str(path))
    return data


def read_json(path: Path, limit_bytes: int = MAX_JSON_BYTES) -> Any:
    """A JSON file's value. Raises `OSError` as `read_regular` does, `ValueError` where it is no JSON."""
    try:
        return json.loads(read_regular(path, limit_bytes))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None


def hash_file(path: Path) -> str:
    """The SHA-256 of a regular file, in hexadecimal. Raises `OSError` as `open_regular` does."""
    digest = hashlib.sha256()
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def write_json(path: Path, value: object) -> None:
    """Replaces `path` in one go: a reader sees the old text or the new, never a half.

    Whatever is at `path`, a link for instance, is replaced and never written through.
    """
    with replacing(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` for a new file, which takes the place of `path` after the block.

    Raises:
        OSError: it cannot be put in its place. Then, and where the block raises, it is removed.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(_RANDOM_BYTES)}{PARTIAL_SUFFIX}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Removes what processes that were killed in `replacing` have left in a folder that nobody writes in now.

    Args:
        folder: where; not below it.
        name: a pattern for the names that were to be replaced.
    """
    for path in folder.glob(f".{name}.{_RANDOM_PATTERN}{PARTIAL_SUFFIX}"):
        with suppress(OSError):  # gone, or no file
            path.unlink()


def write_all(descriptor: int, data: bytes | memoryview, place: int | None = None) -> None:
    """Writes all of it to an open file or pipe: at `place` in a file, or where the descriptor stands.

    Raises:
        OSError: it cannot be written; how much of it is there is unknown.
    """
    left = memoryview(data)
    while left:
        piece = left[:_WRITE_BYTES]
        if place is None:
            left = left[os.write(descriptor, piece) :]
        else:
            written = os.pwrite(descriptor, piece, place)
            left, place = left[written:], place + written


def copy_verified(source: Path, target: Path, progress: Callable[[int, int], None]) -> tuple[int, str]:
    """Copies a file, which appears at `target` complete or not at all, and hashes it as it reads.

    Args:
        source: a regular file; a link is not followed.
        target: the new file.
        progress: called with the bytes copied so far and all bytes.

    Returns:
        Size in bytes, and SHA-256.

    Raises:
        OSError: one of the two cannot be read or written.
    """
    digest = hashlib.sha256()
    done = 0
    with (
        os.fdopen(open_regular(source), "rb", buffering=0) as read,
        replacing(target) as partial,
        partial.open("xb", buffering=0) as write,
    ):
        total = os.fstat(read.fileno()).st_size
        while piece := read.read(PIECE_BYTES):
            digest.update(piece)
            write_all(write.fileno(), piece)
            done += len(piece)
            progress(done, total)
    return done, digest.hexdigest()


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
        write_all(self._descriptor, data)
        self._unflushed += len(data)
        if self._unflushed >= _FLUSH_EVERY_BYTES:
            self._unflushed = 0
            if self._thread is None:
                self._thread = threading.Thread(target=self._flush, name="flush", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # no more threads are allowed: the disk begins later
                    self._thread = None
                    return
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
    try:
        with replacing(path) as partial:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            sink = FileSink(descriptor)
            try:
                yield sink
                sink.sync()
            finally:
                sink.settle()
                os.close(descriptor)
        _sync_folder(path.parent)
    except OSError as problem:
        raise _write_error(problem, path) from problem


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_error(problem: OSError, path: Path) -> PipelineError:
    if is_disk_full(problem):
        return disk_full(path.parent, f"there is no room for {path}, and nothing was kept of it")
    return ArtifactError(f"cannot write {path}: {problem.strerror or problem}")


def is_disk_full(error: OSError) -> bool:
    """True where the system says that there is no room, or that a quota is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_the_machines(error: OSError) -> bool:
    """True where an error says nothing about a file, only that the system could not do it just now."""
    return is_disk_full(error) or error.errno in _MACHINES


def disk_full(folder: Path, consequence: str) -> DiskFull:
    """A full disk in words: which, how much is free, what follows, what to do.

    Args:
        folder: where something was to be written.
        consequence: a clause without a full stop: what has no room, and what became of it.
    """
    free = f" ({in_words(free_bytes(folder))} free)"
    return DiskFull(
        f"the disk of {folder} is full{free}: {consequence}. Free some space, or choose another "
        "TRT_LLM_WORKSPACE, and build again"
    )


def refused(error: OSError, place: Path | str) -> str:
    """What the system has refused, and what to do about it; `place` where the error names no file."""
    where, reason = error.filename or place, error.strerror or error
    return f"{where} cannot be used: {reason}; {_REMEDIES.get(error.errno or 0, 'check who owns it')}"


def free_bytes(folder: Path) -> int:
    """Free on the disk where a folder is or will be."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return shutil.disk_usage(there).free
