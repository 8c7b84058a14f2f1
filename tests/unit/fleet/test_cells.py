"""From a matrix to its cells: configs, needs and places, each mistake once and with its cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trt_llm_pipeline.config import loads
from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.fleet.cells import Fleet, Resources, as_record, from_record, load
from trt_llm_pipeline.settings import Settings

CONFIG = """\
model_id: a/b
example_name: gpt
build:
  script: build.py
  output_dir: ./engine
  args:
    model_dir: ${model_dir}
    output_dir: ./engine
    dtype: ${matrix.dtype}
    use_gpt_attention_plugin: ${matrix.plugin}
"""
MATRIX = """\
config: ./a.yaml
matrix:
  dtype: [float16, float32]
  plugin: [true, "float16"]
resources: {gpus: 1, gpu_type: "${matrix.gpu}", memory: 64GB, cpus: 0.5}
destination: s3://bucket/engines/${matrix.dtype}/${matrix.plugin}/
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    env = {"TRTLLM_DIR": str(ROOT / "cpu_toolchain"), "TRT_LLM_WORKSPACE": str(tmp_path / "workspace")}
    return Settings.from_env(env)


def write(folder: Path, matrix: str, config: str = CONFIG) -> str:
    (folder / "a.yaml").write_text(config)
    (folder / "fleet.yaml").write_text(matrix)
    return str(folder / "fleet.yaml")


def fleet(tmp_path: Path, settings: Settings, matrix: str = MATRIX, config: str = CONFIG) -> Fleet:
    return load(write(tmp_path, matrix.replace('"${matrix.gpu}"', "H100"), config), settings)


def mistakes(tmp_path: Path, settings: Settings, matrix: str, config: str = CONFIG) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, matrix, config), settings)
    return [mistake.render("fleet.yaml") for mistake in caught.value.mistakes]


def test_each_cell_has_its_config_its_needs_and_its_place(tmp_path: Path, settings: Settings) -> None:
    found = fleet(tmp_path, settings)
    assert [cell.name for cell in found.cells] == [
        "float16-true",
        "float16-float16",
        "float32-true",
        "float32-float16",
    ]
    assert found.root.address == "s3://bucket/engines"
    assert found.records.address == f"s3://bucket/engines/fleet/{found.fleet_id}"
    assert [cell.key for cell in found.cells][1] == "float16/float16/engine.tar.gz"
    assert found.cells[0].resources == Resources(1, "H100", 64 * 10**9, 0.5)
    args = [loads(found.configs[cell.config]).build.args for cell in found.cells]
    assert [each["dtype"] for each in args] == ["float16", "float16", "float32", "float32"]
    # A flag where the matrix has a plain true, a value where it has a text.
    assert [each["use_gpt_attention_plugin"] for each in args] == [True, "float16", True, "float16"]


def test_the_id_is_that_of_the_cells(tmp_path: Path, settings: Settings) -> None:
    small = MATRIX.replace(', "float16"]', "]").replace(", float32", "")
    first = fleet(tmp_path, settings, small).fleet_id
    assert fleet(tmp_path, settings, f"# a comment\n{small}max_parallel: 2\n").fleet_id == first
    assert fleet(tmp_path, settings, small.replace("64GB", "32GB")).fleet_id != first
    assert fleet(tmp_path, settings, small, CONFIG.replace("a/b", "a/c")).fleet_id != first


def test_the_record_holds_everything(tmp_path: Path, settings: Settings) -> None:
    found = fleet(tmp_path, settings, f"{MATRIX}max_parallel: 2\nattempts: 5\n")
    again = from_record(json.loads(json.dumps(as_record(found))), found.root)
    assert again.cells == found.cells
    assert again.configs == found.configs
    assert (again.fleet_id, again.max_parallel, again.attempts) == (found.fleet_id, 2, 5)


def test_a_config_can_be_named_by_the_matrix(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "b.yaml").write_text(CONFIG.replace("a/b", "c/d"))
    matrix = """\
config: ./${matrix.model}.yaml
matrix: {model: [a, b], dtype: [float16], plugin: [float16]}
destination: file:///src/engines/${matrix.model}/
"""
    found = fleet(tmp_path, settings, matrix)
    models = [loads(found.configs[cell.config]).model_id for cell in found.cells]
    assert models == ["a/b", "c/d"]
    # /src is the workspace of whoever runs the fleet.
    assert found.root.address == f"file://{settings.workspace.root}/engines"


def test_configs_that_are_the_same_are_checked_once(tmp_path: Path, settings: Settings) -> None:
    values = ", ".join(map(str, range(500)))
    matrix = MATRIX.replace("  plugin", f"  copy: [{values}]\n  plugin").replace(
        "${matrix.dtype}/", "${matrix.dtype}/${matrix.copy}/"
    )
    found = fleet(tmp_path, settings, matrix)
    assert len(found.cells) == 2000
    assert len(found.configs) == len(found.validated) == 4


@pytest.mark.parametrize(
    ("matrix", "config", "expected"),
    [
        (
            MATRIX,
            CONFIG,
            ["fleet.yaml:5: resources.gpu_type: the matrix has no 'gpu' for this cell; it has dtype, plugin"],
        ),
        (
            MATRIX.replace('"${matrix.gpu}"', "H100").replace("/${matrix.plugin}", ""),
            CONFIG,
            [
                "fleet.yaml:6: destination: is the same for the cells float16-true and float16-float16; "
                "name every value that varies",
                "fleet.yaml:6: destination: is the same for the cells float32-true and float32-float16; "
                "name every value that varies",
            ],
        ),
        (
            MATRIX.replace('"${matrix.gpu}"', "H100").replace("float32]", "int3]"),
            CONFIG,
            [
                "fleet.yaml:1: config: a.yaml:9: build.args.dtype: --dtype: invalid choice 'int3' "
                "(choose from float16, float32, bfloat16)"
            ],
        ),
        (
            MATRIX.replace('"${matrix.gpu}"', "H100").replace("64GB", "much").replace("0.5", "all"),
            CONFIG,
            [
                "fleet.yaml:5: resources.memory: 'much' is no size; write a number of bytes, or one with a "
                "unit: 64GB",
                "fleet.yaml:5: resources.cpus: 'all' must be a number of cpus",
            ],
        ),
        (
            MATRIX.replace('"${matrix.gpu}"', "H100").replace("s3://bucket/engines/", "s3://"),
            CONFIG,
            [
                "fleet.yaml:6: destination: the destination s3://${matrix.dtype}/${matrix.plugin}/ must name "
                "the same bucket for every cell, for the records"
            ],
        ),
        (
            MATRIX.replace('"${matrix.gpu}"', "H100").replace("s3://bucket/engines/", "/src/engines/"),
            CONFIG,
            [
                "fleet.yaml:6: destination: the destination /src/engines/${matrix.dtype}/${matrix.plugin}/ "
                "is no store of objects; use s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX "
                "or file:///DIRECTORY"
            ],
        ),
        (
            MATRIX.replace('"${matrix.gpu}"', "H100").replace("s3://bucket/engines/", "https://localhost/"),
            CONFIG,
            [
                "fleet.yaml:6: destination: the destination https://localhost/ is no store of objects; use "
                "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///DIRECTORY"
            ],
        ),
        (
            MATRIX.replace('"${matrix.gpu}"', "H100"),
            f"{CONFIG}hf_token: hf_secret\n",
            [
                "fleet.yaml:1: config: a.yaml:11: hf_token: a fleet's records would hold it; take it out and "
                "set HF_TOKEN on the nodes"
            ],
        ),
        (
            MATRIX.replace('"${matrix.gpu}"', "H100").replace("./a.yaml", "./missing.yaml"),
            CONFIG,
            ["fleet.yaml:1: config: TMP/missing.yaml: cannot be read: No such file or directory"],
        ),
    ],
)
def test_mistakes_are_named_before_anything_starts(
    tmp_path: Path, settings: Settings, matrix: str, config: str, expected: list[str]
) -> None:
    found = mistakes(tmp_path, settings, matrix, config)
    assert [line.partition(" (in cell")[0].replace(str(tmp_path), "TMP") for line in found] == expected


def test_a_mistake_of_some_cells_names_them(tmp_path: Path, settings: Settings) -> None:
    (found,) = mistakes(
        tmp_path, settings, MATRIX.replace('"${matrix.gpu}"', "H100").replace("float32]", "int3]")
    )
    assert found.endswith("(in cells int3-true, int3-float16)")


def test_a_config_that_is_not_there_is_a_mistake_of_every_cell(tmp_path: Path, settings: Settings) -> None:
    matrix = MATRIX.replace('"${matrix.gpu}"', "H100").replace("./a.yaml", "./missing.yaml")
    (found,) = mistakes(tmp_path, settings, matrix)
    assert found.endswith("/missing.yaml: cannot be read: No such file or directory")
    some = matrix.replace("./missing.yaml", "./${matrix.dtype}.yaml")
    (tmp_path / "float16.yaml").write_text(CONFIG)
    (found,) = mistakes(tmp_path, settings, some)
    assert found.endswith("No such file or directory (in cells float32-true, float32-float16)")


def test_the_file_is_named_as_it_was_given(tmp_path: Path, settings: Settings) -> None:
    path = write(tmp_path, MATRIX)
    with pytest.raises(ConfigError) as caught:
        load(path, settings)
    assert str(caught.value).startswith(f"{path}:")
    named = load(write(tmp_path, MATRIX.replace('"${matrix.gpu}"', "H100")), settings)
    assert (named.name, named.fleet_id.startswith("fleet-")) == ("fleet.yaml", True)
