"""Every file of `fixtures/bad_configs` and the exact message beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import FIXTURES
from trt_llm_pipeline.config import examine
from trt_llm_pipeline.config.yaml_reader import read_text
from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.plan import make_plan
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

BAD_CONFIGS = sorted((FIXTURES / "bad_configs").glob("*.yaml"))


def message_for(path: Path, toolchain: Toolchain, workspace: Workspace) -> str:
    """What the user is told, with the workspace's path as `{workspace}`."""
    try:
        loaded = examine(read_text(path), path.name)
        found = list(loaded.mistakes)
        if loaded.config is not None:
            found.extend(make_plan(loaded.config, toolchain, workspace)[1])
        found.sort(key=lambda mistake: mistake.line or 0)
        if not found:
            return "no mistake"
        error = ConfigError(found, path.name)
    except ConfigError as refused:
        error = refused
    return str(error).replace(str(workspace.root), "{workspace}") + "\n"


def test_there_are_bad_configs_and_each_has_its_message() -> None:
    assert len(BAD_CONFIGS) > 80
    messages = {path.stem for path in (FIXTURES / "bad_configs").glob("*.txt")}
    assert messages == {path.stem for path in BAD_CONFIGS}


@pytest.mark.parametrize("path", BAD_CONFIGS, ids=lambda path: path.stem)
def test_a_bad_config_is_refused_with_its_message(
    path: Path, miniature: Toolchain, workspace: Workspace
) -> None:
    message = message_for(path, miniature, workspace)
    assert message == path.with_suffix(".txt").read_text(encoding="utf-8")
    assert "MARKED" not in message
    assert not workspace.root.exists()
