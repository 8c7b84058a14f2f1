"""`trtllm-build` with the options of 0.9.0: a unified checkpoint in, `rank0.engine` and `config.json` out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trt_llm_cpu.console import UnsupportedError, say
from trt_llm_cpu.engine_dir import write_engine_dir
from trt_llm_cpu.options import Parser, Refusals, at_least_one, one_rank

_VERSION = "cpu"
_ON_A_GPU = "chooses a GPU kernel: recorded in plugin_config, no effect on a CPU"
_NO_EFFECT = "no effect on a CPU"
_NO_SUPPORT = "not supported on a CPU"
_DTYPES = ["float16", "float32", "bfloat16", "disable"]
_DTYPE_PLUGINS = (
    "bert_attention_plugin",
    "gpt_attention_plugin",
    "gemm_plugin",
    "lookup_plugin",
    "lora_plugin",
    "moe_plugin",
    "mamba_conv1d_plugin",
)
_SWITCHES = (
    "context_fmha",
    "context_fmha_fp32_acc",
    "paged_kv_cache",
    "remove_input_padding",
    "use_custom_all_reduce",
    "multi_block_mode",
    "enable_xqa",
    "attention_qk_half_accumulation",
    "use_paged_context_fmha",
    "use_context_fmha_for_generation",
    "multiple_profiles",
    "paged_state",
    "use_fp8_context_fmha",
    "streamingllm",
)
# Switches that change what is computed.
_SWITCHES_REFUSED = ("use_fp8_context_fmha", "streamingllm")
# Keys of plugin_config that the command line does not reach.
_OTHER_PLUGINS = {
    "smooth_quant_gemm_plugin": None,
    "identity_plugin": None,
    "layernorm_quantization_plugin": None,
    "rmsnorm_quantization_plugin": None,
    "nccl_plugin": None,
    "weight_only_groupwise_quant_matmul_plugin": None,
    "weight_only_quant_matmul_plugin": None,
    "quantize_per_token_plugin": False,
    "quantize_tensor_plugin": False,
}
# The names are NVIDIA's, "SMX" too.
_CLUSTERS = [
    "A100-SXM-80GB",
    "A100-SXM-40GB",
    "A100-PCIe-80GB",
    "A100-PCIe-40GB",
    "H100-SXM",
    "H100-PCIe",
    "V100-PCIe-16GB",
    "V100-PCIe-32GB",
    "V100-SMX-16GB",
    "V100-SMX-32GB",
    "V100S-PCIe",
    "A40",
    "A30",
    "A10",
    "A10G",
    "L40S",
    "L40",
    "L4",
]
_LORA_MODULES = [
    "attn_qkv",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_dense",
    "mlp_h_to_4h",
    "mlp_gate",
    "mlp_4h_to_h",
]


def parse_arguments() -> argparse.Namespace:
    """The command line's options; exits as argparse does when they are wrong."""
    parser = Parser(__doc__, unsupported)
    add = parser.add_argument
    add("--checkpoint_dir", default=None, help="the unified checkpoint")
    add("--output_dir", default="engine_outputs", help="where the engine and config.json go")
    add("--max_batch_size", type=int, default=1, help="sequences at once")
    add("--max_input_len", type=int, default=1024, help="tokens of a prompt")
    add("--max_output_len", type=int, default=1024, help="tokens to generate")
    add("--max_beam_width", type=int, default=1, help="1: a CPU engine decodes greedily")
    add("--max_num_tokens", type=int, default=None, help="recorded in config.json")
    add("--opt_num_tokens", type=int, default=None, help="recorded in config.json")
    add("--tp_size", type=int, default=1, help="1: a CPU engine has one rank")
    add("--pp_size", type=int, default=1, help="1: a CPU engine has one rank")
    add("--max_prompt_embedding_table_size", "--max_multimodal_len", type=int, default=0, help=_NO_SUPPORT)
    add("--max_draft_len", type=int, default=0, help=_NO_SUPPORT)
    add("--weight_only_precision", default=None, choices=["int8", "int4"], help="int8, of a W8A16 checkpoint")
    add("--logits_dtype", default=None, choices=["float16", "float32"], help="no effect: float32 on a CPU")
    for path in ("model_config", "build_config", "model_cls_file", "model_cls_name"):
        add(f"--{path}", default=None, help=_NO_SUPPORT)
    add("--lora_dir", nargs="+", default=None, help=_NO_SUPPORT)
    add("--lora_ckpt_source", default="hf", choices=["hf", "nemo"], help="of --lora_dir")
    add("--lora_target_modules", nargs="+", default=None, choices=_LORA_MODULES, help=_NO_SUPPORT)
    add("--max_lora_rank", type=int, default=64, help="of --lora_dir")
    for path in ("input_timing_cache", "output_timing_cache"):
        add(f"--{path}", default=None, help="no effect on a CPU, where no kernels are timed")
    add("--profiling_verbosity", default="layer_names_only", choices=["layer_names_only", "detailed", "none"])
    add("--log_level", default="info", help=_NO_EFFECT)
    add("--workers", type=int, default=1, help="no effect: there is one rank")
    add("--builder_opt", type=int, default=None, help=_NO_EFFECT)
    add("--auto_parallel", type=int, default=1, help="1: a CPU engine has one rank")
    add("--gpus_per_node", type=int, default=8, help=_NO_EFFECT)
    add("--cluster_key", default=None, choices=_CLUSTERS, help=_NO_EFFECT)
    for flag in (
        "gather_all_token_logits",
        "gather_context_logits",
        "gather_generation_logits",
        "strongly_typed",
        "weight_sparsity",
        "use_fused_mlp",
        "enable_debug_output",
    ):
        add(f"--{flag}", action="store_true", help="recorded in config.json, no effect on a CPU")
    for plugin in _DTYPE_PLUGINS:
        add(f"--{plugin}", default=None, choices=_DTYPES, help=_ON_A_GPU)
    for switch in _SWITCHES:
        add(f"--{switch}", default=None, choices=["enable", "disable"], help=_ON_A_GPU)
    add("--tokens_per_block", type=int, default=None, help=_ON_A_GPU)
    return parser.parse_args()


def main() -> None:
    """Builds what the command line asks for."""
    args = parse_arguments()

    from trt_llm_cpu.unified import open_checkpoint
    from trt_llm_cpu.weights import engine_weights

    config, spec, weights = open_checkpoint(Path(args.checkpoint_dir))
    if args.weight_only_precision and not spec.int8:
        raise UnsupportedError(
            f"--weight_only_precision int8 needs an int8 checkpoint, which {args.checkpoint_dir} is not; "
            "convert it with --use_weight_only."
        )
    given = [
        name for name in (*_DTYPE_PLUGINS, *_SWITCHES, "tokens_per_block") if getattr(args, name) is not None
    ]
    if given:
        options = ", ".join(f"--{name}" for name in given)
        say(f"{options}: GPU-only, recorded in plugin_config, no effect on a CPU")
    engine_config = {"version": _VERSION, "pretrained_config": config, "build_config": build_config(args)}
    write_engine_dir(Path(args.output_dir), "rank0.engine", spec, engine_weights(weights), engine_config)


def unsupported(args: argparse.Namespace) -> Refusals:
    """What this toolchain does not do."""
    if args.checkpoint_dir is None:
        yield "--checkpoint_dir", "is needed; this toolchain builds from real weights alone"
    yield from one_rank(args, "tp_size", "pp_size", "auto_parallel")
    if args.max_beam_width != 1:
        yield "--max_beam_width", f"{args.max_beam_width}: a CPU engine decodes greedily; 1 is supported"
    for option in ("max_prompt_embedding_table_size", "max_draft_len"):
        if getattr(args, option):
            yield f"--{option}", "prompt tuning and draft tokens need a GPU; leave their options at 0"
    if args.weight_only_precision == "int4":
        yield "--weight_only_precision", "int4 needs a GPU; int8 is supported"
    for option in ("model_config", "build_config", "model_cls_file", "model_cls_name", "lora_dir"):
        if getattr(args, option) is not None:
            yield f"--{option}", "is not supported by this CPU toolchain; it builds from --checkpoint_dir"
    lora = "LoRA needs a GPU; float and int8 weight-only engines are supported"
    if args.lora_plugin not in (None, "disable"):
        yield "--lora_plugin", lora
    if args.lora_target_modules:
        yield "--lora_target_modules", lora
    for option in _SWITCHES_REFUSED:
        if getattr(args, option) == "enable":
            yield f"--{option}", "needs a GPU; leave it out, or disable it"
    yield from at_least_one(args, "max_batch_size", "max_input_len", "max_output_len")


def build_config(args: argparse.Namespace) -> dict[str, Any]:
    """`build_config` of config.json, with 0.9.0's keys."""
    plugins: dict[str, Any] = dict(_OTHER_PLUGINS)
    for plugin in _DTYPE_PLUGINS:
        value = getattr(args, plugin)
        plugins[plugin] = None if value == "disable" else value
    for switch in _SWITCHES:
        plugins[switch] = getattr(args, switch) == "enable"
    plugins["tokens_per_block"] = args.tokens_per_block or 128
    every = args.gather_all_token_logits
    return {
        "max_input_len": args.max_input_len,
        "max_output_len": args.max_output_len,
        "max_batch_size": args.max_batch_size,
        "max_beam_width": args.max_beam_width,
        "max_num_tokens": args.max_num_tokens,
        "opt_num_tokens": args.opt_num_tokens,
        "max_prompt_embedding_table_size": args.max_prompt_embedding_table_size,
        "max_draft_len": args.max_draft_len,
        "gather_context_logits": every or args.gather_context_logits,
        "gather_generation_logits": every or args.gather_generation_logits,
        "strongly_typed": args.strongly_typed,
        "builder_opt": args.builder_opt,
        "profiling_verbosity": args.profiling_verbosity,
        "enable_debug_output": args.enable_debug_output,
        "weight_sparsity": args.weight_sparsity,
        "plugin_config": plugins,
    }
