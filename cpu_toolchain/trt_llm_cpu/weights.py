"""The lazy table of a model's weights: names, types and shapes at once, the numbers one tensor at a time.

Names are the unified checkpoint's. Its matrices are [out, in]; an engine's are [in, out].
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trt_llm_cpu.dtypes import storage_type

_MATRIX = re.compile(r"transformer\.layers\.\d+\.(attention\.(qkv|dense)|mlp\.(fc|gate|proj))\.weight")


@dataclass(frozen=True)
class Weight:
    """One weight.

    Attributes:
        name: the unified checkpoint's name.
        dtype: storage type.
        shape: of the whole array.
        load: reads it, C-contiguous, in that type and shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * storage_type(self.dtype).size


def is_matrix(name: str) -> bool:
    """Whether this is a matrix of attention or MLP: what an engine transposes and int8 quantises."""
    return _MATRIX.fullmatch(name) is not None


def engine_weights(weights: Sequence[Weight]) -> list[Weight]:
    """A unified checkpoint's weights as an engine has them: matrices as [in, out]."""
    return [_transposed(weight) if is_matrix(weight.name) else weight for weight in weights]


def _transposed(weight: Weight) -> Weight:
    return Weight(
        weight.name, weight.dtype, weight.shape[::-1], lambda: np.ascontiguousarray(weight.load().T)
    )
