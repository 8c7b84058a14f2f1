"""`validate` and `plan` say that a model comes with code; neither downloads a weight or writes anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trt_llm_pipeline.testing.hub import HubServer

COMMAND = Path(sys.executable).with_name("trt-llm-pipeline")
CONFIG = """\
model_id: somebody/evil
example_name: gpt
{keys}
build:
  script: build.py
  output_dir: ./engine
  args:
    model_dir: ${{model_dir}}
    output_dir: ./engine
"""
FILES = {
    "config.json": b'{"model_type": "gpt2", "auto_map": {"AutoConfig": "conf.Evil"}}',
    "conf.py": b"class Evil: pass",
    "model.safetensors": b"weights",
}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add_repository("somebody/evil", FILES)
        yield server


def run(
    command: str, folder: Path, endpoint: str, keys: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    (folder / "config.yaml").write_text(CONFIG.format(keys=keys))
    return subprocess.run(
        [COMMAND, command, "config.yaml", "--json"],
        cwd=folder,
        env={**os.environ, "HF_ENDPOINT": endpoint, "TRTLLM_DIR": str(ROOT / "cpu_toolchain"), **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["validate", pytest.param("plan", marks=pytest.mark.slow)])
def test_code_is_refused_with_files_and_key(hub: HubServer, tmp_path: Path, command: str) -> None:
    hub.clear_requests()
    done = run(command, tmp_path, hub.url)
    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout)
    assert (told["kind"], told["type"]) == ("model_source", "RepositoryCodeRefused")
    assert told["files"] == ["conf.py", "config.json"]
    assert "`allow_repository_code: true`" in told["error"]
    assert not [request for request in hub.requests if request.path.endswith("model.safetensors")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"]


@pytest.mark.parametrize("command", ["validate", pytest.param("plan", marks=pytest.mark.slow)])
def test_code_that_is_allowed_is_no_mistake(hub: HubServer, tmp_path: Path, command: str) -> None:
    done = run(command, tmp_path, hub.url, "allow_repository_code: true")
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)


def test_a_hub_that_cannot_be_asked_is_a_note(hub: HubServer, tmp_path: Path) -> None:
    done = run("validate", tmp_path, hub.url, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert any("was not looked at for code" in note for note in json.loads(done.stdout)["notes"])


def test_a_variable_that_makes_no_sense_is_named(hub: HubServer, tmp_path: Path) -> None:
    done = run("validate", tmp_path, hub.url, TRT_LLM_REPOSITORY_CODE="perhaps")
    assert done.returncode == 1
    assert "TRT_LLM_REPOSITORY_CODE is 'perhaps'" in json.loads(done.stdout)["error"]
