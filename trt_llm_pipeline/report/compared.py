"""What a build took, in a few figures that can be compared with another's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Seconds and bytes of a build, by name; what its record does not tell is left out.

    Args:
        record: `build.json`, of any version; nothing in it is taken for granted.
    """
    found: dict[str, float] = {}
    seconds, steps = record.get("seconds"), record.get("steps")
    if isinstance(seconds, Mapping):
        found |= {f"seconds.{name}": value for name, value in seconds.items() if _number(value)}
        found["seconds"] = sum(found.values())
    archive = record.get("archive")
    if isinstance(archive, Mapping) and _number(archive.get("size")):
        found["archive_bytes"] = archive["size"]
    for step in steps if isinstance(steps, list) else []:
        if not isinstance(step, Mapping):
            continue
        if step.get("name") == "build" and _number(step.get("output_bytes")):
            found["engine_bytes"] = step["output_bytes"]
        if not step.get("cached"):
            gpus = step.get("peak_gpu_memory_bytes")
            _raise(found, "memory_bytes", [step.get("peak_memory_bytes")])
            _raise(found, "gpu_memory_bytes", gpus if isinstance(gpus, list) else [])
    return found


def _raise(found: dict[str, float], name: str, values: Iterable[Any]) -> None:
    most = max([found.get(name, 0), *(value for value in values if _number(value))])
    if most:
        found[name] = most


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1 << 60
