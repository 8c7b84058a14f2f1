"""What returning a large engine costs a prediction server in memory.

    python -m benchmarks.server_memory [--megabytes 2000]

A step writes an engine of that size; the server and its worker are watched from the request to the response,
in three ways of returning it: kept in the workspace because it is above the inline limit, sent to a
`file://` destination, and, at a tenth of the size, inlined as Cog does by itself. Exits 1 where one of the
first two takes 300 MB or more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer

MODEL_ID = "tiny/gpt2"
LIMIT_BYTES = 300_000_000
SCRIPT = """
import argparse, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--output_dir")
parser.add_argument("--megabytes", type=int)
options = parser.parse_args()
folder = pathlib.Path(options.output_dir)
folder.mkdir(parents=True)
(folder / "config.json").write_text('{"builder_config": {"tensor_parallel": 1}, "plugin_config": {}}')
with (folder / "gpt_float16_tp1_rank0.engine").open("wb") as engine:
    for _ in range(options.megabytes):
        engine.write(os.urandom(1_000_000))
"""
CONFIG = """
model_id: {model}
example_name: large
cache: false
build:
  script: build.py
  output_dir: ./engine
  args:
    output_dir: ./engine
    megabytes: {megabytes}
"""


class Watch(threading.Thread):
    """The most memory that the server and its worker have, without what steps use; bytes."""

    def __init__(self, server: CogServer) -> None:
        super().__init__(daemon=True)
        root = psutil.Process(server.process.pid)
        self._watched = [root, *root.children()]
        self.peak = 0
        self.stopped = False

    def run(self) -> None:
        while not self.stopped:
            self.peak = max(self.peak, sum(process.memory_info().rss for process in self._watched))
            time.sleep(0.02)


def measure(server: CogServer, config: Path, **inputs: str) -> tuple[int, float, int]:
    server.wait_until_ready()
    watch = Watch(server)
    watch.start()
    started = time.perf_counter()
    prediction = server.predict(timeout=600, config=str(config), **inputs)
    taken = time.perf_counter() - started
    watch.stopped = True
    watch.join()
    if prediction["status"] != "succeeded":
        raise SystemExit(f"the build failed: {prediction['error']}")
    return watch.peak, taken, len(prediction["output"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=2000)
    size = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        models.make_demo_gpt2(scratch / "hub" / MODEL_ID)
        toolchain = scratch / "toolchain"
        (toolchain / "examples" / "large").mkdir(parents=True)
        (toolchain / "version.txt").write_text("cpu\n")
        (toolchain / "examples" / "large" / "build.py").write_text(SCRIPT)
        config, tenth = scratch / "config.yaml", scratch / "tenth.yaml"
        config.write_text(CONFIG.format(model=MODEL_ID, megabytes=size))
        tenth.write_text(CONFIG.format(model=MODEL_ID, megabytes=size // 10))
        rows = []
        with HubServer(scratch / "hub") as hub:
            env = {
                "HF_ENDPOINT": hub.url,
                "TRTLLM_DIR": str(toolchain),
                "TRT_LLM_WORKSPACE": str(scratch / "ws"),
            }
            with CogServer(env) as server:
                rows.append((f"{size} MB, kept in the workspace", *measure(server, config)))
                rows.append(
                    (f"{size} MB, sent to file://", *measure(server, config, destination="file:///src/sent/"))
                )
            with CogServer({**env, "TRT_LLM_INLINE_LIMIT": "100GB"}) as server:
                rows.append((f"{size // 10} MB, inlined", *measure(server, tenth)))
        print(f"{'':32} {'peak memory':>12} {'of the engine':>14} {'response':>12} {'seconds':>8}")
        for at, (label, peak, taken, length) in enumerate(rows):
            engine = (size if at < 2 else size // 10) * 1e6
            print(f"{label:32} {peak / 1e6:9.0f} MB {peak / engine:13.2f}x {length:12,} {taken:8.1f}")
        return 0 if all(peak < LIMIT_BYTES for _, peak, _, _ in rows[:2]) else 1


if __name__ == "__main__":
    sys.exit(main())
