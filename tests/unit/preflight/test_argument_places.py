"""Paths in arguments: what belongs to others is refused at its line, and what a script may need is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trt_llm_pipeline.config import examine, loads
from trt_llm_pipeline.errors import Mistake
from trt_llm_pipeline.plan import make_plan
from trt_llm_pipeline.preflight.argument_places import misplaced
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

CONFIG = """\
model_id: owner/name
example_name: llama
convert_to_ft:
  script: convert_checkpoint.py
  output_dir: ./checkpoint
build:
  script: build.py
  output_dir: ./engine
  args:
    dtype: float16
    {key}: {value}
"""
LINE = 11
MODELS = "is in models/, and is not this build's own"
DOWNLOADS = "is where downloads are, and no step may write there; name another place, like ./engine"
BUILDS = "is in builds/, where the service keeps finished builds"
STATE = "is in .trt-llm-pipeline/, where the service keeps its records"
OUTSIDE = "is outside the workspace"


@pytest.fixture
def house(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with files of the user's, another's model, and a neighbour."""
    for folder in ("models/owner/name", "models/victim/model", "builds/1", ".trt-llm-pipeline", "data"):
        (workspace.root / folder).mkdir(parents=True)
    (workspace.root / "data" / "calibration.json").write_text("[]")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("")
    (workspace.root / "mine").symlink_to(tmp_path / "outside")
    (workspace.root / "theirs").symlink_to(workspace.root / "models" / "victim")
    return workspace


def found(
    house: Workspace, tools: Toolchain, key: str, value: object, *, confined: bool = True
) -> list[Mistake]:
    text = CONFIG.format(key=json.dumps(key), value=json.dumps(value))
    plan, mistakes = make_plan(loads(text), tools, house)
    assert mistakes == []
    return misplaced(plan, [tools.root], confined=confined)


@pytest.mark.parametrize("confined", [True, False])
@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("output_dir", "/etc/ckpt", OUTSIDE),
        ("out-dir", "./models/victim/model", DOWNLOADS),
        ("out-dir", "/src/models/victim/model", DOWNLOADS),
        ("model_dir", "models/victim/model", MODELS),
        ("model_dir", "${model_dir}/../../victim/model", MODELS),
        ("model_dir", "theirs/model", MODELS),
        ("model_dir", "./models", MODELS),
        ("model_dir", "models/owner", MODELS),
        ("x", "models/owner/name2", MODELS),
        ("x", "builds", BUILDS),
        ("x", "./data/../builds/1/engine.tar.gz", BUILDS),
        ("x", ".trt-llm-pipeline/made.json", STATE),
        ("x", "{workspace}/.trt-llm-pipeline/made.json", STATE),
        ("x", ["./data", "builds/1"], BUILDS),
        ("x", "a,builds/1", BUILDS),
        ("x", "a=1,b=builds/1", BUILDS),
        ("x", "file=builds/1", BUILDS),
        ("output_dir", "../elsewhere", OUTSIDE),
        ("out", "/usr/lib/python3/x", OUTSIDE),
        ("o", "/usr", OUTSIDE),
        ("save_dir", "{outside}/secret", OUTSIDE),
        ("output_timing_cache", "~/x", OUTSIDE),
        ("in-file", "/no/such/file", OUTSIDE),
        ("in-file", "../no-such-file", OUTSIDE),
        ("in-file", "/proc/self/cwd/builds", "leads to wherever a process is"),
        ("in-file", "/proc/1/root/etc/shadow", "leads to wherever a process is"),
    ],
)
def test_what_belongs_to_others(
    house: Workspace, miniature: Toolchain, tmp_path: Path, key: str, value: object, why: str, confined: bool
) -> None:
    if isinstance(value, str):
        value = value.replace("{workspace}", str(house.root)).replace("{outside}", str(tmp_path / "outside"))
    (mistake,) = found(house, miniature, key, value, confined=confined)
    assert why in mistake.message
    assert (mistake.line, mistake.key) == (LINE, f"build.args.{key}")


@pytest.mark.parametrize("confined", [True, False])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_dir", "${model_dir}"),
        ("model_dir", "/src/models/owner/name"),
        ("tokenizer", "${model_dir}/tokenizer.model"),
        ("output_dir", "./engine"),
        ("output_dir", "/src/engine/"),
        ("output_dir", "${convert_to_ft.output_dir}/1-gpu"),
        ("checkpoint_dir", "${convert_to_ft.output_dir}"),
        ("output_dir", "."),
        ("workspace", "/src"),
        ("timing_cache", "model.cache"),
        ("calib", "./data/calibration.json"),
        ("calib", "data/no-such-file.json"),
        ("calib", "mine/secret"),
        ("dataset", "abisee/cnn_dailymail"),
        ("dataset", "https://example.com/models/x/builds"),
        ("model", "meta-llama/Llama-2-7b-hf"),
        ("plugin", "{toolchain}/examples/llama/build.py"),
        ("rope", "1e-5"),
        ("precision", "float16"),
        ("library", "/usr/bin/env"),
        ("device", "/dev/null"),
        ("text", "see models/ and builds/: /etc, ../.."),
        ("flag", True),
        ("sizes", ["1", "2"]),
    ],
)
def test_what_scripts_need(
    house: Workspace, miniature: Toolchain, key: str, value: object, confined: bool
) -> None:
    if isinstance(value, str):
        value = value.replace("{toolchain}", str(miniature.root))
    assert found(house, miniature, key, value, confined=confined) == []


def test_what_is_outside_is_an_input_where_nothing_confines_the_step(
    house: Workspace, miniature: Toolchain, tmp_path: Path
) -> None:
    place = str(tmp_path / "outside" / "secret")
    assert found(house, miniature, "calib", place, confined=False) == []
    assert found(house, miniature, "calib", "../outside", confined=False) == []
    (mistake,) = found(house, miniature, "calib", place)
    assert OUTSIDE in mistake.message


def test_a_model_is_no_place_for_results_where_the_sandbox_lets_nothing_write_there(
    house: Workspace, miniature: Toolchain
) -> None:
    (mistake,) = found(house, miniature, "out-dir", "${model_dir}/1-gpu")
    assert DOWNLOADS in mistake.message
    assert found(house, miniature, "out-dir", "${model_dir}/1-gpu", confined=False) == []


def test_a_model_is_not_called_anothers_where_the_configs_own_is_misspelt(
    house: Workspace, miniature: Toolchain
) -> None:
    text = CONFIG.format(key="model_dir", value="./models/owner/name").replace("model_id", "modelid")
    loaded = examine(text)
    assert loaded.config is not None
    plan, _ = make_plan(loaded.config, miniature, house)
    assert plan.steps
    assert misplaced(plan, [miniature.root], confined=True) == []
