"""The order of things: `build` prepares the workspace, and `_stages` lists what a build does in it.

Whatever happens, a failed build returns nothing, leaves the last good archive alone, and keeps the model.
"""

from __future__ import annotations

from functools import partial

from trt_llm_pipeline.cache import StepCache, remote
from trt_llm_pipeline.delivery import Attesting, Outbox, check_reachable, parse_destination, signing_key
from trt_llm_pipeline.engine.tokenizer_files import tokenizer_files
from trt_llm_pipeline.model_source.hub import endpoint_of
from trt_llm_pipeline.observer import Observer, RedactedObserver
from trt_llm_pipeline.pipeline.checking import check_engine
from trt_llm_pipeline.pipeline.context import Context, Notes, warn_once
from trt_llm_pipeline.pipeline.downloading import download, download_datasets
from trt_llm_pipeline.pipeline.packaging import BuildResult, finish, package
from trt_llm_pipeline.pipeline.recording import keep_newest, settle_failed
from trt_llm_pipeline.pipeline.stepping import answer_from_cache, foresee, run_steps
from trt_llm_pipeline.preflight import Validated
from trt_llm_pipeline.process import limit
from trt_llm_pipeline.process.gpus import GpuMonitor
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.step import remove_view
from trt_llm_pipeline.workspace import ARCHIVE_NAMES, Builds, Ledger, disk, new_build_id


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
    notes = Notes()
    warn = partial(warn_once, notes, redactor, voice)
    holder = f"build {build_id} of {plan.config.model_id}"
    locked = workspace.lock(holder, build_id=build_id, model_id=plan.config.model_id)
    with redactor.in_errors(), disk.translated(workspace.root), locked, GpuMonitor(settings.env) as gpus:
        context = Context(
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
            with limit.translated():
                return _stages(context)
        except BaseException as error:
            settle_failed(context, error)
            raise
        finally:
            keep_newest(context)


def _stages(context: Context) -> BuildResult:
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


def _take_over(context: Context) -> None:
    """Tidies up after a build that was killed, and makes this build's directory."""
    from trt_llm_pipeline.check import remove_leftovers

    left = context.ledger.recover()
    if left:
        context.voice.log(f"an earlier build was killed; taking over the {len(left)} files it left")
    remove_view(context.settings.workspace)
    remove_leftovers(context.settings.workspace)
    context.builds.remove_unfinished()
    context.cache.clean()
    context.outbox.refuse_foreign(context.ledger)
    (context.directory / "logs").mkdir(parents=True)
