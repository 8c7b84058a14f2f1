"""Int8 weight-only quantisation: int8 matrices with one scale for each output channel (W8A16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from trt_llm_cpu.dtypes import cast
from trt_llm_cpu.weights import Weight, is_matrix


def scale_name(matrix: str) -> str:
    """The name of the scales of the matrix called `matrix`."""
    return f"{matrix.removesuffix('.weight')}.per_channel_scale"


def quantise(matrix: np.ndarray, dtype: str, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantises one matrix symmetrically.

    Args:
        matrix: of any float type.
        dtype: storage type of the scales. They are rounded to it first, so that the int8 numbers fit the
            scales that are stored.
        axis: the axis of the inputs; there is one scale for each index of the other axis.

    Returns:
        int8 of the same shape, and the scales [outputs]: matrix is about int8 * scale.
    """
    wide = matrix.astype(np.float32, copy=False)
    scales = cast(np.abs(wide).max(axis=axis) / np.float32(127), dtype)
    divisors = np.expand_dims(scales.astype(np.float32), axis)
    numbers = np.rint(np.divide(wide, divisors, out=np.zeros_like(wide), where=divisors > 0))
    return np.clip(numbers, -127, 127).astype(np.int8), scales


def quantise_weights(weights: Sequence[Weight], *, axis: int) -> list[Weight]:
    """The same weights with each matrix of attention and MLP as int8, its scales beside it.

    Embeddings, norms, biases and the head stay float. Each matrix is quantised when it is loaded, so that one
    at a time is in memory.

    Args:
        weights: float ones.
        axis: the matrices' axis of inputs: 0 for an engine's, 1 for a unified checkpoint's.
    """
    found: list[Weight] = []
    for weight in weights:
        if not is_matrix(weight.name):
            found.append(weight)
            continue
        matrix = _Matrix(weight, axis)
        found.append(replace(weight, dtype="int8", load=partial(matrix.part, 0)))
        scales = (weight.shape[1 - axis],)
        found.append(Weight(scale_name(weight.name), weight.dtype, scales, partial(matrix.part, 1)))
    return found


class _Matrix:
    """Quantises a matrix once for its two parts, which are asked for one after the other."""

    def __init__(self, weight: Weight, axis: int) -> None:
        self._weight = weight
        self._axis = axis
        self._scales: np.ndarray | None = None

    def part(self, which: int) -> np.ndarray:
        if which == 1 and self._scales is not None:
            return self._scales
        numbers, self._scales = quantise(self._weight.load(), self._weight.dtype, self._axis)
        return numbers if which == 0 else self._scales
