"""A file that appears complete or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trt_llm_pipeline.errors import ArtifactError, DiskFull, PipelineError

PARTIAL_SUFFIX = ".partial"


class FileSink:
    """Writes all of what it is given to an open descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes | memoryview, /) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


@contextmanager
def appearing(path: Path) -> Iterator[FileSink]:
    """A sink whose content is at `path` after the block, whole and on the disk; or nothing, if it raises.

    The unfinished file lies in the same folder, with a name that begins with a dot and ends in `.partial`.

    Raises:
        DiskFull: there is no room.
        ArtifactError: the file cannot be written for another reason.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}{PARTIAL_SUFFIX}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            try:
                yield FileSink(descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as problem:
        raise _translated(problem, path) from problem


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _translated(problem: OSError, path: Path) -> PipelineError:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"no room on the disk for {path}; nothing was kept of it: free some space, then build again"
        )
    return ArtifactError(f"cannot write {path}: {problem.strerror or problem}")
