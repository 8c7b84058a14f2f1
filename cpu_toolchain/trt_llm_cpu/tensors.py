"""A Hugging Face model directory as a table of tensors, read one at a time.

Safetensors is preferred to `pytorch_model.bin`; either may be one file or several with an index
(`model.safetensors.index.json`: `weight_map` gives the file of each tensor).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from trt_llm_cpu.console import BadInputError
from trt_llm_cpu.torch_pickle import open_torch_file


class TensorFile(Protocol):
    """One file of tensors."""

    path: Path

    def __iter__(self) -> Iterator[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def get(self, name: str) -> np.ndarray: ...


class SafetensorsFile:
    """One `.safetensors` file: its header is read at once, its tensors when they are asked for."""

    def __init__(self, path: Path, handle: Any) -> None:
        self.path = path
        self._handle = handle
        self._names = tuple(handle.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`."""
        return tuple(self._handle.get_slice(name).get_shape())

    def get(self, name: str) -> np.ndarray:
        """Tensor `name` in the checkpoint's own type."""
        try:
            return self._handle.get_tensor(name)
        except (SafetensorError, TypeError, AttributeError) as error:
            raise BadInputError(f"{self.path}: {name} cannot be read: {error}.") from None


def open_safetensors(path: Path) -> SafetensorsFile:
    """Opens one `.safetensors` file. Raises BadInputError when it is damaged or cut short."""
    try:
        opened = SafetensorsFile(path, safe_open(path, "numpy"))
    except SafetensorError as error:
        raise BadInputError(f"{path} is damaged or no safetensors file: {error}.") from None
    if not list(opened):
        raise BadInputError(f"{path} holds no tensors.")
    return opened


class ModelTensors:
    """Every tensor of a model directory by name, whichever file it is in."""

    def __init__(self, files: dict[str, TensorFile]) -> None:
        self._files = files

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`."""
        return self._files[name].shape(name)

    def get(self, name: str) -> np.ndarray:
        """Tensor `name` in the checkpoint's own type."""
        return self._files[name].get(name)


def open_model(directory: Path) -> ModelTensors:
    """Opens the weights of a Hugging Face model directory.

    Raises:
        BadInputError: no weights, a shard missing or damaged, or a `.bin` that asks for more than tensors.
    """
    for single, opener in (("model.safetensors", open_safetensors), ("pytorch_model.bin", open_torch_file)):
        index = directory / f"{single}.index.json"
        if index.is_file():
            return _open_sharded(index, opener)
        if (directory / single).is_file():
            opened: TensorFile = opener(directory / single)
            return ModelTensors(dict.fromkeys(opened, opened))
    raise BadInputError(
        f"{directory} has no weights: no model.safetensors, no pytorch_model.bin, no index of either."
    )


def _open_sharded(index: Path, opener: Any) -> ModelTensors:
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        pairs = [(str(name), str(file)) for name, file in weight_map.items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInputError(f"{index} is damaged: it has no weight_map of tensor to file.") from None
    opened: dict[str, TensorFile] = {}
    known: dict[str, set[str]] = {}
    files: dict[str, TensorFile] = {}
    for name, file in pairs:
        if file not in opened:
            path = index.parent / file
            if Path(file).name != file or not path.is_file():
                raise BadInputError(f"{path} is missing, though {index.name} names it.")
            opened[file] = opener(path)
            known[file] = set(opened[file])
        if name not in known[file]:
            raise BadInputError(f"{index.parent / file} has no tensor {name}, though {index.name} says so.")
        files[name] = opened[file]
    return ModelTensors(files)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises BadInputError when there is none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"{path} is missing.") from None
    except ValueError as error:
        raise BadInputError(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise BadInputError(f"{path} is not a JSON object.")
    return value
