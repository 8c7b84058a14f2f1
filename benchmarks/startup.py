"""What it costs to start: the library's import and the command line's help, beside a bare interpreter.

    python -m benchmarks.startup [--repeats 10]

Prints the best of several turns, measured alternately in one run, byte code cached. Exits 1 where either
takes 0.25 s or more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

LIMIT_S = 0.25
HEAVY = ("transformers", "torch", "huggingface_hub", "onnxruntime", "obstore", "numpy")
ENV = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import trt_llm_pipeline.pipeline": ["-c", "import trt_llm_pipeline.pipeline"],
    "trt-llm-pipeline --help": ["-c", "from trt_llm_pipeline.cli import main; main()", "--help"],
}


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=ENV)
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    best = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(parser.parse_args().repeats):
        for name, arguments in COMMANDS.items():
            best[name] = min(best[name], seconds(arguments))
    bare = best["python -c pass"]
    for name, taken in best.items():
        print(f"{name:34} {taken:6.3f} s {taken / bare:6.1f}x")
    loaded = f"import sys, trt_llm_pipeline.pipeline; print([m for m in {HEAVY} if m in sys.modules])"
    early = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout
    print(f"imported before they are needed: {early.strip()}")
    return 0 if max(best.values()) < LIMIT_S and early.strip() == "[]" else 1


if __name__ == "__main__":
    sys.exit(main())
