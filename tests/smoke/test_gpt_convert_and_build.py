"""The smoke test of a whole service: a config server, the prediction server, a conversion and a build.

    LOCAL_TEST=true python3 -m pytest tests/smoke/test_gpt_convert_and_build.py

runs it against a server process on this machine, with the embedded toolchain and a Hub on loopback. With
COG_TRITON_IMAGE set, the server runs in a container of that image instead, with the GPU and the real Hub.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MODEL_ID
from tests.integration.conftest import TOOLCHAIN, unpack
from tests.smoke.container import CogContainer
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import PROJECT_ROOT, CogServer, ConfigServer

CONFIG = "examples/gpt/config.yaml"
IMAGE = os.environ.get("COG_TRITON_IMAGE")


@pytest.fixture(scope="module")
def config_server() -> Iterator[ConfigServer]:
    with ConfigServer(PROJECT_ROOT) as server:
        yield server


@pytest.fixture(scope="module")
def cog_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CogServer]:
    if IMAGE:
        with CogContainer(IMAGE) as server:
            yield server
        return
    root = tmp_path_factory.mktemp("hub")
    models.make_demo_gpt2(root / MODEL_ID)
    workspace = tmp_path_factory.mktemp("workspace")
    with HubServer(root) as hub:
        env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": str(workspace)}
        with CogServer(env) as server:
            yield server


def test_config_server_serves_the_config(config_server: ConfigServer) -> None:
    with urllib.request.urlopen(f"{config_server.url}/{CONFIG}", timeout=10) as answer:
        assert answer.read() == (PROJECT_ROOT / CONFIG).read_bytes()


def test_server_is_healthy(cog_server: CogServer) -> None:
    assert cog_server.health() == "READY"


def test_prediction_returns_an_engine(
    cog_server: CogServer, config_server: ConfigServer, tmp_path: Path
) -> None:
    prediction = cog_server.predict(timeout=600, config=f"{config_server.url}/{CONFIG}")
    assert prediction["status"] == "succeeded", prediction["error"]
    engine = unpack(prediction, tmp_path)
    names = {path.name for path in engine.iterdir()}
    assert {"config.json", "manifest.json", "tokenizer.json"} <= names
    assert any(name.endswith(".engine") for name in names)
