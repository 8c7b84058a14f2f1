"""cog.yaml says what Cog needs to know, in the keys that Cog's config schema (version 1.0) allows.

https://github.com/replicate/cog/blob/main/pkg/config/data/config_schema_v1.0.json
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dockerfile import DOCKERFILE, ROOT, instructions

TOP_LEVEL: dict[str, type | tuple[type, ...]] = {
    "build": dict,
    "image": str,
    "model": str,
    "run": str,
    "predict": str,
    "train": str,
    "concurrency": dict,
    "environment": list,
    "weights": list,
}
BUILD: dict[str, type | tuple[type, ...]] = {
    "cuda": str,
    "cudnn": str,
    "gpu": bool,
    "python_version": (str, int, float),
    "python_packages": list,
    "pre_install": list,
    "python_requirements": str,
    "system_packages": list,
    "sdk_version": str,
    "run": list,
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    value = yaml.safe_load((ROOT / "cog.yaml").read_text())
    assert isinstance(value, dict)
    return value


def violations(document: dict[str, Any]) -> list[str]:
    """Where the document breaks the schema's rules."""
    found = []
    for allowed, value in ((TOP_LEVEL, document), (BUILD, document.get("build", {}))):
        for key, item in value.items():
            if key not in allowed:
                found.append(f"unknown key {key}")
            elif not isinstance(item, allowed[key]):
                found.append(f"wrong type of {key}")
    if "build" in document and "python_version" not in document["build"]:
        found.append("python_version is missing")
    if {"run", "predict"} <= set(document):
        found.append("run and predict exclude each other")
    return found


def test_keeps_to_the_schema(document: dict[str, Any]) -> None:
    assert violations(document) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pretict": "x"}, "unknown key pretict"),
        ({"image": 1}, "wrong type of image"),
        ({"run": "predict.py:Predictor"}, "run and predict exclude each other"),
        ({"build": {"gpu": True}}, "python_version is missing"),
        ({"build": {"python_version": "3.10", "gpus": 1}}, "unknown key gpus"),
    ],
)
def test_the_check_sees_violations(document: dict[str, Any], change: dict[str, Any], expected: str) -> None:
    assert violations({**document, **change}) == [expected]


def test_asks_for_a_gpu_and_a_supported_python(document: dict[str, Any]) -> None:
    assert document["build"]["gpu"] is True
    assert re.fullmatch(r"3\.1[0-2]", str(document["build"]["python_version"]))


def test_names_the_predictor_that_is_there(document: dict[str, Any]) -> None:
    file, _, name = document["predict"].partition(":")
    tree = ast.parse((ROOT / file).read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    methods = {node.name for node in classes[name].body if isinstance(node, ast.FunctionDef)}
    assert "predict" in methods


def test_agrees_with_the_dockerfile(document: dict[str, Any]) -> None:
    text = " ".join(item.text for item in instructions(DOCKERFILE.read_text()) if item.keyword == "ENV")
    assert f"COG_PREDICT_TYPE_STUB={document['predict']}" in text


def test_image_has_the_name_that_the_readme_and_the_smoke_test_use(document: dict[str, Any]) -> None:
    assert document["image"] == "cog-trt-llm"
    assert Path(ROOT / "docs" / "container.md").read_text().count("docker build -t cog-trt-llm .") >= 1
