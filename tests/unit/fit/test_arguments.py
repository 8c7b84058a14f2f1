"""What the options of the scripts say of an engine."""

from __future__ import annotations

from typing import Any

import pytest

from trt_llm_pipeline.fit import EngineArguments, read_arguments


def read(
    stored: str | None = "float16", scripts: dict[str, str] | None = None, **steps: Any
) -> EngineArguments:
    return read_arguments(steps, scripts or {}, stored)


class TestParallelism:
    """How many ranks share the model."""

    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            ({"build": {}}, (1, 1)),
            ({"build": {"world_size": "4", "tp_size": "4"}}, (4, 1)),
            ({"build": {"world_size": "4", "tp_size": "2", "pp_size": "2"}}, (2, 2)),
            ({"build": {"world_size": "4"}}, (4, 1)),
            ({"build": {"world_size": "4", "pp_size": "2"}}, (2, 2)),
            ({"convert_to_ft": {"tensor-parallelism": "8"}, "build": {}}, (8, 1)),
            ({"convert_to_ft": {"-tp": "2"}, "build": {}}, (2, 1)),
            ({"convert_to_ft": {"tp_size": "2"}, "build": {"workers": "2"}}, (2, 1)),
            ({"quantize": {"tp_size": "4", "qformat": "fp8"}, "build": {}}, (4, 1)),
            ({"build": {"tp_size": "many"}}, (1, 1)),
        ],
    )
    def test_is_read(self, steps: dict[str, Any], expected: tuple[int, int]) -> None:
        found = read(**steps)
        assert (found.tp, found.pp) == expected


class TestTypes:
    """Of what is not quantized, of the matrices, and of the KV cache."""

    @pytest.mark.parametrize(
        ("steps", "dtype"),
        [
            ({"build": {"dtype": "bfloat16"}}, "bfloat16"),
            ({"convert_to_ft": {"dtype": "float32"}, "build": {}}, "float32"),
            ({"convert_to_ft": {"storage-type": "fp16"}, "build": {"dtype": "bfloat16"}}, "float16"),
            ({"convert_to_ft": {"-t": "bfloat16"}, "build": {}}, "bfloat16"),
            ({"convert_to_ft": {"dtype": "auto"}, "build": {}}, "bfloat16"),
        ],
    )
    def test_dtype(self, steps: dict[str, Any], dtype: str) -> None:
        found = read("bfloat16", **steps)
        assert (found.dtype, found.kv, found.assumed) == (dtype, dtype, ())

    def test_auto_never_means_float32(self) -> None:
        assert read("float32", build={"dtype": "auto"}).dtype == "float16"

    def test_hf_gpt_convert_stores_float32_where_nothing_says(self) -> None:
        scripts = {"convert_to_ft": "hf_gpt_convert.py"}
        assert read(scripts=scripts, convert_to_ft={}, build={"dtype": "float16"}).dtype == "float32"

    @pytest.mark.parametrize("args", [{}, {"dtype": "float8"}])
    def test_what_is_assumed_is_said(self, args: dict[str, Any]) -> None:
        found = read(build=args)
        assert found.dtype == "float16"
        assert len(found.assumed) == 1
        assert "taken to be float16" in found.assumed[0]

    @pytest.mark.parametrize(
        ("steps", "weights"),
        [
            ({"build": {"use_weight_only": True}}, "int8"),
            ({"build": {"use_weight_only": True, "weight_only_precision": "int4"}}, "int4"),
            ({"build": {"use_weight_only": True, "weight_only_precision": "int4_gptq"}}, "int4_groups"),
            ({"convert_to_ft": {"use_weight_only": True}, "build": {}}, "int8"),
            ({"build": {"use_weight_only": False}}, "float"),
            ({"build": {"use_weight_only": "False"}}, "float"),
            ({"convert_to_ft": {"smoothquant": "0.8"}, "build": {"use_smooth_quant": True}}, "int8"),
            ({"convert_to_ft": {"-sq": "0.5"}, "build": {}}, "int8"),
            ({"build": {"enable_fp8": True}}, "fp8"),
            ({"quantize": {"qformat": "fp8"}, "build": {}}, "fp8"),
            ({"quantize": {"qformat": "int4_awq"}, "build": {}}, "int4_groups"),
            ({"quantize": {"qformat": "int8_sq"}, "build": {}}, "int8"),
            ({"quantize": {"qformat": "full_prec"}, "build": {}}, "float"),
            ({"quantize": {"qformat": "nvfp4"}, "build": {}}, "nvfp4"),
            ({"build": {"dtype": "float16"}}, "float"),
        ],
    )
    def test_weights(self, steps: dict[str, Any], weights: str) -> None:
        assert read(**steps).weights == weights

    @pytest.mark.parametrize(
        ("steps", "kv"),
        [
            ({"build": {"dtype": "bfloat16"}}, "bfloat16"),
            ({"build": {"dtype": "float16", "int8_kv_cache": True}}, "int8"),
            ({"build": {"dtype": "float16", "fp8_kv_cache": True}}, "fp8"),
            ({"quantize": {"dtype": "float16", "kv_cache_dtype": "fp8"}, "build": {}}, "fp8"),
            ({"quantize": {"dtype": "float16", "kv_cache_dtype": "int8"}, "build": {}}, "int8"),
            ({"convert_to_ft": {"dtype": "float16", "int8_kv_cache": True}, "build": {}}, "int8"),
            # It measures the scales; what the cache is, the build decides.
            ({"convert_to_ft": {"calibrate-kv-cache": True}, "build": {"dtype": "float16"}}, "float16"),
        ],
    )
    def test_kv_cache(self, steps: dict[str, Any], kv: str) -> None:
        assert read(**steps).kv == kv


class TestLengths:
    """How many tokens a request has."""

    @pytest.mark.parametrize(
        ("args", "length"),
        [
            ({"max_input_len": "2048", "max_output_len": "512"}, 2560),
            ({"max_input_len": "2048", "max_seq_len": "8192"}, 8192),
            ({"max_input_len": "2048"}, None),
            ({}, None),
            ({"max_seq_len": "0"}, None),
            ({"max_seq_len": "9" * 40}, 999_999_999_999_999),
        ],
    )
    def test_is_read(self, args: dict[str, str], length: int | None) -> None:
        found = read(build=args)
        assert found.length == (None if length and length > 1 << 40 else length)

    def test_the_build_wins_over_earlier_steps(self) -> None:
        found = read(
            convert_to_ft={"max_batch_size": "1"}, build={"max_batch_size": "16", "max_beam_width": "4"}
        )
        assert (found.max_batch_size, found.max_beam_width) == (16, 4)
