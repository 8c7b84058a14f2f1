"""The book that is kept beside a downloaded model: what it is, and whether all of it is there.

It lies in the model's own folder, under `.cache`, so that it goes where the model goes. A folder without one
is the user's and is never written to.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from trt_llm_pipeline.errors import ModelSourceError, WorkspaceError
from trt_llm_pipeline.files import read_json, write_json
from trt_llm_pipeline.model_source.choice import CACHE_FOLDER

_BOOKS = (CACHE_FOLDER, "trt-llm-pipeline")
_SCHEMA = 1
_CHUNK = 1 << 20


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
        origin: the Hub's address, or the tar's.
        model_id, requested_revision, weight_format: what was asked for; None where it was left open.
        revision: what that was resolved to.
        complete: whether every file is there and right. Written last.
        files: what belongs to the snapshot.
        stale: files of an earlier snapshot that are still to be removed.
        validators: ETag, Last-Modified and Content-Length of a tar.
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


def read_record(folder: Path) -> Record | None:
    """The folder's record; None where there is none. A damaged one counts as a record of nothing."""
    try:
        value = read_json(record_path(folder))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return _empty_record()
    try:
        return _record_from(value)
    except (KeyError, TypeError, ValueError, ModelSourceError):
        return _empty_record()


def _empty_record() -> Record:
    return Record("hub", "", "", None, None, "", complete=False, files=())


def _record_from(value: Mapping[str, Any]) -> Record:
    if value["schema"] != _SCHEMA or value["source"] not in ("hub", "tar"):
        raise ValueError("a record of another version")
    files = tuple(
        RecordedFile(
            str(entry["path"]),
            int(entry["size"]),
            str(entry["digest"]),
            *(_optional(entry.get(name)) for name in ("mtime_ns", "ctime_ns", "inode")),
        )
        for entry in value["files"]
    )
    for path in (*(file.path for file in files), *value["stale"]):
        check_path(path)
    return Record(
        source=value["source"],
        origin=str(value["origin"]),
        model_id=str(value["model_id"]),
        requested_revision=value["requested_revision"],
        weight_format=value["weight_format"],
        revision=str(value["revision"]),
        complete=value["complete"] is True,
        files=files,
        stale=tuple(value["stale"]),
        validators=value["validators"],
    )


def _optional(value: Any) -> int | None:
    return None if value is None else int(value)


def write_record(folder: Path, record: Record) -> None:
    """Writes it so that a reader finds the old one or the new one, and nothing between."""
    path = record_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema": _SCHEMA, **asdict(record)})


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
