"""The example matrix on this machine: every engine delivered, then everything from the records."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.fleet.fleet_house import FleetHouse
from tests.integration.house import TOOLCHAIN
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.delivery import beside
from trt_llm_pipeline.fleet import cells
from trt_llm_pipeline.fleet.attempt import job_of
from trt_llm_pipeline.fleet.attempt import run as run_attempt
from trt_llm_pipeline.inspection import inspect
from trt_llm_pipeline.process.resources import machine_memory_bytes
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

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
CELLS = ["float16-1", "float16-8", "float32-8", "float16-32"]


@pytest.fixture
def house(hub: HubServer, tmp_path: Path) -> FleetHouse:
    made = FleetHouse(hub.url, tmp_path)
    text = (PROJECT_ROOT / "examples" / "fleet" / "tiny.yaml").read_text()
    # All that a plan says there is can be asked for.
    needs = f"{{cpus: 1, memory: {machine_memory_bytes() // 1000**2}MB}}"
    (tmp_path / "tiny.yaml").write_text(text.replace("{cpus: 1}", needs))
    return made


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


def test_a_cell_that_fails_is_told_of_in_one_answer_and_by_its_name(house: FleetHouse) -> None:
    text = (house.folder / "tiny.yaml").read_text()
    text = text.replace("tensor-parallelism: 1", "tensor-parallelism: ${matrix.parallel}")
    head, _, rest = text.partition("matrix:\n")
    text = (
        f"{head}matrix: {{dtype: [float16], batch: [1], parallel: [2]}}\n{rest[rest.index('resources:') :]}"
    )
    (house.folder / "wrong.yaml").write_text(text)
    told = house.json("run", "wrong.yaml", code=8)
    assert (told["kind"], told["type"], told["delivered"]) == ("cells", "CellsFailed", {})
    assert told["error"].startswith("1 of 1 cell failed, 0 are delivered; their logs: ")
    message = told["failed"]["float16-1-2"]["message"]
    assert message in told["error"]
    assert (
        "exited 0, but cell float16-1-2: convert_to_ft.output_dir './c-model/gpt2/1-gpu' does not exist: its "
        "files went to ./c-model/gpt2/2-gpu; give cell float16-1-2 output_dir: ./c-model/gpt2/2-gpu, or "
        "leave it out" in message
    )
    (cell,) = house.json("status", told["id"])["cells"]
    assert message in cell["detail"]
    out, err = house.run("run", "wrong.yaml", code=8)
    assert out == ""
    assert f"{told['id']}: 1 cell; records: " in err
    assert err.count("error: 1 of 1 cell failed") == 1
    assert house.run("plan", "wrong.yaml")[0].startswith(f"{told['id']}: 1 cell\n")


def test_a_node_that_refuses_a_config_names_the_cell_and_the_key_and_no_line(house: FleetHouse) -> None:
    env = {**house.env, "TRTLLM_DIR": str(house.toolchain)}
    found = cells.load(str(house.folder / "tiny.yaml"), Settings.of_one_owner(env))
    cell = found.cells[0]
    config = found.configs[cell.config].replace("max_batch_size: 1", "max_batch_sice: 1")
    job = job_of(replace(found, configs={cell.config: config}), pipeline.build, None, cell, 1, "mark")
    outcome = run_attempt(job, {"node": "n"}, env)
    assert (outcome.state, outcome.kind) == ("failed", "config")
    assert outcome.message.startswith(f"cell {cell.name}: build.args.max_batch_sice: ")


def test_a_fleet_that_is_cancelled_before_its_first_run_can_be_named_and_resumed(house: FleetHouse) -> None:
    told = house.json("cancel", "tiny.yaml")
    stands = house.json("status", told["cancelled"])
    assert (stands["cancelled"], stands["counts"]) == (True, {"waiting": 4})
    stopped = house.json(
        "resume", stands["address"], "--unless-cancelled", code=130
    )  # as the job of --detach
    assert stopped["type"] == "FleetCancelled"
    assert len(house.json("resume", told["cancelled"])["delivered"]) == 4
    assert house.json("status", stands["address"])["cancelled"] is False
    nowhere = f"{stands['address']}-nope"
    for command in (["resume"], ["status"], ["cancel"], ["logs"]):
        more = ["float16-1"] if command == ["logs"] else []
        refused = house.json(*command, nowhere, *more, code=2)
        assert (refused["type"], refused["kind"]) == ("BadArgument", "config")
        assert refused["error"] == f"{nowhere} holds no plan.json; check the address"
    assert not Path(nowhere.removeprefix("file://")).exists()


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
