"""The storage types that checkpoints and engines use, as numpy and ONNX know them."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np


@dataclass(frozen=True)
class StorageType:
    """A tensor element type.

    Attributes:
        name: as TensorRT-LLM spells it in options and configs.
        numpy: the numpy type of the same width.
        onnx: `TensorProto.DataType` of the same type.
        safetensors: its name in a safetensors header.
    """

    name: str
    numpy: np.dtype
    onnx: int
    safetensors: str

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize


_TYPES = {
    one.name: one
    for one in (
        StorageType("float32", np.dtype(np.float32), 1, "F32"),
        StorageType("float16", np.dtype(np.float16), 10, "F16"),
        StorageType("bfloat16", np.dtype(ml_dtypes.bfloat16), 16, "BF16"),
        StorageType("int8", np.dtype(np.int8), 3, "I8"),
    )
}

FLOAT_NAMES = ("float32", "float16", "bfloat16")


def storage_type(name: str) -> StorageType:
    """The storage type called `name`. Raises KeyError for any other."""
    return _TYPES[name]


def cast(array: np.ndarray, name: str) -> np.ndarray:
    """`array` as a C-contiguous array of the storage type `name`, rounded to nearest even as torch rounds.

    Goes through float32, as a checkpoint that is loaded into a float32 model does.
    """
    wanted = _TYPES[name].numpy
    if array.dtype != wanted:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False).astype(wanted)
    return np.ascontiguousarray(array)
