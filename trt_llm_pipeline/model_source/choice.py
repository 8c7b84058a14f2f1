"""Which files of a repository are wanted: weights of one format, and everything that is not weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from trt_llm_pipeline.errors import ModelNotFound, RequestPart
from trt_llm_pipeline.model_source.model_types import WeightFormat

# Where this service and huggingface_hub keep their books; never part of a model.
CACHE_FOLDER = ".cache"

_SUFFIXES: dict[WeightFormat, tuple[str, ...]] = {
    "safetensors": (".safetensors",),
    "bin": (".bin",),
    "pt": (".pt", ".pth"),
}
# Formats that no TensorRT-LLM script reads, named as a user would name them.
_FOREIGN: dict[str, tuple[str, ...]] = {
    "ONNX": ("*.onnx", "*.onnx_data*", "*.onnx.data", "onnx/*", "*/onnx/*"),
    "TensorFlow": ("*.h5", "*.tflite", "*.pb", "*.ckpt", "*.ckpt.*", "tf_model*", "*/tf_model*"),
    "Flax": ("*.msgpack", "flax_model*", "*/flax_model*"),
    "GGUF": ("*.gguf", "*.ggml"),
    "Rust": ("*.ot",),
    "CoreML": ("*.mlmodel", "*.mlpackage/*", "coreml/*", "*/coreml/*"),
    "OpenVINO": ("openvino*", "*/openvino*"),
    "MLX": ("*.npz",),
}
# A trainer's leftovers look like weights by their suffix.
_TRAINER = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.bin", "scheduler.pt")
_OTHER_WEIGHTS = (".nemo",)


def model_files(folder: Path) -> tuple[str, ...]:
    """Paths of the model's files under the folder, relative and sorted; bookkeeping is left out."""
    return tuple(
        sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.relative_to(folder).parts[0] != CACHE_FOLDER and path.is_file()
        )
    )


def weight_format_of(path: str) -> WeightFormat | None:
    """The format that a file's name says it is in; None for anything that is no weights, or foreign ones."""
    if foreign_format_of(path) is not None or PurePosixPath(path).name in _TRAINER:
        return None
    for name, suffixes in _SUFFIXES.items():
        if path.endswith(suffixes):
            return name
    return None


def foreign_format_of(path: str) -> str | None:
    """`ONNX`, `TensorFlow` and so on for files that are never downloaded."""
    for name, patterns in _FOREIGN.items():
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
            return name
    return None


def choose_files(paths: Iterable[str], weight_format: WeightFormat | None, model_id: str) -> tuple[str, ...]:
    """The wanted ones among a repository's files, sorted.

    Args:
        paths: every file of the repository.
        weight_format: the only format to take; None takes the best that is there.
        model_id: for the message.

    Raises:
        ModelNotFound: there are no weights in the wanted format.
    """
    everything = sorted(paths)
    found = {path: weight_format_of(path) for path in everything}
    chosen = weight_format or _best(found)
    if (chosen is None or chosen not in found.values()) and not _has_other_weights(everything, weight_format):
        part: RequestPart = "name" if weight_format is None else "format"
        raise ModelNotFound(_no_weights(everything, found, weight_format, model_id), part=part)
    wanted = [
        path
        for path in everything
        if foreign_format_of(path) is None
        and PurePosixPath(path).name not in _TRAINER
        and found[path] in (None, chosen)
        and not _is_index_of_another(path, chosen)
    ]
    return tuple(path for path in wanted if not _is_consolidated_duplicate(path, wanted))


def _best(found: dict[str, WeightFormat | None]) -> WeightFormat | None:
    """The preferred format among those at the root; sub-folders count where the root has none."""
    at_root = {weight_format for path, weight_format in found.items() if "/" not in path}
    anywhere = set(found.values())
    for present in (at_root, anywhere):
        for name in _SUFFIXES:
            if name in present:
                return name
    return None


def _has_other_weights(paths: Iterable[str], weight_format: WeightFormat | None) -> bool:
    return weight_format is None and any(path.endswith(_OTHER_WEIGHTS) for path in paths)


def _is_index_of_another(path: str, chosen: WeightFormat | None) -> bool:
    for name, suffixes in _SUFFIXES.items():
        if name != chosen and path.endswith(tuple(f"{suffix}.index.json" for suffix in suffixes)):
            return True
    return False


def _is_consolidated_duplicate(path: str, wanted: Iterable[str]) -> bool:
    """Some repositories publish the same weights twice: in shards, and under Meta's or Mistral's names."""
    if not PurePosixPath(path).name.startswith("consolidated") or weight_format_of(path) is None:
        return False
    return any(
        weight_format_of(other) is not None and not PurePosixPath(other).name.startswith("consolidated")
        for other in wanted
    )


def _no_weights(
    paths: Iterable[str],
    found: dict[str, WeightFormat | None],
    weight_format: WeightFormat | None,
    model_id: str,
) -> str:
    usable = [name for name in _SUFFIXES if name in found.values()]
    foreign = sorted({name for path in paths if (name := foreign_format_of(path)) is not None})
    what = "weights" if weight_format is None else f"{weight_format} weights"
    if usable:
        offer = " or ".join(f"`weight_format: {name}`" for name in usable)
        return (
            f"{model_id} has no {what}; it has {' and '.join(usable)}. Put {offer} in the config, "
            "or leave weight_format out."
        )
    there = f"only {' and '.join(foreign)} files, which no TensorRT-LLM script reads" if foreign else "none"
    return (
        f"{model_id} has no {what} in a format that can be converted (safetensors, bin or pt): it has "
        f"{there}. Name another model_id or revision, one that publishes safetensors."
    )
