"""One workspace, one build: whoever comes second is told who was first, and the lock dies with its holder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import MODEL_ID
from tests.integration.house import House, members, start_until, worker_of
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

STARTED = "everything is started"
REFUSAL = (
    rf"the workspace \S+ is in use by build \S+ of {MODEL_ID} \(process (\d+), since \d\d:\d\d:\d\d\); wait"
)


def command(house: House, script: str) -> subprocess.CompletedProcess[str]:
    """The same build at the command line."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from trt_llm_pipeline.cli import main; main()",
            "build",
            house.config(script),
        ],
        cwd=PROJECT_ROOT,
        env={**os.environ, **house.env},
        capture_output=True,
        text=True,
    )


def test_second_build_is_refused_until_the_first_is_dead(hub: HubServer, tmp_path: Path) -> None:
    house = House(hub, tmp_path)
    with house.server() as first, house.server() as second:
        prediction_id = start_until(first, house.config("will_not_die.py"), STARTED)
        holder = worker_of(first).pid
        there = {path: path.stat().st_mtime_ns for path in house.workspace.rglob("*.engine")}
        assert there

        refused = second.predict(config=house.config())
        assert refused["status"] == "failed"
        match = re.search(REFUSAL, refused["error"])
        assert match, refused["error"]
        assert int(match[1]) == holder

        done = command(house, "behaves.py")
        assert done.returncode == 75
        match = re.search(REFUSAL, done.stderr)
        assert match, done.stderr
        assert int(match[1]) == holder

        # Whoever is refused has changed nothing.
        assert {path: path.stat().st_mtime_ns for path in house.workspace.rglob("*.engine")} == there
        assert first.health() == "BUSY"
        assert first.cancel(prediction_id) == 200
        first.wait_until_ready()
        assert second.predict(config=house.config())["status"] == "succeeded"


def test_lock_dies_with_its_holder_and_not_before_the_last_process_of_its_step(
    hub: HubServer, tmp_path: Path
) -> None:
    house = House(hub, tmp_path)
    with house.server() as first, house.server() as second:
        start_until(first, house.config("runs_away.py", "stubborn:"), STARTED)
        worker_of(first).kill()
        prediction = second.predict(config=house.config())
    assert prediction["status"] == "succeeded", prediction["error"]
    assert "beat" not in members(prediction)  # the sign of life of the processes of the first build
