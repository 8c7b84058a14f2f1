"""What goes into an archive and what comes of it: sources, files, sinks, the finished archive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from trt_llm_pipeline.artifact.content import content_sha256

Compression = Literal["gzip", "none"]
Progress = Callable[[int, int], None]

MANIFEST_NAME = "manifest.json"
END_OF_ARCHIVE = bytes(1024)


class Sink(Protocol):
    """Where the archive's bytes go, in order: a file, an upload."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take all of `data` or raise. `data` is not valid after the call."""


@runtime_checkable
class AbortableSink(Sink, Protocol):
    """A sink whose `write` may wait for long, as one that goes over a network does."""

    def abort(self) -> None:
        """Make a `write` that is under way in another thread, and every later one, raise soon."""


class Source(Protocol):
    """An open file of an archive-to-be."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill `buffer` from the current position; 0 at the end."""

    def close(self) -> None:
        """Release what was opened."""


@dataclass(frozen=True)
class Entry:
    """One file to archive: its name in the archive, its size in bytes, and how to open it for reading."""

    name: str
    size: int
    open: Callable[[], Source]

    @classmethod
    def of_bytes(cls, name: str, data: bytes) -> Entry:
        """An entry whose content is already in memory."""
        return cls(name, len(data), lambda: BytesIO(data))


@dataclass(frozen=True)
class ArchivedFile:
    """A file as it is in an archive: name, size in bytes, SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class FinishedArchive:
    """An archive that has been written, kept or sent.

    Attributes:
        size: its size in bytes.
        sha256: its SHA-256 in hexadecimal.
        files: every file in it, in order, the manifest last; empty where it was made by an earlier build.
        name: `engine.tar.gz` or `engine.tar`.
        path: where it is on this machine, if it is.
        address: where it was sent, without a query, if it was.
    """

    size: int
    sha256: str
    files: tuple[ArchivedFile, ...]
    name: str = ""
    path: Path | None = None
    address: str | None = None

    @property
    def content_sha256(self) -> str:
        """The archive's identity; see `content`."""
        return content_sha256(self.files)
