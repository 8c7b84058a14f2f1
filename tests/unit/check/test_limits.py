"""How an engine may be asked is read from its config.json, of either generation, or of neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trt_llm_pipeline.check.limits import Limits, limits


def of(folder: Path, config: Any) -> Limits:
    (folder / "config.json").write_text(json.dumps(config))
    return limits(folder, 16)


def test_up_to_0_7_1(tmp_path: Path) -> None:
    built = {
        "max_batch_size": 8,
        "max_input_len": 200,
        "max_output_len": 10,
        "vocab_size": 50257,
        "precision": "bfloat16",
    }
    assert of(tmp_path, {"builder_config": built}) == Limits(8, 200, 10, 50257, "bfloat16")


def test_a_config_behind_a_link_is_read(tmp_path: Path) -> None:
    """As a check has it, where an engine and its tokenizer are put together."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "together").mkdir()
    (tmp_path / "engine" / "config.json").write_text(json.dumps({"builder_config": {"max_output_len": 4}}))
    (tmp_path / "together" / "config.json").symlink_to(tmp_path / "engine" / "config.json")
    assert limits(tmp_path / "together", 16).output_len == 4


def test_0_9(tmp_path: Path) -> None:
    config = {
        "pretrained_config": {"vocab_size": 32000, "dtype": "float16", "quantization": {"quant_algo": None}},
        "build_config": {"max_batch_size": 2, "max_input_len": 1024, "max_output_len": 1024},
    }
    assert of(tmp_path, config) == Limits(2, 1024, 16, 32000, "float16")


def test_a_sequence_length_bounds_both(tmp_path: Path) -> None:
    found = of(
        tmp_path, {"pretrained_config": {}, "build_config": {"max_input_len": 1024, "max_seq_len": 40}}
    )
    assert (found.input_len, found.output_len) == (24, 16)


def test_the_model_bounds_both_too(tmp_path: Path) -> None:
    built = {"max_input_len": 1024, "max_output_len": 1024}
    model = {"max_position_embeddings": 100}
    found = of(tmp_path, {"pretrained_config": model, "build_config": built})
    assert (found.input_len, found.output_len, found.length) == (84, 16, 100)
    found = of(tmp_path, {"builder_config": {**built, **model}})
    assert (found.input_len, found.length) == (84, 100)


def test_few_tokens_at_a_time(tmp_path: Path) -> None:
    built = {"max_batch_size": 256, "max_num_tokens": 128}
    assert of(tmp_path, {"pretrained_config": {}, "build_config": built}).batch_size == 2


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        ({"quant_algo": "W8A16"}, "int8"),
        ({"quant_algo": "W4A16_AWQ"}, "int4"),
        ({"quant_algo": "W8A8_SQ_PER_CHANNEL"}, "int8"),
        ({"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, "fp8"),
        ({"quant_algo": None, "kv_cache_quant_algo": "INT8"}, "int8"),
        ({}, "float32"),
    ],
)
def test_precision_of_later_releases(tmp_path: Path, quantization: Any, precision: str) -> None:
    model = {"dtype": "float32", "quantization": quantization}
    assert of(tmp_path, {"pretrained_config": model, "build_config": {}}).precision == precision


@pytest.mark.parametrize(
    ("built", "precision"),
    [
        ({"precision": "float32", "quant_mode": 2}, "int8"),
        ({"precision": "float32", "quant_mode": 1}, "int4"),
        ({"precision": "float16", "quant_mode": 64}, "int8"),
        ({"precision": "float16", "quant_mode": 256}, "fp8"),
        ({"precision": "float16", "int8": True}, "int8"),
        ({"precision": "float16", "quant_mode": 0, "int8": False}, "float16"),
        ({"precision": "strange"}, "float16"),
    ],
)
def test_precision_of_earlier_releases(tmp_path: Path, built: Any, precision: str) -> None:
    assert of(tmp_path, {"builder_config": built}).precision == precision


@pytest.mark.parametrize(
    "config", [{}, [], "x", {"build_config": 7}, {"builder_config": {"max_batch_size": -1}}]
)
def test_what_it_does_not_say_it_does_not_limit(tmp_path: Path, config: Any) -> None:
    assert of(tmp_path, config) == Limits(1, None, 16, None, "float16")


def test_without_a_file(tmp_path: Path) -> None:
    assert limits(tmp_path, 16) == Limits(1, None, 16, None, "float16")
