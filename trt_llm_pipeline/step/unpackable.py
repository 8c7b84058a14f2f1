"""Results that could be packed, sent and kept only at a price that nobody means to pay, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from trt_llm_pipeline.artifact.reader import MOST_FILES
from trt_llm_pipeline.errors import StepOutputError
from trt_llm_pipeline.files import open_regular
from trt_llm_pipeline.units import in_words
from trt_llm_pipeline.workspace import FileMark

_MOST_FILES = MOST_FILES - 1000  # the tokenizer, the config and the manifest are to come
_LARGE_BYTES = 1 << 30  # a smaller file is packed soon, whatever it is made of
_MOST_PIECES = 100_000


def refuse(step: str, root: Path, made: Mapping[str, FileMark], output_dir: Path) -> None:
    """Checks what a step has made, before it is hashed, kept and packed.

    Args:
        step: its name.
        root: the workspace.
        made: its files, by path relative to the workspace.
        output_dir: the directory that is going to be packed.

    Raises:
        StepOutputError: too many files; a file that is mostly a hole, which was never written; a name that
            is not UTF-8.
    """
    results = [name for name in made if (root / name).is_relative_to(output_dir)]
    reason = _too_many(made) or _not_text(results) or _mostly_holes(root, made)
    if reason:
        raise StepOutputError(step, f"exited 0, but {reason}", exit_code=0)


def _too_many(made: Mapping[str, FileMark]) -> str | None:
    if len(made) <= _MOST_FILES:
        return None
    return (
        f"it wrote {len(made):,} files, and an archive may have {_MOST_FILES:,} of a step's; have it write "
        "fewer, or remove those that are not part of its result"
    )


def _not_text(names: Iterable[str]) -> str | None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            return (
                f"the name of a file that it wrote is not UTF-8: {os.fsencode(name)!r}; have it give that "
                "file another name"
            )
    return None


def _mostly_holes(root: Path, made: Mapping[str, FileMark]) -> str | None:
    for name, mark in made.items():
        if mark.size < _LARGE_BYTES:
            continue
        written = _written_bytes(root / name, mark.size)
        if written is not None:
            return (
                f"its file {name} is {in_words(mark.size)} long, of which only {in_words(written)} were ever "
                "written (a sparse file); have it write its files whole"
            )
    return None


def _written_bytes(path: Path, size: int) -> int | None:
    """How much of a file was ever written, where that is less than half of it; else None.

    lseek(2), SEEK_DATA and SEEK_HOLE: a file system that knows no holes calls all of a file data.
    """
    try:
        descriptor = open_regular(path)
    except OSError:  # a link, a device: what packs the directory refuses it
        return None
    try:
        written = at = 0
        for _ in range(_MOST_PIECES):
            try:
                begin = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole from there on
                return written
            at = os.lseek(descriptor, begin, os.SEEK_HOLE)
            written += at - begin
            if written >= size // 2:
                return None
        return None
    finally:
        os.close(descriptor)
