"""`pytorch_model.bin` without torch, and without running anything that a pickle asks for.

torch writes two forms. The newer one (since 1.6) is a zip archive: `<name>/data.pkl` holds the structure
and `<name>/data/<key>` the bytes of each storage. The older one is five pickles in a row (magic number,
protocol, system facts, structure, list of storage keys) followed, for each key of the list, by an 8-byte
count of elements and the storage's bytes. In both, the structure's pickle names storages by persistent id
and rebuilds tensors by calling `torch._utils._rebuild_tensor_v2`. The unpickler here resolves those few
names to functions of its own and refuses every other name, so that no pickle can reach a callable that does
something.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from trt_llm_cpu.console import BadInputError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# A pickle of names and shapes is small; a larger one is not a checkpoint's.
_MAX_PICKLE_BYTES = 256 * 1024 * 1024

_STORAGE_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    elements: int


@dataclass(frozen=True)
class LazyTensor:
    """A tensor's place in a storage; `strides` and `offset` count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RefusedError(Exception):
    """The pickle asks for something other than a tensor."""


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_ignored: Any) -> LazyTensor:
    if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise _RefusedError("a tensor is described in a way that torch does not use")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise _RefusedError("a tensor has an impossible shape")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.elements:
        raise _RefusedError("a tensor reaches beyond its storage")
    return LazyTensor(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_ignored: Any) -> Any:
    return data


@dataclass(frozen=True)
class _StorageClass:
    dtype: np.dtype


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageClass(dtype) for name, dtype in _STORAGE_DTYPES.items()},
}


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[(module, name)]
        except KeyError:
            raise _RefusedError(f"it asks for {module}.{name}, which is no part of a tensor") from None

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise _RefusedError("it refers to something other than a storage")
        _, kind, key, _, elements = pid[:5]
        if len(pid) > 5 and pid[5] is not None:
            raise _RefusedError("it holds a view of a storage, a form that only torch before 0.4 wrote")
        if not isinstance(kind, _StorageClass) or type(elements) is not int or elements < 0:
            raise _RefusedError("it describes a storage in a way that torch does not use")
        return _Storage(str(key), kind.dtype, elements)


def _load_pickle(stream: BinaryIO | io.BytesIO, path: Path) -> Any:
    try:
        # S301: the point of this class is that it resolves no name but those of _ALLOWED.
        return _TensorUnpickler(stream, encoding="utf-8").load()
    except _RefusedError as refused:
        raise BadInputError(
            f"{path} is refused: {refused}; only files that hold nothing but tensors are read."
        ) from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything
        raise BadInputError(
            f"{path} cannot be read as a torch checkpoint ({type(error).__name__})."
        ) from None


class TorchFile:
    """One `.bin` file, opened. Tensors are read one at a time, when they are asked for.

    Args:
        path: the file.

    Raises:
        BadInputError: the file is damaged, is of another kind, or asks for more than tensors.
    """

    def __init__(self, path: Path, tensors: dict[str, LazyTensor], read: Callable[[_Storage], bytes]) -> None:
        self.path = path
        self._tensors = tensors
        self._read = read

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`."""
        return self._tensors[name].shape

    def get(self, name: str) -> np.ndarray:
        """Tensor `name` as numpy holds it, in the checkpoint's own type."""
        tensor = self._tensors[name]
        data = self._read(tensor.storage)
        storage = tensor.storage
        if len(data) != storage.elements * storage.dtype.itemsize:
            raise BadInputError(f"{self.path} is damaged: the data of {name} has the wrong length.")
        flat = np.frombuffer(data, storage.dtype)
        strides = tuple(step * storage.dtype.itemsize for step in tensor.strides)
        return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)


def open_torch_file(path: Path) -> TorchFile:
    """Opens a `.bin` file of either form. Raises BadInputError as `TorchFile` says."""
    if zipfile.is_zipfile(path):
        return _open_zip(path)
    return _open_legacy(path)


def _tensors_of(structure: Any, path: Path) -> dict[str, LazyTensor]:
    if not isinstance(structure, dict):
        raise BadInputError(f"{path} holds no table of tensors by name.")
    tensors = {str(name): value for name, value in structure.items() if isinstance(value, LazyTensor)}
    if not tensors:
        raise BadInputError(f"{path} holds no tensors.")
    return tensors


def _open_zip(path: Path) -> TorchFile:
    try:
        archive = zipfile.ZipFile(path)
        entry = next((info for info in archive.infolist() if info.filename.endswith("/data.pkl")), None)
        if entry is None or entry.file_size > _MAX_PICKLE_BYTES:
            raise BadInputError(f"{path} is a zip archive, but not one that torch wrote.")
        root = entry.filename.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise BadInputError(
                f"{path} was written on a big-endian machine; only little-endian files are read."
            )
        structure = _load_pickle(io.BytesIO(archive.read(entry)), path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise BadInputError(f"{path} is damaged: {error}.") from None

    def read(storage: _Storage) -> bytes:
        try:
            info = archive.getinfo(f"{root}data/{storage.key}")
            if info.file_size != storage.elements * storage.dtype.itemsize:
                raise BadInputError(f"{path} is damaged: storage {storage.key} has the wrong length.")
            return archive.read(info)
        except (KeyError, zipfile.BadZipFile, EOFError) as error:
            raise BadInputError(f"{path} is damaged: storage {storage.key}: {error}.") from None

    return TorchFile(path, _tensors_of(structure, path), read)


def _open_legacy(path: Path) -> TorchFile:
    with path.open("rb") as stream:
        if _load_pickle(stream, path) != _LEGACY_MAGIC or _load_pickle(stream, path) != _LEGACY_PROTOCOL:
            raise BadInputError(f"{path} is not a torch checkpoint.")
        facts = _load_pickle(stream, path)
        if isinstance(facts, dict) and facts.get("little_endian") is False:
            raise BadInputError(
                f"{path} was written on a big-endian machine; only little-endian files are read."
            )
        tensors = _tensors_of(_load_pickle(stream, path), path)
        keys = _load_pickle(stream, path)
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        if not isinstance(keys, list) or not set(storages) <= {str(key) for key in keys}:
            raise BadInputError(f"{path} is damaged: its list of storages is incomplete.")
        places: dict[str, int] = {}
        for key in map(str, keys):
            head = stream.read(8)
            if key not in storages or len(head) != 8:
                raise BadInputError(f"{path} is damaged: storage {key} is missing or of no tensor.")
            (elements,) = struct.unpack("<q", head)
            if elements != storages[key].elements:
                raise BadInputError(f"{path} is damaged: storage {key} has the wrong length.")
            places[key] = stream.tell()
            stream.seek(elements * storages[key].dtype.itemsize, io.SEEK_CUR)

    def read(storage: _Storage) -> bytes:
        with path.open("rb") as again:
            again.seek(places[storage.key])
            return again.read(storage.elements * storage.dtype.itemsize)

    return TorchFile(path, tensors, read)
