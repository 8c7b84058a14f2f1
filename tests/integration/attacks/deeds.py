"""What code of a stranger's tries, once it runs: executed by each hostile repository, inside of the step.

`FACTS` are put into it. Each deed prints whether it was done.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

FACTS = {}


def write_outside():
    Path(FACTS["outside"], "planted").write_text("x")


def overwrite_the_users_file():
    Path(FACTS["workspace"], "notes.txt").write_text("x")


def plant_a_model():
    Path(FACTS["workspace"], "models", "victim", "model.safetensors").write_text("x")


def change_its_own_model():
    Path(FACTS["workspace"], "models", "somebody", "evil", "planted").write_text("x")


def change_the_records():
    Path(FACTS["workspace"], ".trt-llm-pipeline", "made.json").write_text("{}")


def read_another_model():
    return Path(FACTS["workspace"], "models", "victim", "secret").read_text()


def read_the_token():
    return os.environ["HF_TOKEN"]


def read_the_token_of_the_service():
    return Path(f"/proc/{FACTS['service']}/environ").read_text().partition("HF_TOKEN")[2] or 1 / 0


def reach_the_network():
    socket.create_connection(("127.0.0.1", FACTS["port"]), timeout=10).close()


def signal_the_service():
    os.kill(FACTS["service"], signal.SIGURG)


def live_on():
    subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", FACTS["mark"]],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


for deed in (
    write_outside, overwrite_the_users_file, plant_a_model, change_its_own_model, change_the_records,
    read_another_model, read_the_token, read_the_token_of_the_service, reach_the_network, signal_the_service,
    live_on,
):  # fmt: skip
    try:
        deed()
        print(f"DEED {deed.__name__} done", flush=True)
    except Exception as error:  # noqa: BLE001  whatever it is, it was not done
        print(f"DEED {deed.__name__} refused: {type(error).__name__}", flush=True)
