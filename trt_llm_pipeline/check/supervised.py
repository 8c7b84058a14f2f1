"""Running what the check runs: in the sandbox that steps have, with a limit, all that is printed in one file.

A program may read the machine's libraries, the toolchain, the engine and the model, and write its scratch
directory. It gets no token and no network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from trt_llm_pipeline.plan.command import shell_line
from trt_llm_pipeline.process import (
    Layers,
    ProcessResult,
    Sandbox,
    Usage,
    hidden_places,
    program_places,
    readable,
    reduced,
    toolchain_places,
    tree,
)
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.toolchain import Toolchain

#: Begins the line of the log that has a program's command.
COMMAND_MARK = "$ "
_LOG_BYTES = 16 << 20
_MOST_LINES = 100_000
_TURN_S = 1.0
_VARIABLES = {
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Open MPI refuses to run as root, which is who runs in a container, unless it is told twice.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    # Ranks find each other where there is nothing but loopback.
    "NCCL_SOCKET_IFNAME": "lo",
    "GLOO_SOCKET_IFNAME": "lo",
}


@dataclass(frozen=True)
class Supervision:
    """How the check's programs are run.

    Attributes:
        cwd: their working directory, the only one that they may write.
        env: their whole environment; see `environment`.
        sandbox: what they may do; see `sandbox`.
        redactor: knows the secrets.
        log_file: gets every line that they print, up to a limit.
        timeout: seconds that each may take; None for no limit.
        lock: entered while one runs; gives a descriptor that keeps the workspace held, or None.
        each_second: called while one runs, with what it uses.
    """

    cwd: Path
    env: Mapping[str, str]
    sandbox: Sandbox
    redactor: Redactor
    log_file: Path
    timeout: float | None
    lock: Callable[[], AbstractContextManager[int | None]]
    each_second: Callable[[Usage], None]

    def run(self, argv: Sequence[str], on_line: Callable[[str], None]) -> ProcessResult:
        """Runs a program to its end. Raises what `process.tree.run` raises."""
        next_look = time.monotonic()
        count = 0

        def on_turn(usage: Usage) -> None:
            nonlocal next_look
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _TURN_S
                self.each_second(usage)

        with self._log() as file, self.lock() as held:
            _write(file, f"{COMMAND_MARK}{self.redactor(shell_line(argv))}")

            def take(line: str) -> None:
                nonlocal count
                count += 1
                _write(file, line)
                if count <= _MOST_LINES:
                    on_line(line)

            return tree.run(
                argv,
                cwd=self.cwd,
                env=self.env,
                on_line=take,
                redactor=self.redactor,
                timeout=self.timeout,
                on_turn=on_turn,
                hold=held,
                sandbox=self.sandbox,
            )

    def _log(self) -> TextIO:
        if self.log_file.is_symlink():  # a step may have put a link there
            self.log_file.unlink()
        return self.log_file.open("a", encoding="utf-8")


def environment(env: Mapping[str, str], layers: Layers, scratch: Path) -> dict[str, str]:
    """The environment of the check's programs, whose temporary files and home are below `scratch`."""
    places = {"TMPDIR": str(scratch / "tmp"), "HOME": str(scratch / "home")}
    return {**reduced(env, more=layers.policy.variables), **_VARIABLES, **places}


def sandbox(
    layers: Layers, toolchain: Toolchain, env: Mapping[str, str], scratch: Path, *, shown: Sequence[Path]
) -> Sandbox:
    """What the check's programs may do.

    Args:
        layers: what can be held here.
        toolchain: whose programs are run.
        env: the service's environment.
        scratch: the directory that they write; made here, with places for a home and for temporary files.
        shown: what else they may read, wherever it lies.
    """
    made = [scratch, scratch / "tmp", scratch / "home"]
    for path in made:
        path.mkdir(exist_ok=True)
    hidden = hidden_places(None, env)
    places = [
        *program_places(toolchain.python, env, hidden),
        *toolchain_places(toolchain.root, hidden),
        *readable(shown, ()),
    ]
    confined = Sandbox(layers, tuple(places), (scratch,))
    confined.give(*made)
    return confined


def _write(file: TextIO, line: str) -> None:
    with suppress(OSError):  # a full disk costs the log and nothing else
        if file.tell() < _LOG_BYTES:
            file.write(f"{line}\n")
            file.flush()
