"""What an engine's own `config.json` says that a server must be set to: batch sizes, lengths, batching.

Up to TensorRT-LLM 0.7.1 it holds `builder_config` and beside it `plugin_config`; from 0.8 on `build_config`,
with `plugin_config` inside it and, from 0.13 on, `kv_cache_type`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trt_llm_pipeline.errors import ArtifactError

#: The share of the memory left by the weights that Triton's backend gives to the KV cache by default
#: (`kv_cache_free_gpu_mem_fraction`).
KV_FRACTION = 0.9

_OFF = frozenset({"", "0", "false", "disable", "disabled", "none"})
_FOR_FLIGHT = ("gpt_attention_plugin", "remove_input_padding")


@dataclass(frozen=True)
class EngineLimits:
    """What a server has to know of an engine.

    Attributes:
        max_batch_size: requests that it takes at once.
        max_beam_width: sequences that a request can be continued with.
        max_length: prompt and answer together, in tokens; None where it does not say.
        in_flight: whether requests can join and leave a running batch, which streaming needs.
        missing: what it was built without, where they cannot.
    """

    max_batch_size: int
    max_beam_width: int
    max_length: int | None
    in_flight: bool
    missing: tuple[str, ...]


def engine_limits(config: Mapping[str, Any], where: str) -> EngineLimits:
    """Reads an engine's `config.json`.

    Args:
        config: its content.
        where: what to call it in messages.

    Raises:
        ArtifactError: it does not say how many requests the engine takes at once.
    """
    limits = _mapping(config, "build_config") or _mapping(config, "builder_config")
    batch = whole_number(limits.get("max_batch_size"))
    if batch is None:
        raise ArtifactError(
            f"{where}: its config.json says no max_batch_size, in build_config or builder_config, so no "
            "server can be set up for it; build the engine again"
        )
    plugins = _mapping(limits, "plugin_config") or _mapping(config, "plugin_config")
    missing = [name for name in _FOR_FLIGHT if not _is_on(plugins.get(name))]
    cache = limits.get("kv_cache_type")
    paged = cache.lower() == "paged" if isinstance(cache, str) else _is_on(plugins.get("paged_kv_cache"))
    missing += [] if paged else ["paged_kv_cache"]
    return EngineLimits(
        max_batch_size=batch,
        max_beam_width=whole_number(limits.get("max_beam_width")) or 1,
        max_length=max_length(config),
        in_flight=not missing,
        missing=tuple(missing),
    )


def max_length(config: Mapping[str, Any]) -> int | None:
    """The most tokens of prompt and answer together that the engine was built for; None where nothing says.

    `max_seq_len` from TensorRT-LLM 0.11, `max_input_len` and `max_output_len` before.
    """
    for name in ("build_config", "builder_config"):
        limits = _mapping(config, name)
        whole = whole_number(limits.get("max_seq_len"))
        prompt, answer = whole_number(limits.get("max_input_len")), whole_number(limits.get("max_output_len"))
        if whole is not None:
            return whole
        if prompt is not None and answer is not None:
            return prompt + answer
    return None


def whole_number(value: object) -> int | None:
    """A number above 0, as JSON writes it; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 53 else None


def _mapping(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _is_on(value: object) -> bool:
    """A plugin is a bool, a type's name, or `enable` and `disable`, by release."""
    return value.lower() not in _OFF if isinstance(value, str) else value is True
