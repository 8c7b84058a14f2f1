"""The lazy table of an engine's weights: names, types and shapes at once, the numbers one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trt_llm_cpu.dtypes import storage_type


@dataclass(frozen=True)
class Weight:
    """One weight.

    Attributes:
        name: the unified checkpoint's name.
        dtype: storage type.
        shape: matrices are [in, out]; embeddings and the head [vocabulary, hidden].
        load: reads it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * storage_type(self.dtype).size
