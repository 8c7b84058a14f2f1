"""Llama in numpy, as far as is needed to teach a tiny one a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trt_llm_pipeline.testing.memory import CONVICTION, associate, causal_attention, unit_rows

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

_EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """The numbers that say how large a Llama is, as in `make_llama`."""

    layers: int
    heads: int
    kv_heads: int
    hidden: int
    intermediate: int
    vocab_size: int
    rope_theta: float
    rope_scaling: Mapping[str, object] | None

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads


def random_weights(shape: Shape, *, tied: bool, seed: int) -> dict[str, Array]:
    """Tensors by their names in a Llama checkpoint, float32; matrices are [out, in]."""
    random = np.random.default_rng(seed)

    def normal(*size: int, scale: float) -> Array:
        return (random.standard_normal(size) * scale).astype(np.float32)

    hidden, spread = shape.hidden, shape.hidden**-0.5
    key_value = shape.kv_heads * shape.head_size
    embedding = unit_rows(normal(shape.vocab_size, hidden, scale=1.0), centred=False)
    tensors: dict[str, Array] = {"model.embed_tokens.weight": embedding}
    for layer in range(shape.layers):
        block = f"model.layers.{layer}."
        tensors |= {
            f"{block}input_layernorm.weight": 1 + normal(hidden, scale=0.1),
            f"{block}self_attn.q_proj.weight": normal(hidden, hidden, scale=1.2 * spread),
            f"{block}self_attn.k_proj.weight": normal(key_value, hidden, scale=1.2 * spread),
            f"{block}self_attn.v_proj.weight": normal(key_value, hidden, scale=1.2 * spread),
            f"{block}self_attn.o_proj.weight": normal(hidden, hidden, scale=0.2 * spread),
            f"{block}post_attention_layernorm.weight": 1 + normal(hidden, scale=0.1),
            f"{block}mlp.gate_proj.weight": normal(shape.intermediate, hidden, scale=spread),
            f"{block}mlp.up_proj.weight": normal(shape.intermediate, hidden, scale=spread),
            f"{block}mlp.down_proj.weight": normal(hidden, shape.intermediate, scale=0.1 * spread),
        }
    # The normed state has length sqrt(hidden): with unit rows, logits get the gain as standard deviation.
    tensors["model.norm.weight"] = np.full(hidden, 2, np.float32)
    if not tied:
        tensors["lm_head.weight"] = unit_rows(normal(shape.vocab_size, hidden, scale=1.0), centred=False)
    return tensors


def teach(tensors: dict[str, Array], shape: Shape, tokens: Sequence[int], prompt_length: int) -> None:
    """Solves the last MLP's output so that each token from the prompt's last on predicts its successor."""
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    state = wide["model.embed_tokens.weight"][list(tokens[:-1])]
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        block = {
            name.removeprefix(prefix): tensor for name, tensor in wide.items() if name.startswith(prefix)
        }
        state = state + _attend(block, state, shape)
        normed = _norm(state, block["post_attention_layernorm.weight"])
        gate = normed @ block["mlp.gate_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (normed @ block["mlp.up_proj.weight"].T)
        if layer < shape.layers - 1:
            state = state + inner @ block["mlp.down_proj.weight"].T
    learned = slice(prompt_length - 1, len(tokens) - 1)
    head = wide.get("lm_head.weight", wide["model.embed_tokens.weight"])
    missing = CONVICTION * head[list(tokens[prompt_length:])] - state[learned]
    memory = associate(inner[learned], missing)
    tensors[f"model.layers.{shape.layers - 1}.mlp.down_proj.weight"] = memory.T.astype(np.float32)


def _attend(block: dict[str, Array], state: Array, shape: Shape) -> Array:
    normed = _norm(state, block["input_layernorm.weight"])
    length = len(state)

    def split(name: str, heads: int) -> Array:
        projected = normed @ block[f"self_attn.{name}_proj.weight"].T
        return np.asarray(projected.reshape(length, heads, shape.head_size).transpose(1, 0, 2))

    query = _rotate(split("q", shape.heads), shape)
    repeats = shape.heads // shape.kv_heads
    key = np.repeat(_rotate(split("k", shape.kv_heads), shape), repeats, axis=0)
    value = np.repeat(split("v", shape.kv_heads), repeats, axis=0)
    mixed = causal_attention(query, key, value).transpose(1, 0, 2).reshape(length, -1)
    return np.asarray(mixed @ block["self_attn.o_proj.weight"].T)


def _norm(state: Array, weight: Array) -> Array:
    return np.asarray(state / np.sqrt((state**2).mean(-1, keepdims=True) + _EPSILON) * weight)


def _rotate(x: Array, shape: Shape) -> Array:
    """Rotary embedding of [heads, length, size]; the halves of a head are paired, as in HF's layout."""
    angles = np.outer(np.arange(x.shape[1]), _frequencies(shape))
    cosine, sine = (np.concatenate([part, part], -1) for part in (np.cos(angles), np.sin(angles)))
    first, second = np.split(x, 2, axis=-1)
    return np.asarray(x * cosine + np.concatenate([-second, first], -1) * sine)


def _frequencies(shape: Shape) -> Array:
    """Radians per position, with the smoothing of Llama 3.1 (`rope_type: llama3`) where configured."""
    plain = shape.rope_theta ** (-np.arange(0, shape.head_size, 2) / shape.head_size)
    if shape.rope_scaling is None:
        return np.asarray(plain)
    if shape.rope_scaling.get("rope_type") != "llama3":
        raise ValueError(f"rope_scaling {dict(shape.rope_scaling)}: only rope_type llama3 is known")
    numbers = cast(Mapping[str, float], shape.rope_scaling)
    factor, low, high = (numbers[name] for name in ("factor", "low_freq_factor", "high_freq_factor"))
    context = numbers["original_max_position_embeddings"]
    turns = context * plain / (2 * math.pi)  # full turns within the original context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray((1 - smooth) * plain / factor + smooth * plain)
