"""A build's stages as the report's timeline has them: scripts, and what the service does around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trt_llm_pipeline.report.charts import Span
from trt_llm_pipeline.units import in_time


def names_of(record: Mapping[str, Any]) -> Callable[[str], str]:
    """What people call a stage: the config's own word for a step."""
    told = record.get("names")
    names = told if isinstance(told, Mapping) else {}
    return lambda name: str(names.get(name, name))


def stages(record: Mapping[str, Any]) -> list[tuple[str, list[Span], str]]:
    """Rows for `charts.timeline`.

    Args:
        record: `build.json`. One of an earlier version does not say when a stage or a script began: stages
            then follow one another, and are not divided.
    """
    steps = {} if record.get("answered_from") else {step["name"]: step for step in record.get("steps", [])}
    failed = (record.get("failed") or {}).get("stage")
    ending = "interrupted" if record.get("kind") == "interrupted" else "failed"
    starts, called = record.get("starts", {}), names_of(record)
    rows, end = [], 0.0
    for name, length in record.get("seconds", {}).items():
        start = starts.get(name, end)
        end = start + length
        if name == failed:
            rows.append((called(name), [_span(called(name), start, end, "failed")], ending))
        else:
            rows.append(_row(called(name), start, end, steps.get(name)))
    return rows


def _row(name: str, start: float, end: float, step: Mapping[str, Any] | None) -> tuple[str, list[Span], str]:
    if step is None:
        return name, [_span(name, start, end, "other")], ""
    if step.get("cached"):
        return name, [_span(name, start, end, "cached")], "used again"
    script = step.get("start_s")
    if script is None:
        return name, [_span(name, start, end, "step")], ""
    ended = min(script + step["wall_s"], end)
    parts = [
        _span(f"{name}: before its script", start, script, "other"),
        _span(f"{name}: script", script, ended, "step"),
        _span(f"{name}: after its script", ended, end, "other"),
    ]
    return name, parts, f"script {in_time(step['wall_s'])}"


def _span(title: str, start: float, end: float, kind: str) -> Span:
    length = max(0.0, end - start)
    return Span(start, length, kind, f"{title}: {in_time(length)}, from {in_time(start)}")
