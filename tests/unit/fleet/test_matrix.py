"""The matrix file: which cells it stands for, and every mistake with its line."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT
from trt_llm_pipeline.config.yaml_reader import Scalar
from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.fleet.matrix import MOST_CELLS, json_schema, read, substituted

HEAD = "config: ./a.yaml\ndestination: s3://bucket/${matrix.a}/\n"


def cells(matrix: str) -> list[dict[str, str]]:
    """The values of each cell of a matrix that is written in one line."""
    found = read(f"{HEAD}matrix: {matrix}\n", "fleet.yaml")
    return [{key: value.text for key, value in cell.items()} for cell in found.cells]


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, "fleet.yaml")
    return [mistake.render("fleet.yaml") for mistake in caught.value.mistakes]


def test_every_combination_is_a_cell_in_the_order_of_the_file() -> None:
    assert cells("{a: [x, y], b: [1, 2]}") == [
        {"a": "x", "b": "1"},
        {"a": "x", "b": "2"},
        {"a": "y", "b": "1"},
        {"a": "y", "b": "2"},
    ]


def test_exclude_leaves_out_what_has_all_its_values() -> None:
    assert cells("{a: [x, y], b: [1, 2], exclude: [{a: x, b: 2}]}") == [
        {"a": "x", "b": "1"},
        {"a": "y", "b": "1"},
        {"a": "y", "b": "2"},
    ]
    assert cells("{a: [x, y], b: [1, 2], exclude: [{a: x}]}") == [
        {"a": "y", "b": "1"},
        {"a": "y", "b": "2"},
    ]


class TestInclude:
    """As GitHub Actions documents it: an entry adds to combinations it does not change, or is its own."""

    def test_an_entry_with_new_values_is_a_cell_of_its_own(self) -> None:
        assert cells("{a: [x], b: [1], include: [{a: z, b: 1}]}") == [
            {"a": "x", "b": "1"},
            {"a": "z", "b": "1"},
        ]

    def test_an_entry_adds_to_each_combination_it_agrees_with(self) -> None:
        assert cells("{a: [x, y], include: [{a: y, more: 1}]}") == [{"a": "x"}, {"a": "y", "more": "1"}]

    def test_an_entry_with_no_value_of_the_matrix_adds_to_all(self) -> None:
        assert cells("{a: [x, y], include: [{more: 1}]}") == [
            {"a": "x", "more": "1"},
            {"a": "y", "more": "1"},
        ]

    def test_a_later_entry_may_change_what_an_earlier_one_added(self) -> None:
        assert cells("{a: [x], include: [{more: 1}, {a: x, more: 2}]}") == [{"a": "x", "more": "2"}]

    def test_an_entry_does_not_add_to_another_entry_s_cell(self) -> None:
        assert cells("{a: [x], include: [{a: z}, {a: z, more: 1}]}") == [
            {"a": "x"},
            {"a": "z"},
            {"a": "z", "more": "1"},
        ]

    def test_a_matrix_may_have_nothing_else(self) -> None:
        assert cells("{include: [{a: x}, {a: y}]}") == [{"a": "x"}, {"a": "y"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["fleet.yaml: is empty; it needs at least config, matrix and destination"]),
        ("- 1", ["fleet.yaml:1: is a list; a matrix file is a mapping with config, matrix and destination"]),
        (
            "config: a.yaml\n",
            [
                "fleet.yaml:1: destination: is missing; say where each cell's archive goes",
                "fleet.yaml:1: matrix: is missing; list the values that vary: dtype: [float16, int8]",
            ],
        ),
        (
            f"{HEAD}matrix: {{a: [1]}}\nmax_paralel: 3\n",
            ["fleet.yaml:4: max_paralel: is not a known key; did you mean max_parallel?"],
        ),
        (f"{HEAD}matrix: {{a: 1}}\n", ["fleet.yaml:3: matrix.a: must be a list of values: [float16, int8]"]),
        (f"{HEAD}matrix:\n  a: [1, 2]\n  b: [x, x]\n", ["fleet.yaml:5: matrix.b: 'x' is listed twice"]),
        (
            f"{HEAD}matrix: {{a: [1], exclude: [{{a: 1}}]}}\n",
            ["fleet.yaml:3: matrix: has no cell: everything is excluded, or it lists no values"],
        ),
        (
            f"{HEAD}matrix:\n  a: [1]\n  exclude:\n  - {{c: 1}}\n",
            ["fleet.yaml:6: matrix.exclude: the matrix has no 'c'"],
        ),
        (
            f"{HEAD}matrix:\n  dtype: [1]\n  exclude:\n  - {{dtyp: 1}}\n",
            ["fleet.yaml:6: matrix.exclude: the matrix has no 'dtyp'; did you mean dtype?"],
        ),
        (
            f"{HEAD}matrix: {{a: [1]}}\nresources: {{gpu: 1}}\n",
            ["fleet.yaml:4: resources.gpu: is not a known key; did you mean gpus?"],
        ),
        (
            f"{HEAD}matrix: {{a: [1]}}\nmax_parallel: none\nattempts: 0\n",
            [
                f"fleet.yaml:4: max_parallel: 'none' must be a whole number from 1 to {MOST_CELLS:,}",
                "fleet.yaml:5: attempts: '0' must be a whole number from 1 to 20",
            ],
        ),
        (
            f"{HEAD}matrix: {{a: [1, 2], exclude: [{{a: 2}}, {{a: 2}}, {{a: 3}}]}}\n",
            [
                "fleet.yaml:3: matrix.exclude: leaves nothing out: a is never '3'; line 3 has 1, 2, and "
                "one of the two is mistyped"
            ],
        ),
        (
            "model_id: a/b\nexample_name: gpt\nbuild: {script: build.py}\n",
            ["fleet.yaml:1: is a build config; use `build` for it, or name it as `config` in a matrix file"],
        ),
        (
            "config: a.yaml\nmatrix: {a: [1]}\ndestination: s3://b/${model_dir}/\n",
            ["fleet.yaml:3: destination: can refer to ${matrix.NAME} only"],
        ),
        (
            f"{HEAD}{HEAD}matrix: {{a: [1]}}\n",
            [
                "fleet.yaml:3: the key 'config' is already on line 1; keep one of the two",
                "fleet.yaml:4: the key 'destination' is already on line 2; keep one of the two",
            ],
        ),
    ],
)
def test_every_mistake_is_named_with_its_line(text: str, expected: list[str]) -> None:
    assert mistakes(text) == expected


def test_too_many_cells_are_refused_before_they_are_made() -> None:
    values = ", ".join(map(str, range(100)))
    (found,) = mistakes(f"{HEAD}matrix: {{a: [{values}], b: [{values}], c: [{values}]}}\n")
    assert "stands for 1,000,000 cells; at most 20,000" in found


class TestReferences:
    """`${matrix.NAME}` in a scalar."""

    def test_a_scalar_that_is_nothing_else_becomes_the_value_with_its_kind(self) -> None:
        flag, text = Scalar("true", True, 1), Scalar("true", False, 1)
        node = Scalar("${matrix.a}", True, 7)
        assert substituted(node, {"a": flag}, fail) == Scalar("true", True, 7)
        assert substituted(node, {"a": text}, fail) == Scalar("true", False, 7)

    def test_several_in_one_text(self) -> None:
        values = {"a": Scalar("1", True, 1), "b": Scalar("2", True, 1)}
        found = substituted(Scalar("x-${matrix.a}-${ matrix.b }", True, 7), values, fail)
        assert found.text == "x-1-2"

    def test_the_config_s_own_references_stay(self) -> None:
        text = "$${matrix.a} ${model_dir}"
        assert substituted(Scalar(text, True, 7), {"a": Scalar("1", True, 1)}, fail).text == text

    def test_an_unknown_name_is_reported_with_the_closest(self) -> None:
        found: list[tuple[str, int]] = []
        substituted(
            Scalar("${matrix.dtyp}", True, 7),
            {"dtype": Scalar("x", True, 1)},
            lambda message, line: found.append((message, line)),
        )
        assert found == [("the matrix has no 'dtyp' for this cell; did you mean ${matrix.dtype}?", 7)]


def fail(message: str, line: int) -> None:
    raise AssertionError(message)


def test_the_schema_accepts_the_example_and_refuses_an_unknown_key() -> None:
    schema = json_schema()
    example = yaml.safe_load((ROOT / "examples" / "fleet" / "tiny.yaml").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(example, schema)
    with pytest.raises(jsonschema.ValidationError, match="max_paralel"):
        jsonschema.validate({**example, "max_paralel": 3}, schema)
