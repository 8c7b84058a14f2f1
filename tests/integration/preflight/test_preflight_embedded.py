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

MISTYPED = (
    ("gpt/config.yaml", "model_dir"),
    ("gpt/gpt2-medium-trtllm-build.yaml", "model_dir"),
    ("llama/llama-2-7b-chat-fp16-1gpu-trtllm-build.yaml", "checkpoint_dir"),
)


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


def line_of(text: str, option: str) -> int:
    return 1 + text[: text.index(f"    {option}:")].count("\n")


def test_every_limit_of_one_script_with_its_line(settings: Settings) -> None:
    text = (ROOT / "examples" / "llama" / "llama-2-70b-chat-fp16-4gpu.yaml").read_text()
    line = {key: line_of(text, key) for key in ("world_size", "tp_size")}
    one_rank = "4 is not supported; a CPU engine has one rank"
    assert mistakes(settings, text) == [
        f"c.yaml:{line[key]}: build.args.{key}: --{key}: {one_rank}" for key in ("world_size", "tp_size")
    ]


def test_a_conversion_for_more_ranks_is_refused(settings: Settings) -> None:
    text = (ROOT / "examples" / "gpt" / "config.yaml").read_text()
    text = text.replace("tensor-parallelism: 1", "tensor-parallelism: 2")
    line = line_of(text, "tensor-parallelism")
    assert mistakes(settings, text) == [
        f"c.yaml:{line}: convert_to_ft.args.tensor-parallelism: 2 ranks, but engines of the cpu toolchain "
        "run on 1; write 1"
    ]
    found = mistakes(settings, UNIFIED.replace("    dtype: float16", "    dtype: float16\n    tp_size: 2", 1))
    assert [each.partition(": ")[2] for each in found] == [
        "convert_to_ft.args.tp_size: 2 ranks, but engines of the cpu toolchain run on 1; write 1"
    ]


@pytest.mark.parametrize(
    ("written", "mistyped", "said"),
    [
        ("executable: trtllm-build", "executable: trtllm-biuld", "build.executable: 'trtllm-biuld' is not"),
        ("executable: trtllm-build", "scrpit: build.py", "build.scrpit: is not a known key"),
    ],
)
def test_a_mistyped_program_is_the_only_mistake(
    settings: Settings, written: str, mistyped: str, said: str
) -> None:
    """No other program is asked in its place for options that it does not have."""
    (found,) = mistakes(settings, UNIFIED.replace(written, mistyped))
    assert said in found


def test_another_wrong_key_of_a_step_hides_no_mistyped_option(settings: Settings) -> None:
    text = UNIFIED.replace("executable: trtllm-build", "executable: trtllm-build\n  timeout: soon")
    assert "timeout: soon" in text
    found = mistakes(settings, text.replace("max_batch_size:", "max_bach_size:"))
    assert len([each for each in found if "timeout" in each]) == 1
    assert any("has no option --max_bach_size" in each for each in found)


def test_args_under_another_name_are_one_mistake(settings: Settings) -> None:
    head, last, tail = UNIFIED.rpartition("  args:\n")
    (found,) = mistakes(settings, f"{head}  arguments:\n{tail}")
    assert last
    assert "build.arguments: is not a known key" in found


def test_a_checkpoint_for_more_ranks_is_told_by_its_directory(settings: Settings) -> None:
    text = (ROOT / "examples" / "gpt" / "config.yaml").read_text()
    text = text.replace("1-gpu", "2-gpu")
    line = line_of(text, "model_dir")
    assert mistakes(settings, text) == [
        f"c.yaml:{line}: build.args.model_dir: --model_dir: ./c-model/gpt2/2-gpu is what tensor parallelism "
        "2 is written to; a CPU engine has one rank: convert with --tensor-parallelism 1 and name its 1-gpu"
    ]


def test_limits_beside_a_value_that_is_none(settings: Settings) -> None:
    text = UNIFIED.replace("max_batch_size: 8", "max_beam_width: 3\n    streamingllm: enable")
    found = mistakes(settings, text.replace("max_input_len: 2048", "max_input_len: many"))
    assert len(found) == 3
    assert "--max_beam_width: 3: a CPU engine decodes greedily" in found[0]
    assert "--streamingllm: needs a GPU" in found[1]
    assert "--max_input_len: invalid int value 'many'" in found[2]


@pytest.mark.parametrize(("example", "option"), MISTYPED)
def test_a_mistyped_option_that_the_script_asks_for_is_named(
    settings: Settings, example: str, option: str
) -> None:
    """The script refuses what is missing at the end of its parse, before it is given what nobody took."""
    text = (ROOT / "examples" / example).read_text()
    line = line_of(text, option)
    (found,) = mistakes(settings, text.replace(f"    {option}:", f"    {option}r:", 1))
    assert found.startswith(f"c.yaml:{line}: ")
    assert f"has no option --{option}r; the closest is --{option}" in found


def test_what_the_script_asks_for_is_named_beside_another_mistyped_option(settings: Settings) -> None:
    text = UNIFIED.replace("    checkpoint_dir:", "    quux:")
    said = mistakes(settings, text)
    assert len(said) == 2
    assert any("trtllm-build has no option --quux" in each for each in said)
    assert any("--checkpoint_dir: is needed" in each for each in said)


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
