"""The assessment for people: every figure that the next one is computed from, so that it can be redone."""

from __future__ import annotations

from collections.abc import Sequence

from trt_llm_pipeline.engine.limits import KV_FRACTION
from trt_llm_pipeline.fit.arguments import BYTES_OF
from trt_llm_pipeline.fit.assess import Assessment, Verdict
from trt_llm_pipeline.fit.gpus import GPUS
from trt_llm_pipeline.units import in_words

_ANSWERS = {
    "yes": "yes",
    "unknown": "its weights do",
    "some": "yes, but not all at once",
    "one": "no room for one request",
    "no": "no",
}


def text_lines(assessment: Assessment) -> list[str]:
    """The assessment as lines of text."""
    shape, arguments, need = assessment.shape, assessment.arguments, assessment.need
    ranks = arguments.world_size
    layers = -(-shape.layers // arguments.pp)
    heads = shape.kv_heads_of_rank(arguments.tp)
    lines = [
        f"fit of {shape.family} with {shape.parameters:,} parameters",
        f"  weights    {need.weights:,} bytes as {arguments.weights_name}"
        + (f", {need.rank_weights:,} on the largest of {ranks} ranks" if ranks > 1 else ""),
        f"  KV cache   {need.kv_per_token:,} bytes a token"
        f"{' and rank' if ranks > 1 else ''}: 2 x {layers} layers x {heads} heads x {shape.head_size} x "
        f"{BYTES_OF[arguments.kv]} ({arguments.kv})",
    ]
    if need.tokens is not None:
        beams = f" x {arguments.max_beam_width} beams" if arguments.max_beam_width > 1 else ""
        lines.append(
            f"  the config {need.tokens:,} tokens at once: {arguments.max_batch_size} requests{beams} x "
            f"{arguments.length:,} tokens, {need.tokens * need.kv_per_token:,} bytes of KV cache"
        )
    else:
        lines.append(
            f"  the config does not say {' and '.join(arguments.unsaid)}, so it is not known how many tokens "
            "it wants at once"
        )
    lines.append(f"  the build  {_host(assessment)}")
    lines.append(f"  on disk    at least {assessment.disk:,} bytes that its steps write")
    lines += [f"  note       {text}" for text in arguments.assumed]
    lines += [
        f"  recorded   build {peak.build_id}: {in_words(peak.host_bytes)} of memory in {peak.host_step}"
        + (f", {in_words(peak.gpu_bytes)} on a GPU in {peak.gpu_step}" if peak.gpu_bytes else "")
        + (f", an engine of {in_words(peak.engine_bytes)}" if peak.engine_bytes else "")
        for peak in assessment.peaks
    ]
    if assessment.verdicts:
        lines += ["", *_table(assessment)]
        lines += [f"  {_sum(assessment, verdict)}" for verdict in assessment.verdicts]
        lines.append("  Activations are left out, so the figures are at least and at most.")
    else:
        names = ", ".join(gpu.name for gpu in GPUS)
        lines.append(f"  no GPU here to load it on; --gpu looks at one of {names}")
    for verdict in assessment.verdicts:
        lines += [
            f"  {verdict.room.device.name}: {remedy.text} would be enough" for remedy in verdict.remedies
        ]
    return lines


def _sum(assessment: Assessment, verdict: Verdict) -> str:
    """How many tokens a device has room for, as a sum, and where its memory's figure comes from."""
    device, weights = verdict.room.device, assessment.need.rank_weights
    if verdict.answer == "no":
        told = f"{weights:,} bytes of weights are more than {device.memory_bytes:,}"
    else:
        cache = f"{KV_FRACTION} x ({device.memory_bytes:,} - {weights:,})"
        told = f"{cache} / {assessment.need.kv_per_token:,} = {verdict.room.tokens:,} tokens"
    return f"{device.name}: {told} (memory: {device.source})"


def _host(assessment: Assessment) -> str:
    need = assessment.host_need
    convert = "the model's files one by one"
    if need.convert is not None:
        convert = f"at least {need.convert:,} bytes to load it"
    return (
        f"{convert}, at least {need.build:,} for an engine; this machine has {assessment.host.memory_bytes:,}"
    )


def _table(assessment: Assessment) -> list[str]:
    arguments = assessment.arguments
    at_length = f"batch at {arguments.length:,}" if arguments.length else "batch"
    at_batch = f"length at {arguments.max_batch_size}" if arguments.max_batch_size else "length"
    head = ["loads on", "has", "weights", "left", "KV cache", "tokens", at_length, at_batch, "loads"]
    return _aligned([head, *(_row(assessment, verdict) for verdict in assessment.verdicts)])


def _row(assessment: Assessment, verdict: Verdict) -> list[str]:
    there = verdict.room
    return [
        there.device.name,
        in_words(there.device.memory_bytes),
        in_words(assessment.need.rank_weights),
        in_words(there.left),
        in_words(there.kv_bytes),
        f"{there.tokens:,}",
        "-" if there.max_batch_size is None else f"{there.max_batch_size:,}",
        "-" if there.max_length is None else f"{there.max_length:,}",
        _ANSWERS[verdict.answer],
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns: the first and the last to the left, figures to the right."""
    wide = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if at == 0 else cell if at == len(wide) - 1 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, wide, strict=True))
        ]
        lines.append("  " + "  ".join(cells))
    return lines
