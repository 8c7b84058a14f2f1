"""`trt-llm-pipeline build`, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import TOOLCHAIN
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

COMMAND = Path(sys.executable).with_name("trt-llm-pipeline")


def test_archive_of_the_users_own_stays_and_the_new_ones_path_is_printed(
    hub: HubServer, tmp_path: Path
) -> None:
    mine = tmp_path / "ws" / "engine.tar.gz"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": str(tmp_path / "ws")}
    config = PROJECT_ROOT / "examples" / "gpt" / "config.yaml"
    told = subprocess.run(
        [COMMAND, "build", config], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    printed = Path(told.stdout.strip())
    assert printed.is_file()
    assert printed.parent.parent == tmp_path / "ws" / "builds"
    assert mine.read_bytes() == b"mine"
    assert "is not this service's, so it stays" in told.stderr
