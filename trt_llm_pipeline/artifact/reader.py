"""Reading an archive back in one streaming pass: what is in it, and whether it is what its manifest says."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, cast

from isal import isal_zlib

from trt_llm_pipeline.artifact.content import content_sha256
from trt_llm_pipeline.artifact.entries import END_OF_ARCHIVE, MANIFEST_NAME, ArchivedFile, Compression
from trt_llm_pipeline.errors import ArchiveDamaged, ArchiveMissing, ArchiveUnreachable, ArtifactError
from trt_llm_pipeline.net.addresses import Reach, shown
from trt_llm_pipeline.net.failures import HttpStatusError
from trt_llm_pipeline.net.read_ahead import AddressFile, ReadAhead
from trt_llm_pipeline.net.retrying import RetryLimits
from trt_llm_pipeline.net.spelling import is_web
from trt_llm_pipeline.net.window import Wording
from trt_llm_pipeline.units import counted

_CHUNK = 1 << 20
_LARGEST_KEPT = 64 << 20
_LIMITS = RetryLimits(attempts=4)
_InflateError = cast("type[Exception]", isal_zlib.error)
MOST_FILES = 100_000
_LARGEST_DESCRIPTION = 1 << 20
_DESCRIBING = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_GZIP = b"\x1f\x8b"
_GZIP_MEMBER = b"\x1f\x8b\x08"  # and by deflate, as every one is
_GONE = (404, 410)
_NO_HEADER = ("empty file", "truncated header", "bad checksum", "invalid header")  # tarfile's, of the first
_CHECKSUM = "checksum"  # as isal words what gzip's own sum has found
#: The problem of an archive that has no manifest, and no other problem.
NO_MANIFEST = f"it has no {MANIFEST_NAME}, so its files cannot be checked"


class Writer(Protocol):
    """Takes a file's content, piece by piece."""

    def write(self, data: bytes, /) -> object:
        """The next piece."""


#: Where a file's content is written too, by its name; None for nowhere.
Copies = Callable[[str], AbstractContextManager["Writer | None"]]


def _nowhere(_name: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class ArchiveContents:
    """What an archive holds.

    Attributes:
        size, sha256: of the archive itself, in bytes and hexadecimal.
        compression: `gzip` or `none`.
        files: every regular file, in the archive's order, by its name once extracted: `a` for `./a`.
        manifest: the parsed manifest, without its promise being kept; None where there is none.
        kept: contents of the files that were asked for, by name.
        problems: where the archive is not what a build makes or what its manifest says, in sentences; empty
            for a sound one.
        plain: whether no header tells a time, an owner, or rights other than 0644, nor spells a name with
            `./` or the like, as in a build's archive.
        strict: whether any reader that stops at the end-of-archive mark leaves nothing of the archive
            unread but zeros, as pget insists on. Whether one has read the end of other gzip data than a
            build's by then depends on what compressed them.
    """

    size: int
    sha256: str
    compression: Compression
    files: tuple[ArchivedFile, ...]
    manifest: Mapping[str, Any] | None
    kept: Mapping[str, bytes]
    problems: tuple[str, ...]
    plain: bool
    strict: bool

    @property
    def content_sha256(self) -> str:
        """The archive's identity; see `content`."""
        return content_sha256(self.files)


def read_archive(
    source: Path | str | BinaryIO,
    *,
    keep: Callable[[str, int], bool] = lambda _name, _size: False,
    copies: Copies = _nowhere,
    label: str | None = None,
    reach: Reach = Reach(),  # noqa: B008  frozen
) -> ArchiveContents:
    """Read an archive from its first byte to its last, hashing all of it.

    Args:
        source: a path, an http(s) address, or a binary stream at its start. Only read forward.
        keep: asked with each file's name and size in bytes whether its content should be returned too; at
            most 64 MiB a file.
        copies: asked with each file's name where its content goes; no longer asked once there is a problem.
        label: what to call the archive in messages, if not by its place.
        reach: which addresses may be connected to.

    Raises:
        ArchiveDamaged: it is no tar or tar.gz, ends early, or its compressed data are damaged.
        ArchiveMissing: there is nothing.
        ArtifactError: it cannot be read.
    """
    with _opened(source, reach) as (raw, place):
        stream = _Decompressed(raw)
        reading = _Reading(keep, copies)
        try:
            with tarfile.open(
                fileobj=stream, mode="r|", bufsize=_CHUNK, encoding="utf-8", tarinfo=_Member
            ) as archive:
                for member in archive:
                    reading.take(archive, member)
                    archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
            stream.read_out()
        except _UNREADABLE as problem:
            raise _unreadable(problem, label or place) from problem
        reading.finish(stream)
        return ArchiveContents(
            size=stream.size,
            sha256=stream.sha256.hexdigest(),
            compression="gzip" if stream.members else "none",
            files=tuple(reading.files),
            manifest=reading.manifest,
            kept=reading.kept,
            problems=tuple(reading.problems),
            plain=reading.plain,
            strict=stream.only_zeros_after(reading.end),
        )


def open_file(path: Path) -> BinaryIO:
    """Opens a file that somebody has named as an archive, or as what lies beside one.

    Raises:
        FileNotFoundError: there is none.
        ArchiveMissing: it is a directory.
        ArtifactError: it cannot be opened.
    """
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise ArchiveMissing(f"cannot read {path}: it is a directory; name the file in it") from None
    except (OSError, ValueError) as problem:
        raise ArtifactError(f"cannot read {path}: {getattr(problem, 'strerror', problem)}") from None


class _BytesAfterGzipError(Exception):
    """There is something after a gzip stream that is no member of it; the text says how much."""


def _unreadable(problem: Exception, label: str) -> ArtifactError:
    again = "fetch or build it again"
    if isinstance(problem, _BytesAfterGzipError):
        return ArchiveDamaged(f"{label} has {problem} after the end of its gzip data; {again}")
    if isinstance(problem, EOFError) or "unexpected end of data" in str(problem):
        return ArchiveDamaged(f"{label} is cut off: {problem}; {again}")
    if isinstance(problem, _InflateError) and _CHECKSUM in str(problem):
        return ArchiveDamaged(f"{label} is damaged: its content is not what gzip's checksum says; {again}")
    if isinstance(problem, _InflateError):
        return ArchiveDamaged(f"{label} is damaged: its compressed data cannot be read; {again}")
    if isinstance(problem, tarfile.ReadError) and str(problem) in _NO_HEADER:
        return ArchiveDamaged(f"{label} is no tar or tar.gz archive; {again}")
    if isinstance(problem, tarfile.TarError | ValueError):
        return ArchiveDamaged(f"{label} cannot be read as a tar or tar.gz archive ({problem}); {again}")
    return ArtifactError(f"{label} cannot be read to its end ({problem or type(problem).__name__}); {again}")


_UNREADABLE = (
    tarfile.TarError,
    EOFError,
    _InflateError,
    _BytesAfterGzipError,
    OSError,
    ValueError,
    http.client.HTTPException,
)


@contextmanager
def _opened(source: Path | str | BinaryIO, reach: Reach) -> Iterator[tuple[BinaryIO, str]]:
    """The stream and what to call it; an address loses its query, which may be a signature."""
    if not isinstance(source, Path | str):
        yield source, str(getattr(source, "name", "the stream"))
        return
    if isinstance(source, str) and is_web(source):
        label = shown(source)
        reader = _reader(source, label, reach)
        reader.open()
        with reader:
            yield cast(BinaryIO, AddressFile(reader)), label
        return
    try:
        file = open_file(Path(source))
    except FileNotFoundError:
        raise ArchiveMissing(f"cannot read {source}: no such file") from None
    with file:
        yield file, str(source)


class _Member(tarfile.TarInfo):
    """A header that is not let to fill the memory: `tarfile` reads what describes a member whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _DESCRIBING and member.size > _LARGEST_DESCRIPTION:
            raise tarfile.ReadError(f"a file's description is {member.size:,} bytes long")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("it holds a sparse file")
        return member


def _reader(url: str, label: str, reach: Reach) -> ReadAhead:
    def refused(error: HttpStatusError) -> ArtifactError:
        if error.status in _GONE:
            return ArchiveMissing(f"cannot read {label}: there is nothing (HTTP {error.status})")
        return ArchiveUnreachable(f"cannot fetch {label}: HTTP {error.status}")

    def unavailable(sentence: str) -> ArtifactError:
        return ArchiveUnreachable(f"{sentence}; check the address, and try again later")

    wording = Wording(label, unavailable, refused)
    return ReadAhead(url, wording, limits=_LIMITS, log=_ignore, reach=reach, hashed=False)


def _ignore(line: str) -> None:
    """An inspection says what it found, and nothing of the way there."""
    del line


class _Decompressed(io.RawIOBase):
    """The tar stream inside `raw`, and what was seen of both on the way."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__()
        self._raw = raw
        self._pending = b""
        self._inflate: Any = None
        self._first = True
        self.members: list[int] = []  # decompressed bytes of each gzip member
        self.sha256 = hashlib.sha256()
        self.size = 0  # bytes read from `raw`
        self.total = 0  # bytes given
        self.zeros = 0  # how many bytes at the end of what was given are zero

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            raise ValueError("only bounded reads")
        data = self._next(size)
        self.total += len(data)
        rest = len(data.rstrip(b"\0"))
        self.zeros = self.zeros + len(data) if not rest else len(data) - rest
        return data

    def read_out(self) -> None:
        while self.read(_CHUNK):
            pass

    def only_zeros_after(self, end: int) -> bool:
        """Whether every reader of the first `end` bytes here leaves nothing but zeros in `raw`."""
        if self.members:
            return self.total == end and self.members[-1] == len(END_OF_ARCHIVE)
        return self.zeros >= self.total - end

    def _fetch(self) -> bytes:
        data = self._raw.read(_CHUNK)
        self.size += len(data)
        self.sha256.update(data)
        return data

    def _next(self, size: int) -> bytes:
        if self._first:
            self._first = False
            self._pending = self._fetch()
            if self._pending.startswith(_GZIP):
                self.members.append(0)
                self._inflate = _inflater()
        if not self.members:
            data, self._pending = self._pending[:size], self._pending[size:]
            return data or self._fetch_some(size)
        while True:
            if self._inflate.eof:
                self._pending = self._inflate.unused_data
                while len(self._pending) < len(_GZIP_MEMBER) and (more := self._fetch()):
                    self._pending += more
                if not self._pending:
                    return b""
                if not self._pending.startswith(_GZIP_MEMBER):
                    raise _BytesAfterGzipError(self._counted_rest())
                self.members.append(0)
                self._inflate = _inflater()
            data = self._inflate.decompress(self._pending, size)
            self._pending = self._inflate.unconsumed_tail
            if data:
                self.members[-1] += len(data)
                return bytes(data)
            if not self._pending and not self._inflate.eof:
                self._pending = self._fetch()
                if not self._pending:
                    raise EOFError("it ends in the middle of its compressed data")

    def _counted_rest(self) -> str:
        count = len(self._pending)
        while data := self._fetch():
            count += len(data)
        return counted(count, "byte")

    def _fetch_some(self, size: int) -> bytes:
        self._pending = self._fetch()
        data, self._pending = self._pending[:size], self._pending[size:]
        return data


def _inflater() -> Any:
    return isal_zlib.decompressobj(wbits=16 + isal_zlib.MAX_WBITS)


class _Reading:
    """Collects what an archive holds, member by member."""

    def __init__(self, keep: Callable[[str, int], bool], copies: Copies) -> None:
        self._keep = keep
        self._copies = copies
        self.files: list[ArchivedFile] = []
        self._names: set[str] = set()
        self.kept: dict[str, bytes] = {}
        self.problems: list[str] = []
        self.manifest: Mapping[str, Any] | None = None
        self.plain = True
        self.end = len(END_OF_ARCHIVE)  # where the end-of-archive mark ends

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        size = member.size if member.isreg() else 0
        self.end = member.offset_data + size + -size % tarfile.BLOCKSIZE + len(END_OF_ARCHIVE)
        path = PurePosixPath(member.name)
        name = str(path)  # as extraction cleans it: without ./ and //, but .. stays
        told = (member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode, name)
        self.plain = self.plain and told == (0, 0, 0, "", "", 0o644, member.name)
        if member.isdir() and name == ".":
            return  # the folder that the archive is extracted to
        content = archive.extractfile(member) if member.isreg() else None
        if content is None:
            self.problems.append(f"{name} is not a regular file; an archive of this kind holds nothing else")
            return
        if len(self.files) >= MOST_FILES:
            raise tarfile.ReadError(f"it holds more than {MOST_FILES:,} files")
        if path.is_absolute() or ".." in path.parts:
            self.problems.append(f"{member.name!r} leads out of the folder that the archive is extracted to")
        if name == ".":
            self.problems.append(f"{member.name!r} is no name for a file")
        if name in self._names:
            self.problems.append(f"{name} is there twice")
        self._names.add(name)
        manifest = name == MANIFEST_NAME
        wanted = (manifest or self._keep(name, member.size)) and member.size <= _LARGEST_KEPT
        parts: list[bytes] = []
        sha256 = hashlib.sha256()
        with _nowhere(name) if self.problems else self._copies(name) as copy:
            while data := content.read(_CHUNK):
                sha256.update(data)
                if wanted:
                    parts.append(data)
                if copy is not None:
                    copy.write(data)
        self.files.append(ArchivedFile(name, member.size, sha256.hexdigest()))
        if wanted:
            self.kept[name] = b"".join(parts)
        if manifest:
            self._parse(self.kept.get(MANIFEST_NAME, b""))

    def finish(self, stream: _Decompressed) -> None:
        if not self.files:
            self.problems.append("it holds no file")
        if stream.total < self.end:
            self.problems.append("the end-of-archive mark is missing: it may have been cut off")
        elif stream.zeros < stream.total - self.end + len(END_OF_ARCHIVE):
            self.problems.append("there is something after the end-of-archive mark")
        if self.manifest is None:
            if not any(MANIFEST_NAME in problem for problem in self.problems):
                self.problems.append(NO_MANIFEST)
            return
        if self.files[-1].name != MANIFEST_NAME:
            self.problems.append(
                f"{MANIFEST_NAME} is not the last file: the archive was packed again in another order, or "
                "files were added"
            )
        self._compare(self.manifest)

    def _parse(self, text: bytes) -> None:
        try:
            manifest = json.loads(text)
        except (ValueError, RecursionError):
            self.problems.append(f"{MANIFEST_NAME} is not valid JSON")
            return
        if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict):
            self.manifest = manifest
        else:
            self.problems.append(f"{MANIFEST_NAME} does not list the archive's files")

    def _compare(self, manifest: Mapping[str, Any]) -> None:
        promised: dict[str, Any] = dict(manifest["files"])
        for file in self.files:
            if file.name == MANIFEST_NAME:
                continue
            facts = promised.pop(file.name, None)
            if not isinstance(facts, dict):
                self.problems.append(f"{file.name} is not in {MANIFEST_NAME}")
            elif facts.get("size") != file.size:
                self.problems.append(
                    f"{file.name} has {file.size} bytes; {MANIFEST_NAME} says {facts.get('size')}"
                )
            elif facts.get("sha256") != file.sha256:
                self.problems.append(
                    f"{file.name} was altered: its SHA-256 is {file.sha256}; {MANIFEST_NAME} says "
                    f"{facts.get('sha256')}"
                )
        self.problems += [f"{name} is in {MANIFEST_NAME} but not in the archive" for name in promised]
