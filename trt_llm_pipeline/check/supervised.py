"""Running what the check runs: below the one supervisor, with a limit, offline, everything printed in one
file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from trt_llm_pipeline.plan.command import shell_line
from trt_llm_pipeline.process import ProcessResult, Usage, tree
from trt_llm_pipeline.redaction import Redactor, without_tokens

_LOG_BYTES = 16 << 20
_MOST_LINES = 100_000
_TURN_S = 1.0
#: Everything that is asked lies on this machine.
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Open MPI refuses to run as root, which is who runs in a container, unless it is told twice.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


@dataclass(frozen=True)
class Supervision:
    """How the check's programs are run.

    Attributes:
        cwd: their working directory.
        env: what they get of the environment; a token is taken out.
        redactor: knows the secrets.
        log_file: gets every line that they print, up to a limit.
        timeout: seconds that each may take; None for no limit.
        lock: entered while one runs; gives a descriptor that keeps the workspace held.
        each_second: called while one runs.
    """

    cwd: Path
    env: Mapping[str, str]
    redactor: Redactor
    log_file: Path
    timeout: float | None
    lock: Callable[[], AbstractContextManager[int]]
    each_second: Callable[[], None]

    def run(self, argv: Sequence[str], on_line: Callable[[str], None]) -> ProcessResult:
        """Runs a program to its end. Raises what `process.tree.run` raises."""
        next_look = time.monotonic()
        count = 0

        def on_turn(_usage: Usage) -> None:
            nonlocal next_look
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _TURN_S
                self.each_second()

        with self._log() as file, self.lock() as held:
            _write(file, f"$ {self.redactor(shell_line(argv))}")

            def take(line: str) -> None:
                nonlocal count
                count += 1
                _write(file, line)
                if count <= _MOST_LINES:
                    on_line(line)

            return tree.run(
                argv,
                cwd=self.cwd,
                env={**without_tokens(self.env), **_OFFLINE},
                on_line=take,
                redactor=self.redactor,
                timeout=self.timeout,
                on_turn=on_turn,
                hold=held,
            )

    def _log(self) -> TextIO:
        if self.log_file.is_symlink():  # a step may have put a link there
            self.log_file.unlink()
        return self.log_file.open("a", encoding="utf-8")


def _write(file: TextIO, line: str) -> None:
    with suppress(OSError):  # a full disk costs the log and nothing else
        if file.tell() < _LOG_BYTES:
            file.write(f"{line}\n")
            file.flush()
