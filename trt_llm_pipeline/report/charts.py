"""The report's pictures: bars in HTML, curves in inline SVG that stretch while their text does not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from trt_llm_pipeline.report.markup import el
from trt_llm_pipeline.units import in_time, in_words

_WIDTH, _HEIGHT = 1000, 100
_SERIES = 8


@dataclass(frozen=True)
class Span:
    """One bar of a timeline: its name, when it began and how long it took in seconds, and its kind.

    `kind` is `step`, `cached` for a step whose earlier result was used, or `other`.
    """

    name: str
    start_s: float
    length_s: float
    kind: str


def timeline(spans: Sequence[Span]) -> Element:
    """A row for each part of a build, on one axis of seconds."""
    total = max((span.start_s + span.length_s for span in spans), default=0.0)
    bars = el("div", css="bars lanes")
    for span in spans:
        words = "used again" if span.kind == "cached" else ""
        at = f"{span.name}: {in_time(span.length_s)}, from {in_time(span.start_s)}"
        css = "bar" if span.kind == "step" else f"bar {span.kind}"
        bar = el("div", css=css, style=_place(span.start_s, span.length_s, total), title=at)
        bars.extend(
            [
                el("div", span.name, css="name"),
                el("div", bar, css="track"),
                el("div", in_time(span.length_s), el("small", f" {words}") if words else None, css="value"),
            ]
        )
    marks = ticks(total)
    axis = el("div", css="axis")
    for mark in marks:
        shift = "0" if not mark else "-100%" if mark > 0.97 * total else "-50%"
        place = f"left:{_percent(mark, total)};transform:translateX({shift})"
        axis.append(el("span", in_time(mark), style=place))
    bars.extend([el("div", css="blank"), axis, el("div", css="blank")])
    return bars


def sizes(rows: Iterable[tuple[str, int, str]]) -> Element:
    """A bar for each name, size in bytes and remark, from one zero."""
    listed = list(rows)
    largest = max((size for _, size, _ in listed), default=0)
    bars = el("div", css="bars")
    for name, size, remark in listed:
        bar = el("div", css="bar", style=_place(0, size, largest), title=f"{name}: {size:,} bytes")
        value = el("div", in_words(size), css="value")
        if remark:
            value.append(el("small", f" {remark}"))
        bars.extend([el("div", name, css="name"), el("div", bar, css="track"), value])
    return bars


def memory(
    title: str, times_s: Sequence[float], series: Sequence[tuple[str, Sequence[int]]], peak_bytes: int
) -> Element:
    """Memory over time.

    Args:
        title: the picture's caption.
        times_s: when each sample was taken, in seconds, rising.
        series: a name and as many bytes as there are times, for each curve; a single one is filled.
        peak_bytes: the most that was seen at any moment, drawn as a line where it is above the samples.
    """
    top = round_up(max([peak_bytes, *(value for _, values in series for value in values)], default=0))
    last = max(times_s, default=0.0) or 1.0
    figure = el("figure", el("figcaption", el("h3", title), el("span", f"at most {in_words(peak_bytes)}")))
    svg = el(
        "svg",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title}: at most {in_words(peak_bytes)} in {in_time(last)}",
    )
    for level in (0, _HEIGHT / 2):
        svg.append(el("line", css="grid", x1=0, x2=_WIDTH, y1=level, y2=level))
    svg.append(el("line", css="base", x1=0, x2=_WIDTH, y1=_HEIGHT, y2=_HEIGHT))
    for index, (name, values) in enumerate(series):
        points = [
            (_WIDTH * time / last, _HEIGHT * (1 - value / top))
            for time, value in zip(times_s, values, strict=False)
        ]
        if not points:
            continue
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        if len(series) == 1:
            closed = f"{points[0][0]:.1f},{_HEIGHT} {text} {points[-1][0]:.1f},{_HEIGHT}"
            svg.append(el("polygon", css="area", points=closed))
        curve = el("polyline", css="curve", points=text, style=f"stroke:var(--s{index % _SERIES})")
        curve.append(el("title", f"{name}: at most {in_words(max(values))}"))
        svg.append(curve)
    level = _HEIGHT * (1 - peak_bytes / top)
    svg.append(el("line", css="peak", x1=0, x2=_WIDTH, y1=f"{level:.1f}", y2=f"{level:.1f}"))
    figure.append(
        el(
            "div",
            el("div", el("span", in_words(top)), el("span", in_words(top / 2)), el("span", "0"), css="ys"),
            svg,
            el("div", el("span", "0 s"), el("span", in_time(last)), css="xs"),
            css="plot",
        )
    )
    if len(series) > 1:
        legend = el("div", css="legend")
        for index, (name, values) in enumerate(series):
            key = el("i", style=f"background:var(--s{index % _SERIES})")
            legend.append(el("span", key, f"{name}, at most {in_words(max(values, default=0))}"))
        figure.append(legend)
    return figure


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


def _place(start: float, length: float, total: float) -> str:
    return f"left:{_percent(start, total)};width:{_percent(length, total)}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole if whole > 0 else 0:.2f}%"
