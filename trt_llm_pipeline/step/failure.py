"""A step that failed, in words: how its script ended, and what became of the files that it wrote."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from trt_llm_pipeline.process import resources
from trt_llm_pipeline.units import in_words
from trt_llm_pipeline.workspace import FileMark


def exit_in_words(exit_code: int, peak_bytes: int, *, oom_killed: bool) -> str:
    """An exit code in words."""
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    name = f"signal {-exit_code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-exit_code).name
    text = f"was killed by {name}"
    if -exit_code != signal.SIGKILL:
        return text
    total = resources.machine_memory_bytes()
    text += f"; its process tree used {in_words(peak_bytes)} of the machine's {in_words(total)} of memory"
    if oom_killed or peak_bytes > 0.8 * total:
        text += ": probably out of memory; use a machine with more, or fewer workers"
    return text


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
