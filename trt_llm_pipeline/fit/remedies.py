"""The smallest changes that would make an engine fit, each tried with the same sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from trt_llm_pipeline.fit.arguments import BITS, BYTES_OF, EngineArguments, Weights
from trt_llm_pipeline.fit.gpus import GPUS, Device
from trt_llm_pipeline.fit.shape import ModelShape
from trt_llm_pipeline.fit.sums import needs, room
from trt_llm_pipeline.units import in_words

_TENSOR_PARALLELISM = (2, 4, 8)
_QUANTIZED: tuple[tuple[Weights, str], ...] = (
    ("int8", "int8 weights"),
    ("fp8", "fp8 weights"),
    ("int4", "int4 weights"),
)


@dataclass(frozen=True)
class Remedy:
    """A change that would make it fit.

    Attributes:
        change: what to change, in words.
        rank_weights: bytes of weights on the largest rank then.
    """

    change: str
    rank_weights: int

    @property
    def text(self) -> str:
        """`tensor parallelism 2 (6.8 GB of weights a GPU)`."""
        return f"{self.change} ({in_words(self.rank_weights)} of weights on each)"


def remedies(
    shape: ModelShape, arguments: EngineArguments, device: Device, *, all_at_once: bool
) -> tuple[Remedy, ...]:
    """One remedy of each kind, the smallest that is enough: more GPUs, smaller types, another GPU.

    Args:
        shape, arguments, device: what does not fit.
        all_at_once: enough is only what has room for all that the config wants at once; otherwise, for one
            request of its length.
    """
    tries = [_smaller_weights(arguments, device), _smaller_cache(arguments, device)]
    if device.compute_capability is not None:  # to a machine's CPU engine more GPUs are no help
        tries = [_more_gpus(shape, arguments, device), *tries, _other_gpus(arguments, device)]
    found = []
    for tried in tries:
        for change, changed, place in tried:
            if _fits(shape, changed, place, all_at_once=all_at_once):
                found.append(Remedy(change, needs(shape, changed).rank_weights))
                break
    return tuple(found)


#: A change in words, the arguments with it, and where the engine is then loaded.
_Try: TypeAlias = "tuple[str, EngineArguments, Device]"


def _more_gpus(shape: ModelShape, arguments: EngineArguments, device: Device) -> Iterator[_Try]:
    for tp in _TENSOR_PARALLELISM:
        if tp > arguments.tp and shape.can_be_divided(tp, arguments.pp):
            yield f"tensor parallelism {tp}", replace(arguments, tp=tp), device


def _smaller_weights(arguments: EngineArguments, device: Device) -> Iterator[_Try]:
    now = BITS.get(arguments.weights, 8 * BYTES_OF[arguments.dtype])
    for weights, name in _QUANTIZED:
        if BITS[weights] < now and (weights != "fp8" or device.has_fp8):
            yield name, replace(arguments, weights=weights), device


def _smaller_cache(arguments: EngineArguments, device: Device) -> Iterator[_Try]:
    if BYTES_OF[arguments.kv] > 1:
        kv = "fp8" if device.has_fp8 else "int8"
        yield f"a KV cache in {kv}", replace(arguments, kv=kv), device


def _other_gpus(arguments: EngineArguments, device: Device) -> Iterator[_Try]:
    count = f"{arguments.world_size} GPUs" if arguments.world_size > 1 else "a GPU"
    for gpu in GPUS:
        if gpu.memory_bytes > device.memory_bytes:
            yield f"{count} of type {gpu.name}", arguments, gpu


def _fits(shape: ModelShape, arguments: EngineArguments, device: Device, *, all_at_once: bool) -> bool:
    need = needs(shape, arguments)
    there = room(need, arguments, shape, device)
    one = arguments.least_length * arguments.max_beam_width
    return there.left > 0 and there.tokens >= (need.least_tokens if all_at_once else one)
