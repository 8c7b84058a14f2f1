"""SHA-256 of files, remembered for as long as the system says that they are the same."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, PlainValidator, TypeAdapter

from trt_llm_pipeline.files import PIECE_BYTES, open_regular
from trt_llm_pipeline.records import Text, Warn, read_record, silent, write_record
from trt_llm_pipeline.units import in_words

# A file that is changed twice within one tick of the file system's clock looks the same after both.
_SETTLED_NS = 2_000_000_000
_WORTH_SAYING_BYTES = 1_000_000_000
_MOST_REMEMBERED = 200_000
_SHA256 = re.compile("[0-9a-f]{64}")


class FileHashes:
    """SHA-256 of regular files.

    A hash is remembered under device, inode, size, mtime and ctime. Programs set size and mtime as they like;
    the ctime is the system's own, so that a file that has been written to, or replaced, is read again.

    Args:
        path: a JSON file with what was known before; what it does not say is hashed.
        log: is told before a large file is read.
    """

    def __init__(self, path: Path | None = None, log: Callable[[str], None] | None = None) -> None:
        self._path = path
        self._log = log
        self._known = _load(path, log)
        self._changed = False

    def of(self, path: Path) -> str:
        """A file's SHA-256 in hexadecimal; a link stands for the file that it leads to.

        Raises:
            OSError: it cannot be read, is not a regular file, or changed while it was read.
        """
        real = os.path.realpath(path)
        descriptor = open_regular(Path(real))
        try:
            before = os.fstat(descriptor)
            identity = _identity(before)
            remembered = self._known.get(real)
            if isinstance(remembered, list) and remembered[:-1] == identity:
                return str(remembered[-1])
            if self._log is not None and before.st_size >= _WORTH_SAYING_BYTES:
                self._log(f"reading {path} ({in_words(before.st_size)}) to tell whether it has changed")
            started = time.time_ns()
            value = _read(descriptor, before.st_size)
            if value is None or _identity(os.fstat(descriptor)) != identity:
                raise OSError(errno.EBUSY, "it changed while it was read", str(path))
        finally:
            os.close(descriptor)
        if started - before.st_ctime_ns > _SETTLED_NS:
            self._known[real] = [*identity, value]
            self._changed = True
        return value

    def of_all(self, files: Iterable[tuple[str, Path]]) -> str:
        """One SHA-256 for many files: of their names and their content. Raises as `of` does."""
        digest = hashlib.sha256()
        for name, path in sorted(files):
            digest.update(f"{name}\0{self.of(path)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def save(self) -> None:
        """Writes down what is known, for the next build."""
        if self._path is not None and self._changed:
            if len(self._known) > _MOST_REMEMBERED:
                self._known = {name: mark for name, mark in self._known.items() if os.path.lexists(name)}
            write_record(self._path, self._known)
            self._changed = False

    def forget(self) -> None:
        """Remembers nothing any more: what was remembered has turned out to be wrong."""
        self._known = {}
        self._changed = True
        self.save()


def _entry(value: Any) -> list[Any]:
    """Device, inode, size, mtime, ctime and SHA-256."""
    if not isinstance(value, list) or len(value) != 6 or any(type(part) is not int for part in value[:-1]):
        raise ValueError("not a file's hash")
    if not isinstance(value[-1], str) or not _SHA256.fullmatch(value[-1]):
        raise ValueError("not a SHA-256")
    return value


_KNOWN = TypeAdapter(
    dict[Text, Annotated[list[Any], PlainValidator(_entry)]], config=ConfigDict(defer_build=True)
)


def _load(path: Path | None, log: Warn | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return read_record(path, _KNOWN, (lambda text: log(f"warning: {text}")) if log else silent) or {}
    except OSError:  # everything is hashed anew
        return {}


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read(descriptor: int, size: int) -> str | None:
    """The SHA-256 of an open file; None where it holds more or less than `size` bytes."""
    digest = hashlib.sha256()
    left = size
    while left:
        piece = os.read(descriptor, min(left, PIECE_BYTES))
        if not piece:
            return None
        digest.update(piece)
        left -= len(piece)
    return None if os.read(descriptor, 1) else digest.hexdigest()
