"""Steps that take too long, run for long, are killed, or use much: what the user is told about them."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.house import PATIENCE_S, House, memory_group, wait_for
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer
from trt_llm_pipeline.testing.webhooks import WebhookReceiver

STARTED = "everything is started"
#: Long enough for a script to begin on a busy machine.
SERVICE_TIMEOUT_S = 10


@pytest.fixture(scope="module")
def house(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(hub, tmp_path_factory.mktemp("steps"), {"TRT_LLM_STEP_TIMEOUT": str(SERVICE_TIMEOUT_S)})


def has_driver() -> bool:
    """Whether NVML can be loaded; a container may show the driver's files in /proc without it."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def record(house: House) -> dict[str, Any]:
    """What the newest build's build.json says."""
    newest = max(house.workspace.glob("builds/*/build.json"))
    found: dict[str, Any] = json.loads(newest.read_text())
    return found


class TestTimeout:
    """A step may take as long as its config says, or as the service allows."""

    def test_timeout_of_the_config(self, house: House, server: CogServer) -> None:
        config = house.config("will_not_die.py", timeout="8s")
        prediction = server.predict(config=config)
        assert prediction["status"] == "failed"
        assert "step build: took longer than its limit of 8 s and was ended" in prediction["error"]
        assert "raise build.timeout" in prediction["error"]
        assert STARTED in prediction["error"]  # its last lines
        assert not house.alive_below(server)

    @pytest.mark.slow
    def test_timeout_of_the_service(self, house: House, server: CogServer) -> None:
        prediction = server.predict(config=house.config("will_not_die.py"))
        assert prediction["status"] == "failed"
        assert f"its limit of {SERVICE_TIMEOUT_S} s" in prediction["error"]
        assert not house.alive_below(server)

    @pytest.mark.slow
    def test_timeout_of_the_config_wins(self, house: House, server: CogServer) -> None:
        config = house.config(args=f"seconds: {SERVICE_TIMEOUT_S + 1}", timeout="1m")
        prediction = server.predict(config=config)
        assert prediction["status"] == "succeeded", prediction["error"]


class TestSilence:
    """A step that runs for long is announced."""

    @pytest.mark.slow
    def test_long_step_is_announced_once_a_minute(self, hub: HubServer, tmp_path: Path) -> None:
        house = House(hub, tmp_path)
        with house.server() as cog:
            prediction = cog.predict(config=house.config(args="seconds: 130"), timeout=200)
        assert prediction["status"] == "succeeded", prediction["error"]
        said = re.findall(
            r"^build: still running after (\d) min(?: 1 s)?, memory (\S+ \S+) \(at most",
            prediction["logs"],
            re.MULTILINE,
        )
        assert [minutes for minutes, _ in said] == ["1", "2"]
        assert all(memory.endswith("MB") for _, memory in said)


class TestSignals:
    """A step that a signal has ended."""

    @pytest.mark.parametrize("number", [signal.SIGSEGV, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
    def test_signal_is_named_with_the_last_words(
        self, house: House, server: CogServer, number: signal.Signals
    ) -> None:
        prediction = server.predict(config=house.config("dies.py", f"signal: {int(number)}"))
        assert prediction["status"] == "failed"
        assert f"step build: dies.py was killed by {number.name}" in prediction["error"]
        assert "these are my last words" in prediction["error"]
        assert "it left 2 files" in prediction["error"]
        assert "memory" not in prediction["error"]

    def test_kill_from_outside_is_not_called_out_of_memory(self, house: House, server: CogServer) -> None:
        with WebhookReceiver() as webhooks:
            config = house.config("will_not_die.py", timeout="10m")
            seen = len(server.output())
            server.start("killed-from-outside", webhooks.url, config=config)
            wait_for(lambda: STARTED in server.output()[seen:], "the step runs")
            for pid in [pid for pid, line in house.alive_below(server).items() if "will_not_die.py" in line]:
                with suppress(ProcessLookupError):  # the others are ended as soon as the first one is dead
                    os.kill(pid, signal.SIGKILL)
            event = {"status": "starting"}
            while event["status"] not in ("succeeded", "failed", "canceled"):
                event = webhooks.events.get(timeout=PATIENCE_S)
        assert event["status"] == "failed"
        assert "will_not_die.py was killed by SIGKILL; its process tree used" in event["error"]
        assert re.search(r"used [\d.]+ MB of the machine's [\d.]+ GB of memory", event["error"])
        assert "out of memory" not in event["error"]
        assert not house.alive_below(server)

    def test_exit_code_is_named(self, house: House, server: CogServer) -> None:
        prediction = server.predict(config=house.config("dies.py", "code: 3"))
        assert "step build: dies.py exited with code 3" in prediction["error"]
        # Cog leaves the log out of a failed answer; webhooks and its own output have it.
        left = dict(re.findall(r'"message":"(report|logs): (/[^"]+)"', server.output()))
        page = Path(left["report"]).read_text()
        assert "It failed in build" in page
        assert (Path(left["logs"]) / "build.log").is_file()


def _may_make_control_groups() -> None:
    try:
        with memory_group(1 << 30):
            pass
    except OSError as error:
        pytest.skip(f"needs the right to make control groups: {error}")


class TestMemoryLimit:
    """A control group with too little memory, as a container has it."""

    def test_kernel_kill_is_called_out_of_memory(self, hub: HubServer, tmp_path: Path) -> None:
        house = House(hub, tmp_path)
        _may_make_control_groups()
        with house.server() as cog, memory_group(400 << 20) as add:
            for process in cog.family():
                add(process.pid)
            prediction = cog.predict(config=house.config("eats_memory.py", "megabytes: 600"))
            assert prediction["status"] == "failed"
            error = prediction["error"]
            assert "eats_memory.py was killed by SIGKILL; its process tree used" in error
            assert "of the machine's 419.4 MB of memory" in error
            assert "probably out of memory" in error
            cog.wait_until_ready()
            prediction = cog.predict(config=house.config("eats_memory.py", "megabytes: 6"))
            assert prediction["status"] == "succeeded", prediction["error"]


class TestMeasurements:
    """What a step took, in the log, the metrics and build.json."""

    def test_whole_tree_is_measured(self, house: House, server: CogServer) -> None:
        args = "megabytes: 100\nchildren: 2\nburn: 0.3\nwait: 1.2"
        config = house.config("eats_memory.py", args, timeout="1m")
        prediction = server.predict(config=config)
        assert prediction["status"] == "succeeded", prediction["error"]
        metrics = prediction["metrics"]
        (step,) = record(house)["steps"]
        assert step["name"] == "build"
        assert 300 << 20 <= step["peak_memory_bytes"] <= 450 << 20
        assert 0.9 <= step["cpu_s"] <= 10
        assert step["wall_s"] >= 1.5
        assert metrics["peak_memory"]["build"] == step["peak_memory_bytes"]
        assert metrics["cpu"]["build"] == step["cpu_s"]
        assert metrics["timing"]["build"] >= step["wall_s"]
        said = re.search(
            r"step build: done in ([\d.]+) s, CPU ([\d.]+) s, memory at most", prediction["logs"]
        )
        assert said is not None
        # The log rounds what build.json has rounded to thousandths.
        assert float(said[1]) == pytest.approx(step["wall_s"], abs=0.051)
        assert float(said[2]) == pytest.approx(step["cpu_s"], abs=0.051)

    def test_without_an_nvidia_driver_there_are_no_gpu_figures(self, house: House, server: CogServer) -> None:
        prediction = server.predict(config=house.config())
        if has_driver():
            assert prediction["metrics"]["peak_gpu_memory"]["build"]
            assert record(house)["manifest"]["gpus"] != "cpu"
        else:
            assert "peak_gpu_memory" not in prediction["metrics"]
            assert record(house)["manifest"]["gpus"] == "cpu"
