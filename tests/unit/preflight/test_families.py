"""A model of another type than the example's scripts are for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trt_llm_pipeline.config import loads
from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.plan import Plan, make_plan
from trt_llm_pipeline.preflight.families import unsuited
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

CONFIG = """
model_id: owner/model
example_name: gpt
build:
  {program}
  output_dir: ./engine
"""


def planned(workspace: Workspace, toolchain: Toolchain, program: str = "script: build.py") -> Plan:
    plan, mistakes = make_plan(loads(CONFIG.format(program=program), "my.yaml"), toolchain, workspace)
    assert mistakes == []
    return plan


def test_the_example_for_the_type_is_named(workspace: Workspace, miniature: Toolchain) -> None:
    assert unsuited(planned(workspace, miniature), {"model_type": "llama"}) == (
        "the scripts of the example gpt are for models of type gpt2 and gpt_bigcode, "
        "as far as is known here, and owner/model is of type llama; the example for those is llama"
    )


@pytest.mark.parametrize("kind", ["gpt2", "gpt_bigcode", "a_new_one", None, 7])
def test_nothing_is_said_of_what_suits_or_is_not_known(
    workspace: Workspace, miniature: Toolchain, kind: object
) -> None:
    assert unsuited(planned(workspace, miniature), {"model_type": kind}) is None


@pytest.mark.parametrize("program", ["executable: trtllm-build", "script: ../quantization/quantize.py"])
def test_scripts_that_are_not_the_examples_take_every_type(
    workspace: Workspace, miniature: Toolchain, program: str
) -> None:
    assert unsuited(planned(workspace, miniature, program), {"model_type": "llama"}) is None


def test_what_a_toolchain_says_that_it_takes_no_more_than_is_a_mistake(
    workspace: Workspace, miniature: Toolchain
) -> None:
    strict = replace(miniature, models={"gpt": ("gpt2",), "llama": ("llama",)})
    plan = planned(workspace, strict)
    assert unsuited(plan, {"model_type": "gpt2"}) is None
    with pytest.raises(ConfigError) as raised:
        unsuited(plan, {"model_type": "llama"})
    (mistake,) = raised.value.mistakes
    assert (mistake.key, mistake.line) == ("example_name", 3)
    assert mistake.message == (
        "the example gpt of the miniature 1.0 toolchain builds models of type gpt2, and owner/model is of "
        "type llama; the example for those is llama"
    )
    with pytest.raises(ConfigError, match="name a model of another type"):
        unsuited(plan, {"model_type": "bloom"})


def test_it_is_the_scripts_own_example_that_counts(workspace: Workspace, miniature: Toolchain) -> None:
    strict = replace(miniature, models={"gpt": ("gpt2",), "llama": ("llama",)})
    plan = planned(workspace, strict, "script: ../llama/build.py")
    assert unsuited(plan, {"model_type": "llama"}) is None
    with pytest.raises(ConfigError) as raised:
        unsuited(plan, {"model_type": "gpt2"})
    (mistake,) = raised.value.mistakes
    assert (mistake.key, mistake.line) == ("build.script", 5)
    assert mistake.message.startswith(
        "the example llama of the miniature 1.0 toolchain builds models of type"
    )
