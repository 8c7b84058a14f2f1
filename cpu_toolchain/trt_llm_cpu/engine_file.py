"""The engine file: one file that holds a compiled graph and its weights, and is used in place.

    offset 0    8 bytes   magic
           8    8 bytes   length of the header, little-endian
          16    header    JSON, UTF-8, sorted keys
    then, each at a multiple of 4096: the graph (ONNX), the weights one after another at multiples of 64

Every place in the header is relative to the file, so that the file may be moved anywhere. Nothing in it
depends on when or where it was built: the same checkpoint gives the same bytes. Weights are outside the
protobuf, because one protobuf message ends at 2 GB.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trt_llm_cpu.console import BadInputError
from trt_llm_cpu.dtypes import storage_type
from trt_llm_cpu.spec import reading
from trt_llm_cpu.weights import Weight

MAGIC = b"TLLMCPU\x01"
_PAGE = 4096
_WEIGHT_ALIGNMENT = 64
_MAX_HEADER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Engine:
    """An engine file, opened.

    Attributes:
        path: the file.
        facts: what the compiler put in the header beside the places.
        graph: the compiled ONNX graph.
        weights: name to (storage type, array mapped from the file).
    """

    path: Path
    facts: dict[str, Any]
    graph: bytes
    weights: dict[str, tuple[str, np.ndarray]]


def write_engine(path: Path, facts: dict[str, Any], graph: bytes, weights: Sequence[Weight]) -> int:
    """Writes an engine file, whole or not at all, reading one weight at a time. Returns its size in bytes."""
    table = []
    places = []
    place = 0
    for weight in weights:
        place = _aligned(place, _WEIGHT_ALIGNMENT)
        places.append(place)
        table.append([weight.name, weight.dtype, list(weight.shape), place])
        place += weight.size
    header = {"facts": facts, "graph_size": len(graph), "weights_size": place, "weights": table}
    encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    graph_start = _aligned(len(MAGIC) + 8 + len(encoded), _PAGE)
    weights_start = _aligned(graph_start + len(graph), _PAGE)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(MAGIC + len(encoded).to_bytes(8, "little") + encoded)
            _pad_to(stream, graph_start)
            stream.write(graph)
            for weight, start in zip(weights, places, strict=True):
                _pad_to(stream, weights_start + start)
                array = np.ascontiguousarray(weight.load())
                if array.shape != weight.shape or array.dtype != storage_type(weight.dtype).numpy:
                    raise AssertionError(f"{weight.name} was promised as {weight.dtype} {weight.shape}")
                stream.write(array.view(np.uint8).data)
            _pad_to(stream, weights_start + place)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return weights_start + place


def read_engine(path: Path) -> Engine:
    """Opens an engine file; weights are mapped, not read. Raises BadInputError when it is no sound engine."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise BadInputError(
                f"{path} is no engine of the CPU toolchain; a GPU engine runs on TensorRT-LLM alone."
            )
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size, _MAX_HEADER_BYTES):
            raise BadInputError(f"{path} is damaged: its header is cut short.")
        try:
            header = json.loads(stream.read(length))
            facts, graph_size, table = header["facts"], header["graph_size"], header["weights"]
            graph_start = _aligned(len(MAGIC) + 8 + length, _PAGE)
            weights_start = _aligned(graph_start + graph_size, _PAGE)
            promised = weights_start + header["weights_size"]
        except (ValueError, KeyError, TypeError):
            raise BadInputError(f"{path} is damaged: its header cannot be read.") from None
        if size != promised:
            raise BadInputError(f"{path} is damaged: {size} bytes, where its header promises {promised}.")
        stream.seek(graph_start)
        graph = stream.read(graph_size)
    mapped = np.memmap(path, np.uint8, "r")
    weights = {}
    with reading(path):
        for name, dtype, shape, place in table:
            kind = storage_type(dtype)
            start = weights_start + place
            flat = mapped[start : start + math.prod(shape) * kind.size]
            weights[name] = (dtype, flat.view(kind.numpy).reshape(shape))
    return Engine(path, facts, graph, weights)


def _aligned(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment


def _pad_to(stream: Any, place: int) -> None:
    stream.write(bytes(place - stream.tell()))
