"""Any YAML is a config or a ConfigError, and what an author writes is what a script's parser reads."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trt_llm_pipeline.config import BuildConfig, Loaded, examine, loads
from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.plan import make_plan, resolved_yaml
from trt_llm_pipeline.plan.command import render, shell_line
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

FAST_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
KEYS = [
    *("model_id", "example_name", "convert_to_ft", "convert_checkpoint", "quantize", "build", "revision"),
    *("weight_format", "model_tar_url", "hf_token", "requires_trt_llm"),
    *("executable", "script", "output_dir", "args", "timeout", "<<", "dtype", "max-batch-size"),
]
TELLING = [
    *(
        "gpt",
        "owner/name",
        "../x",
        "/",
        ".",
        "",
        "~",
        "null",
        "true",
        "0",
        "1e-3",
        "90m",
        ">=0.9",
        "bin",
        "latest",
    ),
    *("build.py", "../build.py", "python", "trtllm-build", "/bin/sh", "./out", "/src/out", "/src", "models"),
    *(
        "${model_dir}",
        "${build.output_dir}",
        "${convert_to_ft.args.dtype}",
        "${",
        "$${x}",
        "${build.args.dtype}",
    ),
    *(
        "\0",
        "\x1b",
        "\u2028",
        "\ufeff",
        "𐍈",
        "- a",
        "a: b",
        "# x",
        "'",
        '"',
        "*a",
        "&a",
        "!x",
        "%x",
        "@",
        "`",
    ),
]
anything = st.text(st.characters(codec=None), max_size=20)
words = st.sampled_from(TELLING) | anything
keys = st.sampled_from(KEYS) | words
structures = st.recursive(
    words | st.integers() | st.floats() | st.booleans() | st.none() | st.dates() | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=25,
)
steps = st.fixed_dictionaries(
    {},
    optional={
        "script": st.just("build.py") | words,
        "executable": st.sampled_from(["python", "trtllm-build"]) | words,
        "output_dir": words,
        "timeout": words,
        "args": st.dictionaries(
            keys, words | st.lists(words, max_size=3) | st.booleans() | st.none(), max_size=5
        ),
        "other": structures,
    },
)
nearly_configs = st.fixed_dictionaries(
    {
        "model_id": st.just("owner/name") | words,
        "example_name": st.just("gpt") | words,
        "build": steps | words,
    },
    optional={
        "convert_to_ft": steps,
        "quantize": steps,
        "revision": words,
        "hf_token": words,
        "other": structures,
    },
)
yaml_marks = st.sampled_from(
    ["\n", "\n  ", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "!t ", "? ", "|\n", "---", ","]
)
yaml_like = st.lists(st.sampled_from(KEYS) | words | yaml_marks, max_size=30).map("".join)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Toolchain:
    folder = tmp_path_factory.mktemp("toolchain")
    (folder / "examples/gpt").mkdir(parents=True)
    (folder / "examples/gpt/build.py").write_text("")
    return Toolchain(folder, "t", "1", ("1",), sys.executable, "")


def check(text: str, tools: Toolchain) -> None:
    """Loads a text as the service does: it is planned as far as it can be, and nothing else is raised."""
    try:
        loaded = examine(text)
    except ConfigError as error:
        refused = error
    else:
        if loaded.config is not None:
            check_plan(loaded, loaded.config, tools)
        if not loaded.mistakes:
            assert isinstance(loads(text), BuildConfig)
            return
        refused = ConfigError(loaded.mistakes)
    assert refused.mistakes
    for mistake in refused.mistakes:
        assert mistake.message
        assert mistake.render("c.yaml").startswith("c.yaml")


def check_plan(loaded: Loaded, config: BuildConfig, tools: Toolchain) -> None:
    workspace = Workspace(tools.root.parent / "workspace")
    planned, mistakes = make_plan(config, tools, workspace)
    assert all(mistake.line is not None and mistake.message for mistake in mistakes)
    if not mistakes and not loaded.mistakes:
        assert len(planned.steps) == len(list(config.steps()))
    for step in planned.steps:
        rendered = planned.render(step, planned.expected_dirs())
        assert len(rendered.argv) == len(rendered.keys)
        assert step.output_dir is None or step.output_dir.is_relative_to(workspace.root)
    assert not workspace.root.exists()


@settings(max_examples=900)
@given(text=anything | yaml_like)
def test_any_text_is_a_config_or_an_error(text: str, tools: Toolchain) -> None:
    check(text, tools)


@settings(max_examples=500)
@given(structure=structures)
def test_any_yaml_is_a_config_or_an_error(structure: Any, tools: Toolchain) -> None:
    check(json.dumps(structure, default=str, ensure_ascii=False), tools)


@settings(max_examples=700)
@given(structure=nearly_configs)
def test_what_is_nearly_a_config_is_one_or_an_error(structure: Any, tools: Toolchain) -> None:
    check(json.dumps(structure, default=str, ensure_ascii=False), tools)


# What a program can be given: no NUL, and characters that YAML can hold.
characters = st.characters(codec="utf-8", exclude_characters="\0")
# Before 3.12.5 argparse loses a value that is just "--" (https://github.com/python/cpython/issues/60346).
some_texts = st.text(characters, max_size=15) | st.sampled_from(
    [
        "0.50",
        "1e-3",
        "0",
        "on",
        "yes",
        "no",
        "~",
        "null",
        "true",
        "",
        " ",
        "-",
        "--",
        "-1",
        "--x",
        "-x=y",
        "a b",
        "=",
        "'",
    ]
)
texts = some_texts.filter(lambda text: text != "--")
plain_lists = st.lists(texts.filter(lambda text: not text.startswith("-")), max_size=3)
options = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True),
    texts | st.booleans() | st.none() | plain_lists,
    max_size=6,
)


class _Quoted(str):
    """Text that YAML is to hold in quotes."""


def _dump(value: object) -> str:
    class Dumper(FAST_DUMPER):
        pass

    Dumper.add_representer(
        _Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')
    )
    return yaml.dump(value, Dumper=Dumper, sort_keys=False)


def _as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    # `$$` is how a config writes a `${` that is no reference.
    return _Quoted(value.replace("${", "$${")) if isinstance(value, str) else value


def config_with(args: dict[str, Any]) -> str:
    written = {key: _as_text(value) for key, value in args.items()}
    return _dump({"model_id": "m", "example_name": "gpt", "build": {"script": "build.py", "args": written}})


@settings(max_examples=250)
@given(options)
def test_a_scripts_parser_reads_what_the_author_wrote(args: dict[str, Any]) -> None:
    config = loads(config_with(args))
    argv = render(config.build.args, lambda text: text.replace("$${", "${")).argv
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for key, value in args.items():
        kind: dict[str, Any] = {"action": "store_true"} if value is None or isinstance(value, bool) else {}
        if isinstance(value, list):
            kind = {"nargs": "*"}
        parser.add_argument(f"--{key}", dest=key, **kind)
    read = vars(parser.parse_args(argv))
    assert read == {key: True if value is None else value for key, value in args.items()}
    assert shlex.split(shell_line(argv)) == list(argv)


@settings(max_examples=100)
@given(args=options, model_dir=st.sampled_from(["/src/models/m", "${model_dir}", "${build.args.x-y}"]))
@example(args={"a": "/src"}, model_dir="${model_dir}")
@example(args={"a": "first"}, model_dir="/src/models/m")
def test_the_resolved_config_builds_the_same_in_another_workspace(
    args: dict[str, Any], model_dir: str, tools: Toolchain
) -> None:
    text = config_with({**args, "x-y": "/src/models/m", "model_dir": "MODEL_DIR"}).replace(
        "MODEL_DIR", model_dir
    )
    folder = tools.root.parent
    first, mistakes = make_plan(loads(text), tools, Workspace(folder / "first"))
    assert mistakes == []
    resolved = resolved_yaml(first, {"build": folder / "first/engine"})
    assert str(folder) not in resolved
    second, mistakes = make_plan(loads(resolved), tools, Workspace(folder / "second"))
    assert mistakes == []
    argvs = [planned.render(planned.steps[0], {}).argv for planned in (first, second)]
    assert argvs[0][-1] == f"{folder}/first/models/m"
    assert argvs[1] == tuple(text.replace(f"{folder}/first", f"{folder}/second") for text in argvs[0])
    assert second.steps[0].output_dir == folder / "second/engine"
