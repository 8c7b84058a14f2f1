"""What every stage of one build shares, and what a build has found out so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_llm_pipeline import model_source
from trt_llm_pipeline.cache import StepCache
from trt_llm_pipeline.delivery import Attesting, Outbox
from trt_llm_pipeline.fit import Assessment
from trt_llm_pipeline.model_source import Snapshot
from trt_llm_pipeline.observer import Clock, RedactedObserver
from trt_llm_pipeline.plan import Plan
from trt_llm_pipeline.process import Layers
from trt_llm_pipeline.process.gpus import GpuMonitor
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.step import StepReport
from trt_llm_pipeline.workspace import Builds, Ledger


@dataclass
class Notes:
    """What a build has found out so far; its stages add to it."""

    clock: Clock = field(default_factory=Clock)
    warnings: list[str] = field(default_factory=list)
    snapshot: Snapshot | None = None
    datasets: dict[str, Snapshot] = field(default_factory=dict)
    reports: list[StepReport] = field(default_factory=list)
    fit: Assessment | None = None
    engine_key: str | None = None
    verdict: Mapping[str, Any] | None = None
    received: bool = False
    stage: str = ""


@dataclass(frozen=True)
class Context:
    """What every stage of one build shares. The workspace is locked."""

    build_id: str
    plan: Plan
    settings: Settings
    token: str | None
    voice: RedactedObserver
    redactor: Redactor
    gpus: GpuMonitor
    directory: Path
    builds: Builds
    ledger: Ledger
    cache: StepCache
    outbox: Outbox
    attesting: Attesting
    layers: Layers
    accepted: Mapping[str, frozenset[str]]
    notes: Notes

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Takes a stage's time, and tells of its beginning and end."""
        self.notes.stage = stage
        shown = self.plan.config.called(stage)
        self.voice.stage(shown, "running")
        try:
            with self.notes.clock.measure(stage, self.voice.metric):
                yield
        except BaseException:
            self.voice.stage(shown, "failed")
            raise
        self.notes.stage = ""
        self.voice.stage(shown, "done")

    def received(self, done_bytes: int, total_bytes: int | None) -> None:
        """Tells how far a download is."""
        self.notes.received = self.notes.received or done_bytes > 0
        self.voice.progress("download", done_bytes, total_bytes)

    def warn(self, text: str) -> None:
        """Says something now, and once more in the build's record."""
        warn_once(self.notes, self.redactor, self.voice, text)


def warn_once(notes: Notes, redactor: Redactor, voice: RedactedObserver, text: str) -> None:
    if (told := redactor(text)) not in notes.warnings:
        notes.warnings.append(told)
        voice.log(f"warning: {text}")


def model_bytes(snapshot: Snapshot) -> int:
    return sum((snapshot.path / name).stat().st_size for name in model_source.model_files(snapshot.path))
