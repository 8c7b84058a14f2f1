"""What is written for cog-triton and for the backend's fill_template.py."""

from __future__ import annotations

import re
from dataclasses import replace
from string import Template
from typing import Any

import pytest
import yaml

from trt_llm_pipeline.engine.limits import EngineLimits
from trt_llm_pipeline.errors import BadArgument
from trt_llm_pipeline.inspection.consumer_configs import (
    cog_triton_config,
    notes,
    template_values,
    values_text,
)

ENGINE = EngineLimits(16, 1, 4096, in_flight=True, missing=())
STATIC = replace(ENGINE, in_flight=False, missing=("paged_kv_cache",))
MODELS = ["preprocessing", "tensorrt_llm", "postprocessing", "ensemble", "tensorrt_llm_bls"]


def server(text: str) -> dict[str, Any]:
    """The part that cog-triton fills its templates from, read as its predict.py reads it."""
    config = yaml.safe_load(text)
    assert "server" in config["instantiate"]
    server: dict[str, Any] = config["instantiate"]["server"]
    return server


class TestCogTriton:
    """config.yaml."""

    def test_has_args_for_each_model_of_its_repository(self) -> None:
        assert list(server(cog_triton_config(ENGINE, {}))) == MODELS

    def test_sizes_and_directories_are_the_engine_s(self) -> None:
        found = server(cog_triton_config(ENGINE, {}, "/engines/a"))
        assert {part["args"]["triton_max_batch_size"] for part in found.values()} == {16}
        assert found["tensorrt_llm"]["args"]["engine_dir"] == "/engines/a"
        assert found["preprocessing"]["args"]["tokenizer_dir"] == "/engines/a"
        assert found["postprocessing"]["args"]["tokenizer_dir"] == "/engines/a"

    def test_its_templates_are_filled_to_what_triton_reads(self) -> None:
        args = server(cog_triton_config(ENGINE, {}))["tensorrt_llm"]["args"]
        filled = Template("decoupled: ${decoupled_mode} ${batching_strategy}").safe_substitute(args)
        assert filled == "decoupled: True inflight_fused_batching"
        fraction = Template('"${kv_cache_free_gpu_mem_fraction}"').safe_substitute(args)
        assert fraction == '"0.9"'

    def test_processes_for_tokenizing_are_bounded(self) -> None:
        many = server(cog_triton_config(replace(ENGINE, max_batch_size=2048), {}))
        assert many["preprocessing"]["args"]["preprocessing_instance_count"] == 64
        assert many["preprocessing"]["args"]["triton_max_batch_size"] == 2048

    def test_what_its_environment_needs_is_in_a_comment(self) -> None:
        text = cog_triton_config(ENGINE, {"WORLD_SIZE": "2"}, "/engines/a")
        assert "# Set in its environment: WORLD_SIZE=2 ENGINE_DIR=/engines/a\n" in text
        assert "# Set in its environment" not in cog_triton_config(ENGINE, {})


class TestValues:
    """key:value,key:value."""

    def test_can_be_split_as_the_script_splits_them(self) -> None:
        values = template_values(ENGINE, "/engines/a")
        split = dict(part.split(":") for part in values_text(values).split(","))
        assert split == values
        assert (split["triton_max_batch_size"], split["engine_dir"]) == ("16", "/engines/a")
        assert (split["decoupled_mode"], split["kv_cache_free_gpu_mem_fraction"]) == ("True", "0.9")

    @pytest.mark.parametrize(
        ("place", "what"),
        [
            ("s3://engines/a", "a colon"),
            ("/a,b", "a comma"),
            ("C\\a", "a backslash"),
            ("/a\nb", "a line's end"),
        ],
    )
    def test_a_value_that_the_script_would_split_is_refused(self, place: str, what: str) -> None:
        with pytest.raises(BadArgument, match=rf"engine_dir is .* has {what} in it") as refused:
            values_text(template_values(ENGINE, place))
        assert "--engine-dir" in str(refused.value)

    def test_names_are_names(self) -> None:
        assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in template_values(ENGINE))


class TestAnEngineThatCannotBatchInFlight:
    """One batch after the other, and no streaming."""

    def test_is_served_so_and_said_to_be(self) -> None:
        values = template_values(STATIC)
        assert (values["batching_strategy"], values["decoupled_mode"]) == ("V1", "False")
        assert server(cog_triton_config(STATIC, {}))["tensorrt_llm"]["args"]["decoupled_mode"] is False
        (note,) = notes(STATIC)
        assert "without paged_kv_cache" in note
        assert note.endswith("build the engine with it")
        (note,) = notes(replace(STATIC, missing=("paged_kv_cache", "remove_input_padding")))
        assert note.endswith("build the engine with them")
        assert notes(ENGINE) == []
