"""Which files of a directory may be archived, and opening them so that nothing else is ever read.

A step's script decides what is in its output directory. A symbolic link planted there, or put in a file's
place after it was listed, must not bring a file from elsewhere into the archive: every component of a path is
opened without following links, from a descriptor of the directory that was listed.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trt_llm_pipeline.artifact.entries import Entry
from trt_llm_pipeline.errors import ArtifactError

_DEEPEST = 32
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not block


@contextmanager
def engine_entries(directory: Path) -> Iterator[list[Entry]]:
    """The regular files below `directory`; the entries can be opened inside the block.

    A symbolic link to a regular file inside the directory counts as that file.

    Raises:
        ArtifactError: the directory cannot be read, or holds what an archive must not: a link that leads out
            of it or to a directory, a device, a socket, a FIFO. All of them are named.
    """
    try:
        root = os.open(directory, _DIRECTORY)
    except OSError as problem:
        raise ArtifactError(f"cannot pack {directory}: {problem.strerror}") from problem
    try:
        problems: list[str] = []
        try:
            entries = sorted(_listed(directory, root, root, "", problems), key=lambda entry: entry.name)
        except OSError as problem:
            raise ArtifactError(
                f"cannot list {directory} ({problem}); something may still be writing there: wait for that "
                f"to end, then build again"
            ) from problem
        if problems:
            shown = "; ".join(problems[:8]) + (
                "" if len(problems) <= 8 else f"; and {len(problems) - 8} more"
            )
            raise ArtifactError(
                f"{directory} holds what cannot be packed: {shown}. Only regular files go into the archive: "
                "have the build step write copies instead, or remove these"
            )
        yield entries
    finally:
        os.close(root)


def extra_entry(name: str, content: Path | bytes) -> Entry:
    """An entry for content in memory or for one regular file, which must not be a link.

    Raises:
        ArtifactError: the file cannot be read or is not a regular one.
    """
    if isinstance(content, bytes):
        return Entry.of_bytes(name, content)
    try:
        seen = content.lstat()
    except OSError as problem:
        raise ArtifactError(f"cannot read {content}: {problem.strerror}") from problem
    if not stat.S_ISREG(seen.st_mode):
        raise ArtifactError(f"cannot pack {content}: it is {_kind(seen.st_mode)}, not a regular file")
    return Entry(name, seen.st_size, lambda: _opened(None, str(content), name, seen))


def _listed(top: Path, root: int, folder: int, prefix: str, problems: list[str]) -> Iterator[Entry]:
    if prefix.count("/") > _DEEPEST:
        problems.append(f"{prefix} is more than {_DEEPEST} folders deep")
        return
    with os.scandir(folder) as children:
        found = sorted(child.name for child in children)
    for child in found:
        name = prefix + child
        seen = os.stat(child, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(seen.st_mode):
            below = os.open(child, _DIRECTORY, dir_fd=folder)
            try:
                yield from _listed(top, root, below, f"{name}/", problems)
            finally:
                os.close(below)
        elif stat.S_ISREG(seen.st_mode):
            yield _entry(root, name, name, seen)
        elif stat.S_ISLNK(seen.st_mode):
            target = _target(top, name)
            if isinstance(target, Path):
                with suppress(OSError):
                    seen = os.stat(target, dir_fd=root, follow_symlinks=False)
                yield _entry(root, name, target.as_posix(), seen)
            else:
                problems.append(f"{name} is a symbolic link {target}")
        else:
            problems.append(f"{name} is {_kind(seen.st_mode)}")


def _entry(root: int, name: str, path: str, seen: os.stat_result) -> Entry:
    return Entry(name, seen.st_size, lambda: _opened(root, path, name, seen))


def _target(top: Path, name: str) -> Path | str:
    """Where a link inside `top` leads, relative to `top`; or, in words, why it cannot be packed."""
    base = Path(os.path.realpath(top))
    target = Path(os.path.realpath(base / name))
    if not target.is_relative_to(base):
        return f"that leads out of the directory, to {target}"
    if not target.exists():
        return "to nothing"
    if not target.is_file():
        return "to something other than a regular file"
    return target.relative_to(base)


def _opened(root: int | None, path: str, name: str, seen: os.stat_result) -> io.FileIO:
    """Open `path` below `root` if it is still the file that was listed."""
    try:
        descriptor = _descend(root, path) if root is not None else os.open(path, _FILE)
    except OSError as problem:
        raise ArtifactError(f"cannot pack {name}: {problem.strerror}") from problem
    now = os.fstat(descriptor)
    if not stat.S_ISREG(now.st_mode) or (now.st_dev, now.st_ino) != (seen.st_dev, seen.st_ino):
        os.close(descriptor)
        raise ArtifactError(
            f"{name} was replaced while the directory was being packed; something is still writing there: "
            "wait for that to end, then build again"
        )
    return io.FileIO(descriptor, "rb")


def _descend(root: int, path: str) -> int:
    *folders, last = path.split("/")
    current = root
    try:
        for folder in folders:
            below = os.open(folder, _DIRECTORY, dir_fd=current)
            if current != root:
                os.close(current)
            current = below
        return os.open(last, _FILE, dir_fd=current)
    finally:
        if current != root:
            os.close(current)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something unusual")
