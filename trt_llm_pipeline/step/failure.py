"""A step that failed, in words: how its script ended, and what became of the files that it wrote."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from trt_llm_pipeline.files import open_regular
from trt_llm_pipeline.process import resources
from trt_llm_pipeline.units import in_words
from trt_llm_pipeline.workspace import FileMark

_TAIL_BYTES = 64 * 1024

_MOST_OF_IT = 0.8
# How scripts say it: Python, torch (https://docs.pytorch.org/docs/stable/notes/faq.html), CUDA's runtime,
# TensorRT's builder ("OutOfMemory (Requested size was ...)"), C++, mmap and malloc.
_OUT_OF_MEMORY = re.compile(
    r"^MemoryError\b|\bCUDA out of memory|\bOutOfMemory(Error)?\b|\bcudaErrorMemoryAllocation\b"
    r"|\bstd::bad_alloc\b|\bCannot allocate memory\b"
)


def was_memory(exit_code: int, peak_bytes: int, tail: Sequence[str], *, oom_killed: bool) -> bool:
    """Whether a script failed for want of memory, on the host or on a GPU.

    Args:
        exit_code: negative for a signal.
        peak_bytes: the most memory that its process tree used.
        tail: its last lines.
        oom_killed: whether the kernel killed something for memory meanwhile.
    """
    if exit_code == -signal.SIGKILL:
        return oom_killed or peak_bytes > _MOST_OF_IT * resources.machine_memory_bytes()
    return any(map(_OUT_OF_MEMORY.search, tail))


def exit_in_words(exit_code: int, peak_bytes: int, *, memory: bool) -> str:
    """An exit code in words; `memory` as `was_memory` says."""
    if exit_code >= 0:
        return f"exited with code {exit_code}" + (", out of memory" if memory else "")
    name = f"signal {-exit_code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-exit_code).name
    text = f"was killed by {name}"
    if -exit_code != signal.SIGKILL:
        return text
    total = resources.machine_memory_bytes()
    text += f"; its process tree used {in_words(peak_bytes)} of the machine's {in_words(total)} of memory"
    if memory:
        text += ": probably out of memory; use a machine with more, or fewer workers"
    return text


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log, as far as they are in its last part; none where it cannot be read."""
    try:
        with os.fdopen(open_regular(log), "rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode(errors="replace").removesuffix("\n").split("\n")
    except OSError:
        return []
    whole = lines if 0 < size <= _TAIL_BYTES else lines[1:]
    return whole[-count:]


def left_behind(made: Mapping[str, FileMark]) -> str:
    if not made:
        return "; it left no files behind"
    size = sum(mark.size for mark in made.values())
    parent = os.path.commonpath([str(Path(name).parent) for name in made]) or "."
    return f"; it left {len(made)} files ({in_words(size)}) in {parent}"


def removed(made: Mapping[str, FileMark], root: Path) -> str:
    size = sum(mark.size for mark in made.values())
    return (
        f"; the disk of {root} is full, so the {len(made)} files ({in_words(size)}) that it had written are "
        "removed: free some, or name another TRT_LLM_WORKSPACE, and build again"
    )
