"""The config as it was run: what the archive says about how it was made."""

from __future__ import annotations

import pytest
import yaml

from trt_llm_pipeline.config import loads
from trt_llm_pipeline.plan import make_plan, resolved_yaml
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

CONFIG = """
model_id: owner/name
example_name: gpt
hf_token: hf_MARKED
revision: v1
convert_checkpoint:
  script: hf_gpt_convert.py
  args: {in-file: "${model_dir}", ratio: 0.50, word: 'true', bare: , off: false, names: ["${model_id}", on]}
build:
  script: build.py
  output_dir: engine
  timeout: 90m
  args: {model_dir: "${convert_to_ft.output_dir}", literal: "$${x}", elsewhere: /etc, src: /src/x}
"""


def test_references_are_replaced_directories_are_named_and_no_secret_is_in_it(
    miniature: Toolchain, workspace: Workspace
) -> None:
    planned, mistakes = make_plan(loads(CONFIG), miniature, workspace)
    assert mistakes == []
    found = {"convert_to_ft": workspace.root / "c-model/1-gpu", "build": workspace.root / "engine"}
    text = resolved_yaml(planned, found)
    assert "MARKED" not in text
    assert "token" not in text
    assert str(workspace.root) not in text
    assert yaml.safe_load(text) == {
        "model_id": "owner/name",
        "example_name": "gpt",
        "convert_to_ft": {
            "script": "hf_gpt_convert.py",
            "output_dir": "/src/c-model/1-gpu",
            "args": {
                "in-file": "/src/models/owner/name",
                "ratio": "0.50",
                "word": "true",
                "bare": None,
                "off": False,
                "names": ["owner/name", "on"],
            },
        },
        "build": {
            "script": "build.py",
            "output_dir": "/src/engine",
            "timeout": 5400.0,
            "args": {
                "model_dir": "/src/c-model/1-gpu",
                "literal": "$${x}",
                "elsewhere": "/etc",
                "src": "/src/x",
            },
        },
        "revision": "v1",
    }
    assert loads(text).build.args["literal"] == "$${x}"


@pytest.mark.parametrize(
    "written", ["check: off", "check: required", "check: {reference: true, timeout: 90s}", "check: on"]
)
def test_what_it_says_of_the_check_is_read_as_it_was(
    written: str, miniature: Toolchain, workspace: Workspace
) -> None:
    config = loads(f"{CONFIG}{written}\n")
    planned, mistakes = make_plan(config, miniature, workspace)
    assert mistakes == []
    found = {"convert_to_ft": workspace.root / "c", "build": workspace.root / "engine"}
    assert loads(resolved_yaml(planned, found)).check == config.check


def test_a_build_without_the_cache_has_the_config_of_one_with_it(
    miniature: Toolchain, workspace: Workspace
) -> None:
    found = {"convert_to_ft": workspace.root / "c", "build": workspace.root / "engine"}
    texts = set()
    for written in ("", "cache: false\n", "cache: true\n"):
        planned, mistakes = make_plan(loads(CONFIG + written), miniature, workspace)
        assert mistakes == []
        texts.add(resolved_yaml(planned, found))
    assert len(texts) == 1
