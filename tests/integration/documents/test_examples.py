"""The library of configs in examples/: each can be read, rendered and edited with the schema's help."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT
from trt_llm_pipeline.config import BuildConfig, load
from trt_llm_pipeline.config.references import Resolver
from trt_llm_pipeline.plan import Plan, PlannedStep
from trt_llm_pipeline.plan.command import RenderedArgs, render
from trt_llm_pipeline.preflight.argument_places import misplaced
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*/*.yaml") if path.parent.name != "fleet")
QUICK_START = ROOT / "examples" / "gpt" / "config.yaml"
FAMILIES = {"gpt", "llama", "mistral", "mixtral", "qwen", "falcon", "opt"}
#: Every release that a comment may name, in order.
RELEASES = ["0.5", "0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13", "0.16", "0.18", "0.19", "0.20", "1.0"]

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def rendered(config: BuildConfig, workspace: Workspace) -> dict[str, RenderedArgs]:
    """Each step's arguments."""
    resolver = Resolver(config, str(workspace.models / config.model_id), {})
    return {
        name: render(step.args, lambda text: workspace.map(resolver.text(text)))
        for name, step in config.steps()
    }


def head_comment(path: Path) -> str:
    """The comment lines before the first key, as one text."""
    lines = path.read_text().split("\n")
    first_key = next(at for at, line in enumerate(lines) if line and not line.startswith("#"))
    return " ".join(line.lstrip("# ") for line in lines[:first_key])


def test_every_family_has_a_config() -> None:
    assert {path.parent.name for path in EXAMPLES} == FAMILIES
    assert QUICK_START in EXAMPLES


def test_quick_start_says_exactly_what_the_original_does() -> None:
    assert yaml.safe_load(QUICK_START.read_text()) == {
        "model_id": "sshleifer/tiny-gpt2",
        "example_name": "gpt",
        "convert_to_ft": {
            "script": "hf_gpt_convert.py",
            "output_dir": "./c-model/gpt2/1-gpu",
            "args": {
                "in-file": "/src/models/sshleifer/tiny-gpt2",
                "out-dir": "./c-model/gpt2",
                "tensor-parallelism": 1,
                "storage-type": "float16",
            },
        },
        "build": {
            "script": "build.py",
            "output_dir": "./engine_outputs/",
            "args": {
                "model_dir": "./c-model/gpt2/1-gpu",
                "output_dir": "./engine_outputs/",
                "use_gpt_attention_plugin": None,
                "remove_input_padding": None,
            },
        },
    }


@each_example
def test_loads_and_renders_without_open_references(path: Path, tmp_path: Path) -> None:
    config = load(path)
    workspace = Workspace.at(tmp_path)
    for name, arguments in rendered(config, workspace).items():
        assert arguments.argv, name
        assert not [text for text in arguments.argv if "${" in text or text.startswith("/src")]


@each_example
def test_the_first_step_reads_the_downloaded_model(path: Path, tmp_path: Path) -> None:
    config = load(path)
    workspace = Workspace.at(tmp_path)
    first = next(iter(rendered(config, workspace).values()))
    assert str(workspace.models / config.model_id) in first.argv


@each_example
def test_each_step_writes_where_its_output_dir_says(path: Path, tmp_path: Path) -> None:
    config = load(path)
    workspace = Workspace.at(tmp_path)
    arguments = rendered(config, workspace)
    resolver = Resolver(config, str(workspace.models / config.model_id), {})
    for name, step in config.steps():
        assert step.output_dir is not None
        declared = workspace.output_dir(resolver.text(step.output_dir))
        named = [
            (workspace.root / value).resolve()
            for value, key in zip(arguments[name].argv, arguments[name].keys, strict=True)
            if key in ("output_dir", "out-dir") and not value.startswith("-")
        ]
        # NVIDIA's hf_*_convert.py scripts add one folder of their own.
        assert declared in named or declared.parent in named


@each_example
def test_each_step_reads_what_the_step_before_it_wrote(path: Path, tmp_path: Path) -> None:
    config = load(path)
    workspace = Workspace.at(tmp_path)
    arguments = rendered(config, workspace)
    steps = list(config.steps())
    for (_, earlier), (name, _) in itertools.pairwise(steps):
        resolver = Resolver(config, "", {})
        written = (workspace.root / resolver.text(earlier.output_dir or "")).resolve()
        read = [(workspace.root / text).resolve() for text in arguments[name].argv]
        assert written in read


@each_example
def test_no_argument_leads_where_no_step_may_reach(path: Path, miniature: Toolchain, tmp_path: Path) -> None:
    config = load(path)
    steps = tuple(PlannedStep(name, step, (), miniature.root, None) for name, step in config.steps())
    plan = Plan(config, miniature, Workspace.at(tmp_path / "workspace"), steps)
    assert misplaced(plan, [miniature.root], confined=True) == []


@each_example
def test_ranks_of_the_steps_agree(path: Path, tmp_path: Path) -> None:
    arguments = rendered(load(path), Workspace.at(tmp_path))
    counts = {
        argv.argv[at + 1]
        for argv in arguments.values()
        for at, option in enumerate(argv.argv)
        if option in ("--world_size", "--tp_size", "--tensor-parallelism")
    }
    promised = re.search(r"(\d+)gpu", path.stem)
    assert counts <= {promised[1] if promised else "1"}
    if promised and promised[1] != "1":
        assert counts == {promised[1]}


@each_example
def test_schema_line_leads_to_a_schema_that_accepts_the_config(path: Path) -> None:
    first = path.read_text().split("\n", 1)[0]
    match = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert match is not None, first
    schema = json.loads((path.parent / match[1]).read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


@each_example
def test_comment_says_which_release_and_how_much_memory(path: Path) -> None:
    comment = head_comment(path)
    assert re.search(r"Needs: \d GPUs? (of compute capability [\d. or]+ )?with \d+ GB of memory", comment)
    assert re.search(r"Release: \d", comment)


@each_example
def test_required_releases_are_those_of_the_comment(path: Path) -> None:
    config = load(path)
    if path == QUICK_START:
        assert config.requires_trt_llm is None
        return
    assert config.requires_trt_llm is not None
    match = re.search(r"Release: ([\d.]+\d)(?: \([^)]*\))?(?: to ([\d.]+\d))?", head_comment(path))
    assert match is not None
    first, last = RELEASES.index(match[1]), RELEASES.index(match[2] or match[1])
    accepted = [release for release in RELEASES if SpecifierSet(config.requires_trt_llm).contains(release)]
    assert accepted == RELEASES[first : last + 1]
