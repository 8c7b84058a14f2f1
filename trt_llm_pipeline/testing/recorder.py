"""An observer that remembers what a build has told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Recorder:
    """Keeps everything: lines, the last progress of each stage in bytes, metrics by name, what each stage
    came to in the order of its beginning, and what a failed build has left."""

    lines: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    stages: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    left: dict[str, Path] = field(default_factory=dict)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def output(self, line: str) -> None:
        self.log(line)

    def stage(self, name: str, state: str) -> None:
        self.states[name] = state

    def usage(self, stage: str, memory_bytes: int, peak_bytes: int, gpu_bytes: Sequence[int]) -> None:
        """Samples are in the build's record."""

    def kept(self, what: str, path: Path) -> None:
        self.left[what] = path

    def progress(self, stage: str, done_bytes: int, total_bytes: int | None) -> None:
        self.stages[stage] = (done_bytes, total_bytes)

    def metric(self, name: str, value: float) -> None:
        self.metrics[name] = value

    def ran(self) -> set[str]:
        """The steps whose script was started."""
        return {
            line.split()[1].rstrip(":") for line in self.lines if line.startswith("step ") and ".py" in line
        }
