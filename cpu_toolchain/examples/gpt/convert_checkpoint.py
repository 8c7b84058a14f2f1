"""Converts a Hugging Face GPT-2 into a unified checkpoint, with the options of TensorRT-LLM 0.9.0."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trt_llm_cpu import console, convert_options
from trt_llm_cpu.options import Parser, Refusals


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__, unsupported)
    convert_options.add_common_options(parser, ["int8", "int4"])
    add = parser.add_argument
    add("--gpt_variant", default=None, choices=["gpt2", "santacoder", "starcoder", "starcoder2"])
    add("--nemo_ckpt_path", default=None, help="not supported on a CPU")
    add("--load_nemo_on_gpu", action="store_true", help="of --nemo_ckpt_path")
    add("--dataset_cache_dir", default=None, help="no effect: nothing is calibrated")
    add("--log_level", default="info", help="no effect on a CPU")
    return parser.parse_args()


def unsupported(args: argparse.Namespace) -> Refusals:
    for option in ("nemo_ckpt_path", "load_nemo_on_gpu"):
        if getattr(args, option):
            does = "it converts the Hugging Face model of --model_dir"
            yield f"--{option}", f"is not supported by this CPU toolchain; {does}"
    yield from convert_options.unsupported(args)
    if args.gpt_variant not in (None, "gpt2"):
        yield "--gpt_variant", f"{args.gpt_variant} is not supported by this CPU toolchain; gpt2 is"


def main() -> None:
    args = parse_arguments()

    from trt_llm_cpu.gpt2 import open_gpt2

    convert_options.convert(args, *open_gpt2(Path(args.model_dir), args.dtype))


if __name__ == "__main__":
    console.run(main)
