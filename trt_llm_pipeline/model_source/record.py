"""The book that is kept beside a downloaded model: what it is, and whether all of it is there.

It lies in the model's own folder, under `.cache`, so that it goes where the model goes. A folder without one
is the user's and is never written to.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, PlainValidator, StrictBool, TypeAdapter, with_config
from typing_extensions import NotRequired, TypedDict

from trt_llm_pipeline import records
from trt_llm_pipeline.errors import ModelSourceError, WorkspaceError
from trt_llm_pipeline.model_source.choice import CACHE_FOLDER
from trt_llm_pipeline.records import Count, Text, Warn

_BOOKS = (CACHE_FOLDER, "trt-llm-pipeline")
_SCHEMA = 1
_CHUNK = 1 << 20
_USER = re.compile(r"(?<=://)[^/?#]*@")


@dataclass(frozen=True)
class RecordedFile:
    """A file as the source announces it.

    Attributes:
        path: relative to the model's folder.
        size: bytes.
        digest: `sha256:...`, `git-sha1:...` (git's name of a blob), `link:...` for a symbolic link and its
            target, or empty where none is announced.
        mtime_ns, ctime_ns, inode: of the file when it was found to be right; None as long as it is not there.
    """

    path: str
    size: int
    digest: str
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    inode: int | None = None

    def seen(self, status: os.stat_result) -> RecordedFile:
        """The entry of the same file as it was just found to be right."""
        return replace(self, mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns, inode=status.st_ino)


@dataclass(frozen=True)
class Record:
    """What was downloaded into a model's folder.

    Attributes:
        source: `hub` or `tar`.
        origin: the Hub's address, or the tar's. A user's name, password or token in it is left out: steps
            may read the record.
        model_id, requested_revision, weight_format: what was asked for; None where it was left open.
        revision: what that was resolved to.
        complete: whether every file is there and right. Written last.
        files: what belongs to the snapshot.
        stale: files of an earlier snapshot that are still to be removed.
        validators: ETag, Last-Modified and Content-Length of a tar.
        restricted: whether it needed a token; None where that is not known.
    """

    source: Literal["hub", "tar"]
    origin: str
    model_id: str
    requested_revision: str | None
    weight_format: str | None
    revision: str
    complete: bool
    files: tuple[RecordedFile, ...]
    stale: tuple[str, ...] = ()
    validators: Mapping[str, str] | None = None
    restricted: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", _USER.sub("", self.origin, count=1))

    def with_files(self, files: Mapping[str, RecordedFile]) -> Record:
        """The same record with the entries of these files replaced; they are given by their paths."""
        return replace(self, files=tuple(files.get(entry.path, entry) for entry in self.files))


def books_of(folder: Path) -> Path:
    """Where the record and half-downloaded files lie."""
    return folder.joinpath(*_BOOKS)


def record_path(folder: Path) -> Path:
    return books_of(folder) / "snapshot.json"


def partial_folder(folder: Path) -> Path:
    return books_of(folder) / "partial"


def unpacking_folder(folder: Path) -> Path:
    """Where a tar is unpacked before its files are moved to their places."""
    return books_of(folder) / "unpacked"


def partial_name(file: RecordedFile) -> str:
    """Named by content, so that nothing is ever resumed that has become another file.

    And by path: a repository may hold the same content twice, downloaded at the same time.
    """
    return hashlib.sha256(f"{file.path}\0{file.size}\0{file.digest}".encode()).hexdigest()


def read_record(folder: Path, warn: Warn = records.silent) -> Record | None:
    """The folder's record; None where there is none. What is none counts as a record of nothing.

    Raises:
        OSError: as `records.read_record`.
    """
    path = record_path(folder)
    known = records.read_record(path, _SNAPSHOT, warn)
    if known is None:
        # A folder with something in the record's place is this service's, and not known to be complete.
        damaged = os.path.lexists(path)
        return Record("hub", "", "", None, None, "", complete=False, files=()) if damaged else None
    return Record(
        source=known["source"],
        origin=known["origin"],
        model_id=known["model_id"],
        requested_revision=known["requested_revision"],
        weight_format=known["weight_format"],
        revision=known["revision"],
        complete=known["complete"],
        files=tuple(RecordedFile(**entry) for entry in known["files"]),
        stale=tuple(known["stale"]),
        validators=known["validators"],
        restricted=known.get("restricted"),
    )


def write_record(folder: Path, record: Record) -> None:
    """Writes it so that a reader finds the old one or the new one, and nothing between."""
    path = record_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_record(path, {"schema": _SCHEMA, **asdict(record)})


def completed(record: Record) -> Record:
    """The record of the same snapshot once all of it is in its place."""
    return replace(record, complete=True, stale=())


def check_path(path: str) -> str:
    """Refuses a path that would leave the model's folder or reach into its books.

    Raises:
        ModelSourceError: it is absolute, has `..`, or is no plain relative path.
    """
    parts = PurePosixPath(path).parts
    bad = not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path
    if bad or parts[0] == CACHE_FOLDER:
        raise ModelSourceError(
            f"the source lists a file named {path!r}, which does not stay inside the model's folder; "
            "nothing was written. Do not use this source."
        )
    return path


def _listed_path(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    try:
        return check_path(value)
    except ModelSourceError:
        raise ValueError("a path that leads out") from None


class _File(TypedDict):
    """A file of `snapshot.json`; see `RecordedFile`."""

    path: Annotated[str, PlainValidator(_listed_path)]
    size: Count
    digest: Text
    mtime_ns: NotRequired[Count | None]
    ctime_ns: NotRequired[Count | None]
    inode: NotRequired[Count | None]


@with_config(ConfigDict(defer_build=True))
class _Snapshot(TypedDict):
    """`snapshot.json`; see `Record`."""

    schema: Literal[1]
    source: Literal["hub", "tar"]
    origin: Text
    model_id: Text
    requested_revision: Text | None
    weight_format: Text | None
    revision: Text
    complete: StrictBool
    files: list[_File]
    stale: list[Annotated[str, PlainValidator(_listed_path)]]
    validators: dict[Text, Text] | None
    restricted: NotRequired[StrictBool | None]


_SNAPSHOT = TypeAdapter(_Snapshot)


def check_no_links(folder: Path, path: str) -> None:
    """Refuses to go through a symbolic link on the way from the model's folder to a file's parent.

    Raises:
        WorkspaceError: a component is a link.
    """
    place = folder
    for part in PurePosixPath(path).parts[:-1]:
        place = place / part
        if place.is_symlink():
            raise WorkspaceError(f"{place} is a symbolic link, and nothing is written through it; remove it")


def matches(folder: Path, file: RecordedFile) -> RecordedFile | None:
    """The file's entry, brought up to date, when it is there and right; else None.

    A file whose size, times and inode are the recorded ones is taken as it is; otherwise its content is
    hashed. Size and mtime alone would not do: programs set them as they like, and the ctime they cannot.
    """
    path = folder / file.path
    if file.digest.startswith("link:"):
        return file if path.is_symlink() and f"link:{path.readlink()}" == file.digest else None
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:
        return None
    if status.st_size != file.size or not path.is_file() or path.is_symlink():
        return None
    if file.seen(status) == file:
        return file
    if not file.digest or digest_of(path, file.digest) != file.digest:
        return None
    return file.seen(status)


def all_match(folder: Path, record: Record) -> Record | None:
    """The record, brought up to date, when every file that it lists is there and right; else None."""
    found = [matches(folder, file) for file in record.files]
    files = tuple(file for file in found if file is not None)
    return replace(record, files=files) if len(files) == len(found) else None


def new_hash(digest: str, size: int) -> hashlib._Hash:
    """A hash of the kind that the digest names, ready for the content of a file of that size."""
    kind = digest.partition(":")[0]
    if kind == "git-sha1":
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.sha256()


def digest_of(path: Path, like: str) -> str:
    """The file's digest, of the same kind as the given one."""
    hasher = new_hash(like, path.stat().st_size)
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            hasher.update(chunk)
    return f"{like.partition(':')[0]}:{hasher.hexdigest()}"


def remove_files(folder: Path, paths: tuple[str, ...]) -> None:
    """Removes files that an earlier snapshot had, and the folders that are empty without them."""
    for path in paths:
        check_no_links(folder, path)
        target = folder / path
        if target.is_symlink() or target.is_file():
            target.unlink()
        for parent in PurePosixPath(path).parents:
            if parent == PurePosixPath("."):
                break
            try:
                os.rmdir(folder / parent)  # noqa: PTH106  fails, as wanted, where something is left
            except OSError:
                break


def remove_partial(folder: Path) -> None:
    """Removes half-downloaded files, and what an interrupted unpacking left."""
    for leftover in (partial_folder(folder), unpacking_folder(folder)):
        shutil.rmtree(leftover, ignore_errors=True)
