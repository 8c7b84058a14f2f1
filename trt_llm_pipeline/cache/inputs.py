"""Which files a step can read by its arguments: what a key has to cover, whoever made them.

Links are followed, to files and to directories. Only regular files on a disk count: what else an argument
names (a FIFO, a device, a file of `/proc`) has no content that a key could cover.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from trt_llm_pipeline.units import in_words

MOST_FILES = 100_000
MOST_BYTES = 256_000_000_000
_LONGEST_TEXT = 4096
#: What the system says of a text that names no file: it is a value.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
#: File systems whose files are made up when they are read: filesystems(5), proc(5).
_VIRTUAL = {
    *("proc", "sysfs", "devpts", "devtmpfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs"),
    *("configfs", "pstore", "bpf", "mqueue", "binfmt_misc", "efivarfs", "fusectl", "nsfs", "rpc_pipefs"),
    *("selinuxfs", "autofs"),
}
_MOUNTS = Path("/proc/self/mountinfo")


class UnhashableError(Exception):
    """What a step reads cannot be told by a hash; the text says why, as the end of a sentence."""


class Disks:
    """Tells files on a disk from those that the kernel makes up."""

    def __init__(self, mounts: Path = _MOUNTS) -> None:
        self._virtual = {device for device, kind in _mounted(mounts) if kind in _VIRTUAL}

    def is_virtual(self, status: os.stat_result) -> bool:
        """True for a file of `/proc`, `/sys` and their like."""
        return f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}" in self._virtual


def named_files(
    root: Path, argv: Sequence[str], *, skip: Collection[Path], hidden: Collection[Path], disks: Disks
) -> dict[str, Path]:
    """The files at and below what the arguments name.

    Args:
        root: the workspace, where the step runs.
        argv: its arguments; one that names nothing is a value.
        skip: directories and files, links followed, that something else accounts for.
        hidden: left out where an argument names the workspace itself: the service's own directories.
        disks: see `Disks`.

    Returns:
        Real paths, by names that say which argument leads there and do not depend on the machine.

    Raises:
        UnhashableError: an argument names what no key can cover.
        OSError: a directory cannot be read.
    """
    walk = _Walk(disks, {os.path.realpath(path) for path in skip})
    found: dict[str, Path] = {}
    for index, argument in enumerate(argv):
        for text in dict.fromkeys((argument, argument.partition("=")[2])):
            if not text or "\0" in text or len(text) > _LONGEST_TEXT:
                continue
            path = os.path.realpath(root / text)
            if Path(path) in root.parents:
                raise UnhashableError(f"its argument {text!r} names a directory around the workspace")
            left_out = {os.path.realpath(place) for place in hidden} if Path(path) == root else set()
            found.update(walk.files(path, f"{index}:", left_out))
    return found


def files_below(folder: Path, disks: Disks, *, left_out: Collection[Path] = ()) -> dict[str, Path]:
    """The files below a directory by their path there, links followed; errors as for `named_files`."""
    walk = _Walk(disks, set(), bounded=False)
    hidden = {os.path.realpath(path) for path in left_out}
    return dict(walk.files(os.path.realpath(folder), "", hidden))


class _Walk:
    def __init__(self, disks: Disks, skip: set[str], *, bounded: bool = True) -> None:
        self._disks = disks
        self._skip = skip
        self._bounded = bounded
        self._count = 0
        self._bytes = 0

    def files(self, path: str, name: str, left_out: Collection[str]) -> Iterator[tuple[str, Path]]:
        """Files at or below a real path, in the order of their names; each directory once."""
        pending = [(path, name, True)]
        seen: set[tuple[int, int]] = set()
        while pending:
            path, name, jumped = pending.pop()
            if path in left_out or path in self._skip or (jumped and self._is_below_skipped(path)):
                continue
            try:
                status = os.lstat(path)
            except OSError as problem:
                if problem.errno in _NO_FILE:
                    continue
                raise
            if stat.S_ISLNK(status.st_mode):
                continue  # a link to itself leads nowhere
            if stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                self._check_place(path, status)
                prefix = name if not name or name.endswith(":") else f"{name}/"
                with os.scandir(path) as scanned:
                    entries = sorted(scanned, key=lambda entry: entry.name, reverse=True)
                for entry in entries:
                    is_link = entry.is_symlink()
                    real = os.path.realpath(entry.path) if is_link else entry.path
                    pending.append((real, prefix + entry.name, is_link))
            elif path != os.devnull:
                self._check(path, status)
                yield name, Path(path)

    def _is_below_skipped(self, path: str) -> bool:
        return any(str(parent) in self._skip for parent in Path(path).parents)

    def _check_place(self, path: str, status: os.stat_result) -> None:
        if self._disks.is_virtual(status):
            raise UnhashableError(f"it reads {path}, whose content the system makes up at each reading")

    def _check(self, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise UnhashableError(f"it reads {path}, which is not a regular file")
        self._check_place(path, status)
        self._count += 1
        self._bytes += status.st_size
        if self._bounded and (self._count > MOST_FILES or self._bytes > MOST_BYTES):
            raise UnhashableError(
                f"its arguments name more than {MOST_FILES:,} files or {in_words(MOST_BYTES)}, {path} for one"
            )


def _mounted(mounts: Path) -> Iterator[tuple[str, str]]:
    """Device number and type of each mounted file system: proc_pid_mountinfo(5)."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        place, _, kind = line.partition(" - ")
        fields = place.split()
        if len(fields) > 2 and kind:
            yield fields[2], kind.split()[0]
