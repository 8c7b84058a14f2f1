"""Converts a Hugging Face Llama into a unified checkpoint, with the options of TensorRT-LLM 0.9.0."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trt_llm_cpu import console, convert_options
from trt_llm_cpu.options import Parser, Refusals


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__, unsupported)
    convert_options.add_common_options(parser, ["int8", "int4", "int4_gptq"])
    add = parser.add_argument
    own = "no effect: the model's own is used"
    sizes = ("vocab_size", "n_positions", "n_layer", "n_head", "n_kv_head", "n_embd", "inter_size")
    for size in sizes:
        add(f"--{size}", type=int, default=None, help=own)
    for number in ("rms_norm_eps", "rotary_base"):
        add(f"--{number}", type=float, default=None, help=own)
    add("--hidden_act", default=None, help=own)
    add("--meta_ckpt_dir", default=None, help="not supported on a CPU")
    add("--ammo_quant_ckpt_path", default=None, help="not supported on a CPU")
    add("--per_group", action="store_true", help="of int4 weights")
    add("--group_size", type=int, default=128, help="of int4 weights")
    add("--moe_num_experts", type=int, default=0, help="0: experts are not supported on a CPU")
    add("--moe_top_k", type=int, default=0, help="0: experts are not supported on a CPU")
    add("--moe_tp_mode", type=int, default=2, help="of --moe_num_experts")
    add("--moe_renorm_mode", type=int, default=1, help="of --moe_num_experts")
    add("--save_config_only", action="store_true", help="not supported on a CPU")
    add("--disable_weight_only_quant_plugin", action="store_true", help="no effect on a CPU")
    add("--load_by_shard", action="store_true", help="always so: one tensor is in memory at a time")
    add("--load_model_on_cpu", action="store_true", help="always so")
    add("--dataset-cache-dir", default=None, help="no effect: nothing is calibrated")
    return parser.parse_args()


def unsupported(args: argparse.Namespace) -> Refusals:
    yield from convert_options.unsupported(args)
    for option in ("meta_ckpt_dir", "ammo_quant_ckpt_path", "save_config_only"):
        if getattr(args, option):
            does = "converts the whole of --model_dir to float32, float16, bfloat16 and int8 weight-only"
            yield f"--{option}", f"is not supported by this CPU toolchain; it {does}"
    for option in ("moe_num_experts", "moe_top_k"):
        if getattr(args, option):
            yield f"--{option}", "experts are not supported by this CPU toolchain; plain Llama is"


def main() -> None:
    args = parse_arguments()

    from trt_llm_cpu.llama import open_llama

    model = open_llama(Path(args.model_dir), args.dtype)
    convert_options.convert(args, model.spec, model.weights)


if __name__ == "__main__":
    console.run(main)
