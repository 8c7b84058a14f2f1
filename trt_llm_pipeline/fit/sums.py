"""The sums: bytes of weights on a rank, bytes of KV cache a token, and what is left for how many tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trt_llm_pipeline.engine.limits import KV_FRACTION
from trt_llm_pipeline.fit.arguments import BITS, BYTES_OF, EngineArguments
from trt_llm_pipeline.fit.gpus import Device
from trt_llm_pipeline.fit.shape import ModelShape, Tensors


@dataclass(frozen=True)
class Needs:
    """What an engine needs, at least; in bytes.

    Attributes:
        weights: of all ranks together.
        rank_weights: of the rank that has most.
        kv_per_token: KV cache of one token on one rank.
        tokens: tokens that the config wants room for at once; None where it does not say.
        least_tokens: the same; as many as it wants at least, where it does not say.
    """

    weights: int
    rank_weights: int
    kv_per_token: int
    tokens: int | None
    least_tokens: int


@dataclass(frozen=True)
class Room:
    """How an engine's rank lies in a device's memory. Activations come on top of what is counted.

    Attributes:
        device: where.
        left: bytes that the weights leave; below 0 where they do not fit.
        kv_bytes: of these, what the KV cache may take.
        tokens: how many tokens that is.
        max_batch_size: requests of the config's length that fit at once; None where no length is known.
        max_length: the longest sequence at the config's batch size; None where no batch size is known.
    """

    device: Device
    left: int
    kv_bytes: int
    tokens: int
    max_batch_size: int | None
    max_length: int | None


def needs(shape: ModelShape, arguments: EngineArguments) -> Needs:
    """What the engine of that model needs."""
    ranks = [_rank_bits(shape, arguments, rank) for rank in range(arguments.pp)]
    least = (arguments.max_batch_size or 1) * arguments.max_beam_width * arguments.least_length
    return Needs(
        weights=arguments.tp * sum(_bytes(bits) for bits in ranks),
        rank_weights=max(_bytes(bits) for bits in ranks),
        kv_per_token=kv_per_token(shape, arguments),
        tokens=None if arguments.unsaid else least,
        least_tokens=least,
    )


def kv_per_token(shape: ModelShape, arguments: EngineArguments) -> int:
    """Bytes of KV cache that one token takes on one rank: a key and a value in each of its layers."""
    layers = -(-shape.layers // arguments.pp)
    return 2 * layers * shape.kv_heads_of_rank(arguments.tp) * shape.head_size * BYTES_OF[arguments.kv]


def room(need: Needs, arguments: EngineArguments, shape: ModelShape, device: Device) -> Room:
    """What the device has left beside the weights."""
    left = device.memory_bytes - need.rank_weights
    kv_bytes = max(0, math.floor(left * KV_FRACTION))
    tokens = kv_bytes // need.kv_per_token
    length, batch = arguments.length, arguments.max_batch_size
    beams = arguments.max_beam_width
    longest = None if batch is None else tokens // (batch * beams)
    if longest is not None and shape.max_positions is not None:
        longest = min(longest, shape.max_positions)
    return Room(
        device=device,
        left=left,
        kv_bytes=kv_bytes,
        tokens=tokens,
        max_batch_size=None if length is None else tokens // (length * beams),
        max_length=longest,
    )


def _rank_bits(shape: ModelShape, arguments: EngineArguments, stage: int) -> float:
    """Bits of weights on one rank of a pipeline's stage."""
    layers = -(-shape.layers // arguments.pp)
    bits = 0.0
    for tensors in shape.tensors:
        if tensors.place == "first" and stage != 0:
            continue
        if tensors.place == "last" and stage != arguments.pp - 1:
            continue
        times = layers if tensors.place == "layer" else 1
        bits += times * _share(tensors, shape, arguments) * _bits(tensors, arguments)
    if shape.tied and arguments.pp > 1 and stage == arguments.pp - 1:
        bits += shape.vocab_size * shape.hidden_size / arguments.tp * 8 * BYTES_OF[arguments.dtype]
    return bits


def _share(tensors: Tensors, shape: ModelShape, arguments: EngineArguments) -> float:
    """How many of the parameters one of the ranks has."""
    if tensors.split == "kv_heads":
        return tensors.parameters * shape.kv_heads_of_rank(arguments.tp) / shape.kv_heads
    divided = tensors.split == "ranks" or (tensors.kind == "embedding" and arguments.divided_embedding)
    return tensors.parameters / arguments.tp if divided else tensors.parameters


def _bits(tensors: Tensors, arguments: EngineArguments) -> float:
    if tensors.kind != "matrix" or arguments.weights == "float":
        return 8 * BYTES_OF[arguments.dtype]
    return BITS[arguments.weights]


def _bytes(bits: float) -> int:
    return math.floor(bits / 8)
