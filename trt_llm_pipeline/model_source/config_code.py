"""What a repository's JSON files make a library load besides the weights: Python code, or another repository.

`transformers` imports what `auto_map` and `custom_pipelines` name, in any of the configs of a model, its
tokenizer and its processors, when a script passes `trust_remote_code=True`:
https://huggingface.co/docs/transformers/custom_models. NVIDIA's scripts pass it almost everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

#: A config is a few kilobytes; one that is larger than this is not read, and refused.
MOST_BYTES = 8 << 20
_LONGEST_SHOWN = 120
_ADAPTER = "adapter_config.json"


def is_config(path: str) -> bool:
    """Whether a library may read the file as a config: `config.json`, `tokenizer_config.json` and so on."""
    return fnmatchcase(PurePosixPath(path).name.casefold(), "*config*.json")


def is_index(path: str) -> bool:
    """Whether it says which file a tensor is in."""
    return path.casefold().endswith(".index.json")


def asked_for(path: str, content: bytes) -> str | None:
    """What the file makes a library load that is not this repository's weights; None where it is nothing.

    Args:
        path: in the repository.
        content: of the JSON file; only looked at where `is_config` or `is_index` says so.
    """
    found: list[str] = []
    name = PurePosixPath(path).name.casefold()
    look = _index_values if is_index(path) else _adapter_values if name == _ADAPTER else _config_values

    def each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, value in pairs:  # each pair, as a key may be there twice
            found.extend(_shortened(what) for what in look(key, value))
        return dict(pairs)

    try:
        json.loads(content, object_pairs_hook=each)
    except (ValueError, RecursionError):
        # No library can read it either; but another one might.
        found += [f"{key}, in what cannot be read" for key in _KEYS if key.encode() in content]
    return "; ".join(dict.fromkeys(found)) or None


def _config_values(key: str, value: Any) -> list[str]:
    show = _KEYS.get(key)
    return [show(value)] if show is not None and value else []


def _adapter_values(key: str, value: Any) -> list[str]:
    if key == "base_model_name_or_path" and value:
        return [f"loads another model, {value!r}, which is not looked at"]
    return _config_values(key, value)


def _index_values(key: str, value: Any) -> list[str]:
    if key != "weight_map" or not isinstance(value, dict):
        return []
    names = {name for name in value.values() if isinstance(name, str)}
    outside = sorted(name for name in names if name.startswith("/") or ".." in PurePosixPath(name).parts)
    return [f"leads out of the repository, to {outside[0]!r}"] if outside else []


def _auto_map(value: Any) -> str:
    if not isinstance(value, dict):
        return "auto_map"
    return "auto_map: " + ", ".join(f"{name} = {target}" for name, target in value.items())


_KEYS: dict[str, Callable[[Any], str]] = {
    "auto_map": _auto_map,
    "custom_pipelines": lambda value: "custom_pipelines: " + ", ".join(map(str, value)),
    "custom_generate": lambda value: f"custom_generate: {value}",
    "trust_remote_code": lambda value: f"trust_remote_code: {json.dumps(value)}",
}


def _shortened(text: str) -> str:
    clean = " ".join(text.split())
    return clean if len(clean) <= _LONGEST_SHOWN else f"{clean[:_LONGEST_SHOWN]}..."
