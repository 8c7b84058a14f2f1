"""The example matrix on this machine: every engine delivered, then everything from the records."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from pathlib import Path

from tests.integration.fleet.fleet_house import FleetHouse
from trt_llm_pipeline.delivery import beside
from trt_llm_pipeline.inspection import inspect

CELLS = ["float16-1", "float16-8", "float32-8", "float16-32"]


def test_every_cell_is_delivered_and_the_second_run_is_one_listing(house: FleetHouse) -> None:
    downloads = "attempt-1.log"
    planned = house.json("plan", "tiny.yaml")
    assert all(cell["nodes"] for cell in planned["cells"])
    assert planned["infeasible"] == []
    first = house.json("run", "tiny.yaml")
    assert sorted(first["delivered"]) == sorted(CELLS)
    assert first["failed"] == {}
    for address in first["delivered"].values():
        archive = Path(address.removeprefix("file://"))
        assert archive.is_relative_to(house.workspace / "engines")
        assert inspect(str(archive)).contents.strict
        statement = json.loads(beside(archive).read_text())
        said = json.loads(base64.b64decode(statement["payload"]))
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert said["subject"][0]["digest"]["sha256"] == sha256
    house.assert_nothing_is_left()

    # What several cells need is downloaded once and converted once a dtype.
    records = Path(first["records"].removeprefix("file://"))
    logs = {cell: (records / "cells" / cell / downloads).read_text() for cell in CELLS}
    assert sum("nothing to download" not in text for text in logs.values()) == 0
    ran = [cell for cell, text in logs.items() if "step convert_to_ft: done in" in text]
    reused = [cell for cell, text in logs.items() if "step convert_to_ft: unchanged" in text]
    assert len(ran) == 2
    assert len(reused) == 2
    assert house.run("logs", "tiny.yaml", "float32-8")[0] == logs["float32-8"]
    assert house.json("logs", "tiny.yaml", "float64-1", code=2)["kind"] == "config"

    before = {path: path.stat().st_mtime_ns for path in records.rglob("*")}
    started = time.monotonic()
    again = house.json("run", "tiny.yaml")
    assert time.monotonic() - started < 60  # no Ray, no build: it reads the matrix and one listing
    assert again["already"] == 4
    assert again["delivered"] == first["delivered"]
    assert {path: path.stat().st_mtime_ns for path in records.rglob("*")} == before

    assert "4 cells are delivered; there is nothing to cancel" in house.run("cancel", "tiny.yaml")[0]
    assert house.json("cancel", "tiny.yaml")["cancelled"] is None
    assert {path: path.stat().st_mtime_ns for path in records.rglob("*")} == before

    stands = house.json("status", first["id"])
    assert stands["counts"] == {"delivered": 4}
    planned = house.json("plan", "tiny.yaml")
    assert all(cell["delivered"] for cell in planned["cells"])
    assert planned["missing_bytes"] == 0
    assert planned["download_bytes"] == sum(model["total_bytes"] for model in planned["models"]) > 0


def test_a_plan_says_which_cells_no_node_can_run(house: FleetHouse) -> None:
    path = house.folder / "tiny.yaml"
    path.write_text(path.read_text().replace("cpus: 1,", "cpus: 9999,"))
    out, _ = house.run("plan", "tiny.yaml", code=6)
    (line,) = [line for line in out.splitlines() if line.startswith("no node can run")]
    assert line.startswith("no node can run float16-1, float16-8, float32-8 and 1 more: it needs 9999 CPUs, ")
    assert "not in the fleet's own copies here" in out


def test_a_plan_names_cells_that_are_the_same_engine(house: FleetHouse) -> None:
    path = house.folder / "tiny.yaml"
    path.write_text(path.read_text().replace("max_batch_size: ${matrix.batch}", "max_batch_size: 8"))
    note = (
        "cells that differ in batch only have the same config and the same needs, so each builds the same "
        "engine, such as float16-1, float16-8, float16-32; say ${matrix.batch} in the config, or leave it out"
    )
    assert house.json("plan", "tiny.yaml")["notes"] == [note]
    assert f"note: {note}\n" in house.run("plan", "tiny.yaml")[0]
