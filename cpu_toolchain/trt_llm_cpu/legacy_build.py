"""What the `build.py` scripts of 0.7.1 share: their options, what they refuse, and the engine directory
they write.

Imports nothing heavy, so that the arguments are checked at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_llm_cpu.console import say
from trt_llm_cpu.engine_dir import write_engine_dir
from trt_llm_cpu.options import at_least_one, one_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trt_llm_cpu.options import Refusals
    from trt_llm_cpu.spec import DecoderSpec
    from trt_llm_cpu.weights import Weight

_FLOATS = ["float16", "float32", "bfloat16"]
# Bits of TensorRT-LLM's QuantMode.
_QUANT_MODE_INT8_WEIGHTS = 2
_ON_A_GPU = "chooses a GPU kernel: recorded in plugin_config, no effect on a CPU"
_NO_EFFECT = "no effect on a CPU"
_NO_SUPPORT = "not supported on a CPU"

# Options that choose GPU kernels, and where plugin_config keeps them.
_PLUGINS = {
    "use_gpt_attention_plugin": "gpt_attention_plugin",
    "use_gemm_plugin": "gemm_plugin",
    "use_layernorm_plugin": "layernorm_plugin",
    "use_rmsnorm_plugin": "rmsnorm_plugin",
    "use_lookup_plugin": "lookup_plugin",
    "use_lora_plugin": "lora_plugin",
}
_GPU_FLAGS = {
    "remove_input_padding": "remove_input_padding",
    "paged_kv_cache": "paged_kv_cache",
    "enable_context_fmha": "context_fmha",
    "enable_context_fmha_fp32_acc": "context_fmha_fp32_acc",
    "multi_block_mode": "multi_block_mode",
    "use_custom_all_reduce": "use_custom_all_reduce",
    "use_inflight_batching": "use_inflight_batching",
}
# Those that gpt's build.py alone has.
_GPT_FLAGS = {
    "use_paged_context_fmha": "use_paged_context_fmha",
    "use_context_fmha_for_generation": "use_context_fmha_for_generation",
}
_EVERY_GPU_FLAG = {**_GPU_FLAGS, **_GPT_FLAGS}
_LORA_MODULES = ["attn_qkv", "attn_dense", "mlp_h_to_4h", "mlp_gate", "mlp_4h_to_h"]
# Flags that change what is computed and that this toolchain does not do.
_REFUSED = {
    "use_smooth_quant": "SmoothQuant",
    "int8_kv_cache": "an int8 KV cache",
    "enable_fp8": "FP8",
    "fp8_kv_cache": "an FP8 KV cache",
    "use_lora_plugin": "LoRA",
    "lora_target_modules": "LoRA",
}
_SUPPORTED = "float32, float16, bfloat16 and int8 weight-only (--use_weight_only) are supported"


def add_common_options(parser: argparse.ArgumentParser, plugins: Sequence[str]) -> None:
    """Adds the options that gpt's and llama's build.py have in common, with 0.7.1's names.

    Args:
        parser: to add them to.
        plugins: the plugin options that this example has; each is absent, bare, or with a type.
    """
    add = parser.add_argument
    add("--world_size", type=int, default=1, help="ranks; a CPU engine has one")
    add("--model_dir", default=None, help="what to build from")
    add("--dtype", default="float16", choices=_FLOATS, help="storage type of the weights")
    add("--timing_cache", default="model.cache", help="no effect on a CPU, where no kernels are timed")
    add("--log_level", default="info", help=_NO_EFFECT)
    add("--hidden_act", default=None, help="no effect: the model's own is used")
    for size in ("vocab_size", "n_layer", "n_positions", "n_embd", "n_head", "inter_size"):
        add(f"--{size}", type=int, default=None, help="no effect: the model's own is used")
    add("--max_beam_width", type=int, default=1, help="1: a CPU engine decodes greedily")
    for plugin in plugins:
        add(f"--{plugin}", nargs="?", const=True, default=False, choices=_FLOATS, help=_ON_A_GPU)
    for flag in _GPU_FLAGS:
        add(f"--{flag}", action="store_true", help=_ON_A_GPU)
    add("--tokens_per_block", type=int, default=128, help=_ON_A_GPU)
    add("--parallel_build", action="store_true", help="no effect: there is one rank")
    add("--gpus_per_node", type=int, default=8, help=_NO_EFFECT)
    add("--builder_opt", type=int, default=None, help=_NO_EFFECT)
    add("--strongly_typed", action="store_true", help=_NO_EFFECT)
    add("--max_num_tokens", type=int, default=None, help="recorded in config.json")
    add("--max_prompt_embedding_table_size", type=int, default=0, help="0: no prompt tuning on a CPU")
    add("--gather_all_token_logits", action="store_true", help="no effect: any token's logits can be had")
    add("--use_parallel_embedding", action="store_true", help="no effect: there is one rank")
    add("--embedding_sharding_dim", type=int, default=0, choices=[0, 1], help="no effect: there is one rank")
    add("--use_weight_only", action="store_true", help="int8 weights with a scale for each output channel")
    add("--use_smooth_quant", action="store_true", help=_NO_SUPPORT)
    add("--per_channel", action="store_true", help="of --use_smooth_quant")
    add("--per_token", action="store_true", help="of --use_smooth_quant")
    add("--int8_kv_cache", action="store_true", help=_NO_SUPPORT)
    add("--enable_fp8", action="store_true", help=_NO_SUPPORT)
    add("--fp8_kv_cache", action="store_true", help=_NO_SUPPORT)
    add("--moe_num_experts", type=int, default=0, help="0: experts are not supported on a CPU")
    add("--moe_top_k", type=int, default=0, help="0: experts are not supported on a CPU")
    add("--moe_tp_mode", type=int, default=2, help="of --moe_num_experts")
    add("--moe_renorm_mode", type=int, default=1, help="of --moe_num_experts")


def add_gpt_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that gpt's build.py alone has, of those that this module acts on."""
    add = parser.add_argument
    for flag in _GPT_FLAGS:
        add(f"--{flag}", action="store_true", help=_ON_A_GPU)
    add("--max_draft_len", type=int, default=0, help="0: no speculative decoding on a CPU")
    add("--lora_target_modules", nargs="+", default=None, choices=_LORA_MODULES, help=_NO_SUPPORT)


def unsupported(args: argparse.Namespace) -> Refusals:
    """What this toolchain does not do of the options that gpt's and llama's build.py have in common."""
    yield from one_rank(args, "world_size")
    for option, what in _REFUSED.items():
        if getattr(args, option, False):
            yield f"--{option}", f"{what} needs a GPU; {_SUPPORTED}"
    for option in ("per_channel", "per_token"):
        if getattr(args, option):
            yield f"--{option}", f"belongs to --use_smooth_quant, which needs a GPU; {_SUPPORTED}"
    yield from weight_only(args)
    if args.max_beam_width != 1:
        yield "--max_beam_width", f"{args.max_beam_width}: a CPU engine decodes greedily; 1 is supported"
    for option in ("max_prompt_embedding_table_size", "max_draft_len"):
        if getattr(args, option, 0):
            yield f"--{option}", "prompt tuning and draft tokens need a GPU; leave their options at 0"
    for option in ("moe_num_experts", "moe_top_k"):
        if getattr(args, option):
            yield f"--{option}", "experts are not supported by this CPU toolchain; plain GPT-2 and Llama are"
    yield from at_least_one(args, "max_batch_size", "max_input_len", "max_output_len")
    if args.model_dir is None:
        yield "--model_dir", "is needed; this toolchain builds from real weights alone"


def weight_only(args: argparse.Namespace) -> Refusals:
    """A weight-only precision without `--use_weight_only`, and any but int8."""
    option, precision = "--weight_only_precision", args.weight_only_precision
    if precision is not None and not args.use_weight_only:
        advice = "int8 weight-only takes both, or --use_weight_only alone"
        yield option, f"has no effect without --use_weight_only; {advice}"
    if precision not in (None, "int8"):
        yield option, f"{precision} needs a GPU; {_SUPPORTED}"


def plugin_config(args: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """`plugin_config` of config.json: what was asked for, a bare plugin option as the model's type."""
    asked = {key: getattr(args, option, False) for option, key in _PLUGINS.items()}
    config: dict[str, Any] = {key: dtype if value is True else value for key, value in asked.items()}
    config |= {key: getattr(args, option, False) for option, key in _EVERY_GPU_FLAG.items()}
    config["tokens_per_block"] = args.tokens_per_block if args.paged_kv_cache else 0
    config["weight_only_quant_matmul_plugin"] = dtype if args.use_weight_only else False
    return config


def note_gpu_options(args: argparse.Namespace) -> None:
    """Says once which of the given options decide nothing on a CPU."""
    given = [f"--{option}" for option in (*_PLUGINS, *_EVERY_GPU_FLAG) if getattr(args, option, False)]
    if given:
        say(f"{', '.join(given)}: GPU-only, recorded in plugin_config, no effect on a CPU")


def builder_config(args: argparse.Namespace, spec: DecoderSpec) -> dict[str, Any]:
    """`builder_config` of config.json, with 0.7.1's keys."""
    return {
        "name": spec.family,
        "precision": spec.dtype,
        "tensor_parallel": 1,
        "parallel_build": args.parallel_build,
        "use_refit": False,
        "int8": spec.int8,
        "num_layers": spec.num_layers,
        "num_heads": spec.num_heads,
        "num_kv_heads": spec.num_kv_heads,
        "hidden_size": spec.hidden_size,
        "vocab_size": spec.vocab_size,
        "hidden_act": spec.activation,
        "max_position_embeddings": spec.max_positions,
        "apply_query_key_layer_scaling": False,
        "max_batch_size": args.max_batch_size,
        "max_beam_width": args.max_beam_width,
        "max_input_len": args.max_input_len,
        "max_output_len": args.max_output_len,
        "max_num_tokens": args.max_num_tokens,
        "max_draft_len": getattr(args, "max_draft_len", 0),
        "max_prompt_embedding_table_size": args.max_prompt_embedding_table_size,
        "gather_all_token_logits": args.gather_all_token_logits,
        "quant_mode": _QUANT_MODE_INT8_WEIGHTS if spec.int8 else 0,
        "use_parallel_embedding": args.use_parallel_embedding,
        "lora_target_modules": None,
    }


def build(args: argparse.Namespace, spec: DecoderSpec, weights: Sequence[Weight]) -> None:
    """Compiles the engine and writes the engine directory."""
    note_gpu_options(args)
    config = {"builder_config": builder_config(args, spec), "plugin_config": plugin_config(args, spec.dtype)}
    name = f"{spec.family}_{spec.dtype}_tp1_rank0.engine"
    write_engine_dir(Path(args.output_dir), name, spec, weights, config)
