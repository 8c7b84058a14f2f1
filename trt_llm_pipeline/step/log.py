"""What a step prints: all of it to a file, as much as a person can read to the build's log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from trt_llm_pipeline.units import in_words

_LOG_FILE_BYTES = 256 * 1024 * 1024
_SHOWN_BYTES = 4 * 1024 * 1024
_SHOWN_TAIL = 20


class LogFile:
    """A step's output on disk, up to a limit. A full disk costs the rest of it and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._room = _LOG_FILE_BYTES
        self._file: TextIO | None = None

    def __enter__(self) -> LogFile:
        self.path.unlink(missing_ok=True)  # an earlier step may have put a link there
        self._file = self.path.open("x", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def line(self, text: str) -> None:
        if self._file is None or self._room <= 0:
            return
        self._room -= len(text) + 1
        try:
            self._file.write(text + "\n")
            if self._room <= 0:
                self._file.write("[the rest of the output is not kept]\n")
        except OSError:
            self._room = 0


class StepLog:
    """A step's output: all of it to a file, as much as a person can read to the log."""

    def __init__(self, log: Callable[[str], None], step: str, file: LogFile) -> None:
        self._log = log
        self._step = step
        self._file = file
        self._shown = 0
        self._hidden: list[str] = []
        self._hidden_count = 0

    def line(self, text: str) -> None:
        self._file.line(text)
        if self._shown < _SHOWN_BYTES:
            self._shown += len(text) + 1
            self._log(text)
            if self._shown >= _SHOWN_BYTES:
                self._log(
                    f"step {self._step}: more than {in_words(_SHOWN_BYTES)} of output; "
                    f"the rest goes to {self._file.path} only, but for the last lines"
                )
            return
        self._hidden_count += 1
        self._hidden = [*self._hidden[-_SHOWN_TAIL + 1 :], text]

    def close(self) -> None:
        if self._hidden_count > len(self._hidden):
            self._log(f"[... {self._hidden_count - len(self._hidden)} lines only in {self._file.path}]")
        for text in self._hidden:
            self._log(text)
