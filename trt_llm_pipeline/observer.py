"""Who is told what a build does, and how long its parts took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from trt_llm_pipeline.redaction import Redactor

Stage = Literal["download", "package"]


class Observer(Protocol):
    """Who is told what a build does."""

    def log(self, line: str) -> None:
        """One line of text, without secrets."""

    def progress(self, stage: Stage, done_bytes: int, total_bytes: int | None) -> None:
        """How far the download or the archive is."""

    def metric(self, name: str, value: float) -> None:
        """A measurement of a finished part."""


@dataclass
class Clock:
    """Seconds that each part of a build took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str, metric: Callable[[str, float], None]) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        metric(f"timing.{name}", round(self.seconds[name], 3))


class RedactedObserver:
    """Passes on to an observer what is free of secrets."""

    def __init__(self, observer: Observer, redactor: Redactor) -> None:
        self._observer = observer
        self._redactor = redactor
        self.progress = observer.progress
        self.metric = observer.metric

    def log(self, line: str) -> None:
        self._observer.log(self._redactor(line))
