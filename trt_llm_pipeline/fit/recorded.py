"""What earlier builds of a model have used, from their `build.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_MOST = 5
_LARGEST = 1 << 60


@dataclass(frozen=True)
class Peaks:
    """The most memory that a build's steps have used, in bytes.

    Attributes:
        build_id: which build.
        host_bytes, host_step: of the machine's memory, and in which step.
        gpu_bytes, gpu_step: on one GPU; 0 where there was none.
        engine_bytes: size of the engine; None where it is not known.
    """

    build_id: str
    host_bytes: int
    host_step: str
    gpu_bytes: int
    gpu_step: str
    engine_bytes: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "build_id": self.build_id,
            "host_bytes": self.host_bytes,
            "host_step": self.host_step,
            "gpu_bytes": self.gpu_bytes,
            "gpu_step": self.gpu_step,
            "engine_bytes": self.engine_bytes,
        }


def recorded_peaks(
    records: Iterable[Mapping[str, Any]], model_id: str, wanted: Mapping[str, Any]
) -> tuple[Peaks, ...]:
    """The peaks of earlier builds of the same engine: the same model, types and parallelism.

    Args:
        records: `build.json` of each, the newest first. Whatever is not as expected is left out.
        model_id: the model's.
        wanted: `facts` of the engine that is planned.
    """
    found: list[Peaks] = []
    for record in records:
        manifest = record.get("manifest")
        if len(found) == _MOST or "error" in record or not isinstance(manifest, dict):
            continue
        if manifest.get("model_id") != model_id:
            continue
        fit = manifest.get("fit")
        same = ("weight_bytes", "rank_weight_bytes", "kv_bytes_per_token")
        if not isinstance(fit, dict) or any(fit.get(key) != wanted.get(key) for key in same):
            continue
        peak = _peaks(record)
        if peak is not None:
            found.append(peak)
    return tuple(found)


def _peaks(record: Mapping[str, Any]) -> Peaks | None:
    host, gpu, engine = (0, ""), (0, ""), None
    steps = record.get("steps")
    for step in steps if isinstance(steps, list) else []:
        if not isinstance(step, dict) or step.get("cached"):
            continue
        name = str(step.get("name"))
        host = max(host, (_bytes(step.get("peak_memory_bytes")), name))
        gpus = step.get("peak_gpu_memory_bytes")
        gpu = max([gpu, *((_bytes(used), name) for used in (gpus if isinstance(gpus, list) else []))])
        if name == "build":
            engine = _bytes(step.get("output_bytes")) or None
    if not host[0]:
        return None
    return Peaks(str(record.get("build_id")), host[0], host[1], gpu[0], gpu[1], engine)


def _bytes(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LARGEST else 0
