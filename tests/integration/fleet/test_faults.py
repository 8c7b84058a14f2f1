"""What goes wrong in a fleet, on a real Ray cluster and a real S3 server: each cell is delivered once.

After each of them no process of any step is left anywhere.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet.cluster import BUCKET, ClusterHouse, Store, faulty, s3_server
from tests.integration.fleet.fleet_house import COMMAND_S
from tests.integration.house import wait_for
from trt_llm_pipeline.errors import EXIT_CODES
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import free_port

pytestmark = [
    pytest.mark.slow,
    # Ray's own clusters for tests leave a socket to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def house(hub: HubServer, store: Store, tmp_path: Path) -> ClusterHouse:
    return ClusterHouse(hub.url, tmp_path, store.env)


def run(house: ClusterHouse, **env: str) -> subprocess.Popen[str]:
    return house.start("run", "fleet.yaml", "--address", house.address, "--json", **env)


def result(process: subprocess.Popen[str], code: int = 0) -> tuple[Any, list[dict[str, Any]]]:
    """What a run printed, and its events."""
    out, err = process.communicate(timeout=COMMAND_S)
    assert process.returncode == code, f"{process.returncode}\n{out}\n{err}"
    events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    return json.loads(out), events


def states(events: list[dict[str, Any]], cell: str) -> list[str]:
    found = [event["state"] for event in events if event.get("cell") == cell]
    return [state for at, state in enumerate(found) if at == 0 or state != found[at - 1]]


def delivered(house: ClusterHouse, store: Store) -> dict[str, Any]:
    """Each delivered cell's record, and that its archive is at the destination, whole and alone."""
    objects = store.objects(f"{house.folder.name}/")
    records = {}
    for key in objects:
        if key.endswith("/cell.json"):
            record = json.loads(store.read(key))
            records[record["cell"]] = record
            there = record["address"].removeprefix(f"s3://{BUCKET}/")
            assert objects[there] == record["archive"]["size"]
    assert not [key for key in objects if "/attempt-" in key and key.endswith(".tar.gz")]
    return records


def test_a_node_that_is_killed_is_replaced(house: ClusterHouse, store: Store) -> None:
    house.write("a")
    with house.running("one"):
        hold = house.hold("a")
        process = run(house)
        house.wait_until_started("a")
        house.add("two")
        house.raylet("one").kill()
        house.wait_until_started("a", 2)
        hold.unlink()
        found, events = result(process)
        house.wait_until_no_step_runs()
    assert list(found["delivered"]) == ["a"]
    assert "failed, trying again" in states(events, "a")
    (lost,) = [event for event in events if event.get("kind")]
    assert lost["kind"] == "node_lost"
    assert sorted(house.started("a")) == ["one", "two"]
    assert delivered(house, store)["a"]["attempt"] == 2
    first = json.loads(store.read(key_of(house, store, "a/attempt-1.json")))
    assert (first["state"], first["kind"]) == ("failed", "node_lost")


def key_of(house: ClusterHouse, store: Store, ending: str) -> str:
    (key,) = [key for key in store.objects(f"{house.folder.name}/") if key.endswith(f"/cells/{ending}")]
    return key


def test_a_driver_that_is_killed_is_resumed_and_builds_nothing_twice(
    house: ClusterHouse, store: Store
) -> None:
    house.write("a, b")
    with house.running("one"):
        house.hold("b")
        process = run(house)
        wait_for(lambda: "a" in cells_done(house, store), "a is delivered", COMMAND_S)
        house.wait_until_started("b")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        # Ray ends what the driver had started, and the supervisors end the steps.
        house.wait_until_no_step_runs()
        (house.folder / "hold.b").unlink()
        found = house.json("resume", "fleet.yaml", "--address", house.address, "--take-over")
        house.wait_until_no_step_runs()
    assert sorted(found["delivered"]) == ["a", "b"]
    assert found["already"] == 1
    assert len(house.started("a")) == 1
    assert len(house.started("b")) == 2
    assert delivered(house, store)["b"]["attempt"] == 2


def cells_done(house: ClusterHouse, store: Store) -> set[str]:
    keys = store.objects(f"{house.folder.name}/")
    return {key.split("/")[-2] for key in keys if key.endswith("/cell.json")}


def test_a_node_that_was_cut_off_and_comes_back_late_overwrites_nothing(
    house: ClusterHouse, store: Store
) -> None:
    house.write("a")
    with house.running("one"):
        hold = house.hold("node one")
        process = run(house)
        house.wait_until_started("a")
        raylet = house.raylet("one")
        raylet.suspend()  # the head does not hear of it any more; its worker and the store do
        house.add("two")
        found, _ = result(process)
        assert list(found["delivered"]) == ["a"]
        key = found["delivered"]["a"].removeprefix(f"s3://{BUCKET}/")
        archive = store.read(key)
        # The late one is asked to stop by the record, or finds it when it is done.
        hold.unlink()
        wait_for(
            lambda: (
                json.loads(store.read(key_of(house, store, "a/attempt-1.json")))["state"] != "running"
                or not house.steps()
            ),
            "the late attempt has ended",
            60,
        )
        house.wait_until_no_step_runs()
        raylet.resume()
        assert store.read(key) == archive
    assert delivered(house, store)["a"]["attempt"] == 2


def test_a_full_disk_on_one_node_moves_the_cell_to_another(house: ClusterHouse, store: Store) -> None:
    house.write("a")
    disk = house.folder / "small"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    assert mounted.returncode == 0, f"this test needs to mount a small disk: {mounted.stderr}"
    try:
        with house.running():
            house.add("full", workspace=disk / "workspace")
            (house.folder / "fill.full").touch()
            hold = house.hold("a")
            process = run(house, TRT_LLM_DISK_CHECK="off")
            house.wait_until_started("a")
            house.add("empty")
            hold.unlink()
            found, events = result(process)
            house.wait_until_no_step_runs()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert list(found["delivered"]) == ["a"]
    (full,) = [event for event in events if event.get("kind")]
    assert full["kind"] == "resources"
    assert sorted(house.started("a")) == ["empty", "full"]


def test_a_store_that_fails_every_third_request_costs_time_only(
    hub: HubServer, store: Store, tmp_path: Path
) -> None:
    with faulty(store, lambda number: number % 3 == 0) as env:
        house = ClusterHouse(hub.url, tmp_path, env)
        house.write("a, b, c")
        with house.running("one", "two"):
            found, _ = result(run(house))
            house.wait_until_no_step_runs()
    assert sorted(found["delivered"]) == ["a", "b", "c"]
    assert sorted(delivered(house, store)) == ["a", "b", "c"]


def test_two_fleets_with_the_same_id_deliver_each_cell_once(house: ClusterHouse, store: Store) -> None:
    house.write("a, b, c")
    with house.running("one", "two"):
        hold = house.hold("a")
        first, second = run(house), run(house)
        both = [first, second]
        ended = wait_for(
            lambda: [each for each in both if each.poll() is not None], "one of them is refused", COMMAND_S
        )
        (refused,) = ended
        out, _ = refused.communicate()
        assert refused.returncode == EXIT_CODES["busy"]
        assert "is being built already" in json.loads(out)["error"]
        hold.unlink()
        (other,) = [each for each in both if each is not refused]
        found, _ = result(other)
        house.wait_until_no_step_runs()
    assert sorted(found["delivered"]) == ["a", "b", "c"]
    assert all(len(house.started(cell)) == 1 for cell in "abc")


def test_of_forty_cells_one_is_wrong_and_the_others_are_delivered(house: ClusterHouse, store: Store) -> None:
    names = [f"c{number}" for number in range(40)]
    (house.folder / "break.c17").touch()
    house.write(", ".join(names))
    with house.running():
        house.add("one", num_cpus=4)
        process = run(house)
        out, err = process.communicate(timeout=COMMAND_S)
        assert process.returncode == EXIT_CODES["cells"], err
        house.wait_until_no_step_runs()
    found = json.loads(out)
    assert sorted(found["delivered"]) == sorted(set(names) - {"c17"})
    assert sorted(delivered(house, store)) == sorted(set(names) - {"c17"})
    assert (found["kind"], found["type"]) == ("cells", "CellsFailed")
    assert found["failed"]["c17"]["kind"] == "step"
    assert "the cell c17 is one that breaks" in found["failed"]["c17"]["message"]
    assert len(house.started("c17")) == 1  # its script is to blame, so it is not tried again
    assert "one that breaks" in house.run("logs", "fleet.yaml", "c17")[0]


def test_cancelling_ends_every_process_on_every_node_in_five_seconds(house: ClusterHouse) -> None:
    house.write("a, b")
    with house.running("one", "two"):
        house.hold("a"), house.hold("b")
        process = run(house)
        house.wait_until_started("a"), house.wait_until_started("b")
        assert house.steps()
        house.run("cancel", "fleet.yaml")
        asked = time.monotonic()
        wait_for(lambda: not house.steps(), "every step has ended")
        took = time.monotonic() - asked
        out, _ = process.communicate(timeout=60)
        assert process.returncode == EXIT_CODES["interrupted"]
        assert json.loads(out)["type"] == "FleetCancelled"
        assert house.json("status", "fleet.yaml")["counts"] == {"cancelled": 2}
        assert took < 5
        for cell in "ab":
            (house.folder / f"hold.{cell}").unlink()
        found = house.json("resume", "fleet.yaml", "--address", house.address)
    assert sorted(found["delivered"]) == ["a", "b"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_driver_ends_every_process_on_every_node(
    house: ClusterHouse, number: signal.Signals
) -> None:
    house.write("a, b")
    with house.running("one", "two"):
        house.hold("a"), house.hold("b")
        process = run(house)
        house.wait_until_started("a"), house.wait_until_started("b")
        process.send_signal(number)
        asked = time.monotonic()
        wait_for(lambda: not house.steps(), "every step has ended")
        took = time.monotonic() - asked
        process.communicate(timeout=60)
        assert process.returncode == (130 if number == signal.SIGINT else 143)
        assert took < 5
        assert house.json("status", "fleet.yaml")["counts"] == {"cancelled": 2}


def test_what_no_node_can_run_is_refused_at_once(house: ClusterHouse) -> None:
    house.write("a", "resources: {gpus: 1, gpu_type: H100}\n")
    with house.running():
        house.add("one", num_gpus=1, labels={"ray.io/accelerator-type": "A100"})
        out, _ = house.run("run", "fleet.yaml", "--address", house.address, code=EXIT_CODES["resources"])
        assert out == ""
        process = run(house)
        out, _ = process.communicate(timeout=COMMAND_S)
        error = json.loads(out)
        assert (error["kind"], error["type"]) == ("resources", "FleetInfeasible")
        assert "no node can run a: it needs 1 H100, 1 CPU" in error["error"]
        assert "its GPU type is A100" in error["error"]
        # With --wait it waits for a node that has it.
        waiting = house.start("run", "fleet.yaml", "--address", house.address, "--json", "--wait")
        time.sleep(3)
        house.add("two", num_gpus=1, labels={"ray.io/accelerator-type": "H100"})
        found, _ = result(waiting)
    assert list(found["delivered"]) == ["a"]
    assert house.started("a") == ["two"]


def test_a_detached_fleet_is_a_job_of_the_cluster(house: ClusterHouse, store: Store) -> None:
    house.write("a, b")
    port = free_port()
    with house.running("one", include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=port):
        dashboard = f"http://127.0.0.1:{port}"
        told = house.json("run", "fleet.yaml", "--address", dashboard, "--detach")
        assert told["records"].startswith(f"s3://{BUCKET}/")
        # Whoever has submitted it may go; what it does is in the records.
        wait_for(
            lambda: house.json("status", told["id"])["counts"] == {"delivered": 2},
            "the job has delivered both",
            240,
        )
        house.wait_until_no_step_runs()
    assert sorted(delivered(house, store)) == ["a", "b"]
    house.run("run", "fleet.yaml", "--detach", code=2)  # there is no cluster to leave it on


def test_each_cell_sees_its_own_gpus_and_no_others(house: ClusterHouse, store: Store) -> None:
    """GPUs that Ray is told of; there are none here, so what is looked at is what a build is given."""
    house.write("a, b, c", "resources: {gpus: 1}\n")
    (house.folder / "none.yaml").write_text(
        (house.folder / "fleet.yaml").read_text().replace("a, b, c", "d").replace("gpus: 1", "gpus: 0")
    )
    with house.running():
        house.add("one", num_cpus=4, num_gpus=4)
        holds = [house.hold(cell) for cell in "abc"]
        process = run(house)
        for cell in "abc":
            house.wait_until_started(cell)
        for hold in holds:
            hold.unlink()
        found, _ = result(process)
        house.run("run", "none.yaml", "--address", house.address)
    assert sorted(found["delivered"]) == ["a", "b", "c"]
    seen = {cell: next(house.folder.glob(f"started.{cell}.*")).read_text() for cell in "abcd"}
    records = delivered(house, store)
    assert [records[cell]["gpu_ids"] for cell in "abc"] == [[seen[cell]] for cell in "abc"]
    assert len({seen[cell] for cell in "abc"}) == 3
    assert seen["d"] == ""


def test_cells_that_need_the_same_conversion_wait_for_one(house: ClusterHouse) -> None:
    house.write("a, b, c", first="      kind: shared\n")
    with house.running():
        house.add("one", num_cpus=3)
        found, _ = result(run(house))
    assert sorted(found["delivered"]) == ["a", "b", "c"]
    assert len(list(house.folder.glob("converted.shared.*"))) == 1
