"""The engine is asked to write before it leaves."""

from __future__ import annotations

from trt_llm_pipeline.engine.tokenizer_files import TokenizerFiles
from trt_llm_pipeline.model_source import Snapshot
from trt_llm_pipeline.pipeline.context import Context
from trt_llm_pipeline.preflight.parser_check import option_reader
from trt_llm_pipeline.process import Usage
from trt_llm_pipeline.step import StepReport


def check_engine(
    context: Context, snapshot: Snapshot, reports: list[StepReport], tokenizer: TokenizerFiles
) -> None:
    """Asks the engine to write, unless the config says not to, or an earlier build has asked the same one.

    Raises:
        CheckFailed: it writes garbage, or could not be asked though it had to be.
    """
    from trt_llm_pipeline import check  # late: a room that few starts of the program come to

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
