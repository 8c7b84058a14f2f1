"""What `--set` gives counts as if it were in the text, and a mistake in it says where it is from."""

from __future__ import annotations

import pytest

from trt_llm_pipeline.config import BuildConfig, examine
from trt_llm_pipeline.config.overrides import override
from trt_llm_pipeline.config.yaml_reader import parse

TEXT = """\
model_id: a/b
example_name: gpt
convert_checkpoint:
  script: convert.py
build:
  script: build.py
  args:
    max_batch_size: 8
    flag:
"""


def config(*assignments: str) -> BuildConfig:
    loaded = examine(TEXT, "c.yaml", assignments)
    assert loaded.mistakes == ()
    assert loaded.config is not None
    return loaded.config


def mistakes(*assignments: str) -> list[str]:
    return [mistake.render("c.yaml") for mistake in examine(TEXT, "c.yaml", assignments).mistakes]


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("build.args.max_batch_size=16", "max_batch_size", "16"),
        ("build.args.max_batch_size=0.50", "max_batch_size", "0.50"),
        ("build.args.flag=false", "flag", False),
        ("build.args.other=", "other", True),
        ("build.args.other=true", "other", True),
        ("build.args.other='true'", "other", "true"),
        ("build.args.other=[a, 2]", "other", ["a", "2"]),
        ("build.args.with.dot=x=y", "with.dot", "x=y"),
        ("build.args.dir=${model_dir}/x", "dir", "${model_dir}/x"),
    ],
)
def test_an_option_is_typed_as_in_yaml(assignment: str, key: str, value: object) -> None:
    assert config(assignment).build.args[key] == value


def test_other_keys_of_the_config_and_of_steps() -> None:
    made = config("model_id=c/d", "build.timeout=2h", "cache=false", "check=off", "quantize.script=q.py")
    assert (made.model_id, made.build.timeout, made.cache, made.check.enabled) == ("c/d", 7200, False, False)
    assert made.quantize is not None
    assert made.build.args["max_batch_size"] == "8"


def test_the_last_of_several_counts() -> None:
    assert config("build.args.x=1", "build.args.x=2").build.args["x"] == "2"


def test_a_step_is_found_by_either_of_its_names() -> None:
    for name in ("convert_to_ft", "convert_checkpoint"):
        made = config(f"{name}.args.dtype=float16").convert_to_ft
        assert made is not None
        assert (made.script, made.args) == ("convert.py", {"dtype": "float16"})


def test_the_text_s_own_value_is_left_as_it_is() -> None:
    root = parse(TEXT, "c.yaml")
    changed, wrong = override(root, ["build.args.max_batch_size=16"])
    assert wrong == []
    assert root == parse(TEXT, "c.yaml")
    assert changed != root


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("build", "--set: 'build' is not KEY=VALUE; write it like build.args.max_batch_size=16"),
        ("=1", "--set: '=1' is not KEY=VALUE"),
        ("build..x=1", "--set: 'build..x=1' is not KEY=VALUE"),
        ("cache=perhaps", "--set: cache: 'perhaps' must be true or false"),
        ("buidl.script=x", "--set: buidl: is not a known key; did you mean build?"),
        ("model_id.x=1", "--set: model_id.x: leads below a value that is no mapping"),
        ("build.args.x={a: b}", "--set: build.args.x: must be a single value or a list"),
        ("build.args.x=[a", "--set: build.args.x: is not valid YAML"),
        ("build.args.x=1\nother: 2", "--set: build.args.x: '1\\nother: 2' is more than one value"),
        ("build.args.x=!!python/object:os.system y", "--set: build.args.x: the tag"),
    ],
)
def test_a_mistake_names_the_key_and_says_where_it_is_from(assignment: str, said: str) -> None:
    assert any(mistake.startswith(said) for mistake in mistakes(assignment)), mistakes(assignment)


def test_a_mistake_of_the_text_keeps_its_line() -> None:
    found = examine(TEXT + "caches: 1\n", "c.yaml", ["cache=x"]).mistakes
    assert [mistake.render("c.yaml").partition(": ")[0] for mistake in found] == ["--set", "c.yaml:10"]
