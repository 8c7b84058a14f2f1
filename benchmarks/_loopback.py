"""What the download benchmarks share: a Hub in a process of its own, big files, and timing in turns."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

MEGABYTE = 1_000_000


@contextmanager
def hub_process(root: Path, *link: str) -> Iterator[str]:
    """The loopback Hub over a folder of repositories; gives its address.

    Args:
        root: the folder.
        link: options of the Hub that say what its connections are like.
    """
    command = [sys.executable, "-m", "trt_llm_pipeline.testing.hub", "--root", str(root), *link]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def write_random(path: Path, megabytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(MEGABYTE))


def in_turns(actions: Mapping[str, Callable[[Path], None]], scratch: Path, repeats: int) -> dict[str, float]:
    """Median seconds of each action; each gets a fresh folder, and the disk is idle when it starts."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            os.sync()
            started = time.perf_counter()
            action(scratch)
            taken[name].append(time.perf_counter() - started)
    shutil.rmtree(scratch)
    return {name: statistics.median(times) for name, times in taken.items()}


def machine() -> str:
    """What the figures were taken on; under a load above 1 they say little."""
    busy = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, load {busy:.1f}, Python {sys.version.split()[0]}"
