"""The process between the service and a step, spoken to as `process.py` does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from trt_llm_pipeline.process import supervisor

PROGRAM = Path(supervisor.__file__)


class Supervisor:
    """A supervisor that is running, with the pipes to it."""

    def __init__(self) -> None:
        self.report, theirs = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM), str(theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs],
            start_new_session=True,
        )
        os.close(theirs)

    def ask(self, argv: list[str], cwd: str = "/", env: dict[str, str] | None = None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"argv": argv, "cwd": cwd, "env": env or {}}).encode() + b"\n")
        self.process.stdin.flush()

    def reports(self) -> list[dict[str, Any]]:
        """Everything that it reports until its end."""
        data = b""
        while piece := os.read(self.report, 65536):
            data += piece
        return [json.loads(line) for line in data.splitlines()]

    def close(self) -> bytes:
        """Lets go of the line of life; returns what was printed."""
        return self.process.communicate(timeout=20)[0]


@pytest.fixture
def running() -> Iterator[Supervisor]:
    made = Supervisor()
    with made.process:  # closes the line of life, and waits
        yield made
    os.close(made.report)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_it_samples_memory_and_ends_with_one_final_report(running: Supervisor) -> None:
    running.ask(
        python("import time; block = b'x' * 30_000_000; time.sleep(3); print('said'); raise SystemExit(7)")
    )
    *samples, final = running.reports()
    assert len(samples) >= 2
    assert all(set(sample) == {"rss", "peak_rss"} for sample in samples)
    assert samples[-1]["peak_rss"] > 30_000_000
    assert final["exit_code"] == 7
    assert final["ended"] is False
    assert final["wall_s"] > 3
    assert final["peak_rss"] >= samples[-1]["peak_rss"]
    assert running.close() == b"said\n"
    assert running.process.returncode == 0


def test_when_the_line_of_life_closes_the_step_ends(running: Supervisor) -> None:
    running.ask(python("import time; time.sleep(60)"))
    time.sleep(0.3)
    running.close()
    final = running.reports()[-1]
    assert (final["exit_code"], final["ended"]) == (-15, True)


def test_a_step_that_has_ended_when_the_line_of_life_closes_has_ended_by_itself(running: Supervisor) -> None:
    running.ask(
        python(
            "import os, signal; signal.signal(signal.SIGUSR1, lambda *_: os._exit(7)); "
            "print(os.getpid(), flush=True); signal.pause()"
        )
    )
    assert running.process.stdout is not None
    assert running.process.stdin is not None
    step = psutil.Process(int(running.process.stdout.readline()))
    inner, outer = step.parent(), psutil.Process(running.process.pid)
    assert inner is not None
    outer.suspend()  # it would end a tree whose inner process is stopped for long
    inner.suspend()
    step.send_signal(signal.SIGUSR1)
    while step.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    running.process.stdin.close()
    inner.resume()
    outer.resume()
    final = running.reports()[-1]
    assert (final["exit_code"], final["ended"]) == (7, False)


def test_a_request_that_never_comes_starts_nothing(running: Supervisor) -> None:
    running.close()
    assert running.process.returncode == 1
    assert running.reports() == []


def test_a_program_that_cannot_be_started_is_reported(running: Supervisor) -> None:
    running.ask(["/no/such/program"])
    assert running.reports() == [{"start_error": "No such file or directory: /no/such/program"}]
    assert running.process.wait(20) == 0


def test_signals_meant_for_the_service_do_not_end_it(running: Supervisor) -> None:
    running.ask(python("import time; print('begun', flush=True); time.sleep(2)"))
    assert running.process.stdout is not None
    assert running.process.stdout.readline() == b"begun\n"
    for number in (1, 2, 15):
        running.process.send_signal(number)
    assert running.reports()[-1]["exit_code"] == 0


def test_a_request_of_any_size_is_read_whole(running: Supervisor) -> None:
    env = {f"NAME_{number}": "x" * 100 for number in range(5000)}
    running.ask(python("import os; print(len(os.environ) >= 5000)"), env=env)
    assert running.reports()[-1]["exit_code"] == 0
    assert running.close() == b"True\n"


def test_it_sees_what_psutil_sees() -> None:
    children = [subprocess.Popen(python("import os, time; os.fork(); time.sleep(60)")) for _ in range(2)]
    try:
        deadline = time.monotonic() + 60
        while len(psutil.Process().children(recursive=True)) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        below = supervisor._below()
        assert set(below) == {child.pid for child in psutil.Process().children(recursive=True)}
        while supervisor._resident_bytes() <= 4_000_000:  # one that has just begun has little yet
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        for process in psutil.Process().children(recursive=True):
            process.kill()
        for child in children:
            child.wait()
