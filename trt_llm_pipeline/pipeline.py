"""The order of things: check, download, step by step, package.

Whatever happens, a failed build returns nothing, leaves the last good archive alone, and keeps the model.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import trt_llm_pipeline
from trt_llm_pipeline import artifact, disk, model_source, preview, step, tokenizer_files
from trt_llm_pipeline.ledger import Ledger
from trt_llm_pipeline.model_source import Snapshot
from trt_llm_pipeline.output import Redactor
from trt_llm_pipeline.planning import Plan
from trt_llm_pipeline.resolved_config import resolved_yaml
from trt_llm_pipeline.resources import Gpu, GpuMonitor, in_words
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.step import StepContext, StepReport
from trt_llm_pipeline.validation import Validated
from trt_llm_pipeline.workspace import Workspace, write_json

MANIFEST_SCHEMA = 1
CONFIG_NAME = "cog-trt-llm-config.yaml"

Stage = Literal["download", "package"]


class Observer(Protocol):
    """Who is told what a build does."""

    def log(self, line: str) -> None:
        """One line of text, without secrets."""

    def progress(self, stage: Stage, done_bytes: int, total_bytes: int | None) -> None:
        """How far the download or the archive is."""

    def metric(self, name: str, value: float) -> None:
        """A measurement of a finished part."""


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Attributes:
        build_id: its name below `builds/`.
        directory: `<workspace>/builds/<build_id>`.
        archive: the packed engine there.
        newest: the same archive at the workspace's top, where the next build will replace it.
        record: what `build.json` says.
    """

    build_id: str
    directory: Path
    archive: artifact.PackedArchive
    newest: Path
    record: Mapping[str, Any]


@dataclass
class _Clock:
    """Seconds that each part of a build took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str, metric: Callable[[str, float], None]) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        metric(f"timing.{name}", round(self.seconds[name], 3))


def build(
    validated: Validated, settings: Settings, observer: Observer, token: str | None = None
) -> BuildResult:
    """Builds an engine and packages it.

    Args:
        validated: what to build; see `validation.validate`.
        settings: where, and with what environment.
        observer: is told what happens.
        token: for the Hub; wins over the config's and the environment's.

    Raises:
        TrtLlmPipelineError: see `errors.py`; its text says what was wrong, where, and what to do.
    """
    planned = validated.plan
    secret = planned.config.hf_token
    in_config = secret.get_secret_value() if secret else None
    redactor = Redactor([token, in_config, settings.token])
    token = token or in_config or settings.token
    voice = _Redacted(observer, redactor)
    voice.log(planned.toolchain.describe())
    for note in validated.notes:
        voice.log(f"note: {note}")
    workspace = settings.workspace
    workspace.prepare()
    build_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"
    holder = f"build {build_id} of {planned.config.model_id}"
    with workspace.lock(holder), GpuMonitor() as gpus:
        return _Build(planned, settings, voice, redactor, token, build_id, gpus).run()


class _Redacted:
    """Passes on to an observer what is free of secrets."""

    def __init__(self, observer: Observer, redactor: Redactor) -> None:
        self._observer = observer
        self._redactor = redactor
        self.progress = observer.progress
        self.metric = observer.metric

    def log(self, line: str) -> None:
        self._observer.log(self._redactor(line))


class _Build:
    """One build, with the workspace locked."""

    def __init__(
        self,
        planned: Plan,
        settings: Settings,
        voice: _Redacted,
        redactor: Redactor,
        token: str | None,
        build_id: str,
        gpus: GpuMonitor,
    ) -> None:
        self._plan = planned
        self._settings = settings
        self._voice = voice
        self._redactor = redactor
        self._token = token
        self._id = build_id
        self._gpus = gpus
        self._clock = _Clock()
        self._directory = settings.workspace.builds / build_id

    def run(self) -> BuildResult:
        workspace = self._settings.workspace
        ledger = Ledger(workspace)
        left = ledger.recover()
        if left:
            self._voice.log(f"an earlier build was killed; taking over the {len(left)} files it left")
        _remove_unfinished(workspace)
        logs = self._directory / "logs"
        logs.mkdir(parents=True)
        try:
            snapshot = self._download()
            reports = self._run_steps(ledger, logs)
            return self._package(snapshot, reports)
        except BaseException:
            _settle_failed(self._directory)
            raise
        finally:
            _keep_newest(workspace, self._settings.keep_builds)

    def _download(self) -> Snapshot:
        wanted = preview.request(self._plan)
        models, env = self._settings.workspace.models, self._settings.env
        with self._clock.measure("download", self._voice.metric):
            if self._settings.disk_check:
                to_come = model_source.plan(wanted, models, token=self._token, env=env)
                missing, whole = to_come.missing_bytes, to_come.total_bytes
                root = self._settings.workspace.root
                disk.need(root, missing, whole, len(self._plan.steps)).check(root)
            snapshot = model_source.fetch(
                wanted,
                models,
                token=self._token,
                log=self._voice.log,
                progress=lambda done, total: self._voice.progress("download", done, total),
                env=env,
            )
        for warning in snapshot.warnings:
            self._voice.log(f"warning: {warning}")
        return snapshot

    def _run_steps(self, ledger: Ledger, logs: Path) -> list[StepReport]:
        step.prepare_imports(self._plan)
        context = StepContext(
            plan=self._plan,
            ledger=ledger,
            env=step.environment(self._plan, self._settings.env, self._token),
            redactor=self._redactor,
            log=self._voice.log,
            logs=logs,
            gpus=self._gpus,
            default_timeout=self._settings.step_timeout,
        )
        reports: list[StepReport] = []
        found: dict[str, Path] = {}
        for planned in self._plan.steps:
            with self._clock.measure(planned.name, self._voice.metric):
                report = step.run(context, planned, found)
            if report.output_dir is not None:
                found[planned.name] = report.output_dir
            self._voice.metric(f"cpu.{planned.name}", round(report.cpu_s, 3))
            self._voice.metric(f"peak_memory.{planned.name}", report.peak_memory_bytes)
            for index, used in enumerate(report.peak_gpu_memory_bytes):
                self._voice.metric(f"peak_gpu_memory.{planned.name}.{index}", used)
            reports.append(report)
        return reports

    def _package(self, snapshot: Snapshot, reports: list[StepReport]) -> BuildResult:
        engine_dir = reports[-1].output_dir
        if engine_dir is None:
            raise AssertionError("the last step of a successful build has an output directory")
        tokenizer = tokenizer_files.tokenizer_files(snapshot.path)
        for warning in tokenizer.warnings:
            self._voice.log(f"warning: {warning}")
        found = {report.name: report.output_dir for report in reports if report.output_dir}
        config_text = self._redactor(resolved_yaml(self._plan, found)).encode()
        manifest = json.loads(self._redactor(json.dumps(self._manifest(snapshot, reports))))
        with self._clock.measure("package", self._voice.metric):
            packed = artifact.pack(
                engine_dir,
                self._directory / "engine.tar.gz",
                extra={**tokenizer.files, CONFIG_NAME: config_text},
                manifest=manifest,
                progress=lambda done, total: self._voice.progress("package", done, total),
            )
        self._voice.metric("archive_bytes", packed.size)
        record = self._record(packed, manifest, reports)
        write_json(self._directory / "build.json", record)
        newest = _publish(packed.path, self._settings.workspace)
        self._voice.log(
            f"packaged {len(packed.files)} files, {in_words(packed.size)}, sha256 {packed.sha256}, "
            f"in {self._clock.seconds['package']:.1f} s: {packed.path}"
        )
        return BuildResult(self._id, self._directory, packed, newest, record)

    def _manifest(self, snapshot: Snapshot, reports: list[StepReport]) -> dict[str, Any]:
        """Facts that do not vary between identical builds."""
        tools = self._plan.toolchain
        return {
            "schema": MANIFEST_SCHEMA,
            "model_id": snapshot.model_id,
            "revision": snapshot.revision,
            "source": snapshot.source,
            "toolchain": {"name": tools.name, "version": tools.version, "follows": list(tools.follows)},
            "gpus": [_gpu(gpu) for gpu in self._gpus.gpus] or "cpu",
            "steps": [{"name": report.name, "argv": list(report.argv)} for report in reports],
        }

    def _record(
        self, packed: artifact.PackedArchive, manifest: Mapping[str, Any], reports: list[StepReport]
    ) -> dict[str, Any]:
        """Measurements, and where things are: everything that a manifest must not hold."""
        return {
            "build_id": self._id,
            "service_version": trt_llm_pipeline.__version__,
            "archive": {"path": str(packed.path), "size": packed.size, "sha256": packed.sha256},
            "files": {file.name: {"size": file.size, "sha256": file.sha256} for file in packed.files},
            "seconds": {name: round(value, 3) for name, value in self._clock.seconds.items()},
            "steps": [
                {
                    "name": report.name,
                    "output_dir": str(report.output_dir),
                    "wall_s": round(report.wall_s, 3),
                    "cpu_s": round(report.cpu_s, 3),
                    "peak_memory_bytes": report.peak_memory_bytes,
                    "peak_gpu_memory_bytes": list(report.peak_gpu_memory_bytes),
                }
                for report in reports
            ],
            "manifest": manifest,
        }


def _gpu(gpu: Gpu) -> dict[str, str]:
    return {"name": gpu.name, "compute_capability": gpu.compute_capability}


def _publish(archive: Path, workspace: Workspace) -> Path:
    """Puts the archive at the workspace's top, in one go, as a hard link."""
    newest = workspace.root / archive.name
    temporary = workspace.root / f".{archive.name}.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    try:
        os.link(archive, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(archive, temporary)
    temporary.replace(newest)
    return newest


def _settle_failed(directory: Path) -> None:
    """Leaves of a failed build only its logs, for whoever wants to know why."""
    for path in directory.iterdir():
        if path.is_file():
            path.unlink()
    logs = directory / "logs"
    if logs.is_dir() and not any(logs.iterdir()):
        shutil.rmtree(directory)


def _remove_unfinished(workspace: Workspace) -> None:
    """Removes what a build that was killed left of its archive."""
    for path in workspace.builds.glob(f"*/*{artifact.PARTIAL_SUFFIX}"):
        path.unlink(missing_ok=True)


def _keep_newest(workspace: Workspace, count: int) -> None:
    """Removes the oldest build directories; the newest with an archive always stays."""
    builds = sorted(
        (p for p in workspace.builds.iterdir() if p.is_dir() and not p.is_symlink()), reverse=True
    )
    good = next((path for path in builds if (path / "build.json").is_file()), None)
    for path in builds[count:]:
        if path != good:
            shutil.rmtree(path, ignore_errors=True)
