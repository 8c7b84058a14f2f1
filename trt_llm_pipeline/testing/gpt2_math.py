"""GPT-2 in numpy, as far as is needed to teach a tiny one a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trt_llm_pipeline.testing.memory import CONVICTION, associate, causal_attention, unit_rows

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

_EPSILON = 1e-5


def random_weights(
    *, layers: int, hidden: int, positions: int, vocab_size: int, seed: int
) -> dict[str, Array]:
    """Tensors by their names in a GPT-2 checkpoint, float32; matrices are [in, out], as GPT-2's are."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> Array:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    tensors: dict[str, Array] = {
        # Rows of length one and mean zero, so that the tied head measures directions.
        "wte.weight": unit_rows(normal(vocab_size, hidden, scale=1.0), centred=True),
        "wpe.weight": unit_rows(normal(positions, hidden, scale=1.0), centred=True) * np.float32(0.7),
    }
    spread = hidden**-0.5
    for layer in range(layers):
        block = f"h.{layer}."
        tensors |= {
            f"{block}ln_1.weight": 1 + normal(hidden, scale=0.1),
            f"{block}ln_1.bias": normal(hidden, scale=0.1),
            f"{block}attn.c_attn.weight": normal(hidden, 3 * hidden, scale=1.2 * spread),
            f"{block}attn.c_attn.bias": normal(3 * hidden, scale=0.1),
            f"{block}attn.c_proj.weight": normal(hidden, hidden, scale=0.2 * spread),
            f"{block}attn.c_proj.bias": normal(hidden, scale=0.02),
            f"{block}ln_2.weight": 1 + normal(hidden, scale=0.1),
            f"{block}ln_2.bias": normal(hidden, scale=0.1),
            f"{block}mlp.c_fc.weight": normal(hidden, 4 * hidden, scale=spread),
            f"{block}mlp.c_fc.bias": normal(4 * hidden, scale=0.3),
            f"{block}mlp.c_proj.weight": normal(4 * hidden, hidden, scale=0.1 * spread),
            f"{block}mlp.c_proj.bias": normal(hidden, scale=0.02),
        }
    # The normed state has length sqrt(hidden): with unit rows, logits get the gain as standard deviation.
    tensors |= {"ln_f.weight": np.full(hidden, 2, np.float32), "ln_f.bias": normal(hidden, scale=0.01)}
    return tensors


def causal_masks(layers: int, positions: int, prefix: str) -> dict[str, Array]:
    """The buffers that checkpoints of old releases contain beside the weights."""
    mask = np.tril(np.ones((positions, positions), np.uint8))[None, None]
    return {f"{prefix}h.{layer}.attn.bias": mask for layer in range(layers)}


def teach(tensors: dict[str, Array], heads: int, tokens: Sequence[int], prompt_length: int) -> None:
    """Solves the last MLP's output so that each token from the prompt's last on predicts its successor.

    Args:
        tokens: prompt, sentence and end-of-text.
        prompt_length: how many of them are the prompt's.
    """
    blocks = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("h."))
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    state = wide["wte.weight"][tokens[:-1]] + wide["wpe.weight"][: len(tokens) - 1]
    for layer in range(blocks):
        block = {
            name.removeprefix(f"h.{layer}."): tensor
            for name, tensor in wide.items()
            if name.startswith(f"h.{layer}.")
        }
        state = state + _attend(block, state, heads)
        inner = _gelu(_norm(state, block, "ln_2") @ block["mlp.c_fc.weight"] + block["mlp.c_fc.bias"])
        if layer < blocks - 1:
            state = state + inner @ block["mlp.c_proj.weight"] + block["mlp.c_proj.bias"]
    learned = slice(prompt_length - 1, len(tokens) - 1)
    wanted = CONVICTION * wide["wte.weight"][list(tokens[prompt_length:])]
    missing = wanted - state[learned] - block["mlp.c_proj.bias"]
    memory = associate(inner[learned], missing)
    tensors[f"h.{blocks - 1}.mlp.c_proj.weight"] = memory.astype(np.float32)


def _attend(block: dict[str, Array], state: Array, heads: int) -> Array:
    joint = _norm(state, block, "ln_1") @ block["attn.c_attn.weight"] + block["attn.c_attn.bias"]
    length, width = state.shape
    query, key, value = (
        part.reshape(length, heads, width // heads).transpose(1, 0, 2) for part in np.split(joint, 3, axis=1)
    )
    mixed = causal_attention(query, key, value).transpose(1, 0, 2).reshape(length, width)
    return np.asarray(mixed @ block["attn.c_proj.weight"] + block["attn.c_proj.bias"])


def _norm(state: Array, block: dict[str, Array], name: str) -> Array:
    centred = state - state.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + _EPSILON)
    return np.asarray(scaled * block[f"{name}.weight"] + block[f"{name}.bias"])


def _gelu(x: Array) -> Array:
    """`gelu_new`: the tanh form."""
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))
