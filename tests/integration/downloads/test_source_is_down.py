"""A Hub or a tar's server that does not answer, with and without a complete model at hand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import INSIDE
from tests.integration.downloads.test_tar_models import model_tar
from trt_llm_pipeline.errors import ModelUnavailable
from trt_llm_pipeline.model_source import DownloadPlan, ModelRequest, Snapshot, fetch, plan
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import free_port

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 1000}
HUB = ModelRequest("owner/model")
#: What takes seconds on an idle machine. With every retry it would be minutes.
SOON_S = 60


class Downed:
    """A model that was fetched from a server, which then went away, or what is left of one that never was."""

    def __init__(self, models: Path, kind: str, complete: bool) -> None:
        self.models, self.lines = models, list[str]()
        with HubServer() as hub:
            hub.add_repository("owner/model", FILES)
            url = hub.add_file("m.tar", model_tar())
            self.env = {"HF_ENDPOINT": hub.url, **INSIDE}
            self.request = HUB if kind == "hub" else ModelRequest("owner/model", tar_url=url)
            if complete:
                self.fetch()
                self.lines.clear()

    def fetch(self) -> Snapshot:
        return fetch(self.request, self.models, token=None, log=self.lines.append, env=self.env)

    def plan(self) -> DownloadPlan:
        return plan(self.request, self.models, token=None, log=self.lines.append, env=self.env)


@pytest.mark.parametrize("kind", ["hub", "tar"])
class TestRefused:
    def test_a_complete_model_is_used_with_a_warning_within_seconds(self, tmp_path: Path, kind: str) -> None:
        downed = Downed(tmp_path, kind, complete=True)
        started = time.monotonic()
        snapshot = downed.fetch()
        assert time.monotonic() - started < SOON_S
        assert snapshot.downloaded_bytes == 0
        assert (snapshot.path / "config.json").read_bytes() == b"{}"
        assert "HF_HUB_OFFLINE=1" in snapshot.warnings[0]
        assert any(line.startswith("warning: ") for line in downed.lines)

    def test_a_complete_model_is_planned_with_as_well(self, tmp_path: Path, kind: str) -> None:
        downed = Downed(tmp_path, kind, complete=True)
        started = time.monotonic()
        planned = downed.plan()
        assert time.monotonic() - started < SOON_S
        assert planned.files == ()
        assert planned.missing_bytes == 0
        assert planned.total_bytes > 1000
        assert any("HF_HUB_OFFLINE=1" in line for line in downed.lines)

    @pytest.mark.parametrize(
        "ask",
        [
            pytest.param(Downed.fetch, id="fetch", marks=pytest.mark.slow),
            pytest.param(Downed.plan, id="plan"),
        ],
    )
    def test_without_one_it_is_given_up_after_shown_retries(
        self, tmp_path: Path, kind: str, ask: Callable[[Downed], object]
    ) -> None:
        downed = Downed(tmp_path, kind, complete=False)
        started = time.monotonic()
        with pytest.raises(ModelUnavailable, match=r"connection refused.*HF_HUB_OFFLINE=1"):
            ask(downed)
        assert time.monotonic() - started < SOON_S
        assert sum("connection refused; attempt" in line for line in downed.lines) == 3

    def test_offline_it_is_not_even_asked(self, tmp_path: Path, kind: str) -> None:
        downed = Downed(tmp_path, kind, complete=True)
        downed.env["HF_HUB_OFFLINE"] = "1"
        assert downed.plan().missing_bytes == 0
        assert downed.fetch().warnings == ()
        assert not [line for line in downed.lines if "refused" in line]

    def test_offline_without_a_model_it_says_why(self, tmp_path: Path, kind: str) -> None:
        downed = Downed(tmp_path, kind, complete=False)
        downed.env["HF_HUB_OFFLINE"] = "1"
        for ask in (downed.fetch, downed.plan):
            with pytest.raises(ModelUnavailable, match="Leave out --offline, and unset HF_HUB_OFFLINE"):
                ask()


def test_a_name_that_cannot_be_looked_up_is_given_up_soon(tmp_path: Path) -> None:
    lines: list[str] = []
    started = time.monotonic()
    with pytest.raises(ModelUnavailable, match="after 4 attempts"):
        fetch(
            HUB,
            tmp_path,
            token=None,
            log=lines.append,
            env={"HF_ENDPOINT": "http://nobody.invalid"},
        )
    assert time.monotonic() - started < SOON_S
    assert len(lines) == 3


@pytest.mark.slow
def test_a_hub_that_accepts_and_says_nothing_does_not_keep_a_complete_model_waiting(tmp_path: Path) -> None:
    downed = Downed(tmp_path, "hub", complete=True)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        downed.env["HF_ENDPOINT"] = f"http://127.0.0.1:{mute.getsockname()[1]}"
        started = time.monotonic()
        assert len(downed.fetch().warnings) == 1
        assert time.monotonic() - started < SOON_S


@pytest.mark.slow
def test_the_plan_command_shows_its_attempts(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "model_id: owner/model\nexample_name: gpt\n"
        "build:\n  script: build.py\n  output_dir: ./out\n  args:\n    model_dir: ./x\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [
            Path(sys.executable).with_name("trt-llm-pipeline"),
            "plan",
            str(config),
            "--workspace",
            str(tmp_path / "w"),
        ],
        env={
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}",
            "TRTLLM_DIR": str(root / "cpu_toolchain"),
        },
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert done.stderr.count("connection refused; attempt") == 3, done.stderr
