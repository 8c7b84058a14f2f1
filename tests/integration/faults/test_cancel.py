"""A build that is cancelled: nothing that it started lives on, nothing that it finished is lost."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MODEL_ID
from tests.integration.house import (
    House,
    lock_is_free,
    start_until,
    wait_for,
)
from trt_llm_pipeline.testing.hub import Fault, HubServer
from trt_llm_pipeline.testing.servers import PROJECT_ROOT, CogServer

STARTED = "everything is started"
COMMAND = [sys.executable, "-c", "from trt_llm_pipeline.cli import main; main()"]


@pytest.fixture(scope="module")
def server(house: House, server: CogServer) -> CogServer:
    """A server that has built once, so that there is a model and an archive to lose."""
    assert server.predict(config=house.config())["status"] == "succeeded"
    return server


def newest(house: House) -> str:
    return hashlib.sha256((house.workspace / "engine.tar.gz").read_bytes()).hexdigest()


def model_files(house: House) -> dict[str, int]:
    folder = house.workspace / "models" / MODEL_ID
    return {str(p): p.stat().st_mtime_ns for p in folder.iterdir() if p.is_file()}


class Before:
    """What must be the same after a cancelled build, and that the next one succeeds."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.newest = newest(house)
        self.archives = house.archives()
        self.model = model_files(house)

    def check(self, cog: CogServer) -> None:
        house = self.house
        wait_for(lambda: not house.alive_below(cog), "everything the step started is dead")
        cog.wait_until_ready()
        assert house.archives() == self.archives
        assert newest(house) == self.newest
        assert model_files(house) == self.model
        assert house.partial_files() == []
        assert lock_is_free(house.workspace)
        prediction = cog.predict(config=house.config())
        assert prediction["status"] == "succeeded", prediction["error"]


class TestCancel:
    """POST /predictions/<id>/cancel."""

    def test_step_with_pool_daemon_and_own_sessions_dies_whole(self, house: House, server: CogServer) -> None:
        before = Before(house)
        prediction_id = start_until(server, house.config("will_not_die.py"), STARTED)
        wait_for(lambda: len(house.alive_below(server)) == 7, "the supervisor's two and five processes")
        assert server.cancel(prediction_id) == 200
        before.check(server)

    def test_process_that_forks_faster_than_it_can_be_listed_dies(
        self, house: House, server: CogServer
    ) -> None:
        before = Before(house)
        prediction_id = start_until(server, house.config("runs_away.py"), STARTED)
        beat = house.workspace / ".trt-llm-pipeline" / "work" / "engine" / "beat"
        first = beat.stat().st_mtime_ns
        wait_for(lambda: beat.stat().st_mtime_ns > first, "it runs")
        assert server.cancel(prediction_id) == 200
        server.wait_until_ready()
        beat = house.workspace / "engine" / "beat"  # where the ended step's files have been moved to
        last = beat.stat().st_mtime_ns
        before.check(server)
        assert not beat.exists() or beat.stat().st_mtime_ns == last

    def test_first_step_of_two(self, house: House, server: CogServer) -> None:
        before = Before(house)
        prediction_id = start_until(server, house.config(first="will_not_die.py"), STARTED)
        server.cancel(prediction_id)
        before.check(server)

    def test_script_that_hangs_while_its_arguments_are_checked(self, house: House, server: CogServer) -> None:
        before = Before(house)
        prediction_id = "hangs-before-parsing"
        server.start(prediction_id, config=house.config("hangs_at_import.py"))
        wait_for(lambda: house.alive_below(server), "the script is being asked")
        server.cancel(prediction_id)
        before.check(server)

    def test_packaging(self, house: House, server: CogServer) -> None:
        before = Before(house)
        prediction_id = "cancelled-while-packaging"
        server.start(prediction_id, config=house.config(args=f"size: {300 << 20}"))
        wait_for(lambda: len(house.archives()) > len(before.archives), "packaging has begun")
        server.cancel(prediction_id)
        before.check(server)

    def test_download_is_kept_and_resumed(self, hub: HubServer, tmp_path: Path) -> None:
        house = House(hub, tmp_path)
        weights = f"/{MODEL_ID}/resolve/*/pytorch_model.bin"
        with house.server() as cog:
            hub.faults.add(Fault("stall", match=weights, after=1_000_000))
            cog.start("cancelled-while-downloading", config=house.config())
            wait_for(lambda: list(house.parts_of_models(1_000_000)), "a megabyte has come")
            hub.clear_requests()
            cog.cancel("cancelled-while-downloading")
            cog.wait_until_ready()
            assert lock_is_free(house.workspace)
            assert house.archives() == []
            prediction = cog.predict(config=house.config())
        assert prediction["status"] == "succeeded", prediction["error"]
        ranges = [r.headers.get("range", "") for r in hub.requests if r.path.endswith("pytorch_model.bin")]
        assert any(value.startswith("bytes=1") and value != "bytes=0-" for value in ranges), ranges


class TestClient:
    """Whoever asked for the build is gone."""

    def test_dropped_synchronous_connection_ends_the_build(self, house: House, server: CogServer) -> None:
        before = Before(house)
        body = json.dumps({"input": {"config": house.config("will_not_die.py")}}).encode()
        seen = len(server.output())
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(
                b"POST /predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            wait_for(lambda: STARTED in server.output()[seen:], "the step runs")
        before.check(server)


class TestServerEnds:
    """SIGTERM to the server's process group, as the image's init sends it."""

    def test_sigterm_to_the_group_leaves_nothing_alive(self, hub: HubServer, tmp_path: Path) -> None:
        house = House(hub, tmp_path)
        with house.server() as cog:
            start_until(cog, house.config("will_not_die.py"), STARTED)
            os.killpg(cog.process.pid, signal.SIGTERM)
            wait_for(lambda: not house.alive(), "server, worker and step are dead")
        assert house.archives() == []
        assert lock_is_free(house.workspace)
        with house.server() as cog:
            prediction = cog.predict(config=house.config())
        assert prediction["status"] == "succeeded", prediction["error"]
        assert "nothing to download" in prediction["logs"]


class TestCommandLine:
    """Ctrl-C and SIGTERM at a terminal."""

    @pytest.mark.parametrize(
        ("number", "code", "options", "words"),
        [
            (signal.SIGINT, 130, [], "interrupted; what has been downloaded is kept"),
            pytest.param(signal.SIGINT, 130, ["--json"], '"kind": "interrupted"', marks=pytest.mark.slow),
            pytest.param(signal.SIGTERM, 143, ["--json"], '"type": "SIGTERM"', marks=pytest.mark.slow),
            pytest.param(signal.SIGTERM, 143, [], "interrupted; what has been", marks=pytest.mark.slow),
        ],
    )
    def test_signal_ends_everything_and_keeps_the_model(
        self, hub: HubServer, tmp_path: Path, number: int, code: int, options: list[str], words: str
    ) -> None:
        own = House(hub, tmp_path)
        env = {**os.environ, **own.env}
        command = [*COMMAND, "build", own.config("will_not_die.py"), *options]
        printed = tmp_path / "printed"
        with printed.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=PROJECT_ROOT, env=env, stdout=file, stderr=file, start_new_session=True
            )
        try:
            wait_for(lambda: STARTED in printed.read_text(), "the step runs")
            os.killpg(process.pid, number)
            wait_for(lambda: not own.alive(), "the command and its step are dead")
        finally:
            process.kill()
            ended = process.wait()
        assert ended == code
        text = printed.read_text()
        assert words in text
        assert "Traceback" not in text
        assert own.archives() == []
        assert lock_is_free(own.workspace)
        again = subprocess.run(
            [*COMMAND, "build", own.config()], cwd=PROJECT_ROOT, env=env, capture_output=True, text=True
        )
        assert again.returncode == 0, again.stderr
        assert "nothing to download" in again.stderr
