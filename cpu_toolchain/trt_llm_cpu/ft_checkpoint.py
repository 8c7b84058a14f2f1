"""The FT checkpoint of 0.5 to 0.7.1, written and read.

A directory `<tensor parallelism>-gpu` with `config.ini` (one section, `gpt`) and headerless C-order arrays
in the storage type, matrices oriented [in, out]. Biases after a row-split matrix, norms and embeddings are
whole; the rest is split by columns or rows, one file a rank. Q, K and V are split each by itself.
"""

from __future__ import annotations

import configparser
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trt_llm_cpu.console import BadInputError, UnsupportedError
from trt_llm_cpu.dtypes import FLOAT_NAMES, cast, storage_type
from trt_llm_cpu.gpt2 import UNIFIED_LAYER_NAMES
from trt_llm_cpu.spec import DecoderSpec, checked
from trt_llm_cpu.weights import Weight

_SPLIT_COLUMNS = ("mlp.dense_h_to_4h.weight", "mlp.dense_h_to_4h.bias")
_SPLIT_ROWS = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")
_SPLIT_QKV = ("attention.query_key_value.weight", "attention.query_key_value.bias")


def is_split(name: str) -> bool:
    """Whether FT tensor `name` has one file a rank."""
    return name.endswith((*_SPLIT_COLUMNS, *_SPLIT_ROWS, *_SPLIT_QKV))


def split(name: str, array: np.ndarray, ranks: int) -> list[np.ndarray]:
    """The parts of whole tensor `array`, one a rank; QKV's are [in, 3, out/ranks] or [3, out/ranks]."""
    if name.endswith(_SPLIT_QKV):
        array = array.reshape(*array.shape[:-1], 3, array.shape[-1] // 3)
        return np.split(array, ranks, axis=-1)
    if name.endswith(_SPLIT_ROWS):
        return np.split(array, ranks, axis=0)
    return np.split(array, ranks, axis=-1)


def write_tensor(directory: Path, name: str, array: np.ndarray, dtype: str, ranks: int) -> None:
    """Writes FT tensor `name` in storage type `dtype`: one file, or one a rank where the tensor is split."""
    array = cast(array, dtype)
    if not is_split(name):
        array.tofile(directory / f"{name}.bin")
        return
    for rank, part in enumerate(split(name, array, ranks)):
        np.ascontiguousarray(part).tofile(directory / f"{name}.{rank}.bin")


def write_config(directory: Path, values: Mapping[str, Any]) -> None:
    """Writes `config.ini`, every value as text. The file appears whole or not at all."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser["gpt"] = {key: str(value) for key, value in values.items()}
    temporary = directory / "config.ini.tmp"
    with temporary.open("w", encoding="utf-8") as stream:
        parser.write(stream)
    temporary.replace(directory / "config.ini")


class FtCheckpoint:
    """A single-rank FT checkpoint, opened for building.

    Attributes:
        directory: where it lies.
        spec: the decoder that it holds.
        tied: whether its head is the embedding.
    """

    def __init__(self, directory: Path, spec: DecoderSpec, tied: bool) -> None:
        self.directory = directory
        self.spec = spec
        self.tied = tied

    def weights(self) -> list[Weight]:
        """Every weight of the engine, lazily read. Raises BadInputError for a missing or cut file."""
        spec = self.spec
        hidden, inter = spec.hidden_size, spec.inter_size
        found = [
            self._weight("transformer.vocab_embedding.weight", "model.wte", (spec.vocab_size, hidden)),
            self._weight("transformer.position_embedding.weight", "model.wpe", (spec.max_positions, hidden)),
        ]
        shapes: dict[str, tuple[int, int]] = {
            "input_layernorm": (0, hidden),
            "attention.query_key_value": (hidden, 3 * hidden),
            "attention.dense": (hidden, hidden),
            "post_attention_layernorm": (0, hidden),
            "mlp.dense_h_to_4h": (hidden, inter),
            "mlp.dense_4h_to_h": (inter, hidden),
        }
        for layer in range(spec.num_layers):
            for ft, (rows, columns) in shapes.items():
                unified = f"transformer.layers.{layer}.{UNIFIED_LAYER_NAMES[ft]}"
                weight_shape = (rows, columns) if rows else (columns,)
                found.append(
                    self._weight(f"{unified}.weight", f"model.layers.{layer}.{ft}.weight", weight_shape)
                )
                found.append(self._weight(f"{unified}.bias", f"model.layers.{layer}.{ft}.bias", (columns,)))
        for part in ("weight", "bias"):
            found.append(self._weight(f"transformer.ln_f.{part}", f"model.final_layernorm.{part}", (hidden,)))
        if not self.tied:
            found.append(self._weight("lm_head.weight", "model.lm_head.weight", (spec.vocab_size, hidden)))
        return found

    def _weight(self, unified: str, ft: str, shape: tuple[int, ...]) -> Weight:
        path = self.directory / (f"{ft}.0.bin" if is_split(ft) else f"{ft}.bin")
        dtype = storage_type(self.spec.dtype)
        wanted = math.prod(shape) * dtype.size
        if not path.is_file():
            raise BadInputError(f"{path} is missing; convert the model again.")
        if path.stat().st_size != wanted:
            raise BadInputError(
                f"{path} has {path.stat().st_size} bytes where {wanted} are needed; "
                "its config.ini belongs to other weights, or the file was cut short."
            )
        return Weight(unified, dtype.name, shape, lambda: np.memmap(path, dtype.numpy, "r", shape=shape))


def open_ft_checkpoint(directory: Path) -> FtCheckpoint:
    """Opens an FT checkpoint of GPT-2 from its `config.ini`.

    Raises:
        BadInputError: a file is missing or unreadable.
        UnsupportedError: several ranks, or a model that the graph does not cover.
    """
    path = directory / "config.ini"
    if not path.is_file():
        below = sorted(config.parent.name for config in directory.glob("*-gpu/config.ini"))
        there = f"; it has {', '.join(below)}: name that" if below else ""
        what = "the <N>-gpu directory that hf_gpt_convert.py wrote"
        raise BadInputError(f"{path} is missing; --model_dir must be {what}{there}.")
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text("utf-8"))
        section = parser["gpt"]
        n_embd, n_head = section.getint("n_embd"), section.getint("n_head")
        inner = section.get("n_inner", "None")
        spec = DecoderSpec(
            family="gpt",
            dtype=section.get("storage_dtype", "float32"),
            vocab_size=section.getint("vocab_size"),
            hidden_size=n_embd,
            num_layers=section.getint("n_layer"),
            num_heads=n_head,
            num_kv_heads=n_head,
            head_size=n_embd // n_head,
            inter_size=4 * n_embd if inner == "None" else int(inner),
            max_positions=section.getint("n_positions"),
            activation=section["activation_function"],
            norm="layernorm",
            norm_epsilon=section.getfloat("layer_norm_epsilon", 1e-5),
            gated_mlp=False,
        )
        ranks = section.getint("tensor_parallelism", 1)
        multi_query = section.getboolean("multi_query_mode", False)
        tied = section.getboolean("tie_word_embeddings", True)
        rotary = section.getfloat("rotary_pct", 0.0)
        scaled = section.getboolean("scale_attn_weights", True)
        by_layer = section.getboolean("scale_attn_by_inverse_layer_idx", False)
    except (configparser.Error, KeyError, ValueError, TypeError, ArithmeticError) as error:
        raise BadInputError(f"{path} cannot be read as an FT checkpoint's config: {error}.") from None
    checked(spec, path)
    if ranks != 1:
        raise UnsupportedError(
            f"{directory} was converted with tensor parallelism {ranks}; "
            "a CPU engine has one rank, so convert with --tensor-parallelism 1."
        )
    if spec.dtype not in FLOAT_NAMES:
        raise UnsupportedError(f"{path}: storage_dtype {spec.dtype} is not one of {', '.join(FLOAT_NAMES)}.")
    if multi_query or rotary or not scaled or by_layer:
        raise UnsupportedError(
            f"{path} has multi-query, rotary or rescaled attention; this toolchain builds plain GPT-2."
        )
    return FtCheckpoint(directory, spec, tied)
