"""The unified checkpoint of 0.8 and later, written and read: `config.json` and `rank{R}.safetensors`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trt_llm_cpu.console import BadInputError, UnsupportedError
from trt_llm_cpu.dtypes import FLOAT_NAMES, storage_type
from trt_llm_cpu.engine_dir import write_json
from trt_llm_cpu.llama import read_rope
from trt_llm_cpu.quantization import quantise_weights, scale_name
from trt_llm_cpu.spec import DecoderSpec, RopeSpec, check_parallelism, checked, reading
from trt_llm_cpu.tensors import open_safetensors, read_json
from trt_llm_cpu.weights import Weight, is_matrix

_ARCHITECTURES = {"GPTForCausalLM": "gpt", "LlamaForCausalLM": "llama"}
_SPLIT_ON_OUT = re.compile(r".*\.mlp\.(fc|gate)\.(weight|bias)")
_SPLIT_ON_IN = re.compile(r".*\.(attention\.dense|mlp\.proj)\.weight")
_QKV = re.compile(r".*\.attention\.qkv\.(weight|bias)")


def write_checkpoint(
    directory: Path,
    spec: DecoderSpec,
    weights: Sequence[Weight],
    *,
    tp_size: int,
    embedding_axis: int | None = None,
    share_embedding: bool = False,
) -> None:
    """Writes a whole model as a unified checkpoint.

    Args:
        directory: made if need be.
        spec: of the model; `spec.int8` asks for int8 weight-only.
        weights: whole and float, under unified names, matrices as [out, in]; without a head where it is tied.
        tp_size: ranks to split for.
        embedding_axis: the embedding is split too, by vocabulary (0) or hidden size (1); whole without it.
        share_embedding: leave a tied head out; otherwise it is written as a copy of the embedding.

    Raises:
        UnsupportedError: the degree does not divide the model.
    """
    widths = {"MLP columns": spec.inter_size}
    if embedding_axis is not None:
        widths["embedding rows"] = spec.vocab_size if embedding_axis == 0 else spec.hidden_size
    check_parallelism(spec.num_heads, spec.num_kv_heads, widths, tp_size)
    table = {weight.name: weight for weight in weights}
    tied = "lm_head.weight" not in table
    if tied and not share_embedding:
        table["lm_head.weight"] = replace(table["transformer.vocab_embedding.weight"], name="lm_head.weight")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").unlink(missing_ok=True)
    for rank in range(tp_size):
        parts = [_part(weight, spec, rank, tp_size, embedding_axis) for weight in table.values()]
        if spec.int8:
            parts = quantise_weights(parts, axis=1)
        write_safetensors(directory / f"rank{rank}.safetensors", parts)
    # Last, so that its presence means that every rank is there.
    config = _config(spec, tp_size, embedding_axis, tied and share_embedding)
    write_json(directory / "config.json", config)


def _config(spec: DecoderSpec, tp_size: int, embedding_axis: int | None, shared: bool) -> dict[str, Any]:
    architecture = next(name for name, family in _ARCHITECTURES.items() if family == spec.family)
    config: dict[str, Any] = {
        "architecture": architecture,
        "dtype": spec.dtype,
        "logits_dtype": "float32",
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_size": spec.head_size,
        "hidden_act": spec.activation,
        "intermediate_size": spec.inter_size,
        "norm_epsilon": spec.norm_epsilon,
        "position_embedding_type": "rope_gpt_neox" if spec.rope else "learned_absolute",
        "max_position_embeddings": spec.max_positions,
        "mapping": {"world_size": tp_size, "tp_size": tp_size, "pp_size": 1},
        "quantization": {
            "quant_algo": "W8A16" if spec.int8 else None,
            "kv_cache_quant_algo": None,
            "exclude_modules": ["lm_head"] if spec.int8 else [],
        },
        "use_parallel_embedding": embedding_axis is not None,
        "embedding_sharding_dim": embedding_axis or 0,
        "share_embedding_table": shared,
        "use_prompt_tuning": False,
    }
    if spec.rope:
        config |= {"rotary_base": spec.rope.theta, "rotary_scaling": _rotary_scaling(spec.rope)}
    return config


def _rotary_scaling(rope: RopeSpec) -> dict[str, Any] | None:
    if rope.scaling == "none":
        return None
    scaling: dict[str, Any] = {"type": rope.scaling, "factor": rope.factor}
    if rope.scaling == "llama3":
        scaling |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_max_positions,
        }
    return scaling


def _part(weight: Weight, spec: DecoderSpec, rank: int, ranks: int, embedding_axis: int | None) -> Weight:
    """The part of a whole weight that belongs to one rank."""
    name = weight.name
    if ranks == 1:
        return weight
    if _QKV.fullmatch(name):
        query, key = spec.num_heads * spec.head_size, spec.num_kv_heads * spec.head_size
        rows = np.split(np.arange(query + 2 * key), [query, query + key])
        chosen = np.concatenate([np.split(part, ranks)[rank] for part in rows])
        return _changed(weight, (len(chosen), *weight.shape[1:]), lambda array: array[chosen])
    if name == "lm_head.weight":
        # A vocabulary that the ranks do not divide is padded with rows of zeros, as TensorRT-LLM pads it.
        rows_each = -(-weight.shape[0] // ranks)
        padding = rows_each * ranks - weight.shape[0]
        return _changed(
            weight,
            (rows_each, weight.shape[1]),
            lambda array: np.pad(array, ((0, padding), (0, 0)))[rank * rows_each : (rank + 1) * rows_each],
        )
    if _SPLIT_ON_OUT.fullmatch(name):
        axis = 0
    elif _SPLIT_ON_IN.fullmatch(name):
        axis = 1
    elif name == "transformer.vocab_embedding.weight" and embedding_axis is not None:
        axis = embedding_axis
    else:
        return weight
    shape = tuple(size // ranks if index == axis else size for index, size in enumerate(weight.shape))
    return _changed(weight, shape, lambda array: np.split(array, ranks, axis=axis)[rank])


def _changed(weight: Weight, shape: tuple[int, ...], change: Callable[[np.ndarray], np.ndarray]) -> Weight:
    return replace(weight, shape=shape, load=lambda: np.ascontiguousarray(change(weight.load())))


def write_safetensors(path: Path, weights: Sequence[Weight]) -> None:
    """Writes a safetensors file, whole or not at all, one tensor in memory at a time.

    The library's writer wants every tensor at once; the format is a length, a JSON header and the data
    (https://github.com/huggingface/safetensors#format).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for weight in weights:
        header[weight.name] = {
            "dtype": storage_type(weight.dtype).safetensors,
            "shape": list(weight.shape),
            "data_offsets": [place, place + weight.size],
        }
        place += weight.size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(len(encoded).to_bytes(8, "little") + encoded)
            for weight in weights:
                stream.write(weight.load().view(np.uint8).data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def open_checkpoint(directory: Path) -> tuple[dict[str, Any], DecoderSpec, list[Weight]]:
    """Opens a unified checkpoint of one rank.

    Returns:
        Its `config.json`, the decoder, and its weights, lazily read, matrices as [out, in].

    Raises:
        BadInputError: a file is missing, damaged, or does not fit `config.json`.
        UnsupportedError: another architecture or quantisation, or several ranks.
    """
    path = directory / "config.json"
    config = read_json(path)
    spec = _read_spec(config, path)
    ranks = directory / "rank0.safetensors"
    if not ranks.is_file():
        raise BadInputError(f"{ranks} is missing; convert the model again.")
    opened = open_safetensors(ranks)
    shapes = {name: opened.shape(name) for name in opened}
    weights = []
    for name, shape in expected_shapes(spec, set(shapes), bool(config.get("share_embedding_table"))).items():
        if shapes.get(name) != shape:
            has = f"shape {list(shapes[name])}" if name in shapes else "no such tensor"
            raise BadInputError(f"{ranks}: {name} should have shape {list(shape)}; the file has {has}.")
        dtype = "int8" if spec.int8 and is_matrix(name) else spec.dtype
        weights.append(Weight(name, dtype, shape, _loader(opened, name, dtype)))
    return config, spec, _without_copied_head(weights)


def _loader(opened: Any, name: str, dtype: str) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        array = opened.get(name)
        if array.dtype != storage_type(dtype).numpy:
            raise BadInputError(f"{opened.path}: {name} is {array.dtype}, but config.json says {dtype}.")
        return array

    return load


def _without_copied_head(weights: list[Weight]) -> list[Weight]:
    """Leaves out a head that is a copy of the embedding, so that an engine holds the table once."""
    table = {weight.name: weight for weight in weights}
    head, embedding = table.get("lm_head.weight"), table["transformer.vocab_embedding.weight"]
    if head is None or head.shape != embedding.shape:
        return weights
    if not np.array_equal(head.load().view(np.uint8), embedding.load().view(np.uint8)):
        return weights
    return [weight for weight in weights if weight is not head]


def expected_shapes(spec: DecoderSpec, present: set[str], shared: bool) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a single-rank checkpoint; biases of matrices only where present.

    Args:
        spec: the decoder.
        present: the names that the checkpoint has.
        shared: whether the head is the embedding.
    """
    hidden, inter, size = spec.hidden_size, spec.inter_size, spec.head_size
    query = spec.num_heads * size
    matrices = {
        "attention.qkv": (query + 2 * spec.num_kv_heads * size, hidden),
        "attention.dense": (hidden, query),
        "mlp.fc": (inter, hidden),
        **({"mlp.gate": (inter, hidden)} if spec.gated_mlp else {}),
        "mlp.proj": (hidden, inter),
    }
    norm_parts = ("weight", "bias") if spec.norm == "layernorm" else ("weight",)
    shapes: dict[str, tuple[int, ...]] = {"transformer.vocab_embedding.weight": (spec.vocab_size, hidden)}
    if spec.rope is None:
        shapes["transformer.position_embedding.weight"] = (spec.max_positions, hidden)
    for number in range(spec.num_layers):
        prefix = f"transformer.layers.{number}"
        for norm in ("input_layernorm", "post_layernorm"):
            shapes |= {f"{prefix}.{norm}.{part}": (hidden,) for part in norm_parts}
        for matrix, shape in matrices.items():
            name = f"{prefix}.{matrix}"
            shapes[f"{name}.weight"] = shape
            if spec.int8:
                shapes[scale_name(f"{name}.weight")] = shape[:1]
            if f"{name}.bias" in present:
                shapes[f"{name}.bias"] = shape[:1]
    shapes |= {f"transformer.ln_f.{part}": (hidden,) for part in norm_parts}
    if not shared:
        shapes["lm_head.weight"] = (spec.vocab_size, hidden)
    return shapes


def _read_spec(config: dict[str, Any], path: Path) -> DecoderSpec:
    architecture = config.get("architecture")
    if architecture is None and "model_type" in config:
        raise UnsupportedError(
            f"{path} is a Hugging Face model's and no checkpoint's; "
            "name the directory that convert_checkpoint.py wrote."
        )
    if not isinstance(architecture, str) or architecture not in _ARCHITECTURES:
        raise UnsupportedError(
            f"{path}: architecture {architecture} is not supported by this CPU toolchain; "
            f"{' and '.join(_ARCHITECTURES)} are."
        )
    with reading(path):
        quantization = config.get("quantization") or {}
        algorithm, cache = quantization.get("quant_algo"), quantization.get("kv_cache_quant_algo")
        world = (config.get("mapping") or {}).get("world_size", 1)
    if algorithm not in (None, "W8A16") or cache is not None:
        raise UnsupportedError(
            f"{path}: quantization {algorithm or cache} needs a GPU; "
            "float and int8 weight-only (W8A16) are supported."
        )
    if world != 1:
        raise UnsupportedError(
            f"{path} is of a checkpoint of {world} ranks; "
            "a CPU engine has one rank, so convert with --tp_size 1."
        )
    dtype = config.get("dtype")
    if dtype not in FLOAT_NAMES:
        raise UnsupportedError(f"{path}: dtype {dtype} is not supported; {', '.join(FLOAT_NAMES)} are.")
    with reading(path):
        heads = int(config["num_attention_heads"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        hidden = int(config["hidden_size"])
        llama = _ARCHITECTURES[architecture] == "llama"
        rope = {"rope_theta": config.get("rotary_base", 10000.0), **(config.get("rotary_scaling") or {})}
        spec = DecoderSpec(
            family=_ARCHITECTURES[architecture],
            dtype=dtype,
            vocab_size=int(config["vocab_size"]),
            hidden_size=hidden,
            num_layers=int(config["num_hidden_layers"]),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=int(config.get("head_size") or hidden // heads),
            inter_size=int(config["intermediate_size"]),
            max_positions=int(config["max_position_embeddings"]),
            activation=str(config["hidden_act"]),
            norm="rmsnorm" if llama else "layernorm",
            norm_epsilon=float(config.get("norm_epsilon", 1e-5)),
            gated_mlp=llama,
            rope=read_rope(rope, path) if llama else None,
            int8=algorithm == "W8A16",
        )
    return checked(spec, path)
