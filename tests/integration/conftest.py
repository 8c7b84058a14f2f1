"""Real servers for the integration tests: one Hub a session, and servers of each module's own."""

from __future__ import annotations

import base64
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MODEL_ID
from tests.integration.house import House
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import PROJECT_ROOT, CogServer, ConfigServer

TOOLCHAIN = PROJECT_ROOT / "cpu_toolchain"


@dataclass(frozen=True)
class Service:
    """A prediction server with everything it needs."""

    cog: CogServer
    hub: HubServer
    configs: ConfigServer
    folder: Path
    workspace: Path

    def config(self, name: str, text: str) -> str:
        """Serves a config over HTTP; its address."""
        (self.folder / name).write_text(text)
        return f"{self.configs.url}/{name}"


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A Hub with the demo's model under the quick start's name."""
    root = tmp_path_factory.mktemp("hub")
    models.make_demo_gpt2(root / MODEL_ID)
    with HubServer(root, tokens=["hf_goodtoken"]) as server:
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> Iterator[Service]:
    """Everything, running."""
    folder = tmp_path_factory.mktemp("configs")
    workspace = tmp_path_factory.mktemp("workspace")
    env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": str(workspace)}
    with ConfigServer(folder) as configs, CogServer(env) as cog:
        yield Service(cog, hub, configs, folder, workspace)


def unpack(prediction: dict[str, Any], folder: Path) -> Path:
    """Unpacks the archive that a prediction returned as a data: URI; the folder."""
    archive = folder / "engine.tar.gz"
    archive.write_bytes(base64.b64decode(prediction["output"].partition(",")[2]))
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "engine", filter="data")
    return folder / "engine"


@pytest.fixture(scope="module")
def house(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> House:
    """What a module's own server builds in, with the scripts of the toolchain of faults."""
    return House(hub, tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def server(house: House) -> Iterator[CogServer]:
    """A prediction server of the module's own, on its `house`."""
    with house.server() as cog:
        yield cog
