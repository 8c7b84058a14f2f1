"""A build as one page: `report.html`, from what `build.json` says.

The page needs nothing but itself: no script, no font, no picture from elsewhere. Every text in it is escaped,
because a model's name, a file's name and a warning are other people's.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from trt_llm_pipeline.report import charts
from trt_llm_pipeline.report.compared import figures
from trt_llm_pipeline.report.fits import fit_tables
from trt_llm_pipeline.report.stages import names_of, stages
from trt_llm_pipeline.report.verdict import serving_settings, verdict
from trt_llm_pipeline.units import in_time, in_words

if TYPE_CHECKING:
    from jinja2 import Environment

REPORT_NAME = "report.html"

_FOLDER = Path(__file__).parent / "templates"
_MADE = {"convert_to_ft": "checkpoint", "quantize": "quantized checkpoint", "build": "engine"}
_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"


def render(record: Mapping[str, Any]) -> str:
    """The page for a build.

    Args:
        record: what `build.json` says. Without `archive` it is the page that goes into the archive, which
            cannot name the archive's own size and hash. With `error`, the message of what ended the build,
            it is the page of a failed one.
    """
    script = (_FOLDER / "copy.js").read_text()
    digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    return _templates().get_template("report.html").render(view(record), script_hash=digest)


@cache
def _templates() -> Environment:
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader  # slow to import

    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=ChainableUndefined,  # records of earlier versions tell less
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def style() -> str:
    """The look of the page, for others like it."""
    return (_FOLDER / "style.css").read_text()


def view(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows, as words and numbers."""
    manifest = record.get("manifest", {})
    steps = [step for step in record.get("steps", []) if not step.get("cached")]
    called = names_of(record)
    rows, axis = charts.timeline(stages(record))
    checks = record.get("readiness", [])
    error = record.get("error")
    failed = record.get("failed") or {}
    interrupted = record.get("kind") == "interrupted"
    return {
        "record": record,
        "manifest": manifest,
        "title": str(manifest.get("model_id", "engine")),
        "started": str(record.get("started", "")).replace("T", " ").replace("Z", " UTC"),
        "verdict": ("interrupted" if interrupted else "failed", "problem") if error else verdict(checks),
        "interrupted": interrupted,
        "error": _message(str(error or ""), failed),
        "failed": failed,
        "logs": [(name, f"logs/{quote(name, safe='')}") for name in record.get("logs", [])],
        "model_url": _link(record.get("model_url")),
        "toolchain": _toolchain(manifest),
        "gpus": _gpus(manifest),
        "tiles": list(_tiles(record)),
        "settings": " ".join(f"{name}={value}" for name, value in serving_settings(checks).items()),
        "compared": list(_compared(record)),
        "rows": rows,
        "axis": axis,
        "charts": [chart for step in steps for chart in charts.memory_of_step(called(step["name"]), step)],
        "short": charts.sizes(
            [
                (called(step["name"]), step["peak_memory_bytes"], f"at most, in {in_time(step['wall_s'])}")
                for step in steps
                if len(step.get("samples", [])) < 3
            ]
        ),
        "sizes": charts.sizes(list(_sizes(record))),
        "fit": fit_tables(record),
        "check": _talk(record.get("check")),
        "called": called,
        "in_time": in_time,
        "in_words": in_words,
        "shell": shell,
    }


def shell(argv: Sequence[str]) -> str:
    """A command as it can be pasted into a shell, an option with its values a line."""
    lines: list[list[str]] = [[]]
    for argument in map(str, argv):
        if argument.startswith("-") and lines[-1]:
            lines.append([])
        lines[-1].append(argument)
    return " \\\n  ".join(shlex.join(line) for line in lines)


def _clean(value: Any) -> Any:
    """Text without what HTML cannot hold: control characters, and halves of characters."""
    if type(value) is not str:  # markup of a macro, whose own texts have been cleaned
        return value
    kept = "".join(each if each.isprintable() or each in "\n\t" else _NO_CHARACTER for each in value)
    return kept.encode("utf-8", "replace").decode()


def _message(error: str, failed: Mapping[str, Any]) -> str:
    """An error, without the last lines of the script where the page shows more of them."""
    return error.partition("\n  | ")[0] if failed.get("last_lines") else error


def _link(address: object) -> str | None:
    """An address that leads nowhere but to a web server."""
    text = str(address or "")
    return text if text.startswith(("https://", "http://")) else None


def _tiles(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    archive, seconds, called = record.get("archive"), record.get("seconds", {}), names_of(record)
    if archive:
        yield "Archive", in_words(archive["size"]), f"{len(record.get('files', {}))} files"
    total = sum(seconds.values())
    longest = max(seconds, key=lambda each: seconds[each]) if total else ""
    share = f"{100 * seconds[longest] / total:.0f}% of it in {called(longest)}" if total else ""
    yield "Time", in_time(total), share
    steps = [step for step in record.get("steps", []) if not step.get("cached")]
    if steps:
        top = max(steps, key=lambda step: step["peak_memory_bytes"])
        yield "Memory", in_words(top["peak_memory_bytes"]), f"at most, in {called(top['name'])}"
    peaks = [max(step["peak_gpu_memory_bytes"], default=0) for step in steps]
    if any(peaks):
        name = called(steps[peaks.index(max(peaks))]["name"])
        yield "GPU memory", in_words(max(peaks)), f"at most on one GPU, in {name}"


def _compared(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Names, this build's figure, the earlier one's, and by how much it has changed."""
    earlier, now = record.get("previous"), figures(record)
    if not isinstance(earlier, Mapping):
        return
    called = {
        "seconds": "time",
        **{f"seconds.{name}": names_of(record)(name) for name in record.get("seconds", {})},
        "archive_bytes": "archive",
        "engine_bytes": "engine",
        "memory_bytes": "memory, at most",
        "gpu_memory_bytes": "memory of one GPU, at most",
    }
    for key, name in called.items():
        before, after = earlier.get(key), now.get(key)
        if before is None or after is None:
            continue
        words = in_time if key.startswith("seconds") else in_words
        percent = round(100 * (after - before) / before) if before else 0
        yield name, words(after), words(before), f"{percent:+}%" if percent else "same"


def _sizes(record: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    if record.get("model_bytes"):
        yield "model", record["model_bytes"], ""
    for step in record.get("steps", []):
        if step.get("output_bytes") is not None:
            yield _MADE.get(step["name"], step["name"]), step["output_bytes"], ""
    archive = record.get("archive")
    if archive:
        packed = sum(file["size"] for file in record.get("files", {}).values())
        yield (
            "archive",
            archive["size"],
            f"{100 * archive['size'] / packed:.0f}% of its files" if packed else "",
        )


def _talk(check: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the engine wrote when it was asked, and what came of it."""
    if not check or check.get("status") == "off":
        return None
    status = str(check.get("status"))
    reference = check.get("reference") or {}
    theirs = {one["prompt"]: one for one in reference.get("prompts", [])}
    return {
        "status": status + (f" level {check.get('level')} of 3" if status == "passed" else ""),
        "css": {"passed": "ok", "failed": "problem"}.get(status, "unknown"),
        "reason": "" if status == "passed" else str(check.get("reason")),
        "answers": [(answer, theirs.get(answer["prompt"])) for answer in check.get("answers", [])],
        "by": reference.get("by") if theirs else None,
        "notes": check.get("notes", []),
    }


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
