"""What serving an engine needs, computed from it: for cog-triton and for Triton's TensorRT-LLM backend.

cog-triton reads `config.yaml` beside its predictor (or $COG_TRITON_CONFIG) and fills the templates of its
model repository from `instantiate.server.<model>.args`, with Python's `string.Template`
(https://github.com/replicate/cog-triton: `predict.py`, `triton_config_generator.py`, `triton_templates/`).

The backend's `tools/fill_template.py` takes one text, `key:value,key:value`, and fills a `config.pbtxt`
(https://github.com/triton-inference-server/tensorrtllm_backend). The names of the values are those of its
templates from 0.5 to 0.19; a value that is empty leaves an optional parameter at its default. The script of
0.19 refuses a name that its file does not have, so there the values of one model are given at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from trt_llm_pipeline.engine.limits import KV_FRACTION, EngineLimits
from trt_llm_pipeline.errors import BadArgument

COG_TRITON_NAME = "config.yaml"
VALUES_NAME = "fill_template_values"
#: Where cog-triton unpacks an engine, and where the backend's guide puts it.
DEFAULT_ENGINE_DIR = "/src/triton_model_repo/tensorrt_llm/1"
#: The most processes for tokenizing that are worth their memory; cog-triton's own default.
_MOST_INSTANCES = 64
_QUEUE_DELAY_US = 100

# Optional parameters, given as texts in the templates, that are left at the backend's defaults.
_LEFT_OUT = (
    "cancellation_check_period_ms",
    "cross_kv_cache_fraction",
    "cuda_graph_cache_size",
    "cuda_graph_mode",
    "decoding_mode",
    "eagle_choices",
    "enable_chunked_context",
    "enable_context_fmha_fp32_acc",
    "enable_kv_cache_reuse",
    "encoder_engine_dir",
    "gpu_device_ids",
    "gpu_weights_percent",
    "guided_decoding_backend",
    "iter_stats_max_iterations",
    "kv_cache_host_memory_bytes",
    "kv_cache_onboard_blocks",
    "lookahead_ngram_size",
    "lookahead_verification_set_size",
    "lookahead_window_size",
    "lora_cache_gpu_memory_fraction",
    "lora_cache_host_memory_bytes",
    "lora_cache_max_adapter_size",
    "lora_cache_optimal_adapter_size",
    "lora_prefetch_dir",
    "max_attention_window_size",
    "max_kv_cache_length",
    "max_num_images",
    "max_tokens_in_paged_kv_cache",
    "medusa_choices",
    "multi_block_mode",
    "multimodal_encoders_name",
    "multimodal_model_path",
    "normalize_log_probs",
    "num_nodes",
    "participant_ids",
    "request_stats_max_iterations",
    "sink_token_length",
    "speculative_decoding_fast_logits",
    "stats_check_period_ms",
    "tensorrt_llm_draft_model_name",
    "visual_model_path",
    "xgrammar_tokenizer_info_path",
)


def template_values(limits: EngineLimits, engine_dir: str = DEFAULT_ENGINE_DIR) -> dict[str, str]:
    """The values for the backend's templates.

    Args:
        limits: the engine's.
        engine_dir: where the archive will be unpacked on the server; the tokenizer is beside the engine.
    """
    return {
        "triton_backend": "tensorrtllm",
        "triton_max_batch_size": str(limits.max_batch_size),
        "max_num_sequences": str(limits.max_batch_size),
        "max_beam_width": str(limits.max_beam_width),
        "decoupled_mode": str(limits.in_flight),
        "batching_strategy": _batching(limits),
        "batch_scheduler_policy": "guaranteed_no_evict",
        "max_queue_delay_microseconds": str(_QUEUE_DELAY_US),
        "max_queue_size": "0",
        "kv_cache_free_gpu_mem_fraction": str(KV_FRACTION),
        "engine_dir": engine_dir,
        "tokenizer_dir": engine_dir,
        "tokenizer_type": "auto",
        "add_special_tokens": "True",
        "skip_special_tokens": "True",
        "exclude_input_in_output": "True",
        "enable_trt_overlap": "False",
        "preprocessing_instance_count": "1",
        "postprocessing_instance_count": "1",
        "bls_instance_count": "1",
        "accumulate_tokens": str(limits.in_flight),
        "tensorrt_llm_model_name": "tensorrt_llm",
        "logits_datatype": "TYPE_FP32",
        "encoder_input_features_data_type": "TYPE_FP16",
        "prompt_embedding_table_data_type": "TYPE_FP16",
        **dict.fromkeys(_LEFT_OUT, ""),
    }


def values_text(values: Mapping[str, str]) -> str:
    """The values as `fill_template.py` takes them: `key:value,key:value`, without a line's end.

    Raises:
        BadArgument: a value has a character that the script would take for a separator.
    """
    for name, value in values.items():
        if wrong := next((sign for sign in ":,\\\n" if sign in value), None):
            what = {":": "a colon", ",": "a comma", "\\": "a backslash", "\n": "a line's end"}[wrong]
            raise BadArgument(
                f"{name} is {value!r}, which has {what} in it, and the backend's fill_template.py takes that "
                "for a separator; unpack the engine in a directory without one, and name it with --engine-dir"
            )
    return ",".join(f"{name}:{value}" for name, value in values.items())


def cog_triton_config(
    limits: EngineLimits, settings: Mapping[str, str], engine_dir: str = DEFAULT_ENGINE_DIR
) -> str:
    """cog-triton's `config.yaml`.

    Args:
        limits: the engine's.
        settings: the environment variables that the engine needs there, which go into a comment.
        engine_dir: where the archive will be unpacked; another than the default has to be in $ENGINE_DIR too.
    """
    batch = limits.max_batch_size
    instances = min(batch, _MOST_INSTANCES)
    sized: dict[str, Any] = {"triton_max_batch_size": batch}
    tokenizer = {**sized, "tokenizer_dir": engine_dir, "tokenizer_type": "auto"}
    server: dict[str, dict[str, Any]] = {
        "preprocessing": {**tokenizer, "preprocessing_instance_count": instances},
        "tensorrt_llm": {
            **sized,
            "decoupled_mode": limits.in_flight,
            "max_beam_width": limits.max_beam_width,
            "engine_dir": engine_dir,
            "batching_strategy": _batching(limits),
            "batch_scheduler_policy": "guaranteed_no_evict",
            "max_queue_delay_microseconds": _QUEUE_DELAY_US,
            "kv_cache_free_gpu_mem_fraction": KV_FRACTION,
            "exclude_input_in_output": "true",
        },
        "postprocessing": {**tokenizer, "postprocessing_instance_count": instances},
        "ensemble": dict(sized),
        "tensorrt_llm_bls": {
            **sized,
            "decoupled_mode": limits.in_flight,
            "bls_instance_count": instances,
            "accumulate_tokens": "true",
            "tensorrt_llm_model_name": "tensorrt_llm",
        },
    }
    content = {"instantiate": {"server": {name: {"args": args} for name, args in server.items()}}}
    wanted = dict(settings)
    if engine_dir.rstrip("/") != DEFAULT_ENGINE_DIR:
        wanted["ENGINE_DIR"] = engine_dir
    head = "# Computed from the engine. cog-triton reads this file as config.yaml.\n"
    if wanted:
        head += f"# Set in its environment: {' '.join(f'{name}={value}' for name, value in wanted.items())}\n"
    return head + str(yaml.safe_dump(content, sort_keys=False, width=1000))


def notes(limits: EngineLimits) -> list[str]:
    """What the engine cannot do that servers expect, one sentence each."""
    if limits.in_flight:
        return []
    they = "them" if len(limits.missing) > 1 else "it"
    return [
        f"the engine was built without {', '.join(limits.missing)}, so it serves one batch after the "
        f"other (V1) and cannot stream, which cog-triton expects; build the engine with {they}"
    ]


def _batching(limits: EngineLimits) -> str:
    return "inflight_fused_batching" if limits.in_flight else "V1"
