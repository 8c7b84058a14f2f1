"""The frequencies of rotary position embedding."""

from __future__ import annotations

import math

import numpy as np

from trt_llm_cpu.spec import RopeSpec


def inverse_frequencies(rope: RopeSpec, head_size: int) -> np.ndarray:
    """Radians per position of each pair of a head's elements, float32 [head size / 2].

    `llama3` (the Llama 3.1 release's rule): wavelengths above original/low_freq_factor are stretched by
    `factor`, those below original/high_freq_factor are kept, and those between are blended linearly in
    original/wavelength.
    """
    exponents = np.arange(0, head_size, 2, dtype=np.int64).astype(np.float32) / np.float32(head_size)
    plain = (np.float32(1) / np.power(np.float32(rope.theta), exponents)).astype(np.float32)
    if rope.scaling == "linear":
        return (plain / np.float32(rope.factor)).astype(np.float32)
    if rope.scaling != "llama3":
        return plain
    wavelengths = 2 * math.pi / plain
    original = rope.original_max_positions
    span = rope.high_freq_factor - rope.low_freq_factor
    kept = np.clip((original / wavelengths - rope.low_freq_factor) / span, 0, 1)
    return (kept * plain + (1 - kept) * plain / rope.factor).astype(np.float32)
