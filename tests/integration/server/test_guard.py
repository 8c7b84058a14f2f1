"""A server that heals itself: whatever wedges it ends in a restart, with nothing of a build left."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.house import House, start_until, wait_for
from trt_llm_pipeline.server.guard import EXIT_CODE
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer

#: On a busy machine everything takes its time; the guard's own limits are in the unit tests.
STARTED = "everything is started"


@pytest.fixture
def own(hub: HubServer, tmp_path: Path) -> House:
    """A house for a server that will not survive the test."""
    return House(hub, tmp_path)


@contextmanager
def guarded(house: House) -> Iterator[CogServer]:
    with CogServer(house.env, guarded=True) as server:
        yield server


def worker_below(server: CogServer) -> psutil.Process:
    """The process that runs predict(): the server's only child, which is the guard's."""
    (cog,) = psutil.Process(server.process.pid).children()
    (worker,) = cog.children()
    return worker


def ended(server: CogServer) -> bool:
    return server.process.poll() is not None


@pytest.mark.slow
def test_a_build_is_as_it_is_without_a_guard(own: House) -> None:
    with guarded(own) as server:
        prediction = server.predict(config=own.config())
        assert prediction["status"] == "succeeded", prediction["error"]
        os.kill(server.process.pid, signal.SIGTERM)
        wait_for(lambda: ended(server), "the server has ended")
        assert server.process.returncode != EXIT_CODE
    assert own.alive() == {}


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (signal.SIGKILL, "worker has died"),
        pytest.param(signal.SIGSTOP, "stopped", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_is_killed_or_stopped_ends_the_server_with_everything_below_it(
    own: House, number: int, why: str
) -> None:
    with guarded(own) as server:
        start_until(server, own.config("will_not_die.py"), STARTED)
        worker_below(server).send_signal(number)
        wait_for(lambda: ended(server), "the server has ended")
        assert server.process.returncode == EXIT_CODE
        assert why in server.output()
        wait_for(lambda: own.alive() == {}, "nothing is left")
    with guarded(own) as server:
        prediction = server.predict(config=own.config())
    assert prediction["status"] == "succeeded", prediction["error"]


@pytest.mark.slow
@pytest.mark.parametrize("prediction_id", ["x" * 300, "a%00b"])
def test_an_id_that_wedges_cog_is_noticed(own: House, prediction_id: str) -> None:
    with guarded(own) as server:
        body = {"input": {"config": own.config()}}
        server.request("PUT", f"/predictions/{prediction_id}", body, headers={"Prefer": "respond-async"})
        time.sleep(2)
        if server.health() == "READY":
            return  # this release of Cog copes with it
        wait_for(lambda: ended(server), "the server has ended")
        assert server.process.returncode == EXIT_CODE
        assert "has not begun" in server.output()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_storm_of_cancels_hostile_steps_and_odd_ids(own: House) -> None:
    """After each the server is READY, or has exited and is started again, as a restart policy would."""
    rng = random.Random(20)
    deeds = ["cancel"] * 100 + ["hostile"] * 50 + ["odd"] * 50
    rng.shuffle(deeds)
    deeds_of_steps = ["state_fifo", "kill_worker", "stop_worker", "kill_supervisor", "stop_supervisor"]
    restarts = 0
    server = CogServer(own.env, guarded=True)
    server.__enter__()
    try:
        for number, deed in enumerate(deeds):
            path = f"/predictions/storm{number}"
            if deed == "odd":
                odd = ["x" * 300, "a%00b", "%2e%2e", "-", "a b".replace(" ", "%20"), "%F0%9F%98%80", "a%0ab"]
                path = f"/predictions/{rng.choice(odd)}"
            script, args = "behaves.py", ""
            if deed == "cancel":
                script, args = rng.choice([("will_not_die.py", ""), ("behaves.py", "")])
            if deed == "hostile":
                script, args = "turns_on_the_service.py", f"deed: {rng.choice(deeds_of_steps)}"
            body = {"input": {"config": own.config(script, args)}}
            try:
                server.request("PUT", path, body, headers={"Prefer": "respond-async"}, timeout=20)
                if deed != "odd":
                    time.sleep(rng.uniform(0, 2.5))
                    server.request("POST", f"{path}/cancel", {}, timeout=20)
            except OSError:
                pass  # the server is going down just now

            def settled(server: CogServer = server) -> bool:
                return ended(server) or server_is_ready(server)

            wait_for(settled, f"READY or gone after {deed} {number}")
            if ended(server):
                assert server.process.returncode == EXIT_CODE, server.output()[-3000:]
                server.__exit__()
                restarts += 1
                server = CogServer(own.env, guarded=True)
                server.__enter__()
        prediction = server.predict(config=own.config())
        assert prediction["status"] == "succeeded", prediction["error"]
    finally:
        server.__exit__()
    assert own.alive() == {}


def server_is_ready(server: CogServer) -> bool:
    try:
        return server.health() == "READY"
    except OSError:
        return False
