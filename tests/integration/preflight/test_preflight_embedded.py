"""What the embedded toolchain cannot build is said by its scripts' own parsers, before the download."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.preflight import Validated, validate
from trt_llm_pipeline.settings import Settings

UNIFIED = (ROOT / "examples" / "llama" / "llama-2-7b-chat-fp16-1gpu-trtllm-build.yaml").read_text()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    env = {**os.environ, "TRTLLM_DIR": str(ROOT / "cpu_toolchain")}
    return Settings.from_env(env, workspace=tmp_path / "workspace")


def checked(settings: Settings, text: str) -> Validated:
    return validate(text, "c.yaml", settings)


def mistakes(settings: Settings, text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        checked(settings, text)
    return [mistake.render("c.yaml") for mistake in refused.value.mistakes]


def test_every_limit_of_one_script_with_its_line(settings: Settings) -> None:
    text = (ROOT / "examples" / "llama" / "llama-2-70b-chat-fp16-4gpu.yaml").read_text()
    line = {key: 1 + text[: text.index(f"    {key}:")].count("\n") for key in ("world_size", "tp_size")}
    one_rank = "4 is not supported; a CPU engine has one rank"
    assert mistakes(settings, text) == [
        f"c.yaml:{line[key]}: build.args.{key}: --{key}: {one_rank}" for key in ("world_size", "tp_size")
    ]


def test_limits_beside_a_value_that_is_none(settings: Settings) -> None:
    text = UNIFIED.replace("max_batch_size: 8", "max_beam_width: 3\n    streamingllm: enable")
    found = mistakes(settings, text.replace("max_input_len: 2048", "max_input_len: many"))
    assert len(found) == 3
    assert "--max_beam_width: 3: a CPU engine decodes greedily" in found[0]
    assert "--streamingllm: needs a GPU" in found[1]
    assert "--max_input_len: invalid int value 'many'" in found[2]


def test_a_release_that_only_another_script_follows_is_refused(settings: Settings) -> None:
    wanted = 'requires_trt_llm: "==0.7.1"'
    (found,) = mistakes(settings, UNIFIED.replace('requires_trt_llm: ">=0.9,<0.13"', wanted))
    assert "TensorRT-LLM ==0.7.1 is required, but trtllm-build of step build" in found
    assert "follows 0.9.0" in found


def test_a_success_says_what_it_was_checked_against(settings: Settings) -> None:
    found = checked(settings, UNIFIED)
    assert found.in_words() == (
        f"OK for cpu toolchain (trtllm-build of 0.9.0): 2 steps, {found.options} options"
    )
    assert found.options == UNIFIED.count("\n    ") - UNIFIED.count("\n    #")
