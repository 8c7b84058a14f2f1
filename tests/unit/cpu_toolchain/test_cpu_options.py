"""The scripts have the options of the releases that they follow: lists read from NVIDIA's own trees."""

from __future__ import annotations

import re

import pytest
from toolchain_support import (
    GPT_BUILD,
    GPT_CONVERT,
    GPT_CONVERT_UNIFIED,
    LLAMA_BUILD,
    LLAMA_CONVERT,
    TOOLCHAIN,
    TRTLLM_BUILD,
    run_script,
)

LLAMA_CONVERT_LEGACY = "examples/llama/hf_llama_convert.py"
OPTIONS_050 = {
    GPT_CONVERT: """
        --out-dir -o --in-file -i --tensor-parallelism -tp --processes -p --calibrate-kv-cache -kv
        --smoothquant -sq --model --storage-type -t --dataset-cache-dir --load-model-on-cpu
        --convert-model-on-cpu
    """,
    GPT_BUILD: """
        --world_size --model_dir --dtype --logits_dtype --timing_cache --log_level --vocab_size
        --n_layer --n_positions --n_embd --n_head --hidden_act --rotary_pct --inter_size --no_bias
        --max_batch_size --max_input_len --max_output_len --max_beam_width --use_gpt_attention_plugin
        --use_gemm_plugin --use_layernorm_plugin --parallel_build --enable_context_fmha
        --enable_context_fmha_fp32_acc --gpus_per_node --builder_opt --output_dir --multi_query_mode -mq
        --remove_input_padding --use_smooth_quant --use_weight_only --weight_only_precision
        --per_channel --per_token --int8_kv_cache --random_seed --paged_kv_cache --tokens_per_block
        --max_prompt_embedding_table_size --use_inflight_batching --use_parallel_embedding
        --embedding_sharding_dim --use_embedding_sharing --use_lookup_plugin --gather_all_token_logits
        --enable_fp8 --fp8_kv_cache --max_num_tokens --strongly_typed --use_custom_all_reduce
    """,
    LLAMA_BUILD: """
        --world_size --tp_size --pp_size --model_dir --ft_model_dir --meta_ckpt_dir --quant_ckpt_path
        --dtype --timing_cache --log_level --vocab_size --n_layer --n_positions --n_embd --n_head
        --n_kv_head --multiple_of --ffn_dim_multiplier --inter_size --hidden_act --rms_norm_eps
        --max_batch_size --max_input_len --max_output_len --max_beam_width --rotary_base
        --rotary_scaling --use_gpt_attention_plugin --use_gemm_plugin --use_rmsnorm_plugin
        --parallel_build --enable_context_fmha --enable_context_fmha_fp32_acc --visualize
        --enable_debug_output --gpus_per_node --builder_opt --output_dir --remove_input_padding
        --use_smooth_quant --per_channel --per_token --per_group --group_size --int8_kv_cache
        --use_parallel_embedding --embedding_sharding_dim --enable_fp8 --fp8_kv_cache
        --quantized_fp8_model_path --use_weight_only --weight_only_precision --use_inflight_batching
        --paged_kv_cache --tokens_per_block --max_num_tokens --strongly_typed --use_custom_all_reduce
    """,
    LLAMA_CONVERT_LEGACY: """
        --out-dir -o --in-file -i --tensor-parallelism -tp --processes -p --calibrate-kv-cache -kv
        --smoothquant -sq --storage-type -t --multi-query-mode
    """,
}
# Of 0.7.1 and of 0.9.0, whose scripts have other names.
OPTIONS = {
    GPT_CONVERT: """
        --out-dir -o --in-file -i --tensor-parallelism -tp --processes -p --calibrate-kv-cache -kv
        --smoothquant -sq --model --storage-type -t --dataset-cache-dir --load-model-on-cpu
        --convert-model-on-cpu
    """,
    GPT_BUILD: """
        --world_size --model_dir --dtype --logits_dtype --timing_cache --log_level --vocab_size
        --n_layer --n_positions --n_embd --n_head --hidden_act --rotary_base --rotary_scaling
        --rotary_pct --inter_size --no_bias --max_batch_size --max_input_len --max_output_len
        --max_beam_width --use_gpt_attention_plugin --use_gemm_plugin --use_layernorm_plugin
        --parallel_build --enable_context_fmha --enable_context_fmha_fp32_acc --multi_block_mode
        --gpus_per_node --builder_opt --output_dir --multi_query_mode -mq --remove_input_padding
        --use_smooth_quant --use_weight_only --weight_only_precision --per_channel --per_token
        --int8_kv_cache --random_seed --paged_kv_cache --tokens_per_block
        --max_prompt_embedding_table_size --use_inflight_batching --use_parallel_embedding
        --embedding_sharding_dim --use_embedding_sharing --use_lookup_plugin --gather_all_token_logits
        --enable_fp8 --fp8_kv_cache --max_num_tokens --strongly_typed --use_custom_all_reduce
        --use_lora_plugin --max_draft_len --use_paged_context_fmha --use_context_fmha_for_generation
        --lora_target_modules --moe_num_experts --moe_top_k --moe_tp_mode --moe_renorm_mode
    """,
    LLAMA_BUILD: """
        --world_size --tp_size --pp_size --model_dir --ft_model_dir --meta_ckpt_dir --quant_ckpt_path
        --dtype --timing_cache --log_level --vocab_size --n_layer --n_positions --n_embd --n_head
        --n_kv_head --multiple_of --ffn_dim_multiplier --inter_size --hidden_act --rms_norm_eps
        --max_batch_size --max_input_len --max_output_len --max_beam_width --rotary_base
        --rotary_scaling --use_gpt_attention_plugin --use_gemm_plugin --use_rmsnorm_plugin
        --parallel_build --enable_context_fmha --enable_context_fmha_fp32_acc --multi_block_mode
        --visualize --load_by_shard --enable_debug_output --gpus_per_node --builder_opt --output_dir
        --remove_input_padding --use_fused_mlp --use_smooth_quant --per_channel --per_token --per_group
        --group_size --int8_kv_cache --use_parallel_embedding --embedding_sharding_dim --enable_fp8
        --fp8_kv_cache --quantized_fp8_model_path --use_weight_only --disable_weight_only_quant_plugin
        --weight_only_precision --use_inflight_batching --paged_kv_cache --tokens_per_block
        --max_num_tokens --strongly_typed --use_custom_all_reduce --max_prompt_embedding_table_size
        --gather_all_token_logits --use_lora_plugin --hf_lora_dir --moe_num_experts --moe_top_k
        --moe_tp_mode --moe_renorm_mode
    """,
    LLAMA_CONVERT_LEGACY: """
        --out-dir -o --in-file -i --tensor-parallelism -tp --processes -p --calibrate-kv-cache -kv
        --smoothquant -sq --storage-type -t --dataset-cache-dir --load-model-on-cpu
        --convert-model-on-cpu
    """,
    GPT_CONVERT_UNIFIED: """
        --model_dir --nemo_ckpt_path --load_nemo_on_gpu --gpt_variant --tp_size --pp_size --dtype
        --use_parallel_embedding --embedding_sharding_dim --use_embedding_sharing --use_weight_only
        --weight_only_precision --int8_kv_cache --per_channel --per_token --smoothquant -sq
        --dataset_cache_dir --output_dir --workers --log_level
    """,
    LLAMA_CONVERT: """
        --model_dir --meta_ckpt_dir --tp_size --pp_size --dtype --vocab_size --n_positions --n_layer
        --n_head --n_kv_head --n_embd --inter_size --rms_norm_eps --use_weight_only
        --disable_weight_only_quant_plugin --weight_only_precision --smoothquant -sq --per_channel
        --per_token --int8_kv_cache --ammo_quant_ckpt_path --per_group --load_by_shard --hidden_act
        --rotary_base --group_size --dataset-cache-dir --load_model_on_cpu --use_parallel_embedding
        --embedding_sharding_dim --use_embedding_sharing --output_dir --workers --moe_num_experts
        --moe_top_k --moe_tp_mode --moe_renorm_mode --save_config_only
    """,
    TRTLLM_BUILD: """
        --checkpoint_dir --model_config --build_config --model_cls_file --model_cls_name
        --input_timing_cache --output_timing_cache --log_level --profiling_verbosity
        --enable_debug_output --output_dir --workers --max_batch_size --max_input_len --max_output_len
        --max_beam_width --max_num_tokens --opt_num_tokens --tp_size --pp_size
        --max_prompt_embedding_table_size --max_multimodal_len --use_fused_mlp --gather_all_token_logits
        --gather_context_logits --gather_generation_logits --strongly_typed --builder_opt --logits_dtype
        --weight_only_precision --weight_sparsity --max_draft_len --lora_dir --lora_ckpt_source
        --lora_target_modules --max_lora_rank --auto_parallel --gpus_per_node --cluster_key
        --bert_attention_plugin --gpt_attention_plugin --gemm_plugin --lookup_plugin --lora_plugin
        --moe_plugin --mamba_conv1d_plugin --context_fmha --context_fmha_fp32_acc --paged_kv_cache
        --remove_input_padding --use_custom_all_reduce --multi_block_mode --enable_xqa
        --attention_qk_half_accumulation
        --tokens_per_block --use_paged_context_fmha --use_fp8_context_fmha --use_context_fmha_for_generation
        --multiple_profiles --paged_state --streamingllm
    """,
}


def options_of(script: str, capfd: pytest.CaptureFixture[str]) -> set[str]:
    assert run_script(script, "--help") == 0
    return set(re.findall(r"(?<![\w>-])--?[A-Za-z][\w-]*", capfd.readouterr().out)) - {"-h", "--help"}


@pytest.mark.parametrize("script", OPTIONS)
def test_a_script_has_the_options_of_the_release_it_follows_and_no_others(
    script: str, capfd: pytest.CaptureFixture[str]
) -> None:
    older = {"--multi-query-mode"} if script == LLAMA_CONVERT_LEGACY else set()
    assert options_of(script, capfd) == set(OPTIONS[script].split()) | older


@pytest.mark.parametrize("script", OPTIONS_050)
def test_a_legacy_script_has_every_option_of_0_5_0(script: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert set(OPTIONS_050[script].split()) <= options_of(script, capfd)


def test_the_releases_listed_are_those_whose_options_are_compared_here() -> None:
    name, *lines = (TOOLCHAIN / "version.txt").read_text("ascii").splitlines()
    assert (name, *lines[-3:]) == ("cpu", "ranks: 1", "models: gpt2 (gpt)", "models: llama (llama)")
    del lines[-3:]
    assert [line.partition(" (")[0] for line in lines] == [
        "follows: 0.5.0, 0.7.1",
        "follows: 0.7.1, 0.9.0",
        "follows: 0.9.0",
    ]
    listed = {script for line in lines for script in re.findall(r"[\w-]+\.py|trtllm-build", line)}
    here = {path.name for path in (TOOLCHAIN / "examples").glob("*/*.py")} | {"trtllm-build", "run.py"}
    assert listed == here


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
