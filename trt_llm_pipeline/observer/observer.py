"""Who is told what a build does, and how long its parts took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from trt_llm_pipeline.redaction import Redactor

Stage = Literal["download", "package"]
#: `reused`: an earlier build's result was taken; `left out`: there was nothing to do.
StageState = Literal["waiting", "running", "done", "reused", "left out", "failed"]


class Observer(Protocol):
    """Who is told what a build does."""

    def log(self, line: str) -> None:
        """One line of text, without secrets, in the build's own words."""

    def output(self, line: str) -> None:
        """One line that a step's script has printed, without secrets."""

    def stage(self, name: str, state: StageState) -> None:
        """What has become of a stage. All are told as `waiting` first, in the order of their running."""

    def progress(self, stage: Stage, done_bytes: int, total_bytes: int | None) -> None:
        """How far the download or the archive is."""

    def usage(self, stage: str, memory_bytes: int, peak_bytes: int, gpu_bytes: Sequence[int]) -> None:
        """Each second, while programs of a stage run: memory of their process tree, now and at most, and
        what is in use on each GPU."""

    def metric(self, name: str, value: float) -> None:
        """A measurement of a finished part."""

    def kept(self, what: str, path: Path) -> None:
        """Where something lies that a build has left although it failed: its report, its logs."""


@dataclass
class Clock:
    """When the parts of a build began, in seconds since the clock was made, and how many they took."""

    starts: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    made: float = field(default_factory=time.monotonic)

    @contextmanager
    def measure(self, name: str, metric: Callable[[str, float], None]) -> Iterator[None]:
        """Takes a part's time, also where an error ends it; then without a metric."""
        self.starts[name] = self.at()
        try:
            yield
        finally:
            self.seconds[name] = self.at() - self.starts[name]
        metric(f"timing.{name}", round(self.seconds[name], 3))

    def at(self, moment: float | None = None) -> float:
        """Seconds from the clock's making until a moment of `time.monotonic`, or until now."""
        return (time.monotonic() if moment is None else moment) - self.made


class RedactedObserver:
    """Passes on to an observer what is free of secrets."""

    def __init__(self, observer: Observer, redactor: Redactor) -> None:
        self._observer = observer
        self._redactor = redactor
        self.stage = observer.stage
        self.progress = observer.progress
        self.usage = observer.usage
        self.metric = observer.metric
        self.kept = observer.kept

    def log(self, line: str) -> None:
        self._observer.log(self._redactor(line))

    def output(self, line: str) -> None:
        self._observer.output(self._redactor(line))
