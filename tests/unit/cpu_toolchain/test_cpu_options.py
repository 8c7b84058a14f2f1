"""The scripts have the options of the releases that they follow: lists read from NVIDIA's own trees."""

from __future__ import annotations

import re

import pytest
from toolchain_support import (
    GPT_BUILD,
    GPT_CONVERT,
    LLAMA_BUILD,
    LLAMA_CONVERT,
    TRTLLM_BUILD,
    run_script,
)

COMMON_BUILD_071 = """
    --world_size --model_dir --dtype --timing_cache --log_level --vocab_size --n_layer --n_positions --n_embd
    --n_head --hidden_act --inter_size --max_batch_size --max_input_len --max_output_len --max_beam_width
    --use_gpt_attention_plugin --use_gemm_plugin --parallel_build --enable_context_fmha
    --enable_context_fmha_fp32_acc --gpus_per_node --builder_opt --output_dir --remove_input_padding
    --use_smooth_quant --use_weight_only --weight_only_precision --per_channel --per_token --int8_kv_cache
    --paged_kv_cache --tokens_per_block --max_prompt_embedding_table_size --use_inflight_batching
    --use_parallel_embedding --embedding_sharding_dim --gather_all_token_logits --enable_fp8 --fp8_kv_cache
    --max_num_tokens --strongly_typed --use_custom_all_reduce
"""
OPTIONS = {
    GPT_CONVERT: """
        --out-dir -o --in-file -i --tensor-parallelism -tp --processes -p --calibrate-kv-cache -kv
        --smoothquant -sq --model --storage-type -t --dataset-cache-dir --load-model-on-cpu
        --convert-model-on-cpu
    """,
    GPT_BUILD: f"""
        {COMMON_BUILD_071} --logits_dtype --rotary_pct --no_bias --use_layernorm_plugin --multi_query_mode -mq
        --random_seed --use_embedding_sharing --use_lookup_plugin
    """,
    LLAMA_BUILD: f"""
        {COMMON_BUILD_071} --tp_size --pp_size --ft_model_dir --meta_ckpt_dir --quant_ckpt_path --n_kv_head
        --multiple_of --ffn_dim_multiplier --rms_norm_eps --rotary_base --rotary_scaling --use_rmsnorm_plugin
        --multi_block_mode --visualize --load_by_shard --enable_debug_output --use_fused_mlp
        --enable_pos_shift --dense_context_fmha --per_group --group_size --quantized_fp8_model_path
        --disable_weight_only_quant_plugin --use_lora_plugin --hf_lora_dir --moe_num_experts --moe_top_k
    """,
    LLAMA_CONVERT: """
        --model_dir --meta_ckpt_dir --output_dir --tp_size --pp_size --dtype --vocab_size --n_positions
        --n_layer --n_head --n_kv_head --n_embd --inter_size --rms_norm_eps --use_weight_only
        --disable_weight_only_quant_plugin --weight_only_precision --smoothquant --per_channel --per_token
        --int8_kv_cache --per_group --load_by_shard --hidden_act --rotary_base --group_size
        --use_parallel_embedding --embedding_sharding_dim --use_embedding_sharing --workers
    """,
    TRTLLM_BUILD: """
        --checkpoint_dir --model_config --build_config --model_cls_file --model_cls_name --log_level
        --profiling_verbosity --enable_debug_output --output_dir --workers --max_batch_size --max_input_len
        --max_output_len --max_beam_width --max_num_tokens --opt_num_tokens --tp_size --pp_size
        --max_prompt_embedding_table_size --use_fused_mlp --gather_all_token_logits --gather_context_logits
        --gather_generation_logits --strongly_typed --builder_opt --logits_dtype --weight_only_precision
        --weight_sparsity --max_draft_len --lora_dir --lora_ckpt_source --lora_target_modules --max_lora_rank
        --gpt_attention_plugin --gemm_plugin --nccl_plugin --lookup_plugin --lora_plugin --moe_plugin
        --context_fmha --context_fmha_fp32_acc --paged_kv_cache --remove_input_padding
        --use_custom_all_reduce --multi_block_mode --enable_xqa --attention_qk_half_accumulation
        --tokens_per_block --use_paged_context_fmha --use_context_fmha_for_generation
    """,
}


@pytest.mark.parametrize("script", OPTIONS)
def test_a_script_has_every_option_of_the_release_it_follows(
    script: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_script(script, "--help") == 0
    offered = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", capfd.readouterr().out))
    assert set(OPTIONS[script].split()) <= offered


@pytest.mark.parametrize("value", [(), ("float16",), ("bfloat16",)], ids=["bare", "float16", "bfloat16"])
def test_a_plugin_option_may_be_bare_or_name_a_type(
    value: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    for script in (GPT_BUILD, LLAMA_BUILD):
        # What stops the script is the world size, which is checked after every option was parsed.
        assert run_script(script, "--use_gemm_plugin", *value, "--world_size", 2) == 2
        assert "one rank" in capfd.readouterr().err


def test_a_plugin_option_of_another_type_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_script(GPT_BUILD, "--use_gemm_plugin", "float8") == 2
    assert "invalid choice: 'float8'" in capfd.readouterr().err
    assert run_script(TRTLLM_BUILD, "--paged_kv_cache", "yes") == 2
    assert "invalid choice: 'yes'" in capfd.readouterr().err
