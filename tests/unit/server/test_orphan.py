"""A worker ends when the server that started it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil

WORKER = """
import time
from trt_llm_pipeline.server.orphan import exit_when_orphaned
exit_when_orphaned()
print("watching", flush=True)
time.sleep(60)
"""
SERVER = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
worker.stdout.readline()
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_a_worker_does_not_outlive_its_server() -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, WORKER], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with server:
        assert server.stdout is not None
        worker = psutil.Process(int(server.stdout.readline()))
        time.sleep(0.8)
        assert worker.status() != psutil.STATUS_ZOMBIE  # with a living server it goes on
        server.kill()
    deadline = time.monotonic() + 5
    try:
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    except psutil.NoSuchProcess:
        pass
    finally:
        if worker.is_running():
            os.kill(worker.pid, signal.SIGKILL)
