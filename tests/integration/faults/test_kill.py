"""kill -9 of the server or of its worker, at every stage of a build."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import MODEL_ID
from tests.integration.house import House, lock_is_free, members, wait_for, worker_of
from trt_llm_pipeline.testing.hub import Fault, HubServer
from trt_llm_pipeline.testing.servers import CogServer

CONFIG = """
model_id: {model}
example_name: faults
cache: false
convert_to_ft:
  script: once.py
  output_dir: ./checkpoint
  args:
    output_dir: ./checkpoint
    name: {case}-convert
    trouble: {convert}
build:
  script: once.py
  output_dir: ./engine
  args:
    output_dir: ./engine
    name: {case}-build
    trouble: {build}
"""


class Servers:
    """One server at a time on the same workspace: the next one shows what the killed one has left."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._server: CogServer | None = None

    def current(self) -> CogServer:
        if self._server is None:
            self._server = self.house.server().__enter__()
        return self._server

    def end(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.__exit__()


@pytest.fixture(scope="module")
def servers(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("kill")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:  # which a step may write
        running = Servers(House(hub, folder, {"RELIABILITY_SCRATCH": scratch}))
        yield running
        running.end()


def server_itself(server: CogServer) -> psutil.Process:
    return psutil.Process(server.process.pid)


@pytest.mark.parametrize(
    ("victim", "stage"),
    [
        pytest.param(server_itself, "download", id="server-download"),
        pytest.param(server_itself, "convert", id="server-convert", marks=pytest.mark.slow),
        pytest.param(server_itself, "build", id="server-build", marks=pytest.mark.slow),
        pytest.param(server_itself, "package", id="server-package", marks=pytest.mark.slow),
        pytest.param(worker_of, "download", id="worker-download", marks=pytest.mark.slow),
        pytest.param(worker_of, "convert", id="worker-convert"),
        pytest.param(worker_of, "build", id="worker-build", marks=pytest.mark.slow),
        pytest.param(worker_of, "package", id="worker-package", marks=pytest.mark.slow),
    ],
)
def test_nothing_lives_on_and_the_next_build_trusts_nothing_half_written(
    servers: Servers, hub: HubServer, stage: str, victim: Callable[[CogServer], psutil.Process]
) -> None:
    house, server = servers.house, servers.current()
    case = secrets.token_hex(4)
    model = f"somebody/model-{case}"
    first = hub.repository(MODEL_ID)
    assert first is not None
    commit = first.resolve("main")
    assert commit is not None
    hub.add_repository(model, {name: blob.source for name, blob in commit.files.items()})
    trouble = {"convert": "none", "build": "none"}
    trouble |= {"package": {"build": "large"}}.get(stage, {stage: "wait"})
    config = house.text(CONFIG.format(model=model, case=case, **trouble))
    weights = f"*{model}/resolve/*/pytorch_model.bin"
    if stage == "download":
        hub.faults.add(Fault("stall", match=weights, after=1_000_000))
    before = set(house.archives())

    seen = len(server.output())
    server.start(f"killed-{case}", config=config)
    at_work = {
        "download": lambda: large_files(house.workspace / "models" / model, 1_000_000),
        "package": lambda: set(house.archives()) - before,
    }.get(stage, lambda: "everything is started" in server.output()[seen:])
    wait_for(at_work, f"the build is at {stage}")
    hub.clear_requests()
    killed = victim(server)
    family = house.alive()
    assert killed.pid in family
    killed.kill()

    rest = {server.process.pid} - {killed.pid}
    try:
        wait_for(lambda: not set(house.alive()) - rest, "the worker and the step are dead")
        wait_for(lambda: lock_is_free(house.workspace), "the lock is free")
    finally:
        servers.end()

    prediction = servers.current().predict(config=config)
    assert prediction["status"] == "succeeded", prediction["error"]
    files = members(prediction)
    assert "left-over.engine" not in files
    assert len(files["rank0.engine"]) == 64
    assert house.partial_files() == []
    asked = [r.headers.get("range") for r in hub.requests if r.path.endswith("pytorch_model.bin")]
    if stage == "download":
        assert any(value is not None and not value.startswith("bytes=0-") for value in asked), asked
    else:
        assert asked == []


def large_files(folder: Path, size: int) -> list[Path]:
    """Those below a folder in which files come and go meanwhile."""
    found = []
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            with suppress(FileNotFoundError):
                if path.stat().st_size >= size:
                    found.append(path)
    return found
