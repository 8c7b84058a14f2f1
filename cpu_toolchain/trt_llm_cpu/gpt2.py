"""Hugging Face GPT-2: its configuration and its names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trt_llm_cpu.console import BadInputError, UnsupportedError
from trt_llm_cpu.dtypes import cast
from trt_llm_cpu.spec import DecoderSpec, checked
from trt_llm_cpu.tensors import ModelTensors, open_model, read_json
from trt_llm_cpu.weights import Weight, is_matrix

# What `transformers` assumes for a GPT-2 whose config.json leaves it out.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-05,
    "initializer_range": 0.02,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "use_cache": True,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "tie_word_embeddings": True,
}

# The name inside a layer, in the order that a model's modules have, to the FT checkpoint's.
LAYER_TENSORS = {
    "ln_1.weight": "input_layernorm.weight",
    "ln_1.bias": "input_layernorm.bias",
    "attn.c_attn.weight": "attention.query_key_value.weight",
    "attn.c_attn.bias": "attention.query_key_value.bias",
    "attn.c_proj.weight": "attention.dense.weight",
    "attn.c_proj.bias": "attention.dense.bias",
    "ln_2.weight": "post_attention_layernorm.weight",
    "ln_2.bias": "post_attention_layernorm.bias",
    "mlp.c_fc.weight": "mlp.dense_h_to_4h.weight",
    "mlp.c_fc.bias": "mlp.dense_h_to_4h.bias",
    "mlp.c_proj.weight": "mlp.dense_4h_to_h.weight",
    "mlp.c_proj.bias": "mlp.dense_4h_to_h.bias",
}
GLOBAL_TENSORS = {
    "wte.weight": "wte",
    "wpe.weight": "wpe",
    "ln_f.weight": "final_layernorm.weight",
    "ln_f.bias": "final_layernorm.bias",
}
# FT's name inside a layer to the unified checkpoint's.
UNIFIED_LAYER_NAMES = {
    "input_layernorm": "input_layernorm",
    "attention.query_key_value": "attention.qkv",
    "attention.dense": "attention.dense",
    "post_attention_layernorm": "post_layernorm",
    "mlp.dense_h_to_4h": "mlp.fc",
    "mlp.dense_4h_to_h": "mlp.proj",
}
_UNIFIED_GLOBAL_NAMES = {
    "model.wte": "transformer.vocab_embedding.weight",
    "model.wpe": "transformer.position_embedding.weight",
    "model.final_layernorm.weight": "transformer.ln_f.weight",
    "model.final_layernorm.bias": "transformer.ln_f.bias",
    "model.lm_head.weight": "lm_head.weight",
}
_LAYER_NAME = re.compile(r"h\.(\d+)\.(.+)")


def read_config(directory: Path) -> dict[str, Any]:
    """GPT-2's configuration from `config.json`, defaults included.

    Raises:
        BadInputError: the directory or the file is missing, or a size is no positive whole number.
        UnsupportedError: the model is of another architecture.
    """
    if not directory.is_dir():
        raise BadInputError(f"{directory} is not a directory; a Hugging Face model directory is needed.")
    found = read_json(directory / "config.json")
    model_type = found.get("model_type", "gpt2")
    if model_type != "gpt2":
        raise UnsupportedError(
            f"{directory} holds a {model_type} model; this CPU toolchain's gpt example supports gpt2."
        )
    config = {**_DEFAULTS, **found}
    config["n_inner"] = config["n_inner"] or None
    if config["n_inner"] is not None and (type(config["n_inner"]) is not int or config["n_inner"] < 1):
        raise BadInputError(
            f"{directory / 'config.json'}: n_inner is {config['n_inner']!r}, no whole number."
        )
    for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
        if type(config[key]) is not int or config[key] < 1:
            raise BadInputError(
                f"{directory / 'config.json'}: {key} is {config[key]!r}, not a positive whole number."
            )
    if config["n_embd"] % config["n_head"]:
        raise BadInputError(
            f"{directory / 'config.json'}: n_embd {config['n_embd']} is no multiple of "
            f"n_head {config['n_head']}."
        )
    return config


def ft_name(name: str) -> str | None:
    """The FT checkpoint's name of a Hugging Face tensor, or None for a buffer that a checkpoint leaves out.

    Repositories differ: some name tensors `transformer.h.0...`, others `h.0...`.
    """
    if name == "lm_head.weight":
        return "model.lm_head.weight"
    bare = name.removeprefix("transformer.")
    if bare in GLOBAL_TENSORS:
        return f"model.{GLOBAL_TENSORS[bare]}"
    match = _LAYER_NAME.fullmatch(bare)
    if match and match[2] in LAYER_TENSORS:
        return f"model.layers.{int(match[1])}.{LAYER_TENSORS[match[2]]}"
    return None


def expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The unsplit shape of every tensor of the model, by FT name; the head only where it is untied."""
    hidden = config["n_embd"]
    inter = config["n_inner"] or 4 * hidden
    layer = {
        "input_layernorm.weight": (hidden,),
        "input_layernorm.bias": (hidden,),
        "attention.query_key_value.weight": (hidden, 3 * hidden),
        "attention.query_key_value.bias": (3 * hidden,),
        "attention.dense.weight": (hidden, hidden),
        "attention.dense.bias": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "post_attention_layernorm.bias": (hidden,),
        "mlp.dense_h_to_4h.weight": (hidden, inter),
        "mlp.dense_h_to_4h.bias": (inter,),
        "mlp.dense_4h_to_h.weight": (inter, hidden),
        "mlp.dense_4h_to_h.bias": (hidden,),
    }
    shapes = {
        "model.wte": (config["vocab_size"], hidden),
        "model.wpe": (config["n_positions"], hidden),
        "model.final_layernorm.weight": (hidden,),
        "model.final_layernorm.bias": (hidden,),
    }
    for number in range(config["n_layer"]):
        shapes.update({f"model.layers.{number}.{name}": shape for name, shape in layer.items()})
    if not config["tie_word_embeddings"]:
        shapes["model.lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def find_tensors(model: ModelTensors, config: dict[str, Any], directory: Path) -> dict[str, str]:
    """The model's name of every tensor that must be there, by FT name and in the model's order.

    Raises:
        BadInputError: one is missing, or has another shape than `config.json` asks for.
    """
    names = {ft_name(name): name for name in model}
    found = {}
    for wanted, shape in expected_shapes(config).items():
        if wanted not in names:
            raise BadInputError(f"{directory}: the weights have no tensor for {wanted}.")
        if model.shape(names[wanted]) != shape:
            raise BadInputError(
                f"{directory}: {names[wanted]} has shape {list(model.shape(names[wanted]))}, "
                f"but config.json asks for {list(shape)}."
            )
        found[wanted] = names[wanted]
    return found


def open_gpt2(directory: Path, dtype: str) -> tuple[DecoderSpec, list[Weight]]:
    """A Hugging Face GPT-2 for the unified checkpoint.

    Returns:
        The decoder, and its weights: whole, lazily read, under unified names, matrices as [out, in].

    Raises:
        BadInputError, UnsupportedError: as `read_config` and `find_tensors` say.
    """
    config = read_config(directory)
    if config["scale_attn_by_inverse_layer_idx"] or not config["scale_attn_weights"]:
        raise UnsupportedError(f"{directory} rescales attention; this toolchain builds plain GPT-2.")
    spec = DecoderSpec(
        family="gpt",
        dtype=dtype,
        vocab_size=config["vocab_size"],
        hidden_size=config["n_embd"],
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        num_kv_heads=config["n_head"],
        head_size=config["n_embd"] // config["n_head"],
        inter_size=config["n_inner"] or 4 * config["n_embd"],
        max_positions=config["n_positions"],
        activation=config["activation_function"],
        norm="layernorm",
        norm_epsilon=config["layer_norm_epsilon"],
        gated_mlp=False,
    )
    checked(spec, directory / "config.json")
    model = open_model(directory)
    weights = []
    for ft, name in find_tensors(model, config, directory).items():
        unified = _unified_name(ft)
        shape = model.shape(name)
        turn = is_matrix(unified)
        weights.append(
            Weight(unified, dtype, shape[::-1] if turn else shape, _loader(model, name, dtype, turn))
        )
    return spec, weights


def _unified_name(ft: str) -> str:
    if ft in _UNIFIED_GLOBAL_NAMES:
        return _UNIFIED_GLOBAL_NAMES[ft]
    _, _, number, rest = ft.split(".", 3)
    module, part = rest.rsplit(".", 1)
    return f"transformer.layers.{number}.{UNIFIED_LAYER_NAMES[module]}.{part}"


def _loader(model: ModelTensors, name: str, dtype: str, turn: bool) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        array = cast(model.get(name), dtype)
        return np.ascontiguousarray(array.T) if turn else array

    return load
