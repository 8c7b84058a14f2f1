"""The webhook receiver as a program: it prints what is new in what it is sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from trt_llm_pipeline.testing.webhooks import Follower, WebhookReceiver

COMMAND = [sys.executable, "-m", "trt_llm_pipeline.testing.webhooks", "--port"]


def post(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([*COMMAND, "0"], stdout=subprocess.PIPE, text=True, env=env) as running:
        yield running
        running.kill()


def test_it_prints_each_state_and_what_is_new_of_the_log(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    url = program.stdout.readline().split()[-1]
    log, output = "one\n", "data:x;base64," + "A" * 5000
    events: list[dict[str, Any]] = [
        {"id": "p1", "status": "starting"},
        {"id": "p1", "status": "processing", "logs": log},
        {"id": "p1", "status": "processing", "logs": log + "two\x1b[2J\n"},
        {
            "id": "p1",
            "status": "succeeded",
            "logs": log + "two\x1b[2J\n",
            "output": output,
        },
    ]
    assert [post(url, json.dumps(event).encode()) for event in events] == [200] * 4
    assert [program.stdout.readline().rstrip("\n") for _ in range(5)] == [
        *("== p1: starting", "one", "== p1: processing", "two\\x1b[2J"),
        "== p1: succeeded: 5.0 kB after data:x;base64,",
    ]
    program.send_signal(signal.SIGTERM)
    assert program.wait(60) == 0


def test_a_port_that_is_taken_is_named() -> None:
    with WebhookReceiver() as receiver:
        port = receiver.url.rstrip("/").rpartition(":")[2]
        told = subprocess.run([*COMMAND, port], capture_output=True, text=True, timeout=60)
    assert told.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in told.stderr


@pytest.mark.parametrize("body", [b"", b"not JSON", b"[1]", b"\xff"])
def test_what_is_no_webhook_is_refused(body: bytes) -> None:
    with WebhookReceiver() as receiver:
        assert post(receiver.url, body) == 400
        assert post(receiver.url, b'{"status": "starting"}') == 200
        assert receiver.events.get(timeout=60) == {"status": "starting"}


def test_predictions_are_told_apart_and_a_failure_says_why() -> None:
    said: list[str] = []
    follower = Follower(said.append)
    follower.tell({"id": "a", "status": "processing", "logs": "x\nhalf a"})
    follower.tell({"id": "b", "status": "processing", "logs": "y\n"})
    follower.tell({"id": "a", "status": "failed", "logs": "x\nhalf a line", "error": "it\x07 broke"})
    follower.tell({"id": "b", "status": "succeeded", "logs": "y\n", "output": "https://host/engine.tar.gz"})
    assert said == [
        *("x", "== a: processing", "y", "== b: processing"),
        *("half a line", "== a: failed: it\\x07 broke", "== b: succeeded: https://host/engine.tar.gz"),
    ]
