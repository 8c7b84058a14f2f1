"""Builds a CPU engine from an FT checkpoint of GPT-2, with the options of TensorRT-LLM 0.7.1."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trt_llm_cpu import console, legacy_build
from trt_llm_cpu.options import ONE_RANK, Parser, Refusals

_PLUGINS = (
    "use_gpt_attention_plugin",
    "use_gemm_plugin",
    "use_layernorm_plugin",
    "use_lookup_plugin",
    "use_lora_plugin",
)


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__, unsupported)
    legacy_build.add_common_options(parser, _PLUGINS)
    legacy_build.add_gpt_options(parser)
    add = parser.add_argument
    add("--output_dir", default="engine_outputs", help="where the engine and config.json go")
    add("--max_batch_size", type=int, default=256, help="sequences at once")
    add("--max_input_len", type=int, default=200, help="tokens of a prompt")
    add("--max_output_len", type=int, default=200, help="tokens to generate")
    add(
        "--logits_dtype",
        default="float32",
        choices=["float16", "float32"],
        help="no effect: float32 on a CPU",
    )
    add("--rotary_base", type=float, default=10000.0, help="of --rotary_pct")
    add("--rotary_scaling", nargs=2, default=None, help="of --rotary_pct")
    add("--rotary_pct", type=float, default=0.0, help="0: GPT-2 has learned positions")
    add("--no_bias", action="store_false", help="no effect: the checkpoint decides")
    add("--multi_query_mode", "-mq", action="store_true", help="not supported on a CPU")
    add("--random_seed", type=int, default=None, help="no effect: nothing is random")
    add("--use_embedding_sharing", action="store_true", help="no effect: a tied table is always stored once")
    add("--weight_only_precision", const="int8", nargs="?", default=None, choices=["int8", "int4"])
    return parser.parse_args()


def unsupported(args: argparse.Namespace) -> Refusals:
    yield from legacy_build.unsupported(args)
    # hf_gpt_convert.py names its directory after the ranks: told here, before anything is converted for them.
    ranks = re.fullmatch(r"(\d+)-gpu", Path(args.model_dir or "").name)
    if ranks and int(ranks[1]) != 1:
        yield (
            "--model_dir",
            f"{args.model_dir} is what tensor parallelism {ranks[1]} is written to; {ONE_RANK}: convert with "
            "--tensor-parallelism 1 and name its 1-gpu",
        )
    for option in ("rotary_pct", "multi_query_mode"):
        if getattr(args, option):
            yield f"--{option}", "is not supported by this CPU toolchain; it builds GPT-2"


def main() -> None:
    args = parse_arguments()

    from trt_llm_cpu.ft_checkpoint import open_ft_checkpoint
    from trt_llm_cpu.quantization import quantise_weights

    checkpoint = open_ft_checkpoint(Path(args.model_dir))
    spec, weights = checkpoint.spec, checkpoint.weights()
    if args.use_weight_only:
        spec, weights = replace(spec, int8=True), quantise_weights(weights, axis=0)
    legacy_build.build(args, spec, weights)


if __name__ == "__main__":
    console.run(main)
