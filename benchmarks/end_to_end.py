"""A whole build beside the original's flow, and a rebuild: what this service adds and saves.

    python -m benchmarks.end_to_end [--megabytes 400] [--repeats 3]

The same GPT-2 of random weights, the same loopback Hub, the same embedded toolchain and the same config for
both flows, in one run:

- `service`: this project's pipeline, as the prediction server calls it;
- `original`: a stand-in for the original's flow, written from its description: download the repository
  unconditionally, run each script, then Python's `tarfile` in mode `w:gz`, with a line printed per file.

Rows: the first build; the same config again; the same with only `build.args` changed; and the service's own
overhead, a tiny model with steps that do nothing. Exits 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from trt_llm_pipeline import pipeline
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import CogServer

ROOT = Path(__file__).resolve().parent.parent
TOOLCHAIN = ROOT / "cpu_toolchain"
CONFIG = (ROOT / "examples" / "gpt" / "config.yaml").read_text()
CHANGED = CONFIG.replace("remove_input_padding:", "max_batch_size: 4")
MODEL_ID = "sshleifer/tiny-gpt2"
OVERHEAD_S = 0.5
REBUILD_S = 1.0  # plus one copy of the archive that hashes as it reads
IDLE_SCRIPT = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--output_dir")
folder = pathlib.Path(parser.parse_args().output_dir)
folder.mkdir(parents=True)
(folder / "config.json").write_text('{"builder_config": {"tensor_parallel": 1}, "plugin_config": {}}')
(folder / "gpt_float16_tp1_rank0.engine").write_bytes(b"engine")
"""
IDLE_CONFIG = f"""
model_id: {MODEL_ID}
example_name: idle
cache: false
build:
  script: build.py
  output_dir: ./engine
  args:
    output_dir: ./engine
"""


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def service(settings: Settings, text: str) -> pipeline.BuildResult:
    return pipeline.build(validate(text, "config.yaml", settings), settings, Recorder())


def original(endpoint: str, workspace: Path, text: str) -> None:
    """The original's flow, step by step."""
    from huggingface_hub import snapshot_download

    model = workspace / "models" / MODEL_ID
    shutil.rmtree(model, ignore_errors=True)
    with contextlib.redirect_stderr(io.StringIO()):
        snapshot_download(MODEL_ID, local_dir=model, endpoint=endpoint)
    convert = ["--in-file", str(model), "--out-dir", "./c-model/gpt2", "--tensor-parallelism", "1"]
    run("hf_gpt_convert.py", [*convert, "--storage-type", "float16"], workspace)
    build = ["--model_dir", "./c-model/gpt2/1-gpu", "--output_dir", "./engine_outputs/"]
    extra = ["--max_batch_size", "4"] if text == CHANGED else ["--remove_input_padding"]
    run("build.py", [*build, "--use_gpt_attention_plugin", *extra], workspace)
    with tarfile.open(workspace / "engine.tar.gz", "w:gz") as archive, Path(os.devnull).open("w") as log:
        for path in sorted((workspace / "engine_outputs").iterdir()):
            print(f"adding {path}", file=log)
            archive.add(path, arcname=path.name)


def run(script: str, arguments: list[str], workspace: Path) -> None:
    path = TOOLCHAIN / "examples" / "gpt" / script
    subprocess.run([sys.executable, str(path), *arguments], cwd=workspace, check=True, capture_output=True)


def hashing_copy(source: Path, target: Path) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as write:
        while piece := read.read(4 << 20):
            digest.update(piece)
            write.write(piece)


def overhead(endpoint: str, scratch: Path, repeats: int) -> float:
    """The least seconds from request to response, less the step's own, of a warm server."""
    toolchain = scratch / "idle_toolchain"
    (toolchain / "examples" / "idle").mkdir(parents=True)
    (toolchain / "version.txt").write_text("cpu\n")
    (toolchain / "examples" / "idle" / "build.py").write_text(IDLE_SCRIPT)
    config = scratch / "idle.yaml"
    config.write_text(IDLE_CONFIG)
    bare = [sys.executable, str(toolchain / "examples" / "idle" / "build.py"), "--output_dir"]
    env = {
        "HF_ENDPOINT": endpoint,
        "TRTLLM_DIR": str(toolchain),
        "TRT_LLM_WORKSPACE": str(scratch / "idle_workspace"),
    }
    taken = []
    with CogServer(env) as server:
        for turn in range(repeats + 2):
            own = seconds(partial(subprocess.run, [*bare, str(scratch / f"bare{turn}")], check=True))
            server.wait_until_ready()
            whole = seconds(lambda: succeed(server.predict(config=str(config))))
            if turn >= 2:  # warm by then
                taken.append(whole - own)
    return min(taken)


def succeed(prediction: dict[str, object]) -> None:
    if prediction["status"] != "succeeded":
        raise SystemExit(f"the build failed: {prediction['error']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=400, help="size of the model in float32")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        hidden = 64 * max(1, round((options.megabytes * 1e6 / 4 / 12 / 12) ** 0.5 / 64))
        models.make_gpt2(scratch / "hub" / MODEL_ID, layers=12, heads=hidden // 64, hidden=hidden)
        models.make_demo_gpt2(scratch / "tiny" / MODEL_ID)
        with HubServer(scratch / "hub") as hub, HubServer(scratch / "tiny") as tiny:
            env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "PATH": os.environ["PATH"]}
            settings = Settings.from_env({**env, "TRT_LLM_WORKSPACE": str(scratch / "service")})
            (scratch / "original").mkdir()
            rows = []
            for label, text in (("first build", CONFIG), ("the same again", CONFIG), ("build.args", CHANGED)):
                ours = seconds(partial(service, settings, text))
                theirs = seconds(partial(original, hub.url, scratch / "original", text))
                rows.append((label, ours, theirs))
            result = service(settings, CONFIG)
            newest = result.newest
            assert newest is not None  # it was sent nowhere
            copy = seconds(lambda: hashing_copy(newest, scratch / "copy"))
            idle = overhead(tiny.url, scratch, options.repeats)
        print(f"model {options.megabytes} MB in float32, archive {result.size / 1e6:.0f} MB\n")
        print(f"{'':16} {'service':>10} {'original':>10} {'original / service':>20}")
        for label, ours, theirs in rows:
            print(f"{label:16} {ours:9.2f}s {theirs:9.2f}s {theirs / ours:19.1f}x")
        again = rows[1][1]
        print(f"\nthe same again, less a hashing copy ({copy:.2f} s): {again - copy:.2f} s of {REBUILD_S} s")
        print(f"overhead of a warm server: {idle:.2f} s of {OVERHEAD_S} s")
        return 0 if again - copy < REBUILD_S and idle < OVERHEAD_S else 1


if __name__ == "__main__":
    sys.exit(main())
