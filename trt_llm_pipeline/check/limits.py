"""What an engine's `config.json` says about how it may be asked, and how exact it can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_pipeline.engine.limits import whole_number
from trt_llm_pipeline.files import read_json

_LARGEST = 16 << 20
_ROOM = 64  # tokens that a short prompt never exceeds, whatever the tokenizer

# TensorRT-LLM's `QuantMode`: bits of what is quantised (tensorrt_llm/quantization/mode.py).
_INT4 = 1 << 0
_INT8 = 1 << 1 | 1 << 2 | 1 << 6  # weights, activations, KV cache
_FP8 = 1 << 7 | 1 << 8  # KV cache, weights and activations


@dataclass(frozen=True)
class Limits:
    """How an engine may be asked.

    Attributes:
        batch_size: prompts at a time.
        input_len: tokens of a prompt; None where nothing limits it.
        output_len: tokens to generate.
        vocab_size: token ids are below it; None where the engine does not say.
        precision: `float32`, `float16`, `bfloat16`, `int8`, `fp8`, `int4`; `float16` where it does not say.
        length: tokens of prompt and answer together, by the engine or its model; None where neither says.
    """

    batch_size: int
    input_len: int | None
    output_len: int
    vocab_size: int | None
    precision: str
    length: int | None = None


def limits(engine_dir: Path, wanted_tokens: int) -> Limits:
    """Reads an engine's limits; what `config.json` does not say, it does not limit.

    Args:
        engine_dir: with a `config.json` of either generation.
        wanted_tokens: to generate, where the engine allows so many.
    """
    config = _read(engine_dir / "config.json")
    built = _object(config.get("build_config")) or _object(config.get("builder_config"))
    model = _object(config.get("pretrained_config")) or built
    lengths = (built.get("max_seq_len"), model.get("max_position_embeddings"))
    longest = min((known for length in lengths if (known := whole_number(length)) is not None), default=None)
    takes = whole_number(built.get("max_input_len"))
    gives = whole_number(built.get("max_output_len")) or wanted_tokens
    if longest is not None:
        gives = min(gives, max(1, longest - 1))
        left = max(1, longest - min(wanted_tokens, gives))
        takes = left if takes is None else min(takes, left)
    batch = whole_number(built.get("max_batch_size")) or 1
    together = whole_number(built.get("max_num_tokens"))
    if together is not None:
        batch = max(1, min(batch, together // _ROOM))
    return Limits(
        batch_size=batch,
        input_len=takes,
        output_len=min(wanted_tokens, gives),
        vocab_size=whole_number(model.get("vocab_size")),
        precision=_precision(built, model),
        length=longest,
    )


def _precision(built: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The coarsest type in which the engine computes or keeps its weights."""
    quantization = _object(model.get("quantization"))
    algorithm = f"{quantization.get('quant_algo')} {quantization.get('kv_cache_quant_algo')}".upper()
    mode = built.get("quant_mode")
    bits = mode if isinstance(mode, int) and not isinstance(mode, bool) else 0
    if "W4" in algorithm or "INT4" in algorithm or "FP4" in algorithm or bits & _INT4:
        return "int4"
    if "W8" in algorithm or "INT8" in algorithm or bits & _INT8 or built.get("int8") is True:
        return "int8"
    if "FP8" in algorithm or bits & _FP8 or built.get("fp8") is True:
        return "fp8"
    dtype = model.get("dtype") or built.get("precision")
    return dtype if dtype in ("float32", "float16", "bfloat16") else "float16"


def _read(path: Path) -> dict[str, Any]:
    try:
        # A check puts an engine and its tokenizer together by links.
        return dict(_object(read_json(path.resolve(), _LARGEST)))
    except (OSError, ValueError):
        return {}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
