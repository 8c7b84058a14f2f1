"""Unpacks a tar from a stream, trusting nothing in it.

Stricter than `tarfile`'s data filter (PEP 706), and the same on every Python: links that lead out of the
folder, devices and absolute paths are refused rather than mended, and the whole archive with them.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from trt_llm_pipeline.errors import ModelSourceError
from trt_llm_pipeline.files import write_all
from trt_llm_pipeline.printable import printable
from trt_llm_pipeline.units import in_words

MOST_ENTRIES = 100_000
MOST_FOLDERS = 100_000
LONGEST_PATH = 1024  # bytes, of an entry or of what a link leads to
DEEPEST_PATH = 32  # folders
_LONGEST_NAME = 255  # bytes, on every common file system
_SHOWN_CHARS = 80
# A name or a set of extended attributes; a header that claims more wants to fill the memory.
_LONGEST_HEADER = 1 << 20
# Of all headers that belong to one entry: `tarfile` holds them until it has the entry itself.
_MOST_HEADERS_OF_ENTRY = 2 << 20
# Global headers are kept to the end, and applied to each entry. Git writes one, of a commit's name.
MOST_GLOBAL_HEADERS = 100
_LONGEST_GLOBAL_HEADERS = 1 << 20
# More than any name may have. Before Python 3.10.15, 3.11.10 and 3.12.6, `tarfile` looks through a row of
# digits once from each of them: minutes for a megabyte.
_MOST_DIGITS = 300
_TOO_MANY_DIGITS = b"0" * (_MOST_DIGITS + 1)
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
MOST_LINKS_IN_A_ROW = 40  # as Linux has it
_BLOCK = 512


class TarStream:
    """A forward-only file over an iterator of chunks, as much of one as `tarfile.TarFile` needs."""

    def __init__(self, chunks: Iterator[bytes | memoryview], shown: str) -> None:
        self._chunks = chunks
        self._shown = shown
        self._chunk = memoryview(b"")
        self._place = 0
        self._of_entry = 0
        self.last_block_was_zero = False

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> None:
        if place < self._place:
            raise ModelSourceError(f"{self._shown} is damaged: an entry points backwards")
        while self._place < place and self.take(place - self._place):
            pass

    def begin_entry(self) -> None:
        """What is read from here on are the headers of another entry."""
        self._of_entry = 0

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer at the end; what `tarfile` reads headers with."""
        if not 0 <= size <= _LONGEST_HEADER:
            raise ModelSourceError(f"{self._shown} is refused: it has a header of {size} bytes")
        self._of_entry += size
        if self._of_entry > _MOST_HEADERS_OF_ENTRY:
            raise ModelSourceError(
                f"{self._shown} is refused: the headers of one entry hold more than "
                f"{in_words(_MOST_HEADERS_OF_ENTRY)}"
            )
        pieces, left = [], size
        while left and (piece := self.take(left)):
            pieces.append(bytes(piece))
            left -= len(piece)
        content = b"".join(pieces)
        if _TOO_MANY_DIGITS in content.translate(_DIGITS_AS_ZEROS):
            raise ModelSourceError(
                f"{self._shown} is refused: it has a header with more than {_MOST_DIGITS} digits in a row"
            )
        if size == _BLOCK:
            self.last_block_was_zero = len(content) == _BLOCK and not any(content)
        return content

    def take(self, most: int) -> memoryview:
        """What is at hand, at most so many bytes, without copying; empty at the end."""
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return self._chunk
            self._chunk = memoryview(chunk)
        piece, self._chunk = self._chunk[:most], self._chunk[most:]
        self._place += len(piece)
        return piece


class _SparseEntry(Exception):
    """A sparse file, of the name that is given."""


class _Entry(tarfile.TarInfo):
    """An entry of which `tarfile` reads no map of holes: a map may be as long as its author likes.

    These are the hooks of `tarfile` that read the four kinds of map, the same in Python 3.10 to 3.13.
    """

    def _proc_sparse(self, _archive: tarfile.TarFile) -> NoReturn:
        raise _SparseEntry(self.name)

    def _refuse_map(self, entry: tarfile.TarInfo, pax_headers: Mapping[str, str], *_: Any) -> NoReturn:
        raise _SparseEntry(pax_headers.get("GNU.sparse.name") or pax_headers.get("path") or entry.name)

    def _proc_gnusparse_00(self, entry: tarfile.TarInfo, *_: Any) -> NoReturn:
        raise _SparseEntry(entry.name)  # the other arguments differ between Pythons

    _proc_gnusparse_01 = _refuse_map
    _proc_gnusparse_10 = _refuse_map


@dataclass(frozen=True)
class Unpacked:
    """What came out.

    Attributes:
        root: the folder, or the wrapper folder in it where there was just one.
        files, links: paths relative to `root`, sorted.
        bytes: of all files.
        sha256: of each file, by path.
    """

    root: Path
    files: tuple[str, ...]
    links: tuple[str, ...]
    bytes: int
    sha256: Mapping[str, str]


def unpack(
    chunks: Iterator[bytes | memoryview],
    folder: Path,
    shown: str,
    *,
    most_bytes: int,
    tick: Callable[[], None],
    written: Callable[[str], None] | None = None,
) -> Unpacked:
    """Unpacks into an empty folder.

    Args:
        chunks: the uncompressed tar.
        folder: must be there.
        shown: the source's name for messages.
        most_bytes: what may be written at most, in all.
        tick: called now and then; may raise.
        written: called with the path of each file and link that is there, in the folder; may raise.

    Raises:
        ModelSourceError: the archive is refused, damaged or cut short. What was written stays for the
            caller to remove.
        OSError: it could not be written.
    """
    stream = TarStream(chunks, shown)
    try:
        with (
            ThreadPoolExecutor(1, thread_name_prefix="tar-hash") as aside,
            tarfile.TarFile(fileobj=stream, mode="r", tarinfo=_Entry) as archive,  # type: ignore[arg-type]
        ):
            unpacker = _Unpacker(stream, folder, shown, most_bytes, tick, written, aside)
            for count, member in enumerate(iter(archive.next, None), start=1):
                if count > MOST_ENTRIES:
                    raise ModelSourceError(
                        f"{shown} is refused: it has more than {MOST_ENTRIES:,} entries, which no model does"
                    )
                _check_global_headers(archive.pax_headers, shown)
                unpacker.unpack(member)
                stream.begin_entry()
                archive.members = []  # type: ignore[attr-defined]  # kept by tarfile, needed by nobody
    except _SparseEntry as error:
        name = printable(_cut(str(error)))
        raise ModelSourceError(f"{shown} is refused: {name} is a sparse file; pack it plain") from error
    except tarfile.ReadError as error:
        place = stream.tell()
        if place <= _BLOCK:
            raise ModelSourceError(
                f"{shown} is no tar archive; model_tar_url takes a .tar or a .tar.gz"
            ) from error
        raise ModelSourceError(f"{shown} is damaged or cut short at byte {place}") from error
    except (RecursionError, tarfile.TarError, ValueError) as error:
        raise ModelSourceError(f"{shown} is damaged: its headers make no sense") from error
    if not stream.last_block_was_zero:
        raise ModelSourceError(f"{shown} is cut short: it has no end-of-archive mark")
    _read_to_the_end(stream, shown, tick)
    return unpacker.result()


def _check_global_headers(headers: Mapping[str, str], shown: str) -> None:
    size = sum(len(name) + len(value) for name, value in headers.items())
    if len(headers) > MOST_GLOBAL_HEADERS or size > _LONGEST_GLOBAL_HEADERS:
        raise ModelSourceError(
            f"{shown} is refused: it has {len(headers):,} global headers of {in_words(size)} in all; at most "
            f"{MOST_GLOBAL_HEADERS} of {in_words(_LONGEST_GLOBAL_HEADERS)} are allowed"
        )


def _read_to_the_end(stream: TarStream, shown: str, tick: Callable[[], None]) -> None:
    """Reads what follows the first zero block, to the last byte: for the hash and the gzip checksums too.

    The mark of the end is two zero blocks, and some writers leave out the second. A header that damage has
    turned to zeros looks like the first one; the entries that follow it tell the two apart.

    Raises:
        ModelSourceError: there is something else than zeros.
    """
    mark = stream.tell() - _BLOCK
    while piece := stream.take(_LONGEST_HEADER):
        if bytes(piece).strip(b"\0"):
            raise ModelSourceError(
                f"{shown} is damaged: at byte {mark:,} there is an end-of-archive mark, and more follows it; "
                "pack it again, or check that what is at the address is what was packed"
            )
        tick()


class _LeadsOut(Exception):
    """What a link leads to lies above the folder."""


class _TooManyLinks(Exception):
    """A link leads through more links than a system follows, or in a circle."""


class _Trail:
    """Follows symbolic links by their names, as the system will, in a folder where there are no others."""

    def __init__(self, links: Mapping[str, str]) -> None:
        """Takes what each link leads to, by its path."""
        self._links = links
        self._ends: dict[str, tuple[str, int]] = {}

    def follow(self, path: str, before: int = 0) -> tuple[str, int]:
        """Where a link ends, and how many links that takes, after those `before`.

        Raises:
            _LeadsOut: on its way it is outside, if only in passing.
            _TooManyLinks: it never ends, or would not for the system.
        """
        if path not in self._ends:
            if before >= MOST_LINKS_IN_A_ROW:
                raise _TooManyLinks
            self._ends[path] = self._walked(path, before)
        place, taken = self._ends[path]
        if before + taken > MOST_LINKS_IN_A_ROW:
            raise _TooManyLinks
        return place, taken

    def _walked(self, path: str, before: int) -> tuple[str, int]:
        place, taken = path.rpartition("/")[0], 1
        for part in self._links[path].split("/"):
            if part == "..":
                # Lexical checks are not enough where one link's target goes through another.
                if not place:
                    raise _LeadsOut
                place = place.rpartition("/")[0]
            elif part not in ("", "."):
                place = f"{place}/{part}" if place else part
                if place in self._links:
                    place, more = self.follow(place, before + taken)
                    taken += more
        return place, taken


class _Unpacker:
    def __init__(
        self,
        stream: TarStream,
        folder: Path,
        shown: str,
        most_bytes: int,
        tick: Callable[[], None],
        written: Callable[[str], None] | None,
        aside: Executor,
    ) -> None:
        self._stream, self._folder, self._shown = stream, folder, shown
        self._most_bytes, self._tick, self._written = most_bytes, tick, written
        self._aside = aside
        self._bytes = 0
        self._files: dict[str, str] = {}  # with the SHA-256 of each
        self._links: dict[str, str] = {}  # with what each leads to
        self._folders: set[str] = set()

    def unpack(self, member: tarfile.TarInfo) -> None:
        path = self._path_of(member.name, "an entry")
        if member.isdir():
            if path is not None:
                self._make_folder(path)
            return
        if path is None:
            raise self._refused(f"the entry {_cut(member.name)!r} is not a file")
        if member.issparse():
            raise self._refused(f"{path} is a sparse file; pack it plain")
        if member.isreg():
            self._write(path, member)
        elif member.issym():
            self._symlink(path, member.linkname)
        elif member.islnk():
            self._hardlink(path, member.linkname)
        else:
            raise self._refused(f"{path} is a device or a pipe, not a file")
        if self._written is not None:
            self._written(path)

    def result(self) -> Unpacked:
        if not self._files:
            raise ModelSourceError(f"{self._shown} holds no files")
        root, prefix = self._folder, ""
        tops = {path.partition("/")[0] for path in (*self._files, *self._links)}
        if len(tops) == 1 and (wrapper := tops.pop()) not in self._files and wrapper not in self._links:
            root, prefix = self._folder / wrapper, f"{wrapper}/"
        self._check_links(prefix)
        return Unpacked(
            root,
            tuple(sorted(path.removeprefix(prefix) for path in self._files)),
            tuple(sorted(path.removeprefix(prefix) for path in self._links)),
            self._bytes,
            {path.removeprefix(prefix): sha256 for path, sha256 in self._files.items()},
        )

    def _check_links(self, prefix: str) -> None:
        """Checks each link as it will lie once the wrapper folder, whose path is `prefix`, is gone.

        Not on the disk, where the wrapper is still there: out of it and back in by its name would seem to
        stay inside, and later lead into another model.

        Raises:
            ModelSourceError: a link leads out, or in a circle.
        """
        links = {path.removeprefix(prefix): target for path, target in self._links.items()}
        trail = _Trail(links)
        for path, target in links.items():
            if _lexically_out(path, target):
                raise self._leads_out(prefix + path)
            try:
                trail.follow(path)
            except _LeadsOut as error:
                raise self._leads_out(prefix + path) from error
            except _TooManyLinks as error:
                raise self._refused(
                    f"the link {prefix}{path} leads in a circle, or through more than "
                    f"{MOST_LINKS_IN_A_ROW} links"
                ) from error

    def _path_of(self, name: str, what: str) -> str | None:
        """The entry's path, normalised; None for the archive's root itself. Linear in the name's length."""
        self._bounded(name, what)
        pure = PurePosixPath(name)
        if pure.is_absolute():
            raise self._refused(f"{what} has the absolute path {name!r}")
        if ".." in pure.parts:
            raise self._refused(f"{what} has '..' in its path {name!r}")
        if "\0" in name or "\\" in name:
            raise self._refused(f"{what} has the path {name!r}")
        path = pure.as_posix()
        if path == ".":
            return None
        for parent in _folders_above(path):
            if parent in self._links:
                raise self._refused(f"{path} lies behind the link {parent}")
        return path

    def _bounded(self, name: str, what: str) -> None:
        """Refuses a path before anything is done with its parts: a header of a megabyte can hold 500,000."""
        try:
            encoded = name.encode()
        except UnicodeEncodeError as error:
            raise self._refused(f"{_cut(name)!a} is not UTF-8") from error
        problem = None
        if len(encoded) > LONGEST_PATH:
            problem = f"a path of {len(encoded):,} bytes; at most {LONGEST_PATH:,} are allowed"
        elif encoded.count(b"/") > DEEPEST_PATH:
            problem = f"a path {encoded.count(b'/')} folders deep; at most {DEEPEST_PATH} are allowed"
        elif max(map(len, encoded.split(b"/"))) > _LONGEST_NAME:
            problem = f"a name of more than {_LONGEST_NAME} bytes in its path"
        if problem is not None:
            raise self._refused(f"{what} has {problem} ({_cut(name)!r})")

    def _make_folder(self, path: str) -> None:
        """Makes a folder and those above it; each is made and counted once."""
        for folder in (*_folders_above(path), path):
            if folder in self._folders:
                continue
            if folder in self._links or folder in self._files:
                kind = "link" if folder in self._links else "file"
                raise self._refused(f"{folder} is a {kind} and a folder")
            self._folders.add(folder)
            if len(self._folders) > MOST_FOLDERS:
                raise self._refused(f"it has more than {MOST_FOLDERS:,} folders, as no model has")
            (self._folder / folder).mkdir(exist_ok=True)

    def _clear(self, path: str) -> Path:
        """The place for a file or link; a later entry of the same name replaces an earlier one."""
        if path in self._folders:
            raise self._refused(f"{path} is a file and a folder")
        target = self._folder / path
        self._files.pop(path, None)
        self._links.pop(path, None)
        if target.is_symlink() or target.is_file():
            target.unlink()
        if "/" in path:
            self._make_folder(path.rpartition("/")[0])
        return target

    def _write(self, path: str, member: tarfile.TarInfo) -> None:
        self._bytes += max(member.size, 0)
        if member.size < 0 or self._bytes > self._most_bytes:
            raise self._refused(
                f"with {path} it unpacks to {in_words(self._bytes)} or more, "
                f"and there is room for {in_words(self._most_bytes)}; make room or use a smaller model"
            )
        target = self._clear(path)
        mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        left = member.size
        digest = hashlib.sha256()
        descriptor = os.open(target, flags, mode)
        with os.fdopen(descriptor, "wb", buffering=0) as output:
            while left:
                piece = self._stream.take(left)
                if not piece:
                    raise ModelSourceError(
                        printable(f"{self._shown} is cut short: {in_words(left)} of {path} are missing")
                    )
                left -= len(piece)
                hashing = self._aside.submit(digest.update, piece)
                try:
                    write_all(output.fileno(), piece)
                finally:
                    hashing.result()  # before its memory is used again
                self._tick()
        self._files[path] = digest.hexdigest()

    def _symlink(self, path: str, target: str) -> None:
        self._bounded(target, f"the link {path}")
        if _lexically_out(path, target):
            raise self._leads_out(path)
        self._clear(path).symlink_to(target)
        self._links[path] = target

    def _hardlink(self, path: str, target: str) -> None:
        source = self._path_of(target, f"the link {path}")
        if source is None or source not in self._files:
            raise self._leads_out(path)
        sha256 = self._files[source]
        os.link(self._folder / source, self._clear(path), follow_symlinks=False)
        self._files[path] = sha256

    def _leads_out(self, path: str) -> ModelSourceError:
        return self._refused(f"the link {path} leads out of the archive")

    def _refused(self, why: str) -> ModelSourceError:
        """The error to raise; names of the archive in it are anyone's text."""
        return ModelSourceError(printable(f"{self._shown} is refused: {why}"))


def _lexically_out(path: str, target: str) -> bool:
    """Whether a link at a path leads out, judged by names alone."""
    inside = os.path.normpath(PurePosixPath(path).parent / target)
    return target.startswith("/") or inside.split("/")[0] == ".."


def _folders_above(path: str) -> Iterator[str]:
    """`a`, `a/b` for `a/b/c`."""
    for end, letter in enumerate(path):
        if letter == "/":
            yield path[:end]


def _cut(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARS else f"{name[:_SHOWN_CHARS]}..."
