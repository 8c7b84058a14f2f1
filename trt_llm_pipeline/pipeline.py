"""The order of things: check, download, step by step, package.

Whatever happens, a failed build returns nothing, leaves the last good archive alone, and keeps the model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_pipeline import provenance
from trt_llm_pipeline.artifact.atomic_file import appearing
from trt_llm_pipeline.cache.fingerprint import FileHashes
from trt_llm_pipeline.cache.keys import StepKeys, model_identity
from trt_llm_pipeline.cache.store import StepCache
from trt_llm_pipeline.delivery.destination import Destination, parse_destination
from trt_llm_pipeline.delivery.outbox import Outbox
from trt_llm_pipeline.engine import tokenizer_files
from trt_llm_pipeline.errors import PipelineError, TrtLlmPipelineError
from trt_llm_pipeline.inspection import checks, readiness
from trt_llm_pipeline.inspection import inspect_archive as inspection
from trt_llm_pipeline.inspection.checks import Check
from trt_llm_pipeline.model_source import source as model_source
from trt_llm_pipeline.model_source.source import Snapshot
from trt_llm_pipeline.observer import Clock, Observer, RedactedObserver
from trt_llm_pipeline.plan.plan import Plan
from trt_llm_pipeline.plan.resolved_config import resolved_yaml
from trt_llm_pipeline.preflight import preview
from trt_llm_pipeline.preflight.validation import Validated
from trt_llm_pipeline.process.lines import Redactor
from trt_llm_pipeline.process.resources import GpuMonitor, in_words
from trt_llm_pipeline.report import page as report
from trt_llm_pipeline.report.page import REPORT_NAME
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.step import run as step
from trt_llm_pipeline.step.run import StepContext, StepReport
from trt_llm_pipeline.workspace import builds, disk
from trt_llm_pipeline.workspace.builds import ARCHIVE_NAMES, RECORD_NAME, Builds
from trt_llm_pipeline.workspace.ledger import Ledger
from trt_llm_pipeline.workspace.workspace import write_json

CONFIG_NAME = "cog-trt-llm-config.yaml"


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Attributes:
        build_id: its name below `builds/`.
        directory: `<workspace>/builds/<build_id>`.
        archive: the packed engine there; None where it was sent to a destination instead.
        newest: the same archive at the workspace's top, where the next build will replace it; or None.
        size, sha256: the archive's, in bytes and hexadecimal.
        record_path: `build.json`.
        record: what it says.
    """

    build_id: str
    directory: Path
    archive: Path | None
    newest: Path | None
    size: int
    sha256: str
    record_path: Path
    record: Mapping[str, Any]


def build(
    validated: Validated,
    settings: Settings,
    observer: Observer,
    *,
    token: str | None = None,
    destination: str | None = None,
) -> BuildResult:
    """Builds an engine and packages it.

    Args:
        validated: what to build; see `validation.validate`.
        settings: where, and with what environment.
        observer: is told what happens.
        token: for the Hub; wins over the config's and the environment's.
        destination: where to send the archive instead of keeping it; see `destination.parse_destination`.

    Raises:
        TrtLlmPipelineError: see `errors.py`; its text says what was wrong, where, and what to do.
    """
    planned = validated.plan
    secret = planned.config.hf_token
    in_config = secret.get_secret_value() if secret else None
    redactor = Redactor([token, in_config, settings.token, *settings.secrets])
    token = token or in_config or settings.token
    voice = RedactedObserver(observer, redactor)
    name = ARCHIVE_NAMES[planned.config.compression]
    target = None
    if destination:
        target = parse_destination(destination, settings.workspace.root, archive_name=name)
    voice.log(planned.toolchain.describe())
    for note in validated.notes:
        voice.log(f"note: {note}")
    workspace = settings.workspace
    workspace.prepare()
    build_id = builds.new_id()
    holder = f"build {build_id} of {planned.config.model_id}"
    with disk.translated(workspace.root), workspace.lock(holder), GpuMonitor() as gpus:
        return _Build(planned, settings, voice, redactor, token, target, build_id, gpus).run()


class _Build:
    """One build, with the workspace locked."""

    def __init__(
        self,
        planned: Plan,
        settings: Settings,
        voice: RedactedObserver,
        redactor: Redactor,
        token: str | None,
        destination: Destination | None,
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
        self._clock = Clock()
        self._warnings: list[str] = []
        self._snapshot: Snapshot | None = None
        self._reports: list[StepReport] = []
        self._builds = Builds(settings.workspace)
        self._ledger = Ledger(settings.workspace)
        self._cache = StepCache(settings.workspace, disk.cache_limit(settings))
        self._directory = settings.workspace.builds / build_id
        self._outbox = Outbox(self._directory, destination, settings.workspace, self._packing)

    def run(self) -> BuildResult:
        left = self._ledger.recover()
        if left:
            self._voice.log(f"an earlier build was killed; taking over the {len(left)} files it left")
        self._builds.remove_unfinished()
        self._cache.clean()
        self._outbox.refuse_foreign(self._ledger)
        (self._directory / "logs").mkdir(parents=True)
        try:
            return self._run()
        except BaseException as error:
            self._builds.settle_failed(self._directory)
            if isinstance(error, TrtLlmPipelineError):
                self._report_failure(error)
            raise
        finally:
            self._builds.keep_newest(self._settings.keep_builds)

    def _run(self) -> BuildResult:
        snapshot, was_complete = self._download()
        self._snapshot = snapshot
        keys = self._keys(snapshot) if self._plan.config.cache else None
        if keys is not None and (cached := self._answer_from_cache(keys)) is not None:
            return cached
        if was_complete:
            self._check_room(0, _size(snapshot))
        reports, step_keys = self._run_steps(keys)
        build_key = keys.build(step_keys) if keys else None
        return self._package(snapshot, reports, build_key)

    def _keys(self, snapshot: Snapshot) -> StepKeys | None:
        """What the cache is asked with; None where a file that matters cannot be read."""
        memo = self._settings.workspace.state / "hashes.json"
        hashes = FileHashes.load(memo)
        try:
            model = model_identity(self._plan, snapshot.source, snapshot.revision, hashes)
            keys = StepKeys(self._plan, model, self._ledger, self._gpus.gpus, hashes)
            keys.foresee(self._cache)
        except OSError as error:
            self._warn(f"nothing is cached, because {error.filename} cannot be read: {error.strerror}")
            return None
        write_json(memo, hashes.known)
        return keys

    def _warn(self, text: str) -> None:
        self._warnings.append(self._redactor(text))
        self._voice.log(f"warning: {text}")

    def _download(self) -> tuple[Snapshot, bool]:
        """The model, and whether it was complete before."""
        wanted = preview.request(self._plan)
        models, env = self._settings.workspace.models, self._settings.env
        with self._clock.measure("download", self._voice.metric):
            log = self._voice.log
            to_come = model_source.plan(wanted, models, token=self._token, env=env, log=log)
            if to_come.missing_bytes:
                self._check_room(to_come.missing_bytes, to_come.total_bytes)
            snapshot = model_source.fetch(
                wanted,
                models,
                token=self._token,
                log=self._voice.log,
                progress=lambda done, total: self._voice.progress("download", done, total),
                env=env,
            )
        for warning in snapshot.warnings:
            self._warn(warning)
        return snapshot, not to_come.missing_bytes

    def _check_room(self, missing_bytes: int, model_bytes: int) -> None:
        """Makes room if need be: cached steps go first, then old archives, never the newest good one."""
        if not self._settings.disk_check:
            return
        root = self._settings.workspace.root
        need = disk.need(root, missing_bytes, model_bytes, len(self._plan.steps))
        if need.short and self._cache.give_way(need.short):
            self._voice.log("removed cached steps, because the disk is short of space")
            need = disk.need(root, missing_bytes, model_bytes, len(self._plan.steps))
        if need.short and self._builds.give_way(need.short):
            self._voice.log("removed old archives, because the disk is short of space")
            need = disk.need(root, missing_bytes, model_bytes, len(self._plan.steps))
        need.check(root)

    def _answer_from_cache(self, keys: StepKeys) -> BuildResult | None:
        """The same build's archive, copied from where an earlier one left it; None without a good one."""
        step_keys, found = keys.foresee(self._cache)
        if len(found) < len(self._plan.steps):
            return None
        earlier = self._builds.find(keys.build(step_keys))
        if earlier is None:
            return None
        source, old = earlier
        with self._clock.measure("package", self._voice.metric):
            archive = self._outbox.again(source, old["archive"]["sha256"])
        if archive is None:
            self._voice.log(f"the archive {source} is damaged; building again")
            source.unlink()
            return None
        self._voice.log(f"nothing has changed since build {old['build_id']}; its archive is used again")
        self._voice.metric("cached.archive", 1)
        seconds = {name: round(value, 3) for name, value in self._clock.seconds.items()}
        again = {
            "build_id": self._id,
            "answered_from": old["build_id"],
            "archive": archive,
            "seconds": seconds,
        }
        return self._finish({**old, **again})

    def _run_steps(self, keys: StepKeys | None) -> tuple[list[StepReport], dict[str, str]]:
        step.prepare_imports(self._plan)
        context = StepContext(
            plan=self._plan,
            ledger=self._ledger,
            env=step.environment(self._plan, self._settings.env, self._token),
            redactor=self._redactor,
            log=self._voice.log,
            logs=self._directory / "logs",
            gpus=self._gpus,
            default_timeout=self._settings.step_timeout,
        )
        reports = self._reports
        found: dict[str, Path] = {}
        step_keys: dict[str, str] = {}
        for planned in self._plan.steps:
            report: StepReport | None = None
            with self._clock.measure(planned.name, self._voice.metric):
                if keys is not None:
                    key = keys.step(planned, found, step_keys)
                    report = step.restore(context, planned, self._cache, key, found)
                if report is None:
                    report = step.run(context, planned, found)
                    if keys is not None and report.output_dir is not None:
                        self._cache.store(key, planned.name, self._plan.config.model_id, report.output_dir)
                        self._cache.accept(keys.preflight(planned))
            if keys is not None:
                step_keys[planned.name] = key
            if report.output_dir is not None:
                found[planned.name] = report.output_dir
            self._measure(report)
            reports.append(report)
        return reports, step_keys

    def _measure(self, report: StepReport) -> None:
        if report.cached:
            self._voice.metric(f"cached.{report.name}", 1)
            return
        self._voice.metric(f"cpu.{report.name}", round(report.cpu_s, 3))
        self._voice.metric(f"peak_memory.{report.name}", report.peak_memory_bytes)
        for index, used in enumerate(report.peak_gpu_memory_bytes):
            self._voice.metric(f"peak_gpu_memory.{report.name}.{index}", used)

    def _package(self, snapshot: Snapshot, reports: list[StepReport], key: str | None) -> BuildResult:
        found = {report.name: report.output_dir for report in reports if report.output_dir}
        tokenizer = tokenizer_files.tokenizer_files(snapshot.path)
        for warning in tokenizer.warnings:
            self._warn(warning)
        config_text = self._redactor(resolved_yaml(self._plan, found)).encode()
        facts = provenance.manifest(self._plan, snapshot, reports, self._gpus.gpus)
        facts = self._redactor.values(facts)
        extra = {**tokenizer.files, CONFIG_NAME: config_text}
        ready = readiness.readiness(inspection.facts_of_build(found["build"], extra, facts))
        self._warnings += checks.log_lines(check for check in ready if check.status == "problem")
        measured = reports, self._clock.seconds, self._warnings, _size(snapshot), ready

        def record(archive: provenance.Archive | None) -> dict[str, Any]:
            told = provenance.build_record(self._id, key, archive, facts, *measured)
            return dict(self._redactor.values(told))

        if self._plan.config.report:
            self._voice.log(
                f"{REPORT_NAME} goes into the archive, so the same inputs no longer give the same bytes"
            )
            extra[REPORT_NAME] = report.render(record(None)).encode()
        with self._clock.measure("package", self._voice.metric):
            archive = self._outbox.pack(found["build"], extra, facts, self._plan.config.compression)
        return self._finish(record(archive))

    def _packing(self, done_bytes: int, total_bytes: int) -> None:
        self._voice.progress("package", done_bytes, total_bytes)

    def _finish(self, record: Mapping[str, Any]) -> BuildResult:
        self._outbox.note(self._ledger)
        archive = record["archive"]
        self._voice.metric("archive_bytes", archive["size"])
        record_path = self._directory / RECORD_NAME
        write_json(record_path, record)
        path = Path(archive["path"]) if "path" in archive else None
        newest = self._builds.publish(path) if path else None
        if path is not None and newest is None:
            taken = self._settings.workspace.root / path.name
            self._voice.log(f"warning: {taken} is not this service's, so it stays; the archive is at {path}")
        self._write_report(record)
        self._voice.log(
            f"packaged {len(record['files'])} files in {self._clock.seconds['package']:.1f} s: "
            f"{in_words(archive['size'])}, sha256 {archive['sha256']}, {path or archive['address']}"
        )
        for line in checks.log_lines(Check(**check) for check in record.get("readiness", [])):
            self._voice.log(f"warning: {line}" if line.startswith("not") else line)
        return BuildResult(
            build_id=self._id,
            directory=self._directory,
            archive=path,
            newest=newest,
            size=archive["size"],
            sha256=archive["sha256"],
            record_path=record_path,
            record=record,
        )

    def _write_report(self, record: Mapping[str, Any]) -> None:
        try:
            with appearing(self._directory / REPORT_NAME) as page:
                page.write(report.render(record).encode())
        except PipelineError as error:  # the archive is finished and must not be lost with its report
            self._voice.log(f"warning: {error}")

    def _report_failure(self, error: TrtLlmPipelineError) -> None:
        """Leaves a page beside the logs of a build whose step has failed."""
        if self._snapshot is None or os.path.realpath(self._directory / "logs") != f"{self._directory}/logs":
            return
        facts = provenance.manifest(self._plan, self._snapshot, self._reports, self._gpus.gpus)
        told = (self._reports, self._clock.seconds, self._warnings, _size(self._snapshot), ())
        record = provenance.build_record(self._id, None, None, facts, *told)
        self._write_report(self._redactor.values({**record, "error": str(error)}))


def _size(snapshot: Snapshot) -> int:
    return sum((snapshot.path / name).stat().st_size for name in model_source.model_files(snapshot.path))
