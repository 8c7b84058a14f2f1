"""The image's layout, made in a scratch directory by following the Dockerfile, serves and builds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dockerfile import DOCKERFILE, Instruction, Replay, stages
from tests.integration.conftest import unpack
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["borrowed", "installed"], ids=str)
def replayed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """The layout: with this environment's packages, or with packages installed as the Dockerfile says."""
    replay = Replay(tmp_path_factory.mktemp("image"), install=request.param == "installed")
    return Replayed(replay, replay.run())


class Replayed:
    """A replayed image."""

    def __init__(self, replay: Replay, env: dict[str, str]) -> None:
        self.replay = replay
        self.env = env
        self.src = replay.root / "src"

    def embedded(self) -> dict[str, str]:
        """The image's environment, with the embedded toolchain in the place of TensorRT-LLM."""
        return {**self.env, "TRTLLM_DIR": str(self.src / "cpu_toolchain"), "TRTLLM_PYTHON": ""}


class ServerByCommand(CogServer):
    """The server as the Dockerfile's CMD starts it."""

    def __init__(self, env: dict[str, str], *, cwd: Path) -> None:
        super().__init__(env, cwd=cwd)
        self._argv = ["/usr/bin/env", *instruction("CMD").words, "--host", "127.0.0.1"]


def instruction(keyword: str) -> Instruction:
    """The last stage's instruction of that keyword."""
    return next(item for item in stages(DOCKERFILE.read_text())[-1] if item.keyword == keyword)


@pytest.fixture(scope="module")
def server(replayed: Replayed, hub: HubServer) -> Iterator[CogServer]:
    """The server, started by the Dockerfile's CMD in its WORKDIR with its ENV."""
    env = {**replayed.embedded(), "HF_ENDPOINT": hub.url}
    with ServerByCommand(env, cwd=replayed.src) as server:
        yield server


def test_server_of_the_layout_builds_an_engine(server: CogServer, replayed: Replayed, tmp_path: Path) -> None:
    prediction = server.predict(config="./examples/gpt/config.yaml")
    assert prediction["status"] == "succeeded", prediction["error"]
    assert f"at {replayed.src / 'cpu_toolchain'}" in prediction["logs"]
    engine = unpack(prediction, tmp_path)
    assert (engine / "config.json").is_file()
    assert (replayed.src / "engine.tar.gz").is_file()
    argv = [str(replayed.replay.root / "opt/service/bin/python"), "cpu_toolchain/examples/run.py"]
    argv += ["--engine_dir", str(engine), "--tokenizer_dir", str(engine), "--input_text", "The"]
    argv += ["--max_output_len", "4"]
    done = subprocess.run(argv, cwd=replayed.src, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Output [Text 0 Beam 0]" in done.stdout


def test_server_describes_and_checks_its_inputs(server: CogServer) -> None:
    status, document = server.request("GET", "/openapi.json")
    assert status == 200
    assert "config" in document["components"]["schemas"]["Input"]["properties"]
    status, _ = server.request("POST", "/predictions", {"input": {}})
    assert status == 422


def test_health_check_tells_a_live_server_from_a_dead_one(server: CogServer, replayed: Replayed) -> None:
    program, flag, code = instruction("HEALTHCHECK").words
    env = {**os.environ, **replayed.env}
    for port, expected in ((server.port, 0), (1, 1)):
        argv = [program, flag, code.replace("127.0.0.1:5000", f"127.0.0.1:{port}")]
        assert subprocess.run(argv, env=env, capture_output=True).returncode == expected


def test_command_line_is_installed(replayed: Replayed) -> None:
    if not replayed.replay.install:
        assert (replayed.src / "trt_llm_pipeline" / "cli" / "commands.py").is_file()
        return
    argv = ["trt-llm-pipeline", "validate", "examples/gpt/config.yaml"]
    env = {**os.environ, **replayed.embedded()}
    done = subprocess.run(
        [str(replayed.replay.root / "opt/service/bin" / argv[0]), *argv[1:]],
        cwd=replayed.src,
        env=env,
        capture_output=True,
        text=True,
    )
    expected = (
        "examples/gpt/config.yaml: OK for cpu toolchain (build.py of 0.5.0 and 0.7.1): 2 steps, 8 options\n"
    )
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_only_the_base_image_s_part_is_left_out(replayed: Replayed) -> None:
    installed = [part for part in replayed.replay.skipped if part.startswith("apt-get install")]
    assert [part.split()[-1] for part in installed] == ["python3-venv", "tini"]
