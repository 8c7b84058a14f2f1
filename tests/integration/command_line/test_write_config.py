"""inspect ARCHIVE --write-config DIR, on engines that the pipeline built, of both generations."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.conftest import MODEL_ID
from tests.integration.conftest import TOOLCHAIN
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.cli import app
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

LEGACY = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text() + "    max_batch_size: 4\n"
UNIFIED = f"""
model_id: {MODEL_ID}
example_name: gpt
convert_checkpoint:
  script: convert_checkpoint.py
  output_dir: ./checkpoint
  args: {{model_dir: "${{model_dir}}", output_dir: ./checkpoint, dtype: float16}}
build:
  executable: trtllm-build
  output_dir: ./engine
  args:
    checkpoint_dir: ./checkpoint
    output_dir: ./engine
    max_batch_size: 6
    gpt_attention_plugin: float16
    remove_input_padding: enable
    paged_kv_cache: enable
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> dict[str, Path]:
    """An archive of each generation."""
    built = {}
    for name, text in (("builder_config", LEGACY), ("build_config", UNIFIED)):
        workspace = tmp_path_factory.mktemp(name)
        env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": str(workspace)}
        settings = Settings.from_env({**env, "PATH": "/usr/bin:/bin"})
        result = pipeline.build(validate(text, "config.yaml", settings), settings, Recorder())
        assert result.archive is not None
        built[name] = result.archive
    return built


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    root = tmp_path / "templates"
    (root / "tensorrt_llm" / "1").mkdir(parents=True)
    text = 'max_batch_size: ${triton_max_batch_size}\nengine: "${engine_dir}" "${batching_strategy}"\n'
    (root / "tensorrt_llm" / "config.pbtxt").write_text(text)
    return root


def inspect(*arguments: str) -> Result:
    # /bin/false has no transformers, so that the tokenizer is not loaded
    return CliRunner().invoke(app, ["inspect", *arguments], env={**os.environ, "TRTLLM_PYTHON": "/bin/false"})


@pytest.mark.slow
def test_an_engine_of_build_py(archives: dict[str, Path], tmp_path: Path) -> None:
    done = inspect(str(archives["builder_config"]), "--write-config", str(tmp_path / "out"))
    assert f"wrote {tmp_path / 'out' / 'config.yaml'}" in done.stdout
    assert "without paged_kv_cache" in done.stderr
    server = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["instantiate"]["server"]
    assert server["tensorrt_llm"]["args"]["triton_max_batch_size"] == 4
    assert server["tensorrt_llm"]["args"]["batching_strategy"] == "V1"


def test_an_engine_of_trtllm_build_with_the_whole_repository(
    archives: dict[str, Path], templates: Path, tmp_path: Path
) -> None:
    arguments = [
        "--write-config",
        str(tmp_path / "out"),
        "--templates",
        str(templates),
        "--engine-dir",
        "/engines/a",
    ]
    done = inspect(str(archives["build_config"]), *arguments, "--json")
    written = json.loads(done.stdout)["written"]
    assert written["notes"] == []
    names = {Path(path).relative_to(tmp_path / "out").as_posix() for path in written["files"]}
    assert names == {
        "config.yaml",
        "fill_template_values",
        "fill_template_values.tensorrt_llm",
        "triton_model_repo/tensorrt_llm/config.pbtxt",
    }
    filled = (tmp_path / "out" / "triton_model_repo" / "tensorrt_llm" / "config.pbtxt").read_text()
    assert filled == 'max_batch_size: 6\nengine: "/engines/a" "inflight_fused_batching"\n'


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--engine-dir", "s3://bucket/engine"], "has a colon in it"),
        (["--templates", "/nowhere"], "is no directory"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is(
    archives: dict[str, Path], tmp_path: Path, more: list[str], message: str
) -> None:
    done = inspect(str(archives["build_config"]), "--write-config", str(tmp_path / "out"), *more)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_template_of_an_unknown_release_is_refused(
    archives: dict[str, Path], templates: Path, tmp_path: Path
) -> None:
    path = templates / "tensorrt_llm" / "config.pbtxt"
    path.write_text(path.read_text() + 'x: "${of_tomorrow}"\n')
    arguments = ["--write-config", str(tmp_path / "out"), "--templates", str(templates)]
    done = inspect(str(archives["build_config"]), *arguments)
    assert done.exit_code == 1
    assert f"{path}:3: ${{of_tomorrow}}" in done.stderr
    assert not any((tmp_path / "out").iterdir())


def test_files_of_the_user_s_are_not_replaced(archives: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine")
    done = inspect(str(archives["build_config"]), "--write-config", str(tmp_path))
    assert done.exit_code == 2
    assert (tmp_path / "config.yaml").read_text() == "mine"


def test_options_that_belong_together_are_asked_for_together(
    archives: dict[str, Path], templates: Path
) -> None:
    done = inspect(str(archives["build_config"]), "--templates", str(templates))
    assert done.exit_code == 2
