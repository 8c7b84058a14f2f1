"""A build as one page: `report.html`, from what `build.json` says.

The page needs nothing but itself: no script, no font, no picture from elsewhere. Every text in it is escaped,
because a model's name, a file's name and a warning are other people's.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from trt_llm_pipeline.report.charts import Span, memory, sizes, timeline
from trt_llm_pipeline.report.fits import fit_parts
from trt_llm_pipeline.report.markup import Node, document, el
from trt_llm_pipeline.report.style import STYLE
from trt_llm_pipeline.report.verdict import serving_settings, verdict
from trt_llm_pipeline.units import in_time, in_words

REPORT_NAME = "report.html"

_STEPS = {"convert_to_ft": "convert", "quantize": "quantize", "build": "build"}
_MADE = {"convert_to_ft": "checkpoint", "quantize": "quantized checkpoint", "build": "engine"}


def render(record: Mapping[str, Any]) -> str:
    """The page for a build.

    Args:
        record: what `provenance.build_record` gives. Without `archive` it is the page that goes into the
            archive, which cannot name the archive's own size and hash. With `error`, the message of what
            ended the build, it is the page of a failed one.
    """
    manifest = record.get("manifest", {})
    title = str(manifest.get("model_id", "engine"))
    parts = [
        *_header(record, manifest, title),
        _failure(record.get("error")),
        _section("Timeline", *_timeline(record)),
        _section("Memory", *_memory(record)),
        _section("Does it fit?", *fit_parts(record)),
        _section("Sizes", sizes(_sizes(record))),
        _talk(record.get("check")),
        _readiness(record.get("readiness", [])),
        _warnings(record.get("warnings", [])),
        _repository_code(manifest.get("repository_code", [])),
        _section("Commands", *(_command(step) for step in record.get("steps", []))),
        _section("Versions", _versions(record, manifest)),
        _files(record.get("files", {})),
    ]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{title}: build report"),
        el("style", STYLE),
    )
    return document(el("html", head, el("body", el("main", *parts)), lang="en"))


def _header(record: Mapping[str, Any], manifest: Mapping[str, Any], title: str) -> list[Element]:
    parts = [
        el("p", f"Build {record.get('build_id', '')}", css="kicker"),
        el("h1", title),
        _facts(
            ("revision", str(manifest.get("revision", ""))[:12]),
            ("toolchain", _toolchain(manifest)),
            ("GPU", ", ".join(_gpus(manifest)) or "none"),
        ),
        el("span", "failed", css="pill problem")
        if record.get("error")
        else _pill(record.get("readiness", [])),
        _tiles(record),
        _archive(record),
    ]
    return [part for part in parts if part is not None]


def _tiles(record: Mapping[str, Any]) -> Element:
    archive, steps = record.get("archive"), record.get("steps", [])
    seconds = sum(record.get("seconds", {}).values())
    tiles = el("dl", css="tiles")
    if archive:
        files = len(record.get("files", {}))
        tiles.append(_tile("Archive", in_words(archive["size"]), f"{files} files"))
    tiles.append(_tile("Time", in_time(seconds), _longest(record)))
    if steps:
        top = max(steps, key=lambda step: step["peak_memory_bytes"])
        tiles.append(
            _tile("Memory", in_words(top["peak_memory_bytes"]), f"at most, in {_called(top['name'])}")
        )
    peaks = [max(step["peak_gpu_memory_bytes"], default=0) for step in steps]
    if any(peaks):
        step = steps[peaks.index(max(peaks))]
        tiles.append(
            _tile("GPU memory", in_words(max(peaks)), f"at most on one GPU, in {_called(step['name'])}")
        )
    return tiles


def _longest(record: Mapping[str, Any]) -> str:
    seconds = record.get("seconds", {})
    total = sum(seconds.values())
    if not total:
        return ""
    name = max(seconds, key=lambda each: seconds[each])
    return f"{100 * seconds[name] / total:.0f}% of it in {_called(name)}"


def _tile(name: str, value: str, remark: str) -> Element:
    return el("div", el("dt", name), el("dd", value, el("small", remark)), css="tile")


def _archive(record: Mapping[str, Any]) -> Element | None:
    archive = record.get("archive")
    if record.get("error"):
        return None
    if not archive:
        return el(
            "p",
            "This page is in the archive that it describes, whose size and SHA-256 are in build.json.",
            css="note",
        )
    place = str(archive.get("path") or archive.get("address") or "")
    return el("p", el("code", place), el("br"), "SHA-256 ", el("code", str(archive["sha256"])), css="archive")


def _failure(error: str | None) -> Element | None:
    if not error:
        return None
    where = el("p", "All that its steps have printed is in the folder logs beside this page.", css="note")
    return _section("What went wrong", el("pre", error), where)


def _timeline(record: Mapping[str, Any]) -> list[Element]:
    cached = {step["name"] for step in record.get("steps", []) if step.get("cached")}
    spans, start = [], 0.0
    for name, length in record.get("seconds", {}).items():
        kind = "cached" if name in cached else "step" if name in _STEPS else "other"
        spans.append(Span(_called(name), start, length, kind))
        start += length
    parts = [timeline(spans)]
    earlier = record.get("answered_from")
    if earlier:
        parts.append(
            el(
                "p",
                f"Nothing had changed since build {earlier}: its archive was used again. What follows is "
                "that "
                "build's.",
                css="note",
            )
        )
    return parts


def _memory(record: Mapping[str, Any]) -> list[Element]:
    charts, notes, short = el("div", css="charts"), [], []
    for step in record.get("steps", []):
        name = _called(step["name"])
        if step.get("cached"):
            notes.append(f"{name} did not run: its earlier result was used again.")
            continue
        samples = step.get("samples", [])
        if len(samples) < 3:
            short.append((name, step["peak_memory_bytes"], f"at most, in {in_time(step['wall_s'])}"))
            continue
        times = [sample[0] for sample in samples]
        host = [sample[1] for sample in samples]
        charts.append(memory(f"{name}: host", times, [("processes", host)], step["peak_memory_bytes"]))
        count = max(len(sample[2]) for sample in samples)
        if count:
            gpus = [
                (f"GPU {index}", [sample[2][index] if index < len(sample[2]) else 0 for sample in samples])
                for index in range(count)
            ]
            most = max([*step["peak_gpu_memory_bytes"], 0])
            charts.append(memory(f"{name}: GPUs", times, gpus, most))
    if short:
        notes.append("Memory is looked at once a second; what is over sooner has a peak and no curve.")
    parts = [*([charts] if len(charts) else []), *([sizes(short)] if short else [])]
    return [*parts, *(el("p", note, css="note") for note in notes)]


def _sizes(record: Mapping[str, Any]) -> Iterable[tuple[str, int, str]]:
    before = record.get("model_bytes")
    if before:
        yield "model", before, ""
    for step in record.get("steps", []):
        size = step.get("output_bytes")
        if size is not None:
            yield _MADE.get(step["name"], step["name"]), size, ""
    archive = record.get("archive")
    if archive:
        packed = sum(file["size"] for file in record.get("files", {}).values())
        share = f"{100 * archive['size'] / packed:.0f}% of its files" if packed else ""
        yield "archive", archive["size"], share


def _pill(checks: Sequence[Mapping[str, Any]]) -> Element | None:
    text, css = verdict(checks)
    return el("span", text, css=f"pill {css}") if text else None


def _talk(check: Mapping[str, Any] | None) -> Element | None:
    """What the engine wrote when it was asked, and what came of it."""
    if not check or check.get("status") == "off":
        return None
    status = str(check.get("status"))
    css = {"passed": "ok", "failed": "problem"}.get(status, "unknown")
    level = f" level {check.get('level')} of 3" if status == "passed" else ""
    parts: list[Node] = [el("p", el("span", f"{status}{level}", css=f"pill {css}"))]
    if status != "passed":
        parts.append(el("pre", str(check.get("reason"))))
    reference = check.get("reference") or {}
    theirs = {one["prompt"]: one for one in reference.get("prompts", [])}
    rows = []
    for answer in check.get("answers", []):
        own = theirs.get(answer["prompt"])
        tokens = answer.get("tokens")
        cells = [
            el("td", answer["prompt"]),
            el("td", answer["text"], el("br"), el("small", " ".join(map(str, tokens or []))), css="mono"),
        ]
        if theirs:
            told = [own["text"], el("br"), el("small", " ".join(map(str, own["tokens"])))] if own else [""]
            cells.append(el("td", *told, css="mono"))
        rows.append(el("tr", *cells))
    if rows:
        names = [
            "prompt",
            "the engine wrote",
            *([f"the model itself ({reference.get('by')})"] if theirs else []),
        ]
        head = el("tr", *(el("th", name) for name in names))
        parts.append(el("div", el("table", el("thead", head), el("tbody", *rows)), css="wide"))
    parts += [el("p", str(note), css="note") for note in check.get("notes", [])]
    return _section("Does it talk?", *parts)


def _readiness(checks: Sequence[Mapping[str, Any]]) -> Element | None:
    if not checks:
        return None
    rows = [
        el(
            "tr",
            el("td", el("span", check["status"], css=f"pill {check['status']}"), css="fixed"),
            el("td", check["name"], css="fixed"),
            el("td", check["message"]),
        )
        for check in checks
    ]
    settings = serving_settings(checks)
    parts: list[Node] = [el("table", el("tbody", *rows))]
    if settings:
        parts.append(el("p", "Set for cog-triton:", css="note"))
        parts.append(el("pre", " ".join(f"{name}={value}" for name, value in settings.items())))
    return _section("Ready for cog-triton?", *parts)


def _warnings(warnings: Sequence[str]) -> Element | None:
    if not warnings:
        return None
    return _section("Warnings", el("ul", *(el("li", text) for text in warnings), css="warnings"))


def _repository_code(files: Sequence[Mapping[str, Any]]) -> Element | None:
    """The model's own code that the scripts were allowed to run."""
    if not files:
        return None
    head = el("tr", el("th", "file"), el("th", "what it is"), el("th", "SHA-256"))
    rows = [
        el("tr", el("td", file["path"]), el("td", file["what"]), el("td", str(file["sha256"]), css="mono"))
        for file in files
    ]
    note = el("p", "These files of the model run code; the scripts were allowed to run it.", css="note")
    table = el("table", el("thead", head), el("tbody", *rows))
    return _section("Code that came with the model", note, el("div", table, css="wide"))


def _command(step: Mapping[str, Any]) -> Element:
    ran = "used again, not run" if step.get("cached") else in_time(step["wall_s"])
    return el(
        "div",
        el("h3", _called(step["name"])),
        _facts(
            ("took", ran),
            ("CPU", in_time(step["cpu_s"])),
            ("output", str(step["output_dir"])),
        ),
        el("pre", shell(step["argv"])),
        css="command",
    )


def shell(argv: Sequence[str]) -> str:
    """A command as it can be pasted into a shell, an option with its values a line."""
    lines: list[list[str]] = [[]]
    for argument in map(str, argv):
        if argument.startswith("-") and lines[-1]:
            lines.append([])
        lines[-1].append(argument)
    return " \\\n  ".join(shlex.join(line) for line in lines)


def _versions(record: Mapping[str, Any], manifest: Mapping[str, Any]) -> Element:
    tools = manifest.get("toolchain", {})
    rows = [
        ("model", str(manifest.get("model_id", ""))),
        ("revision", str(manifest.get("revision", ""))),
        ("from", str(manifest.get("source", ""))),
        ("toolchain", _toolchain(manifest)),
        ("follows TensorRT-LLM", ", ".join(map(str, tools.get("follows", [])))),
        ("GPU", "; ".join(_gpus(manifest)) or "none"),
        ("trt-llm-pipeline", str(record.get("service_version", ""))),
    ]
    body = [el("tr", el("td", name, css="fixed"), el("td", value)) for name, value in rows if value]
    return el("table", el("tbody", *body))


def _files(files: Mapping[str, Mapping[str, Any]]) -> Element | None:
    if not files:
        return None
    head = el("tr", el("th", "file"), el("th", "bytes", css="number"), el("th", "SHA-256"))
    rows = [
        el(
            "tr",
            el("td", name),
            el("td", f"{file['size']:,}", css="number"),
            el("td", str(file["sha256"]), css="mono"),
        )
        for name, file in files.items()
    ]
    table = el("table", el("thead", head), el("tbody", *rows))
    return _section("Files in the archive", el("div", table, css="wide"))


def _section(title: str, *parts: Node | None) -> Element | None:
    """A section of the page; None where there is nothing in it."""
    return el("section", el("h2", title), *parts) if parts else None


def _facts(*facts: tuple[str, str]) -> Element:
    return el("ul", *(el("li", f"{name} ", el("b", value)) for name, value in facts if value), css="facts")


def _gpus(manifest: Mapping[str, Any]) -> list[str]:
    gpus = manifest.get("gpus")
    if not isinstance(gpus, list):
        return []
    counted = Counter(
        f"{gpu.get('name')} (compute capability {gpu.get('compute_capability')})" for gpu in gpus
    )
    return [f"{count} × {gpu}" if count > 1 else gpu for gpu, count in counted.items()]


def _toolchain(manifest: Mapping[str, Any]) -> str:
    tools = manifest.get("toolchain", {})
    return " ".join(dict.fromkeys(str(tools[key]) for key in ("name", "version") if key in tools))


def _called(name: str) -> str:
    return _STEPS.get(name, name)
