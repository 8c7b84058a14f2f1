"""An observer that remembers what a build has told."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Recorder:
    """Keeps everything: log lines, the last progress of each stage in bytes, and metrics by name."""

    lines: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    stages: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, stage: str, done_bytes: int, total_bytes: int | None) -> None:
        self.stages[stage] = (done_bytes, total_bytes)

    def metric(self, name: str, value: float) -> None:
        self.metrics[name] = value

    def ran(self) -> set[str]:
        """The steps whose script was started."""
        return {
            line.split()[1].rstrip(":") for line in self.lines if line.startswith("step ") and ".py" in line
        }
