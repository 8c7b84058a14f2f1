"""Paths that are read and that nothing makes: told with their line, and never of what a step may find."""

from __future__ import annotations

import pytest

from trt_llm_pipeline.config import loads
from trt_llm_pipeline.plan import Plan, make_plan
from trt_llm_pipeline.preflight.unmade import astray, unmade, unread
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Ledger, Workspace

CONFIG = """\
model_id: owner/name
example_name: llama
convert_to_ft:
  script: convert_checkpoint.py
  {declared}
  args:
    model_dir: ${{model_dir}}
    {out}
build:
  script: build.py
  output_dir: ./engine
  args:
    {key}: {value}
"""
LINE = 13
DECLARED = "output_dir: ./c-model/gpt2/1-gpu"
OUT = "out-dir: ./c-model/gpt2"


def planned(
    workspace: Workspace, tools: Toolchain, key: str, value: str, declared: str = DECLARED, out: str = OUT
) -> Plan:
    text = CONFIG.format(key=key, value=value, declared=declared, out=out)
    plan, mistakes = make_plan(loads(text), tools, workspace)
    assert mistakes == []
    return plan


def notes(
    workspace: Workspace, tools: Toolchain, key: str, value: str, *, declared: str = DECLARED, out: str = ""
) -> list[str]:
    plan = planned(workspace, tools, key, value, declared, out)
    assert unmade(plan, plan.steps[0]) == []
    return unmade(plan, plan.steps[1])


@pytest.mark.parametrize(
    ("key", "value"), [("checkpoint_dir", "./checkpoimt"), ("model_dir", "c-model/gpt3/1-gpu")]
)
def test_what_nothing_makes_is_told_with_its_line(
    workspace: Workspace, miniature: Toolchain, key: str, value: str
) -> None:
    (note,) = notes(workspace, miniature, key, value)
    assert f":{LINE}: build.args.{key}: nothing is at {value!r}, and no step before names that place" in note


def test_a_place_above_the_results_is_not_where_they_are(workspace: Workspace, miniature: Toolchain) -> None:
    (note,) = notes(workspace, miniature, "model_dir", "./c-model/gpt2", out=OUT)
    assert note.endswith(
        f":{LINE}: build.args.model_dir: the results of step convert_to_ft are not in './c-model/gpt2' but "
        "in './c-model/gpt2/1-gpu', below it"
    )


@pytest.mark.parametrize("there", [False, True])
def test_a_place_beside_the_declared_results_and_these_are_both_named(
    workspace: Workspace, miniature: Toolchain, *, there: bool
) -> None:
    if there:
        (workspace.root / "c-model" / "gpt2" / "2-gpu").mkdir(parents=True)
    (note,) = notes(workspace, miniature, "model_dir", "./c-model/gpt2/2-gpu", out=OUT)
    assert note.endswith(
        f":{LINE}: build.args.model_dir: step convert_to_ft has its results in './c-model/gpt2/1-gpu', by "
        "its output_dir, and not in './c-model/gpt2/2-gpu'; one of the two is mistyped"
    )


def test_a_conversion_that_writes_below_what_it_is_given_is_known(
    workspace: Workspace, miniature: Toolchain
) -> None:
    text = CONFIG.replace("llama", "gpt").replace("convert_checkpoint", "hf_gpt_convert")
    text = text.format(
        declared="output_dir: ./c-model/gpt2", out=OUT, key="model_dir", value="./c-model/gpt2"
    )
    plan, mistakes = make_plan(loads(text), miniature, workspace)
    assert mistakes == []
    (note,) = unmade(plan, plan.steps[1])
    assert note.endswith("below './c-model/gpt2', by its ranks; write ./c-model/gpt2/1-gpu for one")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("${convert_to_ft.output_dir}", True),
        ("./c-model/gpt2/1-gpu", True),
        ("./c-model/gpt2", True),
        ("${model_dir}", False),
        ("./checkpoint", False),
    ],
)
def test_results_that_no_step_reads_are_told_of(
    workspace: Workspace, miniature: Toolchain, value: str, *, read: bool
) -> None:
    found = unread(planned(workspace, miniature, "checkpoint_dir", value))
    assert read == (found == [])
    if not read:
        assert "convert_to_ft.output_dir: no step after this one names what it makes" in found[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("checkpoint_dir", "./c-model/gpt2/1-gpu"),
        ("checkpoint_dir", "c-model/gpt2/1-gpu/rank0"),
        ("checkpoint_dir", "${convert_to_ft.output_dir}"),
        ("model_dir", "${model_dir}"),
        ("model_dir", "/src/models/owner/name/onnx"),
        ("output_dir", "./elsewhere"),
        ("log_dir", "./elsewhere"),
        ("dataset-cache-dir", "./elsewhere"),
        ("engine_dir", "./engine/inside"),
        ("dtype", "float16"),
        ("quant_ckpt_path", "./mine.npz"),
        ("max_batch_size", "8"),
    ],
)
def test_what_may_be_there_by_then_is_not(
    workspace: Workspace, miniature: Toolchain, key: str, value: str
) -> None:
    workspace.root.mkdir()
    (workspace.root / "mine.npz").write_bytes(b"")
    assert notes(workspace, miniature, key, value) == []


@pytest.mark.parametrize(
    ("value", "leads"),
    [
        ("./engine", True),
        ("/src/engine", True),
        ("./engine/inside", True),
        (".", True),
        ("${build.output_dir}", True),
        ("./engines", False),
        ("/src/elsewhere", False),
    ],
)
def test_a_declared_directory_that_the_scripts_own_option_misses_is_told_of(
    workspace: Workspace, miniature: Toolchain, value: str, *, leads: bool
) -> None:
    plan = planned(workspace, miniature, "output_dir", value)
    found = [note for step in plan.steps for note in astray(plan, step)]
    assert leads == (found == [])
    if not leads:
        assert (
            f"build.output_dir: output_dir is {plan.resolver({})(value)!r}, which does not lead" in found[0]
        )


@pytest.mark.parametrize("there", [False, True])
def test_what_only_this_step_or_a_later_one_makes_is_told_of(
    workspace: Workspace, miniature: Toolchain, *, there: bool
) -> None:
    if there:
        (workspace.root / "engine").mkdir(parents=True)
    text = CONFIG.format(
        key="out-dir", value="./engine", declared=DECLARED, out="input_dir: ${build.output_dir}"
    )
    plan, _ = make_plan(loads(text + "    checkpoint_dir: ./engine\n"), miniature, workspace)
    (first,), (second,) = (unmade(plan, step) for step in plan.steps)
    assert "convert_to_ft.args.input_dir: './engine' is where step build, which runs after this one" in first
    assert f":{LINE + 1}: build.args.checkpoint_dir: './engine' is where this step itself puts its" in second


@pytest.mark.parametrize(
    ("script", "program", "key", "said"),
    [
        (
            "hf_gpt_convert.py",
            "executable: trtllm-build",
            "checkpoint_dir",
            "writes an FT checkpoint; convert with",
        ),
        (
            "../llama/convert_checkpoint.py",
            "script: build.py",
            "model_dir",
            "writes a unified checkpoint; build with",
        ),
        ("hf_gpt_convert.py", "script: build.py", "model_dir", None),
        ("../llama/convert_checkpoint.py", "executable: trtllm-build", "checkpoint_dir", None),
        ("../quantization/quantize.py", "executable: trtllm-build", "checkpoint_dir", None),
    ],
)
@pytest.mark.parametrize("declared", ["output_dir: ./checkpoint/1-gpu", ""])
def test_a_checkpoint_of_another_format_is_told_of(
    workspace: Workspace,
    miniature: Toolchain,
    script: str,
    program: str,
    key: str,
    said: str | None,
    declared: str,
) -> None:
    text = (
        CONFIG.replace("llama", "gpt")
        .replace("convert_checkpoint.py", script)
        .replace("script: build.py", program)
    )
    text = text.format(
        declared=declared, out="out-dir: ./checkpoint", key=key, value="${convert_to_ft.output_dir}"
    )
    plan, mistakes = make_plan(loads(text), miniature, workspace)
    assert mistakes == []
    found = unmade(plan, plan.steps[1])
    assert [said] == [said for note in found if said and said in note] if said else found == []


@pytest.mark.parametrize(("example", "told"), [("gpt", True), ("llama", False)])
def test_a_build_that_reads_what_is_converted_gets_no_download(
    workspace: Workspace, miniature: Toolchain, example: str, *, told: bool
) -> None:
    text = (
        f"model_id: owner/name\nexample_name: {example}\nbuild:\n  script: build.py\n  output_dir: ./engine\n"
    )
    plan, _ = make_plan(loads(text + "  args:\n    model_dir: ${model_dir}\n"), miniature, workspace)
    found = unmade(plan, plan.steps[0])
    assert told == bool(found)
    if told:
        assert (
            "build.args.model_dir: build.py reads what hf_gpt_convert.py has written, and this is" in found[0]
        )


def test_what_an_earlier_build_has_left_is_not_what_a_step_sees(
    workspace: Workspace, miniature: Toolchain
) -> None:
    workspace.prepare()
    place = workspace.root / "c-model" / "gpt3"
    place.mkdir(parents=True)
    ledger = Ledger(workspace)
    ledger.begin("convert_to_ft", workspace.files())
    (place / "config.ini").write_text("[gpt]")
    ledger.finish("convert_to_ft", workspace.files())
    plan = planned(workspace, miniature, "model_dir", "./c-model/gpt3")
    (note,) = unmade(plan, plan.steps[1])
    assert f":{LINE}: build.args.model_dir: what is at './c-model/gpt3' is an earlier build's" in note
    assert unmade(plan, plan.steps[1], confined=False) == []
    (place / "mine").write_text("")
    assert unmade(plan, plan.steps[1]) == []


def test_a_step_whose_place_is_to_be_found_may_have_made_it(
    workspace: Workspace, miniature: Toolchain
) -> None:
    assert notes(workspace, miniature, "checkpoint_dir", "./tllm_checkpoint", declared="") == []
    out = "output_dir: ./checkpoint"
    (note,) = notes(workspace, miniature, "checkpoint_dir", "./checkpoimt", declared="", out=out)
    assert "'./checkpoimt'" in note
    assert notes(workspace, miniature, "checkpoint_dir", "./checkpoint", declared="", out=out) == []
