"""Takes the options of TensorRT-LLM's quantize.py (0.7.1 and 0.9.0) and says why a CPU cannot do it."""

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
    add("--model_dir", required=True)
    add("--output_dir", "--export_path", default="exported_model")
    add("--dtype", default="float16", choices=["float32", "bfloat16", "float16"])
    add("--device", default="cuda")
    add("--qformat", default="full_prec")
    add("--kv_cache_dtype", default=None, choices=["int8", "fp8"])
    add("--cache_dir", default=None)
    for size in (
        "seed",
        "batch_size",
        "calib_size",
        "max_seq_length",
        "awq_block_size",
        "tp_size",
        "pp_size",
    ):
        add(f"--{size}", type=int, default=None)
    return parser.parse_args()


def unsupported(args: argparse.Namespace) -> Refusals:
    if args.model_dir is not None:
        yield (
            "--qformat",
            "this script calibrates on a GPU, whatever the format; for int8 weights on a CPU leave the step "
            "out, and give convert_checkpoint.py --use_weight_only",
        )


def main() -> None:
    parse_arguments()


if __name__ == "__main__":
    console.run(main)
