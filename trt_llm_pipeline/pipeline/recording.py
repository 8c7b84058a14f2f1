"""What is written down of a build, and what a failed one leaves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from trt_llm_pipeline import report
from trt_llm_pipeline.artifact import FinishedArchive
from trt_llm_pipeline.errors import PipelineError, TrtLlmPipelineError, add_note, kind_of
from trt_llm_pipeline.files import appearing, refused
from trt_llm_pipeline.inspection import Check
from trt_llm_pipeline.model_source import Snapshot
from trt_llm_pipeline.model_source.hub import endpoint_of
from trt_llm_pipeline.pipeline import provenance
from trt_llm_pipeline.pipeline.context import Context, model_bytes
from trt_llm_pipeline.plan import resolved_yaml
from trt_llm_pipeline.process.machine import describe_machine
from trt_llm_pipeline.records import write_record
from trt_llm_pipeline.report import REPORT_NAME
from trt_llm_pipeline.workspace import RECORD_NAME


def manifest_of(context: Context, snapshot: Snapshot | None) -> dict[str, Any]:
    facts = provenance.manifest(
        context.plan,
        snapshot,
        context.notes.reports,
        context.gpus.gpus,
        context.layers,
        context.notes.verdict,
        context.notes.datasets,
    )
    return dict(context.redactor.values(facts))


def record_of(
    context: Context,
    snapshot: Snapshot | None,
    facts: Mapping[str, Any],
    *,
    key: str | None = None,
    readiness: tuple[Check, ...] = (),
    archive: FinishedArchive | None = None,
) -> dict[str, Any]:
    story = provenance.Story(
        build_id=context.build_id,
        key=key,
        manifest=facts,
        reports=context.notes.reports,
        clock=context.notes.clock,
        warnings=context.notes.warnings,
        model_bytes=model_bytes(snapshot) if snapshot else 0,
        readiness=readiness,
        fit=context.notes.fit,
        engine_key=context.notes.engine_key,
        check=context.notes.verdict,
        config=resolved_yaml(context.plan, context.plan.expected_dirs()),
        machine=describe_machine(context.gpus),
        model_url=model_url(context, snapshot),
        names={step.name: step.shown for step in context.plan.steps if step.shown != step.name},
        logs=sorted(path.name for path in (context.directory / "logs").glob("*.log")),
    )
    return dict(context.redactor.values(provenance.build_record(story, archive)))


def model_url(context: Context, snapshot: Snapshot | None) -> str | None:
    """The page of the model's revision, where it is the Hub's."""
    if snapshot is None or snapshot.source != "hub":
        return None
    hub = urlsplit(endpoint_of(context.settings.env))
    place = f"{hub.path}/{quote(snapshot.model_id)}/tree/{quote(snapshot.revision)}"
    return urlunsplit((hub.scheme, hub.netloc.rpartition("@")[2], place, "", ""))


def write_report(context: Context, record: Mapping[str, Any]) -> None:
    try:
        with appearing(context.directory / REPORT_NAME) as page:
            page.write(report.render(record).encode())
    except PipelineError as error:  # the archive is finished and must not be lost with its report
        context.voice.log(f"warning: {error}")


def settle_failed(context: Context, first: BaseException) -> None:
    """Leaves of a failed build what helps to understand it. What goes wrong now is said beside its error."""
    if context.notes.received and kind_of(first) == "interrupted":
        add_note(first, "what has been downloaded is kept")
    try:
        context.builds.settle_failed(context.directory)
        _report_failure(context, first)
    except (TrtLlmPipelineError, OSError) as second:
        add_note(first, str(second))


def keep_newest(context: Context) -> None:
    """Old builds that cannot be removed now are removed by a later build, and change nothing of this one."""
    try:
        context.builds.keep_newest(context.settings.keep_builds)
    except OSError as error:
        context.voice.log(f"warning: old builds stay: {refused(error, context.settings.workspace.builds)}")


def _report_failure(context: Context, error: BaseException) -> None:
    """Leaves a record and a page beside the logs of a build that has failed, or was interrupted."""
    logs = context.directory / "logs"
    if not logs.is_dir() or os.path.realpath(logs) != str(logs):  # a step may have put a link there
        return
    notes = context.notes
    failed = provenance.failure(error, notes.stage, context.plan, notes.reports, logs)
    record = record_of(context, notes.snapshot, manifest_of(context, notes.snapshot))
    told = {**record, **context.redactor.values(failed)}
    write_record(context.directory / RECORD_NAME, told)
    write_report(context, told)
    context.voice.kept("report", context.directory / REPORT_NAME)
    if told["logs"]:
        context.voice.kept("logs", logs)
