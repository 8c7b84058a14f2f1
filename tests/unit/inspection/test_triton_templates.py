"""A model repository is filled as the backend's own script fills it, and never left half filled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from string import Template

import pytest

from tests.conftest import ROOT
from trt_llm_pipeline.engine.limits import EngineLimits
from trt_llm_pipeline.errors import BadArgument, PipelineError
from trt_llm_pipeline.inspection.consumer_configs import template_values, values_text
from trt_llm_pipeline.inspection.triton_templates import fill_repository, read_templates

VALUES = template_values(EngineLimits(8, 1, 4096, in_flight=True, missing=()), "/engines/a")
TENSORRT_LLM = """name: "tensorrt_llm"
backend: "${triton_backend}"
max_batch_size: ${triton_max_batch_size}
# a comment with ${enable_trt_overlap}
model_transaction_policy { decoupled: ${decoupled_mode} }
parameters: { key: "gpt_model_path" value: { string_value: "${engine_dir}" } }
parameters: { key: "price" value: { string_value: "$5" } }
parameters: { key: "max_tokens_in_paged_kv_cache" value: { string_value: "${max_tokens_in_paged_kv_cache}" } }
"""


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """A repository of the backend's shape: templates, scripts, and the folders of versions."""
    root = tmp_path / "checkout" / "all_models" / "inflight_batcher_llm"
    for model in ("preprocessing", "tensorrt_llm", "ensemble"):
        (root / model / "1").mkdir(parents=True)
    (root / "tensorrt_llm" / "config.pbtxt").write_text(TENSORRT_LLM)
    (root / "preprocessing" / "config.pbtxt").write_text('dir: "${tokenizer_dir}"\n')
    (root / "preprocessing" / "1" / "model.py").write_text("print('${not_a_template}')\n")
    (root / "ensemble" / "config.pbtxt").write_text("max_batch_size: ${triton_max_batch_size}\n")
    return root


def test_everything_is_filled_and_the_rest_is_copied(templates: Path, tmp_path: Path) -> None:
    written = fill_repository(read_templates(templates), tmp_path / "out", VALUES)
    assert sorted(path.parent.name for path in written) == ["ensemble", "preprocessing", "tensorrt_llm"]
    filled = (tmp_path / "out" / "tensorrt_llm" / "config.pbtxt").read_text()
    assert 'backend: "tensorrtllm"\nmax_batch_size: 8\n' in filled
    assert 'string_value: "/engines/a"' in filled
    assert 'string_value: "$5"' in filled
    assert (
        tmp_path / "out" / "preprocessing" / "1" / "model.py"
    ).read_text() == "print('${not_a_template}')\n"
    assert (tmp_path / "out" / "ensemble" / "1").is_dir()


def test_the_checkout_itself_may_be_named(templates: Path, tmp_path: Path) -> None:
    assert read_templates(tmp_path / "checkout").root == templates


def test_each_file_is_what_substituting_the_values_text_gives(templates: Path, tmp_path: Path) -> None:
    """The backend's script: split at commas and colons, then `safe_substitute`."""
    values = dict(part.split(":") for part in values_text(VALUES).split(","))
    for path in fill_repository(read_templates(templates), tmp_path / "out", VALUES):
        source = templates / path.parent.name / path.name
        assert path.read_text() == Template(source.read_text()).safe_substitute(values)


def test_what_is_left_is_named_with_file_and_line_and_nothing_is_written(
    templates: Path, tmp_path: Path
) -> None:
    path = templates / "preprocessing" / "config.pbtxt"
    path.write_text(path.read_text() + 'new: "${brand_new_option}"\nbroken: "${unclosed\n')
    with pytest.raises(PipelineError) as refused:
        fill_repository(read_templates(templates), tmp_path / "out", VALUES)
    assert f"{path}:2: ${{brand_new_option}}" in str(refused.value)
    assert f"{path}:3: ${{unclosed" in str(refused.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkout"]


def test_a_directory_without_templates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match=r"has no config\.pbtxt one folder down"):
        read_templates(tmp_path)


def test_a_template_that_is_no_text_is_refused(templates: Path) -> None:
    (templates / "preprocessing" / "config.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(BadArgument, match=r"preprocessing/config\.pbtxt is no UTF-8 text"):
        read_templates(templates)


def test_what_is_there_is_not_replaced(templates: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(BadArgument, match="is already there"):
        fill_repository(read_templates(templates), tmp_path / "out", VALUES)
    assert (tmp_path / "out" / "mine").read_text() == "x"


def test_a_script_that_refuses_names_that_a_file_has_not_gets_only_those(templates: Path) -> None:
    found = read_templates(templates)
    assert found.names("preprocessing") == {"tokenizer_dir"}
    assert found.names("tensorrt_llm") <= set(VALUES)


BACKEND = ROOT / "tensorrtllm_backend"


@pytest.mark.skipif(
    not (BACKEND / "tools" / "fill_template.py").is_file(),
    reason="the submodule tensorrtllm_backend is empty",
)
def test_the_backend_s_own_script_gives_the_same(tmp_path: Path) -> None:
    found = read_templates(BACKEND)
    for path in fill_repository(found, tmp_path / "out", VALUES):
        model = path.parent.name
        text = values_text({name: value for name, value in VALUES.items() if name in found.names(model)})
        argv = [
            sys.executable,
            str(BACKEND / "tools" / "fill_template.py"),
            str(found.root / model / path.name),
        ]
        done = subprocess.run([*argv, text], capture_output=True, text=True, check=True)
        assert done.stdout == path.read_text() + "\n"
