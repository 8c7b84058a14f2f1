"""Builds a CPU engine from a Hugging Face Llama, with the options of TensorRT-LLM 0.7.1."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trt_llm_cpu import console, legacy_build
from trt_llm_cpu.options import Parser, Refusals, one_rank

_PLUGINS = ("use_gpt_attention_plugin", "use_gemm_plugin", "use_rmsnorm_plugin", "use_lora_plugin")
_PATHS_REFUSED = (
    "ft_model_dir",
    "meta_ckpt_dir",
    "quant_ckpt_path",
    "quantized_fp8_model_path",
    "hf_lora_dir",
)


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__, unsupported)
    legacy_build.add_common_options(parser, _PLUGINS)
    add = parser.add_argument
    own = "no effect: the model's own is used"
    add("--output_dir", default="engine_outputs", help="where the engine and config.json go")
    add("--max_batch_size", type=int, default=8, help="sequences at once")
    add("--max_input_len", type=int, default=2048, help="tokens of a prompt")
    add("--max_output_len", type=int, default=512, help="tokens to generate")
    add("--tp_size", type=int, default=1, help="1: a CPU engine has one rank")
    add("--pp_size", type=int, default=1, help="1: a CPU engine has one rank")
    for path in _PATHS_REFUSED:
        add(f"--{path}", default=None, help="not supported on a CPU")
    add("--rotary_base", type=float, default=None, help=own)
    add("--rotary_scaling", nargs=2, default=None, help="linear and a factor, instead of the model's own")
    add("--n_kv_head", type=int, default=None, help=own)
    add("--multiple_of", type=int, default=None, help=own)
    add("--ffn_dim_multiplier", type=float, default=None, help=own)
    add("--rms_norm_eps", type=float, default=None, help=own)
    add(
        "--weight_only_precision",
        const="int8",
        nargs="?",
        default=None,
        choices=["int8", "int4", "int4_awq", "int4_gptq"],
        help="int8, with --use_weight_only",
    )
    add("--disable_weight_only_quant_plugin", action="store_true", help="no effect on a CPU")
    add("--per_group", action="store_true", help="of int4 weights")
    add("--group_size", type=int, default=128, help="of int4 weights")
    add("--load_by_shard", action="store_true", help="always so: one tensor is in memory at a time")
    add("--visualize", action="store_true", help="no effect on a CPU")
    add("--enable_debug_output", action="store_true", help="no effect on a CPU")
    add("--use_fused_mlp", action="store_true", help="no effect on a CPU")
    return parser.parse_args()


def unsupported(args: argparse.Namespace) -> Refusals:
    yield from one_rank(args, "tp_size", "pp_size")
    yield from legacy_build.unsupported(args)
    if args.per_group:
        yield "--per_group", "belongs to int4 weights, which need a GPU; int8 weight-only is supported"
    for option in _PATHS_REFUSED:
        if getattr(args, option):
            yield f"--{option}", "is not supported by this CPU toolchain; it builds from --model_dir alone"


def main() -> None:
    args = parse_arguments()

    from trt_llm_cpu.llama import open_llama, rescaled
    from trt_llm_cpu.quantization import quantise_weights
    from trt_llm_cpu.weights import engine_weights

    model = open_llama(Path(args.model_dir), args.dtype)
    spec = rescaled(model.spec, args.rotary_scaling) if args.rotary_scaling else model.spec
    weights = engine_weights(model.weights)
    if args.use_weight_only:
        spec, weights = replace(spec, int8=True), quantise_weights(weights, axis=0)
    legacy_build.build(args, spec, weights)


if __name__ == "__main__":
    console.run(main)
