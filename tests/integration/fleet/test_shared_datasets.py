"""A dataset that several cells read."""

from __future__ import annotations

import pytest

from tests.integration.fleet.fleet_house import FleetHouse
from tests.integration.house import TOOLCHAIN
from trt_llm_pipeline.testing.hub import HubServer

WITH_A_DATASET = """\
config:
  model_id: owner/model
  example_name: faults
  datasets: {texts: {id: acme/texts}}
  build:
    script: reads_dataset.py
    output_dir: ./engine
    args: {dataset: "${datasets.texts}", named: texts, output_dir: ./engine, other: "x${matrix.n}"}
matrix: {n: [1, 2, 3]}
resources: {cpus: 1}
destination: file:///src/engines/${matrix.n}/engine.tar.gz
"""


@pytest.mark.slow
def test_a_dataset_is_downloaded_once_for_all_cells(house: FleetHouse, hub: HubServer) -> None:
    hub.add_repository("owner/model", {"config.json": b"{}", "model.safetensors": b"w" * 10})
    train = b"words " * 1000
    hub.add_repository("datasets/acme/texts", {"data/train.parquet": train})
    house.toolchain = TOOLCHAIN
    (house.folder / "fleet.yaml").write_text(WITH_A_DATASET)
    planned = house.json("plan", "fleet.yaml")
    (dataset,) = planned["datasets"]
    assert (dataset["id"], dataset["total_bytes"], dataset["missing_bytes"]) == (
        "acme/texts",
        len(train),
        len(train),
    )
    assert planned["missing_bytes"] == len(train) + 12
    out, _ = house.run("plan", "fleet.yaml")
    assert f"dataset acme/texts at {dataset['revision']}: 6.0 kB, 6.0 kB not in the fleet's own" in out
    hub.clear_requests()
    ended = house.json("run", "fleet.yaml")
    assert sorted(ended["delivered"]) == ["1", "2", "3"]
    fetched = [
        request
        for request in hub.requests
        if request.method == "GET" and request.path.endswith("/data/train.parquet")
    ]
    assert len(fetched) == 1
    assert house.json("plan", "fleet.yaml")["missing_bytes"] == 0
    house.assert_nothing_is_left()
