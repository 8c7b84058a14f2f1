"""Is there room? Asked before the download, answered with both numbers. And what to say when it is full."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trt_llm_pipeline import files
from trt_llm_pipeline.errors import DiskFull, WorkspaceError, add_note, notes_of
from trt_llm_pipeline.units import in_words

_FULL_BELOW = 256 * 1024
_FULL_BELOW_AT_MOST = 64 * 1024 * 1024
_FULL_SHARE = 1000


@dataclass(frozen=True)
class DiskNeed:
    """What a build needs on the workspace's disk, in bytes.

    Attributes:
        download: what is still to be downloaded.
        steps: what the steps write, estimated: each about as much as the model's weights.
        archive: the archive, estimated likewise.
        free: what is free.
    """

    download: int
    steps: int
    archive: int
    free: int

    @property
    def needed(self) -> int:
        """All of it together."""
        return self.download + self.steps + self.archive

    @property
    def short(self) -> int:
        """How much too little is free; 0 where it is enough."""
        return max(0, self.needed - self.free)

    @property
    def parts(self) -> str:
        """What it consists of, in words, without what is nothing; empty where all is."""
        each = (
            (self.download, "to download"),
            (self.steps, "for the steps' output"),
            (self.archive, "for the archive"),
        )
        *others, last = [f"{in_words(size)} {what}" for size, what in each if size] or [""]
        return f"{', '.join(others)} and {last}" if others else last

    def check(self, workspace: Path) -> None:
        """Raises `DiskFull`, with both numbers, where less is free than needed."""
        if not self.short:
            return
        raise DiskFull(
            f"{workspace} has {in_words(self.free)} free, but the build needs about {in_words(self.needed)}: "
            f"{self.parts}. Free some, name another TRT_LLM_WORKSPACE, or set "
            "TRT_LLM_DISK_CHECK=off to build all the same"
        )


def need(workspace: Path, missing_bytes: int, model_bytes: int, steps: int) -> DiskNeed:
    """What a build needs.

    Args:
        workspace: its directory, which need not exist yet.
        missing_bytes: what is still to be downloaded.
        model_bytes: the size of the whole model.
        steps: how many steps the config has.
    """
    return DiskNeed(missing_bytes, model_bytes * steps, model_bytes, files.free_bytes(workspace))


def is_full(directory: Path) -> bool:
    """True where next to nothing can be written any more: less than a thousandth of the disk is free."""
    usage = shutil.disk_usage(directory)
    return usage.free < max(_FULL_BELOW, min(usage.total // _FULL_SHARE, _FULL_BELOW_AT_MOST))


@contextmanager
def translated(directory: Path) -> Iterator[None]:
    """Turns what the system says when `directory` cannot be used into `DiskFull` or `WorkspaceError`."""
    try:
        yield
    except OSError as error:
        told: DiskFull | WorkspaceError
        if files.is_disk_full(error):
            told = files.disk_full(directory, "the build could not write its files")
        else:
            told = WorkspaceError(f"{files.refused(error, directory)}, or name another TRT_LLM_WORKSPACE")
        for note in notes_of(error):
            add_note(told, note)
        raise told from error


def cache_limit(workspace: Path, chosen: int | None) -> int:
    """How many bytes cached steps may take: `chosen`, or a quarter of the disk of `workspace`."""
    return shutil.disk_usage(workspace).total // 4 if chosen is None else chosen
