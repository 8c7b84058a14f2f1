"""A fleet on real Ray: the environment, the command line, and the means to see what is left."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.integration.house import wait_for
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

MARK = "FLEET_MARK"
COMMAND = (sys.executable, "-m", "trt_llm_pipeline.cli", "fleet")
ENDS_WITHIN_S = 60.0
COMMAND_S = 600.0  # a fleet of four cells takes 20 s alone, and 300 s where eight processes share a core


@dataclass
class FleetHouse:
    """Everything that a fleet needs on this machine.

    Attributes:
        hub: the Hub's address.
        folder: for files and workspaces.
        toolchain: whose scripts run.
        extra: more of the environment.
        mark: a value of an environment variable that only what this house starts has.
    """

    hub: str
    folder: Path
    toolchain: Path = PROJECT_ROOT / "cpu_toolchain"
    extra: Mapping[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    started_here: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def env(self) -> dict[str, str]:
        drop = ("RAY_ADDRESS", "TRTLLM_PYTHON")
        inherited = {name: value for name, value in os.environ.items() if name not in drop}
        return {
            **inherited,
            "HF_ENDPOINT": self.hub,
            "TRTLLM_DIR": str(self.toolchain),
            "TRT_LLM_WORKSPACE": str(self.workspace),
            "FLEET_SCRATCH": str(self.folder),
            "TRT_LLM_STEP_ENV": "FLEET_*",
            MARK: self.mark,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **self.extra,
        }

    def start(self, *argv: str, **env: str) -> subprocess.Popen[str]:
        """Starts `trt-llm-pipeline fleet ...`."""
        process = subprocess.Popen(
            [*COMMAND, *argv],
            cwd=self.folder,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started_here.append(process)
        return process

    def end_what_was_started(self) -> None:
        """Ends the commands that a test has left running, because it failed."""
        for process in self.started_here:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def run(self, *argv: str, code: int = 0, **env: str) -> tuple[str, str]:
        """Runs `trt-llm-pipeline fleet ...` to its end; what it printed."""
        process = self.start(*argv, **env)
        out, err = process.communicate(timeout=COMMAND_S)
        assert process.returncode == code, f"{argv}: {process.returncode}\n{out}\n{err}"
        return out, err

    def json(self, *argv: str, code: int = 0, **env: str) -> Any:
        """The same with `--json`."""
        return json.loads(self.run(*argv, "--json", code=code, **env)[0])

    def alive(self) -> dict[int, str]:
        """Every living process that carries the mark: its command line by its number."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark:
                    found[process.pid] = " ".join(process.cmdline())
        return found

    def steps(self) -> dict[int, str]:
        """Those that belong to a step of a build: below a supervisor, or one themselves."""
        return {
            pid: line
            for pid, line in self.alive().items()
            if str(self.toolchain) in line or "process/supervisor.py" in line
        }

    def assert_nothing_is_left(self) -> None:
        """Waits until every process that carries the mark has ended."""
        wait_for(lambda: not self.alive(), f"everything has ended: {self.alive()}", ENDS_WITHIN_S)
