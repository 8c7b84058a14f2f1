"""The steps: run, or taken from the cache; and a build that is the same as an earlier one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from trt_llm_pipeline.cache import FileHashes, StepKeys, UnhashableError
from trt_llm_pipeline.errors import DeliveryError
from trt_llm_pipeline.model_source import Snapshot
from trt_llm_pipeline.pipeline import provenance
from trt_llm_pipeline.pipeline.context import Context, model_bytes
from trt_llm_pipeline.pipeline.downloading import check_room
from trt_llm_pipeline.step import CachedSteps, StepContext, StepReport, TimingCache, prepare_imports, run_step
from trt_llm_pipeline.workspace import began


def foresee(context: Context, snapshot: Snapshot) -> CachedSteps | None:
    """What the cache is asked with; None where it is off, or a file that matters cannot be read."""
    if not context.plan.config.cache:
        return None
    hashes = FileHashes(context.settings.workspace.state / "hashes.json", context.voice.log)
    source, gpus = (snapshot.source, snapshot.revision), context.gpus.gpus
    try:
        keys = StepKeys(
            context.plan,
            *source,
            context.ledger,
            gpus,
            hashes,
            layers=context.layers,
            env=context.settings.env,
            datasets={name: there.revision for name, there in context.notes.datasets.items()},
        )
        return CachedSteps.foresee(_step_context(context), context.cache, keys, hashes)
    except OSError as error:
        context.warn(f"nothing is cached, because {error.filename} cannot be read: {error.strerror}")
    except UnhashableError as error:
        context.warn(f"nothing is cached, because {error}")
    return None


def answer_from_cache(context: Context, cached: CachedSteps) -> dict[str, Any] | None:
    """The record of the same build, its archive copied from where an earlier one left it; or None."""
    key = cached.archive_key()
    earlier = context.builds.find(key) if key else None
    if earlier is None:
        return None
    source, old = earlier
    attest = context.attesting.again(source, old["archive"]["sha256"])
    if attest is None:
        context.voice.log(f"the statement about {source} is missing or signed otherwise; packaging again")
        return None
    if not cached.put_back():
        return None
    with context.measure("package"):
        try:
            archive = context.outbox.again(source, old["archive"]["sha256"])
        except DeliveryError as error:
            raise DeliveryError(f"{error}. The archive is kept at {source}: build again to send it") from None
    if archive is None:
        context.voice.log(f"the archive {source} is damaged; building again")
        source.unlink()
        return None
    context.voice.log(f"nothing has changed since build {old['build_id']}; its archive is used again")
    for stage in (*(step.shown for step in context.plan.steps), "check"):
        context.voice.stage(stage, "reused")
    context.voice.metric("cached.archive", 1)
    return {
        **old,
        "steps": [{**step, "cached": True} for step in old["steps"]],
        "build_id": context.build_id,
        "answered_from": old["build_id"],
        "archive": {
            **provenance.archive_record(archive),
            "content_sha256": old["archive"]["content_sha256"],
        },
        "statement": attest(context.warn),
        "started": began(context.build_id),
        "seconds": provenance.rounded(context.notes.clock.seconds),
        "starts": provenance.rounded(context.notes.clock.starts),
        "logs": [],
        "previous": None,
    }


def _step_context(context: Context) -> StepContext:
    return StepContext(
        plan=context.plan,
        ledger=context.ledger,
        env=context.settings.env,
        token=context.token,
        layers=context.layers,
        redactor=context.redactor,
        log=context.voice.log,
        output=context.voice.output,
        usage=context.voice.usage,
        logs=context.directory / "logs",
        gpus=context.gpus,
        default_timeout=context.settings.step_timeout,
        timing=_timing(context),
        options=context.accepted,
    )


def _timing(context: Context) -> TimingCache | None:
    """The timings that are kept; None where they are not, or where code of a stranger's may write them."""
    plan = context.plan
    if not context.settings.timing_cache or plan.config.allow_repository_code:
        return None
    return TimingCache.of(plan.workspace, plan.toolchain, context.gpus.gpus)


def run_steps(context: Context, snapshot: Snapshot, cached: CachedSteps | None) -> list[StepReport]:
    """Runs the config's steps, or takes their results from the cache; their reports."""
    if not snapshot.downloaded_bytes:  # otherwise it was looked at before the download
        check_room(context, 0, model_bytes(snapshot))
    prepare_imports(context.plan)
    run = cached.run if cached else partial(run_step, _step_context(context))
    found: dict[str, Path] = {}
    for step in context.plan.steps:
        with context.measure(step.name):
            report = run(step, found)
        found[step.name] = report.output_dir
        if report.cached:
            context.voice.stage(step.shown, "reused")
        for name, value in costs(report).items():
            context.voice.metric(name, value)
        context.notes.reports.append(report)
    return context.notes.reports


def costs(report: StepReport) -> dict[str, float]:
    """The measurements of a step, by names that Cog takes: each part between dots begins with a letter."""
    if report.cached:
        return {f"cached.{report.name}": 1}
    gpus = enumerate(report.peak_gpu_memory_bytes)
    return {
        f"cpu.{report.name}": round(report.cpu_s, 3),
        f"peak_memory.{report.name}": report.peak_memory_bytes,
        **{f"peak_gpu_memory.{report.name}.gpu{index}": used for index, used in gpus},
    }
