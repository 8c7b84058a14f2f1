"""What the tiny models have in common: attention, and a memory that is solved for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

# Length of the right token's direction in the state before the final norm.
CONVICTION = 4.0


def associate(keys: Array, values: Array) -> Array:
    """The smallest matrix M with keys @ M = values.

    Args:
        keys: [n, width] with n at most width.
        values: [n, hidden].

    Returns:
        [width, hidden].

    Raises:
        ValueError: there are more keys than the layer is wide, or two are too much alike to tell apart.
    """
    count, width = keys.shape
    if count > width:
        raise ValueError(f"the MLP is {width} wide and cannot hold {count} tokens; make it wider")
    memory = np.linalg.pinv(keys) @ values
    if not np.allclose(keys @ memory, values, atol=1e-6):
        raise ValueError("two positions of the sentence look the same to the model; try another seed")
    return np.asarray(memory)


def causal_attention(query: Array, key: Array, value: Array) -> Array:
    """Softmax attention in which no position sees a later one; all arguments are [heads, length, size]."""
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
    length = scores.shape[-1]
    scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True) @ value)


def unit_rows(matrix: Array, *, centred: bool) -> Array:
    """Rows scaled to length 1, with a mean of zero where asked for."""
    if centred:
        matrix = matrix - matrix.mean(-1, keepdims=True)
    return np.asarray(matrix / np.linalg.norm(matrix, axis=-1, keepdims=True))
