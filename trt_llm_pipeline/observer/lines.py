"""A build as lines of text, for logs that cannot redraw anything: Cog's, a pipe, a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trt_llm_pipeline.observer.observer import Stage, StageState
from trt_llm_pipeline.units import in_time, in_words

_BEAT_S = 60.0
_FIRST_S = 5.0


class Heartbeat:
    """Says once a minute that a stage is still running, and how much memory it has.

    Args:
        log: takes the lines.
        clock: the time in seconds.
    """

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._stage = ""
        self._started = self._next = clock()

    def begin(self, stage: str) -> None:
        """A stage begins: its minutes count from now."""
        self._stage = stage
        self._started = self._clock()
        self._next = self._started + _BEAT_S

    def usage(self, stage: str, memory_bytes: int, peak_bytes: int, gpu_bytes: Sequence[int]) -> None:
        """As `Observer.usage`."""
        if stage != self._stage:
            self.begin(stage)
        now = self._clock()
        if now < self._next:
            return
        self._next += _BEAT_S * (1 + (now - self._next) // _BEAT_S)
        memory = f"memory {in_words(memory_bytes)} (at most {in_words(peak_bytes)})"
        gpu = f", GPU memory in use {', '.join(map(in_words, gpu_bytes))}" if gpu_bytes else ""
        self._log(f"{stage}: still running after {in_time(now - self._started)}, {memory}{gpu}")


class Lines:
    """An observer that writes a line for whatever a person would want to read in a log.

    How far a download is comes after 5 s and then ever more rarely, at last once a minute.

    Args:
        write: takes the lines.
        metric: takes the measurements.
        clock: the time in seconds.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        metric: Callable[[str, float], None] = lambda _name, _value: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log = self.output = write
        self._metric = metric
        self._clock = clock
        self._beat = Heartbeat(write, clock)
        self.usage = self._beat.usage
        self._moving: str | None = None
        self._started = self._next = 0.0
        self._first_bytes = 0

    def metric(self, name: str, value: float) -> None:
        """Hands a measurement on; one that is not taken costs no build."""
        try:
            self._metric(name, value)
        except ValueError as problem:
            self.log(f"warning: the measurement {name} is not kept: {problem}")

    def stage(self, name: str, state: StageState) -> None:
        """The lines of the log tell what becomes of a stage."""
        if state == "running":
            self._beat.begin(name)
            self._moving = None

    def progress(self, stage: Stage, done_bytes: int, total_bytes: int | None) -> None:
        """As `Observer.progress`."""
        if stage != self._moving:
            self._move(stage, done_bytes)
        now = self._clock()
        if now < self._next:
            return
        elapsed = now - self._started
        self._next = now + min(max(elapsed, _FIRST_S), _BEAT_S)
        share = f" of {in_words(total_bytes)} ({100 * done_bytes // total_bytes}%)" if total_bytes else ""
        rate = (done_bytes - self._first_bytes) / elapsed if elapsed > 0 else 0
        moving = f", {in_words(rate)}/s" if elapsed > 0 else ""
        when = f"after {in_time(round(elapsed))}"
        if total_bytes and rate > 0 and done_bytes < total_bytes:
            when = f"{in_time(round((total_bytes - done_bytes) / rate))} left"
        self.log(f"{stage}: {in_words(done_bytes)}{share}{moving}, {when}")

    def kept(self, what: str, path: Path) -> None:
        """As `Observer.kept`."""
        self.log(f"{what}: {path}")

    def _move(self, stage: str, done_bytes: int) -> None:
        self._moving, self._started = stage, self._clock()
        self._next, self._first_bytes = self._started + _FIRST_S, done_bytes
