"""Converts a Hugging Face GPT-2 into a unified checkpoint, with the options of TensorRT-LLM 0.9.0."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trt_llm_cpu import console, convert_options


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    convert_options.add_common_options(parser, ["int8", "int4"])
    add = parser.add_argument
    add("--gpt_variant", default=None, choices=["gpt2", "santacoder", "starcoder", "starcoder2"])
    add("--nemo_ckpt_path", default=None, help="not supported on a CPU")
    add("--load_nemo_on_gpu", action="store_true", help="of --nemo_ckpt_path")
    add("--dataset_cache_dir", default=None, help="no effect: nothing is calibrated")
    add("--log_level", default="info", help="no effect on a CPU")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.nemo_ckpt_path or args.load_nemo_on_gpu:
        raise console.UnsupportedError(
            "--nemo_ckpt_path and --load_nemo_on_gpu are not supported by this CPU toolchain; "
            "it converts the Hugging Face model of --model_dir."
        )
    convert_options.refuse_unsupported(args)
    if args.gpt_variant not in (None, "gpt2"):
        raise console.UnsupportedError(
            f"--gpt_variant {args.gpt_variant} is not supported by this CPU toolchain; gpt2 is."
        )

    from trt_llm_cpu.gpt2 import open_gpt2

    convert_options.convert(args, *open_gpt2(Path(args.model_dir), args.dtype))


if __name__ == "__main__":
    console.run(main)
