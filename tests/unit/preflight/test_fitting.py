"""Which machine and which GPUs an engine is tried on, and whose fault it is where it does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.fit.known import known
from trt_llm_pipeline.config import loads
from trt_llm_pipeline.errors import DoesNotFit
from trt_llm_pipeline.fit import find_gpu
from trt_llm_pipeline.plan import Plan, make_plan
from trt_llm_pipeline.preflight.fitting import Fitting, facts_of, fitting, refuse
from trt_llm_pipeline.process.gpus import Gpu
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.toolchain import Toolchain

CONFIG = """
model_id: owner/model
example_name: llama
convert_checkpoint:
  script: convert_checkpoint.py
  output_dir: ./checkpoint
  args:
    tp_size: 2
    dtype: float16
build:
  executable: trtllm-build
  output_dir: ./engine
  args:
    workers: ${convert_to_ft.args.tp_size}
    max_batch_size: 8
    max_seq_len: 4096
"""
L40S = Gpu(0, "NVIDIA L40S", "8.9", find_gpu("L40S").memory_bytes)
A10 = Gpu(1, "NVIDIA A10", "8.6", find_gpu("A10").memory_bytes)


class Planned:
    """A plan of the config above for a model that is on the disk."""

    def __init__(
        self, tmp_path: Path, toolchain: Toolchain, model: str = "Llama 2 7B", text: str = CONFIG
    ) -> None:
        self.settings = Settings.from_env({"HF_HUB_OFFLINE": "1"}, tmp_path / "ws")
        self.plan: Plan = make_plan(loads(text, "my.yaml"), toolchain, self.settings.workspace)[0]
        self.plan.model_dir.mkdir(parents=True)
        (self.plan.model_dir / "config.json").write_text(json.dumps(known(model).config))

    def fitting(self, *gpus: Gpu) -> Fitting:
        return fitting(self.plan, self.settings, gpus=gpus)


def names(found: Fitting) -> list[tuple[str, int | None]]:
    assert found.assessment is not None
    devices = [verdict.room.device for verdict in found.assessment.verdicts]
    return [(device.name, device.count) for device in devices]


class TestDevices:
    """What it is tried on."""

    def test_is_each_kind_of_gpu_that_the_machine_has(self, tmp_path: Path, miniature: Toolchain) -> None:
        found = Planned(tmp_path, miniature).fitting(L40S, A10, replace(L40S, index=2))
        assert names(found) == [("NVIDIA L40S", 2), ("NVIDIA A10", 1)]

    def test_is_the_machine_for_a_cpu_engine_whatever_gpus_there_are(
        self, tmp_path: Path, miniature: Toolchain
    ) -> None:
        found = Planned(tmp_path, replace(miniature, name="cpu")).fitting(L40S)
        assert names(found) == [("this machine", None)]

    def test_is_nothing_where_there_is_no_gpu(self, tmp_path: Path, miniature: Toolchain) -> None:
        found = Planned(tmp_path, miniature, "Llama 2 70B").fitting()
        assert (names(found), found.possible) == ([], True)


class TestArguments:
    """Of every step, with references replaced."""

    def test_are_those_of_the_conversion_too(self, tmp_path: Path, miniature: Toolchain) -> None:
        found = Planned(tmp_path, miniature).fitting(L40S).assessment
        assert found is not None
        assert (found.arguments.tp, found.arguments.dtype, found.need.tokens) == (2, "float16", 8 * 4096)
        assert found.disk == 2 * found.need.weights  # a checkpoint and an engine

    def test_references_lead_to_values(self, tmp_path: Path, miniature: Toolchain) -> None:
        text = CONFIG.replace("max_seq_len: 4096", "max_seq_len: ${build.args.other}\n    other: 512")
        found = Planned(tmp_path, miniature, text=text).fitting(L40S).assessment
        assert found is not None
        assert found.arguments.length == 512


class TestRefusing:
    """The config's mistake, at the key that decides on how many ranks share the weights."""

    def test_is_at_that_key_s_line(self, tmp_path: Path, miniature: Toolchain) -> None:
        planned = Planned(tmp_path, miniature, "Llama 2 70B")
        with pytest.raises(DoesNotFit) as refused:
            refuse(planned.plan, planned.fitting(A10))
        mistakes = {(mistake.line, mistake.key) for mistake in refused.value.mistakes}
        assert mistakes == {(8, "convert_checkpoint.args.tp_size")}
        assert refused.value.source == "my.yaml"

    def test_is_at_the_model_where_no_key_decides(self, tmp_path: Path, miniature: Toolchain) -> None:
        text = CONFIG.replace("    tp_size: 2\n", "").replace(
            "    workers: ${convert_to_ft.args.tp_size}\n", ""
        )
        planned = Planned(tmp_path, miniature, "Llama 2 70B", text)
        with pytest.raises(DoesNotFit, match=r"my\.yaml:2: model_id: the weights alone take"):
            refuse(planned.plan, planned.fitting(A10))

    def test_is_not_done_to_what_might_fit(self, tmp_path: Path, miniature: Toolchain) -> None:
        planned = Planned(tmp_path, miniature, "Qwen2.5 0.5B")
        found = planned.fitting(replace(A10, memory_bytes=750_000_000))
        refuse(planned.plan, found)
        assert any("room for the KV cache" in note for note in found.notes)

    def test_is_not_done_for_this_machine_where_another_s_gpu_was_named(
        self, tmp_path: Path, miniature: Toolchain
    ) -> None:
        planned = Planned(tmp_path, miniature, "Llama 2 70B")
        asked = fitting(planned.plan, planned.settings, gpu=find_gpu("H200"), gpus=[])
        assert asked.possible
        assert not fitting(planned.plan, planned.settings, gpu=find_gpu("A10"), gpus=[]).possible


class TestFacts:
    """What a manifest says."""

    def test_are_the_model_s_and_the_config_s(self, tmp_path: Path, miniature: Toolchain) -> None:
        planned = Planned(tmp_path, miniature)
        facts = facts_of(planned.plan, planned.plan.model_dir)
        assert facts is not None
        assert (facts["parameters"], facts["tensor_parallelism"]) == (known("Llama 2 7B").parameters, 2)

    @pytest.mark.parametrize("content", ["", "[]", '{"model_type": "mamba"}'])
    def test_are_none_where_nothing_is_known(
        self, tmp_path: Path, miniature: Toolchain, content: str
    ) -> None:
        planned = Planned(tmp_path, miniature)
        (planned.plan.model_dir / "config.json").write_text(content)
        assert facts_of(planned.plan, planned.plan.model_dir) is None
        assert len(planned.fitting(L40S).notes) == 1
