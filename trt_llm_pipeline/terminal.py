"""What a build says at a terminal: bars for what has a length, lines for the rest; or JSON lines."""

from __future__ import annotations

import json
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class Terminal:
    """Shows a build on stderr. Use as a context manager."""

    def __init__(self) -> None:
        # Log lines are strangers' text: no markup, no emoji codes.
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
        self._bars = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Terminal:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def log(self, line: str) -> None:
        """Shows a line above the bars."""
        self._console.print(line)

    def progress(self, stage: str, done_bytes: int, total_bytes: int | None) -> None:
        """Moves the bar of `stage`."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total_bytes)
        self._bars.update(self._tasks[stage], completed=done_bytes, total=total_bytes)

    def metric(self, name: str, value: float) -> None:
        """Measurements are in the lines and in build.json."""


class JsonLines:
    """Writes each event of a build as a line of JSON. Use as a context manager."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def log(self, line: str) -> None:
        """{"event": "log", "line": ...}"""
        self._write(event="log", line=line)

    def progress(self, stage: str, done_bytes: int, total_bytes: int | None) -> None:
        """{"event": "progress", "stage": ..., "done_bytes": ..., "total_bytes": ...}"""
        self._write(event="progress", stage=stage, done_bytes=done_bytes, total_bytes=total_bytes)

    def metric(self, name: str, value: float) -> None:
        """{"event": "metric", "name": ..., "value": ...}"""
        self._write(event="metric", name=name, value=value)

    def _write(self, **fields: object) -> None:
        self._stream.write(json.dumps(fields) + "\n")
        self._stream.flush()
