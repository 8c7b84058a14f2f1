"""What it costs to work out whether an engine fits, beside reading the model's config.json.

    python -m benchmarks.fit [--repeats 20]

Llama 2 70B on one GPU of every kind, so that every remedy is tried. Prints the median of several turns, taken
alternately in one run. Exits 1 where the sums take 50 ms or more beyond reading the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trt_llm_pipeline.config import loads
from trt_llm_pipeline.fit import GPUS, text_lines
from trt_llm_pipeline.model_source import read_config
from trt_llm_pipeline.plan import make_plan
from trt_llm_pipeline.preflight.fitting import fitting
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.toolchain import find

LIMIT_S = 0.05
ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "llama" / "llama-2-70b-chat-fp16-4gpu.yaml"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        env = {"TRTLLM_DIR": str(ROOT / "cpu_toolchain"), "PATH": "/usr/bin:/bin"}
        settings = Settings.from_env(env, Path(folder))
        text = EXAMPLE.read_text().replace("size: 4", "size: 1")
        plan, _ = make_plan(loads(text), find(env), settings.workspace)
        plan.model_dir.mkdir(parents=True)
        (plan.model_dir / "config.json").write_text(json.dumps(CONFIG))

        def assess() -> None:
            for gpu in GPUS:
                found = fitting(plan, settings, gpu=gpu)
                assert found.assessment is not None
                text_lines(found.assessment)

        read, summed = [], []
        for _ in range(repeats):
            read.append(seconds(lambda: read_config(plan.model_dir)))
            summed.append(seconds(assess) / len(GPUS))
    file, whole = statistics.median(read), statistics.median(summed)
    print(f"reading config.json           {1000 * file:8.3f} ms")
    print(f"whether it fits, for one GPU  {1000 * whole:8.3f} ms")
    print(f"beyond reading                {1000 * (whole - file):8.3f} ms of at most {1000 * LIMIT_S:.0f}")
    return 0 if whole - file < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
