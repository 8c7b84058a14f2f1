"""The example matrix, ready to be run on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.fleet.fleet_house import FleetHouse
from trt_llm_pipeline.process.resources import machine_memory_bytes
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import PROJECT_ROOT


@pytest.fixture
def house(hub: HubServer, tmp_path: Path) -> FleetHouse:
    made = FleetHouse(hub.url, tmp_path)
    text = (PROJECT_ROOT / "examples" / "fleet" / "tiny.yaml").read_text()
    # All that a plan says there is can be asked for.
    needs = f"{{cpus: 1, memory: {machine_memory_bytes() // 1000**2}MB}}"
    (tmp_path / "tiny.yaml").write_text(text.replace("{cpus: 1}", needs))
    return made
