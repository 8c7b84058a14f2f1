"""Takes the options of TensorRT-LLM 0.7.1's hf_llama_convert.py and says why a CPU does not need it.

On a GPU it calibrates for SmoothQuant and the int8 KV cache; build.py reads the Hugging Face model itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trt_llm_cpu import console
from trt_llm_cpu.options import Parser, Refusals


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__, unsupported)
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


def unsupported(args: argparse.Namespace) -> Refusals:
    does = (
        "needs a GPU; on this CPU toolchain llama's build.py reads the Hugging Face model itself, as "
        "float32, float16, bfloat16 or int8 weight-only"
    )
    if args.smoothquant is not None:
        yield "--smoothquant", does
    if args.calibrate_kv_cache:
        yield "--calibrate-kv-cache", does
    if args.in_file is not None:
        yield "--in-file", f"converting Llama for SmoothQuant {does}"


def main() -> None:
    parse_arguments()


if __name__ == "__main__":
    console.run(main)
