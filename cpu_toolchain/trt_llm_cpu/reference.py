"""What a Hugging Face GPT-2 or Llama itself computes: plain numpy, straight from the repository's tensors.

Nothing here is shared with the way to an engine but the reading of files: not the checkpoint's names, not
the graph, not the cache of keys and values. So an engine that agrees with it has been converted and
compiled well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trt_llm_cpu.console import BadInputError, UnsupportedError
from trt_llm_cpu.tensors import ModelTensors, open_model, read_json

_ROOT_2_OVER_PI = math.sqrt(2 / math.pi)


class Reference:
    """A model that gives the logits of a whole sequence, in float32.

    Args:
        directory: of a Hugging Face model.

    Raises:
        BadInputError: `config.json` or a tensor is missing or damaged.
        UnsupportedError: the model is neither a GPT-2 nor a Llama.
    """

    def __init__(self, directory: Path) -> None:
        config = read_json(directory / "config.json")
        kinds: dict[str, type[_Gpt2] | type[_Llama]] = {"gpt2": _Gpt2, "llama": _Llama}
        kind = str(config.get("model_type"))
        if kind not in kinds:
            raise UnsupportedError(
                f"{directory} holds a {kind} model; the numpy reference knows gpt2 and llama."
            )
        tensors = _Tensors(open_model(directory), directory)
        try:
            self._model = kinds[kind](config, tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError(
                f"{directory / 'config.json'} lacks what the reference needs: {error}."
            ) from None

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return len(self._model.embedding)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """The logits after each of `ids`: float32 [tokens, vocabulary]."""
        return self._model.logits(np.asarray(ids, np.int64))


class _Tensors:
    """Tensors in float32 by their names without the prefix that some repositories leave out."""

    def __init__(self, model: ModelTensors, directory: Path) -> None:
        self._model = model
        self._directory = directory
        self._read: dict[str, np.ndarray] = {}

    def find(self, name: str) -> np.ndarray | None:
        for full in (name, f"transformer.{name}", f"model.{name}"):
            if full in self._model:
                if full not in self._read:
                    self._read[full] = self._model.get(full).astype(np.float32)
                return self._read[full]
        return None

    def __getitem__(self, name: str) -> np.ndarray:
        found = self.find(name)
        if found is None:
            raise BadInputError(f"{self._directory}: the weights have no tensor {name}.")
        return found


class _Gpt2:
    def __init__(self, config: dict[str, Any], tensors: _Tensors) -> None:
        self._t = tensors
        self._layers = int(config.get("n_layer", 12))
        self._heads = int(config.get("n_head", 12))
        self._epsilon = float(config.get("layer_norm_epsilon", 1e-5))
        self._activate = _activation(str(config.get("activation_function", "gelu_new")))
        self._tied = bool(config.get("tie_word_embeddings", True))
        self.embedding = tensors["wte.weight"]

    def logits(self, ids: np.ndarray) -> np.ndarray:
        t = self._t
        state = self.embedding[ids] + t["wpe.weight"][: len(ids)]
        for layer in range(self._layers):
            block = f"h.{layer}."
            joint = self._norm(state, f"{block}ln_1") @ t[f"{block}attn.c_attn.weight"]
            parts = np.split(joint + t[f"{block}attn.c_attn.bias"], 3, axis=1)
            mixed = _attend(*(_heads(part, self._heads) for part in parts))
            state = state + mixed @ t[f"{block}attn.c_proj.weight"] + t[f"{block}attn.c_proj.bias"]
            inner = self._norm(state, f"{block}ln_2") @ t[f"{block}mlp.c_fc.weight"]
            inner = self._activate(inner + t[f"{block}mlp.c_fc.bias"])
            state = state + inner @ t[f"{block}mlp.c_proj.weight"] + t[f"{block}mlp.c_proj.bias"]
        head = self.embedding if self._tied else t["lm_head.weight"]
        return np.asarray(self._norm(state, "ln_f") @ head.T)

    def _norm(self, state: np.ndarray, name: str) -> np.ndarray:
        centred = state - state.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self._epsilon)
        return np.asarray(scaled * self._t[f"{name}.weight"] + self._t[f"{name}.bias"])


class _Llama:
    def __init__(self, config: dict[str, Any], tensors: _Tensors) -> None:
        self._t = tensors
        self._layers = int(config["num_hidden_layers"])
        self._heads = int(config["num_attention_heads"])
        self._kv_heads = int(config.get("num_key_value_heads") or self._heads)
        self._size = int(config.get("head_dim") or config["hidden_size"] // self._heads)
        self._epsilon = float(config.get("rms_norm_eps", 1e-6))
        self._activate = _activation(str(config.get("hidden_act", "silu")))
        self._tied = bool(config.get("tie_word_embeddings", False))
        self.embedding = tensors["embed_tokens.weight"]
        settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
        theta = float(settings.get("rope_theta", config.get("rope_theta", 10000.0)))
        self._frequencies = _frequencies(theta, self._size, settings)

    def logits(self, ids: np.ndarray) -> np.ndarray:
        t = self._t
        state = self.embedding[ids]
        angles = np.outer(np.arange(len(ids)), self._frequencies)
        turn = np.concatenate([np.cos(angles)] * 2, -1), np.concatenate([np.sin(angles)] * 2, -1)
        for layer in range(self._layers):
            block = f"layers.{layer}."
            normed = self._norm(state, f"{block}input_layernorm.weight")
            query, key, value = (
                _heads(self._linear(normed, f"{block}self_attn.{name}_proj"), heads)
                for name, heads in (("q", self._heads), ("k", self._kv_heads), ("v", self._kv_heads))
            )
            repeats = self._heads // self._kv_heads
            key = np.repeat(_rotate(key, *turn), repeats, axis=0)
            mixed = _attend(_rotate(query, *turn), key, np.repeat(value, repeats, axis=0))
            state = state + self._linear(mixed, f"{block}self_attn.o_proj")
            normed = self._norm(state, f"{block}post_attention_layernorm.weight")
            inner = self._activate(self._linear(normed, f"{block}mlp.gate_proj"))
            inner = inner * self._linear(normed, f"{block}mlp.up_proj")
            state = state + self._linear(inner, f"{block}mlp.down_proj")
        head = self.embedding if self._tied else t["lm_head.weight"]
        return np.asarray(self._norm(state, "norm.weight") @ head.T)

    def _linear(self, state: np.ndarray, name: str) -> np.ndarray:
        bias = self._t.find(f"{name}.bias")
        product = state @ self._t[f"{name}.weight"].T
        return product if bias is None else product + bias

    def _norm(self, state: np.ndarray, name: str) -> np.ndarray:
        scaled = state / np.sqrt((state**2).mean(-1, keepdims=True) + self._epsilon)
        return np.asarray(scaled * self._t[name])


def _heads(joint: np.ndarray, heads: int) -> np.ndarray:
    """[tokens, heads * size] to [heads, tokens, size]."""
    return joint.reshape(len(joint), heads, -1).transpose(1, 0, 2)


def _attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Causal attention; back to [tokens, heads * size]."""
    scores = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(query.shape[-1]))
    length = scores.shape[-1]
    scores = np.where(np.tril(np.ones((length, length), bool)), scores, np.float32(-np.inf))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ value
    return np.asarray(mixed.transpose(1, 0, 2).reshape(length, -1))


def _rotate(x: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """Rotary embedding of [heads, tokens, size]; a head's halves are paired, as in Hugging Face's layout."""
    first, second = np.split(x, 2, axis=-1)
    return np.asarray(x * cosine + np.concatenate([-second, first], -1) * sine).astype(np.float32)


def _frequencies(theta: float, size: int, scaling: dict[str, Any]) -> np.ndarray:
    """Radians per position. `llama3` smooths between the wavelengths that it keeps and those it stretches."""
    plain = theta ** (-np.arange(0, size, 2) / size)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return np.asarray(plain)
    if kind == "linear":
        return np.asarray(plain / float(scaling["factor"]))
    if kind != "llama3":
        raise UnsupportedError(f"rotary scaling {kind} is not known to the numpy reference.")
    factor, low, high = (float(scaling[k]) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = float(scaling["original_max_position_embeddings"]) * plain / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray((1 - smooth) * plain / factor + smooth * plain)


def _activation(name: str) -> Callable[[np.ndarray], np.ndarray]:
    known: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "gelu_new": _gelu_tanh,
        "gelu_pytorch_tanh": _gelu_tanh,
        "gelu": lambda x: np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))).astype(
            np.float32
        ),
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "swish": lambda x: x / (1 + np.exp(-x)),
    }
    if name not in known:
        raise UnsupportedError(f"the activation {name} is not known to the numpy reference.")
    return known[name]


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + np.tanh(_ROOT_2_OVER_PI * (x + 0.044715 * x**3))))
