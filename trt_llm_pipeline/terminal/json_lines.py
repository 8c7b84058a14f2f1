"""A build's events as lines of JSON, for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from trt_llm_pipeline.observer import Heartbeat, StageState


class JsonLines:
    """Writes each event of a build as a line of JSON. Use as a context manager."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.usage = Heartbeat(self.log).usage

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def log(self, line: str) -> None:
        """{"event": "log", "line": ...}"""
        self._write(event="log", line=line)

    def output(self, line: str) -> None:
        """What a script prints is a line of the log."""
        self.log(line)

    def stage(self, name: str, state: StageState) -> None:
        """The metrics and the lines of the log tell what becomes of a stage."""

    def progress(self, stage: str, done_bytes: int, total_bytes: int | None) -> None:
        """{"event": "progress", "stage": ..., "done_bytes": ..., "total_bytes": ...}"""
        self._write(event="progress", stage=stage, done_bytes=done_bytes, total_bytes=total_bytes)

    def metric(self, name: str, value: float) -> None:
        """{"event": "metric", "name": ..., "value": ...}"""
        self._write(event="metric", name=name, value=value)

    def kept(self, what: str, path: Path) -> None:
        """A line of the log."""
        self.log(f"{what}: {path}")

    def finished(self, record: Mapping[str, Any], directory: Path, archive: Path | None) -> None:
        """The result is printed as JSON by the command itself."""

    def _write(self, **fields: object) -> None:
        self._stream.write(json.dumps(fields) + "\n")
        self._stream.flush()
