"""A build as plain lines on a stream, with its result in a list at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from trt_llm_pipeline.observer import Lines
from trt_llm_pipeline.printable import printable_lines
from trt_llm_pipeline.terminal.summary import facts


class PlainTerminal(Lines):
    """Writes lines. Use as a context manager."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        super().__init__(self._print)

    def __enter__(self) -> PlainTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def finished(self, record: Mapping[str, Any], directory: Path, archive: Path | None) -> None:
        """Writes what came out, a line for each fact."""
        for name, value in facts(record, directory, archive):
            self._print(f"{name + ':':9} {value}")

    def _print(self, line: str) -> None:
        # Names and lines are anyone's text, and a stream may know fewer characters than Python.
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(f"{printable_lines(line)}\n".encode(encoding, "replace").decode(encoding))
        self._stream.flush()
