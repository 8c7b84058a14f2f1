"""Writers of weight files that need no torch."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# numpy's name of a dtype: the storage class that a torch pickle names
_STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "uint8": "ByteStorage",
    "int8": "CharStorage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}


def write_safetensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Writes numpy arrays (ml_dtypes' bfloat16 included) as one safetensors file."""
    import numpy as np
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(contiguous, str(path), metadata={"format": "pt"})


def write_sharded_safetensors(folder: Path, tensors: Mapping[str, Any], shards: int) -> None:
    """Writes `model-00001-of-0000N.safetensors` files and their index."""
    names = list(tensors)
    index: dict[str, str] = {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        write_safetensors(folder / file_name, part)
        index |= dict.fromkeys(part, file_name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    value = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_torch_zip(path: Path, tensors: Mapping[str, Any]) -> None:
    """Writes numpy arrays as `torch.save` would write their tensors: a zip with a pickle and raw storages.

    The layout is that of torch 1.6 and later: `<name>/data.pkl`, one `<name>/data/<key>` a tensor, and
    `<name>/version`. `torch.load(path, weights_only=True)` reads it.
    """
    import numpy as np

    root = path.stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def write(name: str, content: bytes) -> None:
            # A fixed date: the same tensors give the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{root}/{name}", (1980, 1, 1, 0, 0, 0)), content)

        write("data.pkl", _pickle_of(tensors))
        write("byteorder", b"little")
        for key, tensor in enumerate(tensors.values()):
            write(f"data/{key}", np.ascontiguousarray(tensor).tobytes())
        write("version", b"3\n")


def _pickle_of(tensors: Mapping[str, Any]) -> bytes:
    """The pickle program, written opcode by opcode because pickling by name would need torch itself."""
    ordered_dict = b"ccollections\nOrderedDict\n)R"
    program = [b"\x80\x02", ordered_dict, b"("]
    for key, (name, tensor) in enumerate(tensors.items()):
        storage = _STORAGES[str(tensor.dtype)]
        strides = [stride // tensor.itemsize for stride in _contiguous_strides(tensor)]
        program += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"((",
            _text("storage"),
            f"ctorch\n{storage}\n".encode(),
            _text(str(key)),
            _text("cpu"),
            _number(tensor.size),
            b"tQ",  # the tuple is the storage's persistent id
            _number(0),
            _tuple(tensor.shape),
            _tuple(strides),
            b"\x89",  # requires_grad: False
            ordered_dict,  # backward hooks
            b"tR",
        ]
    return b"".join([*program, b"u."])


def _contiguous_strides(tensor: Any) -> list[int]:
    strides, step = [], tensor.itemsize
    for size in reversed(tensor.shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def _text(value: str) -> bytes:
    content = value.encode()
    return b"X" + len(content).to_bytes(4, "little") + content


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def _tuple(values: Any) -> bytes:
    return b"(" + b"".join(_number(int(value)) for value in values) + b"t"
