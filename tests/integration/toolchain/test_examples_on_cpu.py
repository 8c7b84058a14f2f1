"""docs/examples.md says which configs the embedded toolchain runs and why it refuses the others: it does so.

Each config is run unchanged, on a tiny model of the same architecture under the same name.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.config import loads
from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder

EXAMPLES = ROOT / "examples"
#: What makes a tiny GPT-2 or Llama repository look like one of another architecture.
OTHER_ARCHITECTURES = {
    "bigcode/starcoder": {"model_type": "gpt_bigcode", "architectures": ["GPTBigCodeForCausalLM"]},
    "mistralai/Mistral-7B-Instruct-v0.1": {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "sliding_window": 4096,
    },
    "mistralai/Mixtral-8x7B-Instruct-v0.1": {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
}


@dataclass(frozen=True)
class Row:
    """One row of the table in docs/examples.md."""

    config: str
    model_id: str
    release: str
    gpus: str
    verdict: str

    @property
    def runs(self) -> bool:
        return self.verdict == "runs"

    @property
    def reasons(self) -> list[str]:
        """What the refusal says, one of these at least."""
        return re.findall(r"`([^`]+)`", self.verdict)


def table() -> list[Row]:
    lines = (ROOT / "docs" / "examples.md").read_text().split("\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if ".yaml |" in line]
    return [Row(*row) for row in cells]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A workspace, and a Hub that has a tiny model under every name in the table."""
    root = tmp_path_factory.mktemp("hub")
    for row in table():
        folder = root / row.model_id
        if folder.exists():
            continue
        make = models.make_gpt2 if row.config.startswith("gpt/") else models.make_llama
        make(folder)
        if row.model_id in OTHER_ARCHITECTURES:
            described = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(described | OTHER_ARCHITECTURES[row.model_id]))
    with HubServer(root) as hub:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(ROOT / "cpu_toolchain")}
        yield Settings.from_env(env, workspace=tmp_path_factory.mktemp("workspace"))


def build(row: Row, settings: Settings) -> pipeline.BuildResult:
    text = (EXAMPLES / row.config).read_text()
    return pipeline.build(validate(text, Path(row.config).name, settings), settings, Recorder())


def test_the_table_lists_every_config_with_its_own_facts() -> None:
    listed = {row.config: row for row in table()}
    configs = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/*.yaml")}
    assert set(listed) == {name for name in configs if not name.startswith("fleet/")}  # those are matrices
    for name, row in listed.items():
        text = (EXAMPLES / name).read_text()
        assert loads(text).model_id == row.model_id
        count, _, memory = row.gpus.partition(" x ")
        assert re.search(rf"Needs: {count} GPUs? .*with {memory} of memory", text), row
        release = re.search(r"Release: ([\d.]+\d)(?: \([^)]*\))?(?: to ([\d.]+\d))?", text)
        assert release is not None
        said = " to ".join(part.removesuffix(".1") for part in release.groups() if part)
        assert said == row.release, row


def runnable() -> list[object]:
    """The configs that run; in the quick half, one that is not the quick start's."""
    quick = ("llama/llama-2-7b-chat-fp16-1gpu-trtllm-build.yaml",)
    return [
        pytest.param(row, id=row.config, marks=() if row.config in quick else pytest.mark.slow)
        for row in table()
        if row.runs
    ]


@pytest.mark.parametrize("row", runnable())
def test_runs(row: Row, settings: Settings) -> None:
    with tarfile.open(build(row, settings).archive) as tar:
        names = tar.getnames()
    assert "config.json" in names
    assert any(name.endswith("rank0.engine") for name in names)


@pytest.mark.parametrize("row", [row for row in table() if not row.runs], ids=lambda row: row.config)
def test_is_refused_with_the_stated_reason(row: Row, settings: Settings) -> None:
    assert row.verdict.startswith("refused: ")
    with pytest.raises(ConfigError) as raised:
        build(row, settings)  # so nothing has been downloaded
    assert row.reasons
    assert any(reason in str(raised.value) for reason in row.reasons), str(raised.value)
