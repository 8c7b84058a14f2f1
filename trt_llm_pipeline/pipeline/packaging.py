"""The engine and what belongs beside it: packed or sent, recorded, published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_pipeline import inspection, report
from trt_llm_pipeline.artifact.statement import CONFIG_NAME
from trt_llm_pipeline.cache import FileHashes, resolved_dependencies
from trt_llm_pipeline.delivery import beside
from trt_llm_pipeline.engine.tokenizer_files import TokenizerFiles
from trt_llm_pipeline.errors import ContentChanged, DeliveryError, TrtLlmPipelineError, add_note
from trt_llm_pipeline.inspection import Check
from trt_llm_pipeline.inspection.checks import log_lines
from trt_llm_pipeline.model_source import Snapshot
from trt_llm_pipeline.pipeline import provenance
from trt_llm_pipeline.pipeline.context import Context
from trt_llm_pipeline.pipeline.recording import manifest_of, record_of, write_report
from trt_llm_pipeline.plan import resolved_yaml
from trt_llm_pipeline.records import write_record
from trt_llm_pipeline.report import REPORT_NAME
from trt_llm_pipeline.step import CachedSteps, StepReport
from trt_llm_pipeline.units import in_words
from trt_llm_pipeline.workspace import RECORD_NAME


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


def package(
    context: Context,
    snapshot: Snapshot,
    reports: list[StepReport],
    tokenizer: TokenizerFiles,
    cached: CachedSteps | None,
) -> dict[str, Any]:
    """Packs the engine and what belongs beside it, or sends it; the build's record."""
    found = {report.name: report.output_dir for report in reports}
    config_text = context.redactor(resolved_yaml(context.plan, found)).encode()
    facts = manifest_of(context, snapshot)
    extra = {**tokenizer.files, CONFIG_NAME: config_text}
    ready = inspection.readiness_of_build(found["build"], extra, facts)
    context.notes.warnings.extend(log_lines(check for check in ready if check.status == "problem"))
    key, expected = cached.packing(tokenizer.files, found) if cached else (None, {})
    if context.plan.config.report:
        context.voice.log(
            f"{REPORT_NAME} goes into the archive, so the same inputs no longer give the same bytes"
        )
        told = record_of(context, snapshot, facts, key=key, readiness=ready)
        extra[REPORT_NAME] = report.render(told).encode()
    made_from = _made_from(context, facts, config_text)
    with context.measure("package"):
        try:
            archive = context.outbox.pack(
                found["build"], extra, facts, context.plan.config.compression, expected
            )
        except ContentChanged as changed:
            try:
                if cached is not None:
                    cached.hashes.forget()
            except (OSError, TrtLlmPipelineError) as second:
                add_note(changed, str(second))
            raise
        except DeliveryError as error:
            raise DeliveryError(
                f"{error}. The engine is kept in {found['build']}: build again to send it"
            ) from None
    said = provenance.statement(context.build_id, archive, facts, config_text, made_from)
    statement = context.attesting.put(archive.name, context.redactor.values(said), context.warn)
    record = record_of(context, snapshot, facts, key=key, readiness=ready, archive=archive)
    earlier = context.builds.earlier(record["config"])
    previous = {"build_id": earlier.get("build_id"), **report.figures(earlier)} if earlier else None
    return {**record, "statement": statement, "previous": previous}


def finish(context: Context, record: Mapping[str, Any]) -> BuildResult:
    """Writes the record and the report, and publishes the archive."""
    voice = context.voice
    if _is_checked(record):
        context.cache.publish()
    context.outbox.note(context.ledger)
    archive = record["archive"]
    voice.metric("archive_bytes", archive["size"])
    record_path = context.directory / RECORD_NAME
    write_record(record_path, record)
    path = Path(archive["path"]) if "path" in archive else None
    newest = context.builds.publish(path, beside(path)) if path else None
    if path is not None and newest is None:
        taken = context.settings.workspace.root / path.name
        voice.log(f"warning: {taken} is not this service's, so it stays; the archive is at {path}")
    write_report(context, record)
    done = f"packaged {len(record['files'])} files in {context.notes.clock.seconds['package']:.1f} s"
    if record.get("answered_from"):
        done = "the archive is in place"
    voice.log(
        f"{done}: {in_words(archive['size'])}, sha256 {archive['sha256']}, {path or archive['address']}"
    )
    for line in log_lines(Check(**line) for line in record.get("readiness", [])):
        voice.log(f"warning: {line}" if line.startswith("not") else line)
    return BuildResult(
        build_id=context.build_id,
        directory=context.directory,
        archive=path,
        newest=newest,
        size=archive["size"],
        sha256=archive["sha256"],
        record_path=record_path,
        record=record,
    )


def _is_checked(record: Mapping[str, Any]) -> bool:
    """Whether others may use the engine instead of building it: not one whose check was left out."""
    verdict = record.get("check")
    return verdict is None or verdict.get("status") == "passed"


def _made_from(context: Context, facts: Mapping[str, Any], config: bytes) -> list[dict[str, Any]]:
    """What the statement says of the model, the toolchain and the service."""
    hashes = FileHashes(context.settings.workspace.state / "hashes.json", context.voice.log)
    found = resolved_dependencies(context.plan, facts, config, hashes)
    hashes.save()
    return found
