"""Takes the options of TensorRT-LLM 0.7.1's hf_llama_convert.py and says why a CPU does not need it.

On a GPU it calibrates for SmoothQuant and the int8 KV cache; build.py reads the Hugging Face model itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trt_llm_cpu import console


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--out-dir", "-o", required=True)
    add("--in-file", "-i", required=True)
    add("--tensor-parallelism", "-tp", type=int, default=1)
    add("--processes", "-p", type=int, default=4)
    add("--calibrate-kv-cache", "-kv", action="store_true")
    add("--smoothquant", "-sq", type=float, default=None)
    add("--storage-type", "-t", default="fp32", choices=["fp32", "fp16"])
    add("--multi-query-mode", action="store_true", help="of 0.5.0")
    add("--load-model-on-cpu", action="store_true")
    add("--convert-model-on-cpu", action="store_true")
    add("--dataset-cache-dir", default=None)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.smoothquant is not None:
        what = "--smoothquant"
    elif args.calibrate_kv_cache:
        what = "--calibrate-kv-cache"
    else:
        what = "converting Llama for SmoothQuant"
    raise console.UnsupportedError(
        f"{what} needs a GPU; on this CPU toolchain llama's build.py reads the Hugging Face model itself, "
        "as float32, float16, bfloat16 or int8 weight-only."
    )


if __name__ == "__main__":
    console.run(main)
