"""Int8 weight-only quantisation: int8 matrices with one scale for each output channel (W8A16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trt_llm_cpu.dtypes import cast, storage_type
from trt_llm_cpu.weights import Weight

_QUANTISED = (
    "attention.qkv.weight",
    "attention.dense.weight",
    "mlp.fc.weight",
    "mlp.gate.weight",
    "mlp.proj.weight",
)


def is_quantised(name: str) -> bool:
    """Whether int8 weight-only quantises this weight. Embeddings, norms, biases and the head stay float."""
    return name.endswith(_QUANTISED)


def scale_name(name: str) -> str:
    """The name of the scales of matrix `name`."""
    return f"{name.removesuffix('.weight')}.per_channel_scale"


def quantise(matrix: np.ndarray, dtype: str, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantises one matrix symmetrically.

    Args:
        matrix: of any float type.
        dtype: storage type of the scales. They are rounded to it first, so that the int8 numbers fit the scales
            that are stored.
        axis: the axis of the inputs; there is one scale for each index of the other axis.

    Returns:
        int8 of the same shape, and the scales [outputs]: matrix is about int8 * scale.
    """
    wide = matrix.astype(np.float32, copy=False)
    scales = cast(np.abs(wide).max(axis=axis) / np.float32(127), dtype)
    divisors = np.expand_dims(scales.astype(np.float32), axis)
    numbers = np.rint(np.divide(wide, divisors, out=np.zeros_like(wide), where=divisors > 0))
    return np.clip(numbers, -127, 127).astype(np.int8), scales


def quantise_weights(weights: Sequence[Weight]) -> list[Weight]:
    """The same weights with the matrices of attention and MLP as int8 and their scales beside them.

    Each is quantised when it is loaded, so that one matrix at a time is in memory.
    """
    found: list[Weight] = []
    for weight in weights:
        if not is_quantised(weight.name):
            found.append(weight)
            continue
        found.append(replace(weight, dtype="int8", load=_part(weight, 0)))
        found.append(Weight(scale_name(weight.name), weight.dtype, weight.shape[1:], _part(weight, 1)))
    return found


def _part(weight: Weight, which: int):
    return lambda: quantise(weight.load(), storage_type(weight.dtype).name, axis=0)[which]
