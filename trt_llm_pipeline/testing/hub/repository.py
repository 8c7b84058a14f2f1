"""Repositories as a Hub sees them: revisions, commits and content-addressed files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

MAIN = "main"
# The Hub keeps these in large file storage by default, and everything above 10 MB.
_LFS_SUFFIXES = frozenset(
    {".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".safetensors", ".tflite"}
)
_LFS_BYTES = 10_000_000
_POINTER_BYTES = 134


@dataclass(frozen=True)
class Blob:
    """One version of one file.

    Attributes:
        source: its bytes, or the file that holds them.
        size: bytes.
        git_oid: SHA-1 that git gives to the file, or for large files to their pointer.
        sha256: of the content for large files, else None.
    """

    source: Path | bytes
    size: int
    git_oid: str
    sha256: str | None

    @property
    def etag(self) -> str:
        """What the Hub announces: the SHA-256 for large files, git's own name for the others."""
        return self.sha256 or self.git_oid

    def open(self) -> BinaryIO:
        if isinstance(self.source, Path):
            return self.source.open("rb")
        return io.BytesIO(self.source)


def make_blob(path: str, source: Path | bytes) -> Blob:
    """A blob of the file's bytes, named as the Hub would name it."""
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if Path(path).suffix in _LFS_SUFFIXES or size > _LFS_BYTES:
        sha256 = _digest(hashlib.sha256(), source)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return Blob(source, size, _git_oid(len(pointer), pointer), sha256)
    return Blob(source, size, _git_oid(size, source), None)


def _git_oid(size: int, source: Path | bytes) -> str:
    return _digest(hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), source)


def _digest(hasher: hashlib._Hash, source: Path | bytes) -> str:
    if isinstance(source, bytes):
        hasher.update(source)
        return hasher.hexdigest()
    with source.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


@dataclass(frozen=True)
class Commit:
    """A commit: 40 hexadecimal digits that depend on nothing but the files."""

    sha: str
    files: Mapping[str, Blob]


def make_commit(files: Mapping[str, Path | bytes]) -> Commit:
    blobs = {path: make_blob(path, files[path]) for path in sorted(files)}
    hasher = hashlib.sha1(usedforsecurity=False)
    for path, blob in blobs.items():
        hasher.update(f"{path}\0{blob.etag}\0{blob.size}\n".encode())
    return Commit(hasher.hexdigest(), blobs)


@dataclass
class Repository:
    """A model's repository, or a dataset's.

    Attributes:
        model_id: `owner/name`; for a dataset `datasets/owner/name`.
        gated: listed for all, its files only for tokens that were granted access.
        private: not even listed for others.
        granted: tokens with access; empty means every token that the Hub knows.
        commits: by SHA.
        branches, tags: name to SHA.
    """

    model_id: str
    gated: bool = False
    private: bool = False
    granted: frozenset[str] = frozenset()
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, Path | bytes], *, revision: str = MAIN) -> str:
        """Makes a commit of exactly these files and lets the branch point at it; returns its SHA."""
        commit = make_commit(files)
        self.commits[commit.sha] = commit
        self.branches[revision] = commit.sha
        return commit.sha

    def resolve(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag, a full SHA or `refs/heads/...` names."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return self.commits.get(self.branches.get(name) or self.tags.get(name) or revision)


def files_of(folder: Path) -> dict[str, Path | bytes]:
    """Every file under the folder by its path relative to it; `.cache` and `.git` are left out."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".cache", ".git"} & set(path.relative_to(folder).parts)
    }


def describe(repository: Repository, commit: Commit, *, blobs: bool) -> dict[str, object]:
    """The answer of `GET /api/models/<id>` or `/api/datasets/<id>`; with `blobs`, sizes and hashes too."""
    siblings: list[dict[str, object]] = []
    for path, blob in commit.files.items():
        entry: dict[str, object] = {"rfilename": path}
        if blobs:
            entry |= {"size": blob.size, "blobId": blob.git_oid}
            if blob.sha256 is not None:
                entry["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": _POINTER_BYTES}
        siblings.append(entry)
    is_dataset = repository.model_id.startswith("datasets/")
    return {
        "_id": commit.sha[:24],
        "id": repository.model_id.removeprefix("datasets/"),
        **({} if is_dataset else {"modelId": repository.model_id}),
        "author": repository.model_id.removeprefix("datasets/").partition("/")[0],
        "sha": commit.sha,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings,
    }


def list_tree(commit: Commit, under: str, *, recursive: bool) -> list[dict[str, object]] | None:
    """The answer of `GET /api/models/<id>/tree/<revision>/<under>`; None where nothing is there."""
    prefix = f"{under}/" if under else ""
    entries: dict[str, dict[str, object]] = {}
    for path, blob in commit.files.items():
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            folder = prefix + "/".join(parts[:depth])
            oid = hashlib.sha1(folder.encode(), usedforsecurity=False).hexdigest()
            entries.setdefault(folder, {"type": "directory", "oid": oid, "size": 0, "path": folder})
        if recursive or len(parts) == 1:
            entries[path] = describe_file(path, blob)
    return list(entries.values()) if entries or not under else None


def describe_file(path: str, blob: Blob) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "oid": blob.git_oid, "size": blob.size, "path": path}
    if blob.sha256 is not None:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": _POINTER_BYTES}
    return entry
