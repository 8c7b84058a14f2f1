"""What a finished build came to, in a few facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trt_llm_pipeline.report import REPORT_NAME, names_of, serving_settings, verdict
from trt_llm_pipeline.units import in_time, in_words


def facts(record: Mapping[str, Any], directory: Path, archive: Path | None) -> list[tuple[str, str]]:
    """Names and values, the most wanted first.

    Args:
        record: the build's `build.json`.
        directory: the build's.
        archive: where it was kept; None where it was sent to the address that the record names.
    """
    manifest = record["manifest"]
    tools = manifest.get("toolchain", {})
    made = " ".join(dict.fromkeys(str(tools[key]) for key in ("name", "version") if key in tools))
    revision = str(manifest.get("revision", "")).removeprefix("sha256:")[:12]
    engine = next((step["output_bytes"] for step in record["steps"] if step["name"] == "build"), None)
    seconds, called = record["seconds"], names_of(record)
    stages = ", ".join(f"{called(name)} {in_time(value)}" for name, value in seconds.items())
    checks = record.get("readiness", [])
    found = [
        (
            "engine",
            f"{manifest.get('model_id')}{f' at {revision}' if revision else ''}, by the toolchain {made}",
        ),
        ("size", in_words(record["archive"]["size"]) + (f", unpacked {in_words(engine)}" if engine else "")),
        ("time", f"{in_time(sum(seconds.values()))}: {stages}"),
        ("verdict", verdict(checks)[0]),
        ("check", _talks(record.get("check"))),
        ("set", " ".join(f"{name}={value}" for name, value in serving_settings(checks).items())),
        ("archive", str(archive or record["archive"].get("address", ""))),
        ("report", str(directory / REPORT_NAME)),
        ("logs", str(directory / "logs") if record.get("logs") else ""),
    ]
    return [(name, value) for name, value in found if value]


def _talks(check: Mapping[str, Any] | None) -> str:
    if not check or check.get("status") != "passed":
        return "the engine was not asked to write" if check else ""
    return f"the engine writes (level {check.get('level')} of 3)"
