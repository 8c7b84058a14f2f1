"""The report's part on memory that was computed beforehand, beside what the build then used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree.ElementTree import Element

from trt_llm_pipeline.report.markup import Node, el
from trt_llm_pipeline.units import in_words

_ANSWERS = {
    "yes": ("yes", "ok"),
    "some": ("not all at once", "warning"),
    "one": ("no room for one request", "warning"),
    "no": ("no", "problem"),
}
_NOTE = "Activations are left out, so what is computed is at least what is needed, and at most what is left."


def fit_parts(record: Mapping[str, Any]) -> list[Element]:
    """Tables of what was computed, and of what was measured beside it; nothing where it was not computed."""
    fit = record.get("fit")
    if not isinstance(fit, Mapping):
        return []
    parts = [_devices(fit), _compared(fit, record), el("p", _NOTE, css="note")]
    return [part for part in parts if part is not None]


def _devices(fit: Mapping[str, Any]) -> Element | None:
    """A column for each kind of device, so that a narrow window has room for the figures."""
    devices = fit["devices"]
    if not devices:
        return None
    answers = [_ANSWERS[device["answer"]] for device in devices]
    rows: list[tuple[str, list[Node]]] = [
        ("loads", [el("span", text, css=f"pill {css}") for text, css in answers]),
        ("memory", [in_words(device["memory_bytes"]) for device in devices]),
        ("weights of a rank", [in_words(fit["rank_weight_bytes"])] * len(devices)),
        ("left", [in_words(device["left_bytes"]) for device in devices]),
        ("tokens in the KV cache", [_counted(device["kv_cache_tokens"]) for device in devices]),
        ("largest batch", [_counted(device["max_batch_size"]) for device in devices]),
        ("longest sequence", [_counted(device["max_length"]) for device in devices]),
    ]
    head = el("tr", el("th", ""), *(el("th", device["name"], css="number") for device in devices))
    body = [
        el("tr", el("td", name), *(el("td", cell, css="number") for cell in cells)) for name, cells in rows
    ]
    return el("table", el("thead", head), el("tbody", *body))


def _compared(fit: Mapping[str, Any], record: Mapping[str, Any]) -> Element | None:
    """What a build of that size takes at least, and what this one took."""
    steps = [step for step in record.get("steps", []) if not step.get("cached")]
    engine = next((step["output_bytes"] for step in record.get("steps", []) if step["name"] == "build"), None)
    last = [step for step in steps if step["name"] == "build"]
    rows = [
        ("engine", fit["weight_bytes"], engine),
        ("memory while converting", fit["host"]["convert_bytes"], _most(steps, last)),
        ("memory while building", fit["host"]["build_bytes"], _most(last, [])),
        (
            "one GPU while building",
            fit["rank_weight_bytes"],
            max((used for step in last for used in step["peak_gpu_memory_bytes"]), default=None),
        ),
    ]
    body = [
        el("tr", el("td", name), *(el("td", in_words(size), css="number") for size in (least, seen)))
        for name, least, seen in rows
        if least and seen
    ]
    if not body:
        return None
    head = el("tr", el("th", ""), el("th", "at least", css="number"), el("th", "measured", css="number"))
    return el("table", el("thead", head), el("tbody", *body))


def _most(steps: Iterable[Mapping[str, Any]], but: Iterable[Mapping[str, Any]]) -> int | None:
    left_out = list(but)
    return max((step["peak_memory_bytes"] for step in steps if step not in left_out), default=None)


def _counted(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
