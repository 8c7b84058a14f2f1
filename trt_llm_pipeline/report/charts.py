"""The report's pictures, computed: places in percent for bars in HTML, points for curves in inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trt_llm_pipeline.units import in_time, in_words

WIDTH, HEIGHT = 1000, 100
_SERIES = 8


@dataclass(frozen=True)
class Span:
    """A part of a timeline's row, in seconds.

    `kind` is `step` for a script, `other` for what the service does itself, `cached` where an earlier
    result was used, `failed` where it ended the build.
    """

    start_s: float
    length_s: float
    kind: str
    title: str


@dataclass(frozen=True)
class Bar:
    """A bar: its place from the left and its width, in percent; its kind, and a text for who points at it."""

    left: float
    width: float
    kind: str
    title: str


@dataclass(frozen=True)
class Row:
    """A name, its bars, and what they come to with a remark."""

    name: str
    bars: tuple[Bar, ...]
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Curve:
    """A line of a chart: points of its SVG, the number of its color, and its legend."""

    points: str
    area: str
    color: int
    label: str


@dataclass(frozen=True)
class Chart:
    """Memory over time.

    Attributes:
        title: what it shows.
        most, top, half, last: words for the peak, the upper end, the middle and the end of its axes.
        peak: where the peak's line is, from 0 at the top to `HEIGHT`.
        curves: one or more.
    """

    title: str
    most: str
    top: str
    half: str
    last: str
    peak: float
    curves: tuple[Curve, ...]


def timeline(rows: Sequence[tuple[str, Sequence[Span], str]]) -> tuple[list[Row], list[tuple[float, str]]]:
    """A row for each stage of a build, on one axis of seconds.

    Args:
        rows: names, their parts, and remarks.

    Returns:
        The rows, and the axis: places in percent, with the time there.
    """
    total = max((span.start_s + span.length_s for _, spans, _ in rows for span in spans), default=0.0)
    drawn = []
    for name, spans, remark in rows:
        bars = [
            Bar(_percent(span.start_s, total), _percent(span.length_s, total), span.kind, span.title)
            for span in spans
        ]
        drawn.append(Row(name, tuple(bars), in_time(sum(span.length_s for span in spans)), remark))
    return drawn, [(_percent(mark, total), in_time(mark)) for mark in ticks(total)]


def sizes(rows: Sequence[tuple[str, int, str]]) -> list[Row]:
    """A bar for each name, size in bytes and remark, from one zero."""
    largest = max((size for _, size, _ in rows), default=0)
    return [
        Row(name, (Bar(0, _percent(size, largest), "step", f"{size:,} bytes"),), in_words(size), remark)
        for name, size, remark in rows
    ]


def memory(
    title: str, times_s: Sequence[float], series: Mapping[str, Sequence[int]], peak_bytes: int
) -> Chart:
    """Memory over time.

    Args:
        title: what it shows.
        times_s: when each sample was taken, in seconds, rising.
        series: as many bytes as there are times, for each curve's name; a single one is filled.
        peak_bytes: the most that was seen at any moment, drawn as a line where it is above the samples.
    """
    top = round_up(max([peak_bytes, *(value for values in series.values() for value in values)], default=0))
    last = max(times_s, default=0.0) or 1.0
    curves = []
    for index, (name, values) in enumerate(series.items()):
        points = [
            (WIDTH * time / last, HEIGHT * (1 - value / top))
            for time, value in zip(times_s, values, strict=False)
        ]
        if not points:
            continue
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        closed = (
            f"{points[0][0]:.1f},{HEIGHT} {text} {points[-1][0]:.1f},{HEIGHT}" if len(series) == 1 else ""
        )
        label = f"{name}, at most {in_words(max(values))}"
        curves.append(Curve(text, closed, index % _SERIES, label))
    level = HEIGHT * (1 - peak_bytes / top)
    words = (in_words(peak_bytes), in_words(top), in_words(top / 2), in_time(last))
    return Chart(title, *words, round(level, 1), tuple(curves))


def memory_of_step(name: str, step: Mapping[str, Any]) -> list[Chart]:
    """Charts of the host's memory and of the GPUs' for a step that has at least three samples."""
    samples = step.get("samples", [])
    if len(samples) < 3:
        return []
    times = [sample[0] for sample in samples]
    host = {"processes": [sample[1] for sample in samples]}
    charts = [memory(f"{name}: host", times, host, step["peak_memory_bytes"])]
    count = max(len(sample[2]) for sample in samples)
    if count:
        gpus = {
            f"GPU {index}": [sample[2][index] if index < len(sample[2]) else 0 for sample in samples]
            for index in range(count)
        }
        charts.append(memory(f"{name}: GPUs", times, gpus, max([*step["peak_gpu_memory_bytes"], 0])))
    return charts


def ticks(total: float) -> list[float]:
    """Round numbers from 0 to at most `total`, four to eight of them where it is more than 0."""
    if total <= 0:
        return [0.0]
    unit = 10.0 ** math.floor(math.log10(total))
    steps = [unit * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2, 5)]
    if total > 60:
        steps = sorted(
            [15.0, 30.0, *(60.0 * minutes for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1440))]
        )
        steps += [86400.0 * days for days in (2, 5, 10)]
    step = next((each for each in steps if total / each <= 7), total)
    return [index * step for index in range(int(total / step + 1e-9) + 1)]


def round_up(size: int) -> int:
    """The next round number of bytes: a chart's upper end."""
    if size <= 0:
        return 1
    unit = 10.0 ** (len(str(size)) - 1)
    return next(round(unit * part) for part in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if unit * part >= size)


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 2) if whole > 0 else 0.0
