"""An archive's files in a directory, for whoever wants to use them here."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from trt_llm_pipeline.artifact.reader import NO_MANIFEST, ArchiveContents, read_archive
from trt_llm_pipeline.errors import ArchiveDamaged, ArtifactError, PipelineError
from trt_llm_pipeline.files import disk_full, is_disk_full

_MOST_SHOWN = 4


def unpack(stream: BinaryIO, folder: Path, label: str) -> ArchiveContents:
    """Writes an archive's files below `folder`, in one pass to its end; nothing outside it.

    An archive without a manifest passes as far as its compression's own checksum tells.

    Args:
        stream: the archive, a tar or tar.gz.
        folder: exists, and is empty.
        label: what to call the archive in messages.

    Raises:
        ArchiveDamaged: it is none, is damaged, is not what its manifest says, or holds what no build puts
            there. What lies in the folder then must not be used.
        ArtifactError: it cannot be read, or a file cannot be written.
        DiskFull: there is no room.
    """
    contents = read_archive(stream, copies=lambda name: _Copy(folder, folder / name, label), label=label)
    problems = contents.problems
    if problems and problems != (NO_MANIFEST,):
        more = len(problems) - _MOST_SHOWN
        said = "; ".join(problems[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise ArchiveDamaged(f"{label} is not as a build has left it: {said}; fetch or build it again")
    return contents


class _Copy:
    """A file that is made below a folder; its errors say which archive had no room there."""

    def __init__(self, folder: Path, path: Path, label: str) -> None:
        self._folder, self._path, self._label = folder, path, label
        self._file: BinaryIO | None = None

    def __enter__(self) -> _Copy:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")
        except OSError as problem:
            raise self._told(problem) from None
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._file is not None:
                self._file.close()
        except OSError as problem:
            raise self._told(problem) from None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data) if self._file is not None else 0
        except OSError as problem:
            raise self._told(problem) from None

    def _told(self, problem: OSError) -> PipelineError:
        if is_disk_full(problem):
            return disk_full(self._folder, f"there is no room to unpack {self._label}")
        return ArtifactError(f"{self._label} cannot be unpacked: {problem.strerror or problem}")
