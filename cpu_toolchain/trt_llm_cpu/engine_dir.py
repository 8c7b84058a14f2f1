"""Writes an engine directory: the engine first, `config.json` when it is there."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from trt_llm_cpu.console import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trt_llm_cpu.spec import DecoderSpec
    from trt_llm_cpu.weights import Weight


def write_engine_dir(
    directory: Path, name: str, spec: DecoderSpec, weights: Sequence[Weight], config: Mapping[str, Any]
) -> None:
    """Compiles `weights` into `directory/name` and writes `config.json` beside it, saying what it does."""
    from trt_llm_cpu.compiler import compile_engine

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").unlink(missing_ok=True)
    size = sum(weight.size for weight in weights)
    kind = f"{spec.dtype} with int8 weights" if spec.int8 else spec.dtype
    say(f"Compiling a {spec.num_layers}-layer {spec.family} ({kind}, {size / 1e6:.1f} MB) with ONNX Runtime")
    start = time.monotonic()
    written = compile_engine(directory / name, spec, weights)
    say(f"Wrote {directory / name}: {written / 1e6:.1f} MB in {time.monotonic() - start:.1f} s")
    write_json(directory / "config.json", config)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with sorted keys. The file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=4, sort_keys=True) + "\n", "utf-8")
    temporary.replace(path)
