"""Where an engine comes from: `manifest.json` in the archive, and `build.json` beside it.

The manifest holds only what does not vary between identical builds, so that the same inputs give the same
bytes. Measurements and places are in `build.json`.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import trt_llm_pipeline
from trt_llm_pipeline.artifact import FinishedArchive
from trt_llm_pipeline.artifact.statement import Run, Subject, make_statement
from trt_llm_pipeline.errors import kind_of
from trt_llm_pipeline.fit import Assessment
from trt_llm_pipeline.inspection import Check
from trt_llm_pipeline.model_source import Snapshot
from trt_llm_pipeline.observer import Clock
from trt_llm_pipeline.plan import Plan
from trt_llm_pipeline.preflight import fitting
from trt_llm_pipeline.process import Layers
from trt_llm_pipeline.process.gpus import Gpu
from trt_llm_pipeline.step import StepReport, last_lines
from trt_llm_pipeline.workspace import began

MANIFEST_SCHEMA = 1
_LAST_LINES = 50
CHECK_FACTS = ("status", "level", "world_size")


@dataclass(frozen=True)
class Story:
    """What is known of a build.

    Attributes:
        build_id: its name below `builds/`.
        key: the cache key of its archive; None where nothing is cached.
        manifest: see `manifest`.
        reports: its steps'.
        warnings: sentences.
        model_bytes: the model's size.
        readiness: what a server will find of the archive.
        fit: whether it was found to fit; None where that is not known.
        engine_key: the cache key of the engine, whatever is packed with it; None where nothing is cached.
        check: whether the engine talks, as JSON values; None where the build has not come to that.
        clock: when each stage began and how long it took.
        config: the config as it is run, without secrets.
        machine: see `process.machine.describe_machine`.
        model_url: where people can look at the model; None where that is not known.
        logs: names of the files that have what was printed.
        names: what the config calls a step, where that is not its name here.
    """

    build_id: str
    key: str | None
    manifest: Mapping[str, Any]
    reports: Sequence[StepReport]
    clock: Clock
    warnings: Sequence[str]
    model_bytes: int
    readiness: Sequence[Check]
    fit: Assessment | None = None
    engine_key: str | None = None
    check: Mapping[str, Any] | None = None
    config: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    model_url: str | None = None
    logs: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)


def manifest(
    plan: Plan,
    snapshot: Snapshot | None,
    reports: Sequence[StepReport],
    gpus: Sequence[Gpu],
    layers: Layers,
    check: Mapping[str, Any] | None,
    datasets: Mapping[str, Snapshot],
) -> dict[str, Any]:
    """The facts of `manifest.json`; the archive adds every file's size and SHA-256.

    Of the check only what does not vary: its status, the level that was passed, the world size. There is no
    snapshot where the model could not be obtained. `repository_code` lists the files of the model and the
    datasets that run code, with their SHA-256, where that was allowed.
    """
    tools = plan.toolchain
    size = fitting.facts_of(plan, snapshot.path) if snapshot else None
    facts: dict[str, Any] = {
        "schema": MANIFEST_SCHEMA,
        "model_id": plan.config.model_id,
        "revision": snapshot.revision if snapshot else plan.config.revision or "",
        "source": snapshot.source if snapshot else "",
        "toolchain": {"name": tools.name, "version": tools.version, "follows": list(tools.follows)},
        "sandbox": layers.held(),
        "gpus": [{"name": gpu.name, "compute_capability": gpu.compute_capability} for gpu in gpus] or "cpu",
        "steps": [{"name": report.name, "argv": list(map(plan.portable, report.argv))} for report in reports],
        **({} if check is None else {"check": {name: check.get(name) for name in CHECK_FACTS}}),
        **({} if size is None else {"fit": size}),
    }
    if datasets:
        facts["datasets"] = {
            name: {"id": there.model_id, "revision": there.revision} for name, there in datasets.items()
        }
    code = [asdict(code) for code in (snapshot.code if snapshot else ())]
    code += [{**asdict(code), "dataset": name} for name, there in datasets.items() for code in there.code]
    if code:
        facts["repository_code"] = code
    return facts


def build_record(story: Story, archive: FinishedArchive | None = None) -> dict[str, Any]:
    """What `build.json` says: sizes in bytes, times in seconds. Before there is an archive, without it."""
    record: dict[str, Any] = {
        "build_id": story.build_id,
        "key": story.key,
        "engine_key": story.engine_key,
        "started": began(story.build_id),
        "service_version": trt_llm_pipeline.__version__,
        "model_bytes": story.model_bytes,
        "model_url": story.model_url,
        "seconds": rounded(story.clock.seconds),
        "starts": rounded(story.clock.starts),
        "steps": [_step(report, story.clock) for report in story.reports],
        "warnings": list(story.warnings),
        "readiness": [asdict(check) for check in story.readiness],
        "check": story.check,
        "manifest": story.manifest,
        "names": dict(story.names),
        "config": story.config,
        "machine": story.machine,
        "logs": list(story.logs),
    }
    if story.fit is not None:
        record["fit"] = story.fit.as_json()
    if archive is not None:
        files = {file.name: {"size": file.size, "sha256": file.sha256} for file in archive.files}
        record |= {"archive": archive_record(archive), "files": files}
    return record


def failure(
    error: BaseException, stage: str, plan: Plan, reports: Sequence[StepReport], logs: Path
) -> dict[str, Any]:
    """What `build.json` says of a build's end that was none of its own.

    Args:
        error: what ended it.
        stage: in which stage; empty where that was between two.
        plan: the build's.
        reports: of the steps that had been done.
        logs: the directory of what was printed.
    """
    found = {report.name: report.output_dir for report in reports}
    command = [
        part
        for step in plan.steps
        if step.name == stage
        for part in (*step.program, *plan.render(step, found).argv)
    ]
    lines = last_lines(logs / f"{stage}.log", _LAST_LINES) if stage else []
    if stage == "check":
        command, lines = _last_of_several(lines)
    return {
        "error": _ending(error),
        "kind": kind_of(error),
        "type": type(error).__name__,
        "failed": {"stage": stage, "argv": command, "last_lines": lines},
    }


def _last_of_several(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The last program of the check's log, which begins each with its command, and what it printed."""
    from trt_llm_pipeline.check import COMMAND_MARK

    begins = [number for number, line in enumerate(lines) if line.startswith(COMMAND_MARK)]
    if not begins:
        return [], [*lines]
    try:
        command = shlex.split(lines[begins[-1]].removeprefix(COMMAND_MARK))
    except ValueError:  # a program has printed the mark
        return [], [*lines]
    return command, [*lines[begins[-1] + 1 :]]


def _ending(error: BaseException) -> str:
    """What ended a build, in words; an interruption has none of its own."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted (Ctrl-C)"
    if isinstance(error, SystemExit):
        return "interrupted (SIGTERM)"
    if kind_of(error) == "interrupted":  # Cog's, whose classes nothing here knows
        return "cancelled by the client"
    return str(error) or type(error).__name__


def archive_record(archive: FinishedArchive) -> dict[str, Any]:
    """What `build.json` says of the archive: its name, where it is, its size and hash."""
    place = {"address": archive.address} if archive.path is None else {"path": str(archive.path)}
    known = {"content_sha256": archive.content_sha256} if archive.files else {}
    return {"name": archive.name, **place, "size": archive.size, "sha256": archive.sha256, **known}


def statement(
    build_id: str,
    archive: FinishedArchive,
    facts: Mapping[str, Any],
    config: bytes,
    dependencies: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What is said of the archive beside it; see `artifact.statement`.

    Args:
        build_id: the build's name below `builds/`.
        archive: just finished.
        facts: see `manifest`.
        config: the YAML that is packed.
        dependencies: see `cache.resolved_dependencies`.
    """
    subject = Subject(archive.name, archive.sha256, archive.content_sha256)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    run = Run(build_id, began(build_id), now, trt_llm_pipeline.__version__)
    return make_statement(subject, facts, config, dependencies, run)


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Times to the millisecond."""
    return {name: round(value, 3) for name, value in seconds.items()}


def _step(report: StepReport, clock: Clock) -> dict[str, Any]:
    return {
        "name": report.name,
        "argv": list(report.argv),
        "output_dir": str(report.output_dir),
        "output_bytes": _size(report.output_dir),
        "cached": report.cached,
        "start_s": None if report.began is None else round(clock.at(report.began), 3),
        "wall_s": round(report.wall_s, 3),
        "cpu_s": round(report.cpu_s, 3),
        "peak_memory_bytes": report.peak_memory_bytes,
        "peak_gpu_memory_bytes": list(report.peak_gpu_memory_bytes),
        "samples": [[seconds, memory, list(gpus)] for seconds, memory, gpus in report.samples],
    }


def _size(directory: Path | None) -> int | None:
    """Bytes in the regular files below a directory; None where there is none any more."""
    if directory is None or not directory.is_dir():
        return None
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)
