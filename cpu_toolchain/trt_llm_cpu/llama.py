"""Hugging Face Llama: its configuration and its weights under the unified checkpoint's names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trt_llm_cpu.console import BadInputError, UnsupportedError
from trt_llm_cpu.dtypes import cast
from trt_llm_cpu.spec import DecoderSpec, RopeSpec, checked, reading
from trt_llm_cpu.tensors import ModelTensors, open_model, read_json
from trt_llm_cpu.weights import Weight

# What `transformers` assumes for a Llama whose config.json leaves it out.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
# The unified name inside a layer to the Hugging Face modules that make it up, stacked along their outputs.
# TensorRT-LLM's `fc` is the projection that is activated, `gate` the one that multiplies.
_LAYER_MODULES = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.dense": ("self_attn.o_proj",),
    "mlp.fc": ("mlp.gate_proj",),
    "mlp.gate": ("mlp.up_proj",),
    "mlp.proj": ("mlp.down_proj",),
}
_LAYER_NORMS = {"input_layernorm": "input_layernorm", "post_layernorm": "post_attention_layernorm"}


@dataclass(frozen=True)
class HuggingFaceLlama:
    """A Llama on disk.

    Attributes:
        spec: the decoder, in the storage type that was asked for.
        weights: whole, lazily read, under unified names and as [out, in]; no head where it is tied.
    """

    spec: DecoderSpec
    weights: list[Weight]


def open_llama(directory: Path, dtype: str) -> HuggingFaceLlama:
    """Opens a Hugging Face Llama directory for a storage type.

    Raises:
        BadInputError: a file is missing, damaged, or does not fit `config.json`.
        UnsupportedError: another architecture, a quantised model, or a rotary embedding that is not known.
    """
    if not directory.is_dir():
        raise BadInputError(f"{directory} is not a directory; a Hugging Face model directory is needed.")
    config = read_json(directory / "config.json")
    spec = read_spec(config, directory / "config.json", dtype)
    tied = bool(config.get("tie_word_embeddings", _DEFAULTS["tie_word_embeddings"]))
    return HuggingFaceLlama(spec, _weights(open_model(directory), directory, spec, tied))


def read_spec(found: dict[str, Any], path: Path, dtype: str) -> DecoderSpec:
    """The decoder that a Hugging Face `config.json` describes. Raises as `open_llama` does."""
    model_type = found.get("model_type", "llama")
    if model_type != "llama":
        raise UnsupportedError(
            f"{path.parent} holds a {model_type} model; this CPU toolchain's llama example supports llama."
        )
    if found.get("quantization_config"):
        raise UnsupportedError(
            f"{path.parent} is a quantised model; float32, float16 and bfloat16 models are supported."
        )
    config = {**_DEFAULTS, **found}
    with reading(path):
        heads = config["num_attention_heads"]
        spec = DecoderSpec(
            family="llama",
            dtype=dtype,
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            inter_size=config["intermediate_size"],
            max_positions=config["max_position_embeddings"],
            activation=config["hidden_act"],
            norm="rmsnorm",
            norm_epsilon=config["rms_norm_eps"],
            gated_mlp=True,
            rope=read_rope(_rope_settings(config), path),
        )
    return checked(spec, path)


def _rope_settings(config: dict[str, Any]) -> dict[str, Any]:
    # Since transformers 5, rope_parameters holds the base too; before, rope_theta was beside rope_scaling.
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta", 10000.0), **settings}


def read_rope(settings: dict[str, Any], path: Path) -> RopeSpec:
    """The rotary embedding of a `rope_scaling` or `rope_parameters` with its `rope_theta`.

    Raises:
        BadInputError: a number is missing.
        UnsupportedError: a kind of scaling that is not known.
    """
    with reading(path):
        kind = settings.get("rope_type", settings.get("type", "default"))
        theta = float(settings["rope_theta"])
        if kind == "default":
            return RopeSpec(theta)
        if kind == "linear":
            return RopeSpec(theta, "linear", float(settings["factor"]))
        if kind == "llama3":
            return RopeSpec(
                theta,
                "llama3",
                float(settings["factor"]),
                float(settings["low_freq_factor"]),
                float(settings["high_freq_factor"]),
                int(settings["original_max_position_embeddings"]),
            )
    raise UnsupportedError(f"{path}: rotary scaling {kind} is not supported; none, linear and llama3 are.")


def rescaled(spec: DecoderSpec, scaling: Sequence[str]) -> DecoderSpec:
    """The same decoder with `--rotary_scaling KIND FACTOR`. Raises UnsupportedError unless it is linear."""
    kind, factor = scaling
    try:
        number = float(factor)
    except ValueError:
        number = 0.0
    if kind != "linear" or spec.rope is None or not 1 < number < math.inf:
        raise UnsupportedError(
            f"--rotary_scaling {kind} {factor} is not supported; linear with a factor above 1 is."
        )
    return replace(spec, rope=RopeSpec(spec.rope.theta, "linear", number))


def _weights(model: ModelTensors, directory: Path, spec: DecoderSpec, tied: bool) -> list[Weight]:
    read = _Reader(model, directory, spec.dtype)
    hidden, heads, kv_heads = spec.hidden_size, spec.num_heads, spec.num_kv_heads
    query, key, inter = heads * spec.head_size, kv_heads * spec.head_size, spec.inter_size
    # Outputs of each stacked module, and inputs.
    sizes = {
        "attention.qkv": ((query, key, key), hidden),
        "attention.dense": ((hidden,), query),
        "mlp.fc": ((inter,), hidden),
        "mlp.gate": ((inter,), hidden),
        "mlp.proj": ((hidden,), inter),
    }
    found = [read.one("transformer.vocab_embedding.weight", "embed_tokens.weight", (spec.vocab_size, hidden))]
    for number in range(spec.num_layers):
        unified, prefix = f"transformer.layers.{number}", f"layers.{number}"
        for ours, theirs in _LAYER_NORMS.items():
            found.append(read.one(f"{unified}.{ours}.weight", f"{prefix}.{theirs}.weight", (hidden,)))
        for ours, modules in _LAYER_MODULES.items():
            outputs, inputs = sizes[ours]
            names = [f"{prefix}.{module}" for module in modules]
            found.append(
                read.stacked(
                    f"{unified}.{ours}.weight",
                    [f"{name}.weight" for name in names],
                    [(n, inputs) for n in outputs],
                )
            )
            if read.has(f"{names[0]}.bias"):
                found.append(
                    read.stacked(
                        f"{unified}.{ours}.bias", [f"{name}.bias" for name in names], [(n,) for n in outputs]
                    )
                )
    found.append(read.one("transformer.ln_f.weight", "norm.weight", (hidden,)))
    if not tied:
        found.append(read.one("lm_head.weight", "lm_head.weight", (spec.vocab_size, hidden)))
    return found


class _Reader:
    """Makes lazy weights of a model's tensors, checking that each is there and has the shape that it must."""

    def __init__(self, model: ModelTensors, directory: Path, dtype: str) -> None:
        self._model = model
        self._directory = directory
        self._dtype = dtype

    def has(self, name: str) -> bool:
        return self._full(name) in self._model

    def one(self, unified: str, name: str, shape: tuple[int, ...]) -> Weight:
        return self.stacked(unified, [name], [shape])

    def stacked(self, unified: str, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> Weight:
        full = [self._full(name) for name in names]
        for name, shape in zip(full, shapes, strict=True):
            if name not in self._model:
                raise BadInputError(f"{self._directory}: the weights have no tensor {name}.")
            if self._model.shape(name) != shape:
                raise BadInputError(
                    f"{self._directory}: {name} has shape {list(self._model.shape(name))}, "
                    f"but config.json asks for {list(shape)}."
                )
        total = (sum(shape[0] for shape in shapes), *shapes[0][1:])

        def load() -> np.ndarray:
            parts = [cast(self._model.get(name), self._dtype) for name in full]
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

        return Weight(unified, self._dtype, total, load)

    def _full(self, name: str) -> str:
        prefixed = f"model.{name}"
        return prefixed if prefixed in self._model else name
