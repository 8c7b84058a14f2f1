"""What an engine's config.json says to a server, in every release's words."""

from __future__ import annotations

from typing import Any

import pytest

from trt_llm_pipeline.engine.limits import engine_limits, max_length
from trt_llm_pipeline.errors import ArtifactError

FLIGHT = {"gpt_attention_plugin": "float16", "remove_input_padding": True, "paged_kv_cache": True}


def legacy(plugins: dict[str, Any] | None = None, **builder: Any) -> dict[str, Any]:
    """As build.py of 0.7.1 writes it."""
    limits = {"max_batch_size": 8, "max_beam_width": 1, "max_input_len": 2048, "max_output_len": 512}
    return {"builder_config": {**limits, **builder}, "plugin_config": FLIGHT if plugins is None else plugins}


def unified(plugins: dict[str, Any] | None = None, **build: Any) -> dict[str, Any]:
    """As trtllm-build writes it from 0.8 on."""
    limits = {"max_batch_size": 16, "max_beam_width": 4, "max_input_len": 1024, "max_seq_len": 4096}
    plugin_config = FLIGHT if plugins is None else plugins
    return {
        "version": "0.11.0",
        "pretrained_config": {},
        "build_config": {**limits, "plugin_config": plugin_config, **build},
    }


def test_both_generations_are_read() -> None:
    old, new = engine_limits(legacy(), "x"), engine_limits(unified(), "x")
    assert (old.max_batch_size, old.max_beam_width, old.max_length, old.in_flight) == (8, 1, 2560, True)
    assert (new.max_batch_size, new.max_beam_width, new.max_length, new.in_flight) == (16, 4, 4096, True)


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        (legacy({**FLIGHT, "paged_kv_cache": False}), ("paged_kv_cache",)),
        (legacy({**FLIGHT, "gpt_attention_plugin": False}), ("gpt_attention_plugin",)),
        (legacy({}), ("gpt_attention_plugin", "remove_input_padding", "paged_kv_cache")),
        (unified({**FLIGHT, "remove_input_padding": "disable"}), ("remove_input_padding",)),
        (unified({**FLIGHT, "paged_kv_cache": "enable"}), ()),
        (unified({**FLIGHT, "gpt_attention_plugin": "auto"}), ()),
        (unified({**FLIGHT, "paged_kv_cache": False}, kv_cache_type="PAGED"), ()),
        (unified(FLIGHT, kv_cache_type="CONTINUOUS"), ("paged_kv_cache",)),
        (unified([]), ("gpt_attention_plugin", "remove_input_padding", "paged_kv_cache")),  # type: ignore[arg-type]
    ],
)
def test_batching_in_flight_needs_three_things(config: dict[str, Any], missing: tuple[str, ...]) -> None:
    found = engine_limits(config, "x")
    assert (found.missing, found.in_flight) == (missing, not missing)


@pytest.mark.parametrize(
    "config", [{}, {"builder_config": []}, legacy(max_batch_size=0), unified(max_batch_size="8")]
)
def test_without_a_batch_size_nothing_can_be_set_up(config: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=r"engine\.tar\.gz: its config\.json says no max_batch_size"):
        engine_limits(config, "engine.tar.gz")


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (legacy(), 2560),
        (unified(), 4096),
        (unified(max_seq_len=None, max_output_len=24), 1048),
        (unified(max_seq_len=None), None),
        ({}, None),
    ],
)
def test_length_is_the_whole_sequence_s(config: dict[str, Any], length: int | None) -> None:
    assert max_length(config) == length
