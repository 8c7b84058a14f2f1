"""The report's part on memory that was computed beforehand, beside what the build then used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trt_llm_pipeline.units import in_words

_ANSWERS = {
    "yes": ("yes", "ok"),
    "unknown": ("its weights do", "ok"),
    "some": ("not all at once", "warning"),
    "one": ("no room for one request", "warning"),
    "no": ("no", "problem"),
}


@dataclass(frozen=True)
class Fit:
    """Tables of words.

    Attributes:
        devices: kinds of device, a column each, so that a narrow window has room for the figures.
        answers: whether the engine loads on each: words, and how good that is.
        rows: names, and a figure for each device.
        compared: names, what a build takes at least, and what this one took.
    """

    devices: tuple[str, ...]
    answers: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, list[str]], ...]
    compared: tuple[tuple[str, str, str], ...]


def fit_tables(record: Mapping[str, Any]) -> Fit | None:
    """What was computed, and what was measured beside it; None where it was not computed."""
    fit = record.get("fit")
    if not isinstance(fit, Mapping):
        return None
    devices = fit["devices"]
    rows = (
        ("memory", [in_words(device["memory_bytes"]) for device in devices]),
        ("weights of a rank", [in_words(fit["rank_weight_bytes"])] * len(devices)),
        ("left", [in_words(device["left_bytes"]) for device in devices]),
        ("tokens in the KV cache", [_counted(device["kv_cache_tokens"]) for device in devices]),
        ("largest batch", [_counted(device["max_batch_size"]) for device in devices]),
        ("longest sequence", [_counted(device["max_length"]) for device in devices]),
    )
    names = tuple(device["name"] for device in devices)
    answers = tuple(_ANSWERS[device["answer"]] for device in devices)
    return Fit(names, answers, rows, tuple(_compared(fit, record)))


def _compared(fit: Mapping[str, Any], record: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    steps = [step for step in record.get("steps", []) if not step.get("cached")]
    engine = next((step["output_bytes"] for step in record.get("steps", []) if step["name"] == "build"), None)
    last = [step for step in steps if step["name"] == "build"]
    for name, least, seen in (
        ("engine", fit["weight_bytes"], engine),
        ("memory while converting", fit["host"]["convert_bytes"], _most(steps, last)),
        ("memory while building", fit["host"]["build_bytes"], _most(last, [])),
        (
            "one GPU while building",
            fit["rank_weight_bytes"],
            max((used for step in last for used in step["peak_gpu_memory_bytes"]), default=None),
        ),
    ):
        if least and seen:
            yield name, in_words(least), in_words(seen)


def _most(steps: Iterable[Mapping[str, Any]], but: Iterable[Mapping[str, Any]]) -> int | None:
    left_out = list(but)
    return max((step["peak_memory_bytes"] for step in steps if step not in left_out), default=None)


def _counted(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
