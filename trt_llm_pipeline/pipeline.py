"""The order of things: `build` prepares the workspace, and `_stages` lists what a build does in it.

Whatever happens, a failed build returns nothing, leaves the last good archive alone, and keeps the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from trt_llm_pipeline import check, inspection, model_source, provenance, report
from trt_llm_pipeline.artifact import FinishedArchive
from trt_llm_pipeline.artifact.statement import CONFIG_NAME
from trt_llm_pipeline.cache import (
    FileHashes,
    StepCache,
    StepKeys,
    UnhashableError,
    remote,
    resolved_dependencies,
)
from trt_llm_pipeline.delivery import (
    Attesting,
    Outbox,
    beside,
    check_reachable,
    parse_destination,
    signing_key,
)
from trt_llm_pipeline.engine.tokenizer_files import TokenizerFiles, tokenizer_files
from trt_llm_pipeline.errors import (
    ContentChanged,
    DeliveryError,
    PipelineError,
    TrtLlmPipelineError,
    add_note,
    kind_of,
)
from trt_llm_pipeline.files import appearing, refused
from trt_llm_pipeline.fit import Assessment
from trt_llm_pipeline.inspection import Check
from trt_llm_pipeline.inspection.checks import log_lines
from trt_llm_pipeline.model_source import DownloadPlan, Snapshot
from trt_llm_pipeline.model_source.hub import endpoint_of
from trt_llm_pipeline.observer import Clock, Observer, RedactedObserver
from trt_llm_pipeline.plan import Plan, resolved_yaml
from trt_llm_pipeline.preflight import Validated, fitting, preview
from trt_llm_pipeline.preflight.parser_check import option_reader
from trt_llm_pipeline.process import Layers, Usage
from trt_llm_pipeline.process.gpus import GpuMonitor
from trt_llm_pipeline.process.machine import describe_machine
from trt_llm_pipeline.records import write_record
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.report import REPORT_NAME
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.step import (
    CachedSteps,
    StepContext,
    StepReport,
    TimingCache,
    prepare_imports,
    remove_view,
    run_step,
)
from trt_llm_pipeline.units import in_words
from trt_llm_pipeline.workspace import ARCHIVE_NAMES, RECORD_NAME, Builds, Ledger, began, disk, new_build_id


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


@dataclass
class _Notes:
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
class _Context:
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
    notes: _Notes

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
        _warn(self.notes, self.redactor, self.voice, text)


def _warn(notes: _Notes, redactor: Redactor, voice: RedactedObserver, text: str) -> None:
    if (told := redactor(text)) not in notes.warnings:
        notes.warnings.append(told)
        voice.log(f"warning: {text}")


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
        validated: what to build; see `preflight.validate`.
        settings: where, and with what environment.
        observer: is told what happens.
        token: for the Hub; wins over the config's and the environment's.
        destination: where to send the archive instead of keeping it; see `delivery.parse_destination`.

    Raises:
        TrtLlmPipelineError: see `errors.py`; its text says what was wrong, where, and what to do.
    """
    plan, workspace = validated.plan, settings.workspace
    in_config = plan.config.hf_token
    used = settings.hub_token(token, in_config)
    hidden = [token, in_config.get_secret_value() if in_config else None, settings.token]
    redactor = Redactor([*hidden, *settings.secrets])
    voice = RedactedObserver(observer, redactor)
    target = None
    if destination:
        name = ARCHIVE_NAMES[plan.config.compression]
        target = parse_destination(destination, workspace.root, archive_name=name, reach=settings.reach)
        target = target.at_hub(endpoint_of(settings.env), used)
    key = signing_key(settings.signing_key, workspace.root)
    voice.log(plan.toolchain.describe())
    voice.log(validated.layers.in_words())
    for note in validated.notes:
        voice.log(f"note: {note}")
    workspace.prepare()
    for stage in ("download", *(step.shown for step in plan.steps), "check", "package"):
        voice.stage(stage, "waiting")
    build_id = new_build_id()
    directory = workspace.builds / build_id
    notes = _Notes()
    warn = partial(_warn, notes, redactor, voice)
    holder = f"build {build_id} of {plan.config.model_id}"
    with disk.translated(workspace.root), workspace.lock(holder), GpuMonitor(settings.env) as gpus:
        context = _Context(
            build_id=build_id,
            plan=plan,
            settings=settings,
            token=used,
            voice=voice,
            redactor=redactor,
            gpus=gpus,
            directory=directory,
            builds=Builds(workspace, warn),
            ledger=Ledger(workspace, warn),
            cache=StepCache(
                workspace,
                disk.cache_limit(workspace.root, settings.cache_limit),
                settings.cache_folder,
                remote.from_env(settings.env, warn=lambda text: voice.log(f"warning: {text}")),
                warn,
            ),
            outbox=Outbox(directory, target, workspace, partial(voice.progress, "package")),
            attesting=Attesting(directory, target, key),
            layers=validated.layers,
            accepted=validated.accepted,
            notes=notes,
        )
        _take_over(context)
        try:
            return _stages(context)
        except BaseException as error:
            _settle_failed(context, error)
            raise
        finally:
            _keep_newest(context)


def _stages(context: _Context) -> BuildResult:
    """A build, stage by stage."""
    if context.outbox.destination is not None:
        check_reachable(context.outbox.destination)
    snapshot = download(context)
    download_datasets(context)
    cached = foresee(context, snapshot)
    if cached is not None and (record := answer_from_cache(context, cached)) is not None:
        return finish(context, record)
    reports = run_steps(context, snapshot, cached)
    tokenizer = tokenizer_files(snapshot.path)
    for warning in tokenizer.warnings:
        context.warn(warning)
    context.notes.engine_key = cached.engine_key() if cached else None
    check_engine(context, snapshot, reports, tokenizer)
    record = package(context, snapshot, reports, tokenizer, cached)
    return finish(context, record)


def _take_over(context: _Context) -> None:
    """Tidies up after a build that was killed, and makes this build's directory."""
    left = context.ledger.recover()
    if left:
        context.voice.log(f"an earlier build was killed; taking over the {len(left)} files it left")
    remove_view(context.settings.workspace)
    check.remove_leftovers(context.settings.workspace)
    context.builds.remove_unfinished()
    context.cache.clean()
    context.outbox.refuse_foreign(context.ledger)
    (context.directory / "logs").mkdir(parents=True)


def download(context: _Context) -> Snapshot:
    """Brings the model, or finds that it is there."""

    def make_room(to_come: DownloadPlan) -> None:
        if to_come.missing_bytes:
            if to_come.source == "hub":
                check_fit(context, to_come.revision)
            _check_room(context, to_come.missing_bytes, to_come.total_bytes)

    with context.measure("download"):
        snapshot = model_source.fetch(
            context.plan.model_request,
            context.settings.workspace.models,
            token=context.token,
            log=context.voice.log,
            progress=context.received,
            before=make_room,
            env=context.settings.env,
            permission=preview.permission(context.plan, context.settings),
        )
    for warning in snapshot.warnings:
        context.warn(warning)
    context.notes.snapshot = snapshot
    if not snapshot.downloaded_bytes or snapshot.source != "hub":  # not looked at before the download
        check_fit(context, snapshot.revision)
    return snapshot


def download_datasets(context: _Context) -> None:
    """Brings the datasets that the config names, or finds that they are there."""

    def make_room(to_come: DownloadPlan) -> None:
        _check_room(context, to_come.missing_bytes, 0)

    if not context.plan.config.datasets:
        return
    with context.measure("datasets"):
        for name, request in context.plan.dataset_requests.items():
            context.notes.datasets[name] = snapshot = model_source.fetch(
                request,
                context.settings.workspace.datasets,
                token=context.token,
                log=context.voice.log,
                progress=context.received,
                before=make_room,
                env=context.settings.env,
                permission=preview.permission(context.plan, context.settings),
            )
            for warning in snapshot.warnings:
                context.warn(warning)


def check_fit(context: _Context, revision: str) -> None:
    """Refuses what cannot possibly be loaded or made on this machine, and says what might not fit."""
    found = fitting.fitting(
        context.plan,
        context.settings,
        token=context.token,
        revision=revision or None,
        gpus=context.gpus.gpus,
    )
    fitting.refuse(context.plan, found)
    context.notes.fit = found.assessment
    for note in found.notes:
        context.voice.log(f"note: {note}")


def foresee(context: _Context, snapshot: Snapshot) -> CachedSteps | None:
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
            confined=context.layers.files,
            datasets={name: there.revision for name, there in context.notes.datasets.items()},
        )
        return CachedSteps.foresee(_step_context(context), context.cache, keys, hashes)
    except OSError as error:
        context.warn(f"nothing is cached, because {error.filename} cannot be read: {error.strerror}")
    except UnhashableError as error:
        context.warn(f"nothing is cached, because {error}")
    return None


def answer_from_cache(context: _Context, cached: CachedSteps) -> dict[str, Any] | None:
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


def _step_context(context: _Context) -> StepContext:
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


def _timing(context: _Context) -> TimingCache | None:
    """The timings that are kept; None where they are not, or where code of a stranger's may write them."""
    plan = context.plan
    if not context.settings.timing_cache or plan.config.allow_repository_code:
        return None
    return TimingCache.of(plan.workspace, plan.toolchain, context.gpus.gpus)


def run_steps(context: _Context, snapshot: Snapshot, cached: CachedSteps | None) -> list[StepReport]:
    """Runs the config's steps, or takes their results from the cache; their reports."""
    if not snapshot.downloaded_bytes:  # otherwise it was looked at before the download
        _check_room(context, 0, _size(snapshot))
    prepare_imports(context.plan)
    run = cached.run if cached else partial(run_step, _step_context(context))
    found: dict[str, Path] = {}
    for step in context.plan.steps:
        with context.measure(step.name):
            report = run(step, found)
        found[step.name] = report.output_dir
        if report.cached:
            context.voice.stage(step.shown, "reused")
        _tell_cost(context, report)
        context.notes.reports.append(report)
    return context.notes.reports


def check_engine(
    context: _Context, snapshot: Snapshot, reports: list[StepReport], tokenizer: TokenizerFiles
) -> None:
    """Asks the engine to write, unless the config says not to, or an earlier build has asked the same one.

    Raises:
        CheckFailed: it writes garbage, or could not be asked though it had to be.
    """
    wanted = context.plan.config.check
    key = context.notes.engine_key
    earlier = context.builds.find_check(key) if key and wanted.enabled else None
    if earlier is not None and check.covers(earlier[1], reference=wanted.reference):
        context.voice.log(f"check: this engine has passed in build {earlier[0]}; it is not asked again")
        context.voice.stage("check", "reused")
        context.notes.verdict = earlier[1]
        return
    env = context.settings.env

    def each_second(usage: Usage) -> None:
        context.ledger.heartbeat()
        context.voice.usage("check", usage.rss_bytes, usage.peak_rss_bytes, context.gpus.used_bytes())

    request = check.CheckRequest(
        plan=context.plan,
        engine_dir=reports[-1].output_dir,
        beside=tokenizer.files,
        model_dir=snapshot.path,
        gpus=len(context.gpus.gpus),
        env=env,
        layers=context.layers,
        redactor=context.redactor,
        log_file=context.directory / "logs" / "check.log",
        default_timeout=context.settings.step_timeout,
        options=option_reader(context.plan.toolchain, env, context.layers, context.settings.workspace.root),
        lock=context.settings.workspace.step_lock,
        each_second=each_second,
    )
    with context.measure("check"):
        verdict = check.run(request)
        context.notes.verdict = context.redactor.values(verdict.as_json())
        for line in (verdict.line(), *(f"note: {note}" for note in verdict.notes)):
            context.voice.log(line)
        check.require(verdict, request)
    if verdict.status in ("off", "unchecked"):
        context.voice.stage("check", "left out")


def package(
    context: _Context,
    snapshot: Snapshot,
    reports: list[StepReport],
    tokenizer: TokenizerFiles,
    cached: CachedSteps | None,
) -> dict[str, Any]:
    """Packs the engine and what belongs beside it, or sends it; the build's record."""
    found = {report.name: report.output_dir for report in reports}
    config_text = context.redactor(resolved_yaml(context.plan, found)).encode()
    facts = _manifest(context, snapshot)
    extra = {**tokenizer.files, CONFIG_NAME: config_text}
    ready = inspection.readiness_of_build(found["build"], extra, facts)
    context.notes.warnings.extend(log_lines(check for check in ready if check.status == "problem"))
    key, expected = cached.packing(tokenizer.files) if cached else (None, {})
    if context.plan.config.report:
        context.voice.log(
            f"{REPORT_NAME} goes into the archive, so the same inputs no longer give the same bytes"
        )
        told = _record(context, snapshot, facts, key=key, readiness=ready)
        extra[REPORT_NAME] = report.render(told).encode()
    made_from = _made_from(context, facts, config_text)
    with context.measure("package"):
        try:
            archive = context.outbox.pack(
                found["build"], extra, facts, context.plan.config.compression, expected
            )
        except ContentChanged:
            if cached is not None:
                cached.hashes.forget()
            raise
        except DeliveryError as error:
            raise DeliveryError(
                f"{error}. The engine is kept in {found['build']}: build again to send it"
            ) from None
    said = provenance.statement(context.build_id, archive, facts, config_text, made_from)
    statement = context.attesting.put(archive.name, context.redactor.values(said), context.warn)
    record = _record(context, snapshot, facts, key=key, readiness=ready, archive=archive)
    earlier = context.builds.earlier(record["config"])
    previous = {"build_id": earlier.get("build_id"), **report.figures(earlier)} if earlier else None
    return {**record, "statement": statement, "previous": previous}


def finish(context: _Context, record: Mapping[str, Any]) -> BuildResult:
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
    _write_report(context, record)
    voice.log(
        f"packaged {len(record['files'])} files in {context.notes.clock.seconds['package']:.1f} s: "
        f"{in_words(archive['size'])}, sha256 {archive['sha256']}, {path or archive['address']}"
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


def _check_room(context: _Context, missing_bytes: int, model_bytes: int) -> None:
    """Makes room if need be: cached steps go first, then old archives, never the newest good one."""
    if not context.settings.disk_check:
        return
    root, steps = context.settings.workspace.root, len(context.plan.steps)
    need = disk.need(root, missing_bytes, model_bytes, steps)
    expendable = (("cached steps", context.cache.give_way), ("old archives", context.builds.give_way))
    for what, give_way in expendable:
        if need.short and give_way(need.short):
            context.voice.log(f"removed {what}, because the disk is short of space")
            need = disk.need(root, missing_bytes, model_bytes, steps)
    need.check(root)


def _tell_cost(context: _Context, report: StepReport) -> None:
    metric = context.voice.metric
    if report.cached:
        metric(f"cached.{report.name}", 1)
        return
    metric(f"cpu.{report.name}", round(report.cpu_s, 3))
    metric(f"peak_memory.{report.name}", report.peak_memory_bytes)
    for index, used in enumerate(report.peak_gpu_memory_bytes):
        metric(f"peak_gpu_memory.{report.name}.{index}", used)


def _manifest(context: _Context, snapshot: Snapshot | None) -> dict[str, Any]:
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


def _made_from(context: _Context, facts: Mapping[str, Any], config: bytes) -> list[dict[str, Any]]:
    """What the statement says of the model, the toolchain and the service."""
    hashes = FileHashes(context.settings.workspace.state / "hashes.json", context.voice.log)
    found = resolved_dependencies(context.plan, facts, config, hashes)
    hashes.save()
    return found


def _record(
    context: _Context,
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
        model_bytes=_size(snapshot) if snapshot else 0,
        readiness=readiness,
        fit=context.notes.fit,
        engine_key=context.notes.engine_key,
        check=context.notes.verdict,
        config=resolved_yaml(context.plan, context.plan.expected_dirs()),
        machine=describe_machine(context.gpus),
        model_url=_model_url(context, snapshot),
        names={step.name: step.shown for step in context.plan.steps if step.shown != step.name},
        logs=sorted(path.name for path in (context.directory / "logs").glob("*.log")),
    )
    return dict(context.redactor.values(provenance.build_record(story, archive)))


def _model_url(context: _Context, snapshot: Snapshot | None) -> str | None:
    """The page of the model's revision, where it is the Hub's."""
    if snapshot is None or snapshot.source != "hub":
        return None
    hub = urlsplit(context.settings.env.get("HF_ENDPOINT") or "https://huggingface.co")
    place = f"{hub.path.rstrip('/')}/{quote(snapshot.model_id)}/tree/{quote(snapshot.revision)}"
    return urlunsplit((hub.scheme, hub.netloc.rpartition("@")[2], place, "", ""))


def _write_report(context: _Context, record: Mapping[str, Any]) -> None:
    try:
        with appearing(context.directory / REPORT_NAME) as page:
            page.write(report.render(record).encode())
    except PipelineError as error:  # the archive is finished and must not be lost with its report
        context.voice.log(f"warning: {error}")


def _settle_failed(context: _Context, first: BaseException) -> None:
    """Leaves of a failed build what helps to understand it. What goes wrong now is said beside its error."""
    if context.notes.received and kind_of(first) == "interrupted":
        add_note(first, "what has been downloaded is kept")
    try:
        context.builds.settle_failed(context.directory)
        _report_failure(context, first)
    except (TrtLlmPipelineError, OSError) as second:
        add_note(first, context.redactor(str(second)))


def _keep_newest(context: _Context) -> None:
    """Old builds that cannot be removed now are removed by a later build, and change nothing of this one."""
    try:
        context.builds.keep_newest(context.settings.keep_builds)
    except OSError as error:
        context.voice.log(f"warning: old builds stay: {refused(error, context.settings.workspace.builds)}")


def _report_failure(context: _Context, error: BaseException) -> None:
    """Leaves a record and a page beside the logs of a build that has failed, or was interrupted."""
    logs = context.directory / "logs"
    if not logs.is_dir() or os.path.realpath(logs) != str(logs):  # a step may have put a link there
        return
    notes = context.notes
    failed = provenance.failure(error, notes.stage, context.plan, notes.reports, logs)
    record = _record(context, notes.snapshot, _manifest(context, notes.snapshot))
    told = {**record, **context.redactor.values(failed)}
    write_record(context.directory / RECORD_NAME, told)
    _write_report(context, told)
    context.voice.kept("report", context.directory / REPORT_NAME)
    if told["logs"]:
        context.voice.kept("logs", logs)


def _size(snapshot: Snapshot) -> int:
    return sum((snapshot.path / name).stat().st_size for name in model_source.model_files(snapshot.path))
