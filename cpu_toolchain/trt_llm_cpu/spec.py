"""The one description of a decoder that graph, engine and runtime share, whatever checkpoint it came from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_cpu.console import BadInputError, UnsupportedError


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position embedding.

    Attributes:
        theta: base of the wavelengths.
        scaling: `none`, `linear` or `llama3`.
        factor: how many times longer the context becomes.
        low_freq_factor, high_freq_factor, original_max_positions: of `llama3` alone.
    """

    theta: float = 10000.0
    scaling: str = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder-only transformer.

    Attributes:
        family: `gpt` or `llama`; names the engine.
        dtype: storage type of the weights (`float32`, `float16`, `bfloat16`). Arithmetic is in float32.
        activation: as `transformers` names it.
        norm: `layernorm` or `rmsnorm`.
        rope: rotary embedding, or None where positions are learned.
        int8: whether the matrices of attention and MLP are int8 with a scale for each output channel.
    """

    family: str
    dtype: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    inter_size: int
    max_positions: int
    activation: str
    norm: str
    norm_epsilon: float
    gated_mlp: bool
    rope: RopeSpec | None = None
    int8: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain values, for an engine's header."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DecoderSpec:
        """The inverse of `to_json`."""
        rope = value.get("rope")
        return cls(**{**value, "rope": None if rope is None else RopeSpec(**rope)})


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what a strange value in a config file leads to into a BadInputError that names the file."""
    try:
        yield
    except KeyError as error:
        raise BadInputError(f"{path}: {error} is missing.") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise BadInputError(f"{path}: a value is not what it must be: {error}.") from None


def checked(spec: DecoderSpec, path: Path) -> DecoderSpec:
    """The same spec, its values being of the right kind. Raises BadInputError, naming the file."""
    for field in dataclasses.fields(DecoderSpec):
        value = getattr(spec, field.name)
        if field.type == "int" and (type(value) is not int or not 1 <= value < 2**31):
            raise BadInputError(f"{path}: {field.name} is {value!r}, not a positive whole number.")
        if field.type == "str" and not isinstance(value, str):
            raise BadInputError(f"{path}: {field.name} is {value!r}, not a name.")
    epsilon = spec.norm_epsilon
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 <= epsilon < 1:
        raise BadInputError(f"{path}: the norm's epsilon is {epsilon!r}, not a small number.")
    if spec.rope and not all(
        math.isfinite(value) and value > 0
        for value in (spec.rope.theta, spec.rope.factor, spec.rope.original_max_positions)
    ):
        raise BadInputError(f"{path}: the rotary embedding's numbers must be positive.")
    if spec.num_heads % spec.num_kv_heads or (spec.rope and spec.head_size % 2):
        raise BadInputError(
            f"{path}: {spec.num_heads} attention heads of size {spec.head_size} do not go with "
            f"{spec.num_kv_heads} key/value heads."
        )
    return spec


def check_parallelism(num_heads: int, num_kv_heads: int, widths: dict[str, int], tp_size: int) -> None:
    """Refuses a tensor parallelism that does not divide what it must.

    Args:
        num_heads, num_kv_heads: of the whole model.
        widths: other sizes that are split, by the name that the user knows them by.
        tp_size: the requested degree.

    Raises:
        UnsupportedError: with the degrees that would do.
    """
    sizes = {"attention heads": num_heads, **widths}
    if num_kv_heads != num_heads:
        sizes["key/value heads"] = num_kv_heads
    if tp_size >= 1 and all(size % tp_size == 0 for size in sizes.values()):
        return
    good = [str(n) for n in range(1, num_heads + 1) if all(size % n == 0 for size in sizes.values())]
    what = ", ".join(f"{size} {name}" for name, size in sizes.items())
    raise UnsupportedError(
        f"tensor parallelism {tp_size} does not divide {what}; supported here: {', '.join(good)}."
    )
