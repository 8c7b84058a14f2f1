"""From a config to what would run, without running, downloading or writing anything."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trt_llm_pipeline.config import examine, loads
from trt_llm_pipeline.errors import Mistake
from trt_llm_pipeline.plan import Plan, make_plan
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Ledger, Workspace

CONFIG = """
model_id: owner/name
example_name: llama
convert_to_ft:
  script: convert_checkpoint.py
  output_dir: ./checkpoint
  args: {model_dir: "${model_dir}", output_dir: "${convert_to_ft.output_dir}"}
build:
  executable: trtllm-build
  args: {checkpoint_dir: /src/checkpoint, output_dir: "${convert_to_ft.output_dir}/../engine"}
"""


def planned(text: str, toolchain: Toolchain, workspace: Workspace) -> Plan:
    result, mistakes = make_plan(loads(text), toolchain, workspace)
    assert mistakes == []
    return result


def mistakes_of(text: str, toolchain: Toolchain, workspace: Workspace) -> list[Mistake]:
    loaded = examine(text)
    assert loaded.config is not None
    return make_plan(loaded.config, toolchain, workspace)[1]


def test_each_step_knows_its_program_its_arguments_and_its_directory(
    miniature: Toolchain, workspace: Workspace
) -> None:
    (miniature.root / "bin").mkdir()
    (miniature.root / "bin/trtllm-build").write_text("")
    result = planned(CONFIG, miniature, workspace)
    convert, build = result.steps
    example = miniature.root / "examples/llama"
    assert convert.program == (sys.executable, str(example / "convert_checkpoint.py"))
    assert build.program == (sys.executable, str(miniature.root / "bin/trtllm-build"))
    assert (convert.example, convert.output_dir) == (example, workspace.root / "checkpoint")
    assert build.output_dir is None
    model = str(workspace.root / "models/owner/name")
    assert str(result.model_dir) == model
    assert result.render(convert, {}).argv == ("--model_dir", model, "--output_dir", "./checkpoint")
    checkpoint = str(workspace.root / "checkpoint")
    assert result.render(build, {}).argv == (
        *("--checkpoint_dir", checkpoint),
        *("--output_dir", "./checkpoint/../engine"),
    )
    assert not workspace.root.exists()


def test_a_directory_that_was_found_is_given_to_the_next_step(
    miniature: Toolchain, workspace: Workspace
) -> None:
    text = CONFIG.replace("  output_dir: ./checkpoint\n", "").replace('"${convert_to_ft.output_dir}"', "./c")
    result = planned(text, miniature, workspace)
    assert set(result.expected_dirs()) == {"convert_to_ft", "build"}
    found = {"convert_to_ft": workspace.root / "c/1-gpu"}
    assert result.render(result.steps[1], found).argv[-1] == f"{workspace.root}/c/1-gpu/../engine"


def test_a_step_that_cannot_be_planned_leaves_the_others(miniature: Toolchain, workspace: Workspace) -> None:
    loaded = examine(
        CONFIG.replace("convert_checkpoint.py", "missing.py").replace("  output_dir: ./che", "  #")
    )
    assert loaded.config is not None
    result, mistakes = make_plan(loaded.config, miniature, workspace)
    assert [mistake.key for mistake in mistakes] == ["convert_to_ft.script", "convert_to_ft.args.output_dir"]
    assert [step.name for step in result.steps] == ["build"]
    # Its arguments can still be rendered, with a stand-in for what the other step would have shown.
    assert "to-be-found" in result.render(result.steps[0], result.expected_dirs()).argv[-1]


def test_a_workspace_below_src_is_mapped_once(miniature: Toolchain) -> None:
    workspace = Workspace(Path("/src/checkout/workspace"))
    text = CONFIG.replace("./checkpoint", "/src/checkpoint")
    result = planned(text, miniature, workspace)
    convert = result.steps[0]
    root = "/src/checkout/workspace"
    assert str(convert.output_dir) == f"{root}/checkpoint"
    assert result.render(convert, {}).argv == (
        *("--model_dir", f"{root}/models/owner/name"),
        *("--output_dir", f"{root}/checkpoint"),
    )


def test_a_directory_with_files_of_the_user_is_refused_before_anything_is_run(
    miniature: Toolchain, workspace: Workspace
) -> None:
    (workspace.root / "checkpoint").mkdir(parents=True)
    (workspace.root / "checkpoint/notes.txt").write_text("mine")
    mistakes = mistakes_of(CONFIG, miniature, workspace)
    assert [(mistake.line, mistake.key) for mistake in mistakes] == [(6, "convert_to_ft.output_dir")]
    assert "holds files that no build made (checkpoint/notes.txt)" in mistakes[0].message


def test_a_directory_with_files_of_an_earlier_build_is_not(
    miniature: Toolchain, workspace: Workspace
) -> None:
    workspace.prepare()
    ledger = Ledger(workspace)
    ledger.begin("convert_to_ft", {})
    (workspace.root / "checkpoint").mkdir()
    (workspace.root / "checkpoint/rank0.safetensors").write_text("weights")
    ledger.finish("convert_to_ft", workspace.files())
    planned(CONFIG, miniature, workspace)


def test_links_do_not_hide_that_directories_overlap(miniature: Toolchain, workspace: Workspace) -> None:
    (workspace.root / "real").mkdir(parents=True)
    (workspace.root / "link").symlink_to("real")
    text = CONFIG.replace("./checkpoint", "./real/c").replace(
        "  executable: trtllm-build\n", "  executable: trtllm-build\n  output_dir: link\n"
    )
    mistakes = mistakes_of(text, miniature, workspace)
    assert [mistake.key for mistake in mistakes] == ["build.output_dir"]
    assert "overlaps with convert_to_ft.output_dir" in mistakes[0].message


@pytest.mark.parametrize("target", ["..", "/etc", "models"])
def test_a_link_out_of_the_workspace_is_refused(
    miniature: Toolchain, workspace: Workspace, target: str
) -> None:
    workspace.prepare()
    (workspace.root / "checkpoint").symlink_to(target)
    before = sorted(workspace.root.iterdir())
    mistakes = mistakes_of(CONFIG, miniature, workspace)
    assert [mistake.key for mistake in mistakes] == ["convert_to_ft.output_dir"]
    assert sorted(workspace.root.iterdir()) == before


def test_a_release_is_judged_by_the_scripts_of_the_steps(miniature: Toolchain, workspace: Workspace) -> None:
    follows = {"convert_checkpoint.py": ("0.7.1", "0.9.0"), "trtllm-build": ("0.9.0",)}
    both = replace(miniature, follows=("0.7.1", "0.9.0"), by_script=follows)
    plan = planned(f"{CONFIG}requires_trt_llm: '==0.9.0'\n", both, workspace)
    assert [plan.releases_of(step) for step in plan.steps] == [("0.9.0",), ("0.9.0",)]
    (mistake,) = mistakes_of(f"{CONFIG}requires_trt_llm: '==0.7.1'\n", both, workspace)
    assert "is required, but trtllm-build of step build in the toolchain" in mistake.message
    assert "follows 0.9.0; change what is required, or set TRTLLM_DIR" in mistake.message


def test_a_release_that_the_toolchain_is_not_is_refused(miniature: Toolchain, workspace: Workspace) -> None:
    planned(f"{CONFIG}requires_trt_llm: '>=1,<2'\n", miniature, workspace)
    mistakes = mistakes_of(f"{CONFIG}requires_trt_llm: '>=1.1'\n", miniature, workspace)
    assert [(mistake.line, mistake.key) for mistake in mistakes] == [(11, "requires_trt_llm")]
    assert "TensorRT-LLM >=1.1 is required" in mistakes[0].message
