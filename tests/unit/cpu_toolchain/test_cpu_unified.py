"""The unified checkpoint: its config, and ranks that join back to the whole."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file
from toolchain_support import GPT_CONVERT_UNIFIED, LLAMA_CONVERT, ok
from trt_llm_cpu.rope import inverse_frequencies
from trt_llm_cpu.spec import RopeSpec

from trt_llm_pipeline.testing import models

HEADS, KV_HEADS, HIDDEN, INTER = 8, 4, 64, 176
HEAD = HIDDEN // HEADS


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("llama")
    models.make_llama(
        directory, heads=HEADS, kv_heads=KV_HEADS, hidden=HIDDEN, intermediate=INTER, vocab_size=301
    )
    return directory


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gpt")
    models.make_gpt2(directory, heads=4, hidden=HIDDEN, vocab_size=300)
    return directory


def convert(script: str, model: Path, out: Path, *options: object) -> list[dict[str, np.ndarray]]:
    """The tensors of every rank."""
    ok(script, "--model_dir", model, "--output_dir", out, "--dtype", "float32", *options)
    world = json.loads((out / "config.json").read_text("utf-8"))["mapping"]["world_size"]
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        *(f"rank{n}.safetensors" for n in range(world)),
    ]
    return [load_file(out / f"rank{rank}.safetensors") for rank in range(world)]


def join(ranks: list[dict[str, np.ndarray]], name: str, query: int, key: int, vocab: int) -> np.ndarray:
    """One whole tensor from its parts, by TensorRT-LLM's rules and independently of the converter."""
    parts = [rank[name] for rank in ranks]
    if ".attention.qkv." in name:
        q, k = query // len(ranks), key // len(ranks)
        pieces = [np.split(part, [q, q + k]) for part in parts]
        return np.concatenate([np.concatenate([piece[n] for piece in pieces]) for n in range(3)])
    if name == "lm_head.weight":
        return np.concatenate(parts)[:vocab]
    if ".mlp.fc." in name or ".mlp.gate." in name:
        return np.concatenate(parts)
    if name.endswith(("attention.dense.weight", "mlp.proj.weight")):
        return np.concatenate(parts, axis=1)
    for part in parts[1:]:
        np.testing.assert_array_equal(part, parts[0])
    return parts[0]


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_of_a_llama_join_back_to_the_whole(llama: Path, tmp_path: Path, ranks: int) -> None:
    (whole,) = convert(LLAMA_CONVERT, llama, tmp_path / "1")
    parts = convert(LLAMA_CONVERT, llama, tmp_path / "n", "--tp_size", ranks)
    vocab = json.loads((llama / "config.json").read_text("utf-8"))["vocab_size"]
    assert all(set(part) == set(whole) for part in parts)
    for name, expected in whole.items():
        found = join(parts, name, HIDDEN, KV_HEADS * HEAD, vocab)
        np.testing.assert_array_equal(found, expected, err_msg=name)
    assert parts[0]["transformer.layers.0.attention.qkv.weight"].shape == (
        (HIDDEN + 2 * KV_HEADS * HEAD) // ranks,
        HIDDEN,
    )


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_of_a_gpt_join_back_to_the_whole(gpt: Path, tmp_path: Path, ranks: int) -> None:
    (whole,) = convert(GPT_CONVERT_UNIFIED, gpt, tmp_path / "1")
    parts = convert(GPT_CONVERT_UNIFIED, gpt, tmp_path / "n", "--tp_size", ranks)
    vocab = json.loads((gpt / "config.json").read_text("utf-8"))["vocab_size"]
    for name, expected in whole.items():
        np.testing.assert_array_equal(join(parts, name, HIDDEN, HIDDEN, vocab), expected, err_msg=name)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_parallel_embedding_joins_back_along_its_dimension(gpt: Path, tmp_path: Path, axis: int) -> None:
    options = ("--tp_size", 2, "--use_parallel_embedding", "--embedding_sharding_dim", axis)
    vocab = json.loads((gpt / "config.json").read_text("utf-8"))["vocab_size"]
    if axis == 0 and vocab % 2:
        pytest.fail("the fixture's vocabulary must be even")
    parts = convert(GPT_CONVERT_UNIFIED, gpt, tmp_path / "n", *options)
    (whole,) = convert(GPT_CONVERT_UNIFIED, gpt, tmp_path / "1")
    name = "transformer.vocab_embedding.weight"
    joined = np.concatenate([part[name] for part in parts], axis=axis)
    np.testing.assert_array_equal(joined, whole[name])
    config = json.loads((tmp_path / "n/config.json").read_text("utf-8"))
    assert (config["use_parallel_embedding"], config["embedding_sharding_dim"]) == (True, axis)


def test_config_json_describes_the_model(llama: Path, tmp_path: Path) -> None:
    convert(LLAMA_CONVERT, llama, tmp_path, "--tp_size", 2)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    expected = {
        "architecture": "LlamaForCausalLM",
        "dtype": "float32",
        "logits_dtype": "float32",
        "hidden_size": HIDDEN,
        "intermediate_size": INTER,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_size": HEAD,
        "hidden_act": "silu",
        "norm_epsilon": 1e-05,
        "position_embedding_type": "rope_gpt_neox",
        "max_position_embeddings": 2048,
        "rotary_base": 10000.0,
        "rotary_scaling": None,
        "mapping": {"world_size": 2, "tp_size": 2, "pp_size": 1},
        "use_parallel_embedding": False,
        "share_embedding_table": False,
    }
    assert {key: config[key] for key in expected} == expected
    assert config["quantization"]["quant_algo"] is None


@pytest.mark.parametrize(("dtype", "numpy_type"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
def test_int8_ranks_hold_int8_numbers_and_scales_that_give_the_weights_back(
    llama: Path, tmp_path: Path, dtype: str, numpy_type: type
) -> None:
    floats = convert(LLAMA_CONVERT, llama, tmp_path / "float", "--tp_size", 2)
    options = ("--tp_size", 2, "--use_weight_only", "--dtype", dtype)
    ranks = convert(LLAMA_CONVERT, llama, tmp_path / "int8", *options)
    config = json.loads((tmp_path / "int8/config.json").read_text("utf-8"))
    assert config["quantization"]["quant_algo"] == "W8A16"
    quantised = [name for name in ranks[0] if name.endswith(".per_channel_scale")]
    assert len(quantised) == 2 * 5, "five matrices in each of two layers"
    for rank, whole in zip(ranks, floats, strict=True):
        for scale_name in quantised:
            name = scale_name.replace("per_channel_scale", "weight")
            numbers, scales = rank[name], rank[scale_name]
            assert numbers.dtype == np.int8
            assert scales.dtype == numpy_type
            assert scales.shape == numbers.shape[:1] == whole[name].shape[:1]
            wide = scales.astype(np.float32)[:, None]
            # Half a step for rounding, and what the clipping at 127 costs where the scale was rounded down.
            error = np.abs(numbers * wide - whole[name])
            assert (error <= wide * (0.5 + 127 * 2**-8)).all()
            assert np.median(error / wide) < 0.3
        for name in ("transformer.vocab_embedding.weight", "lm_head.weight", "transformer.ln_f.weight"):
            assert rank[name].dtype == numpy_type


def test_a_tied_head_is_a_copy_unless_it_is_shared(gpt: Path, tmp_path: Path) -> None:
    (copied,) = convert(GPT_CONVERT_UNIFIED, gpt, tmp_path / "copy")
    np.testing.assert_array_equal(copied["lm_head.weight"], copied["transformer.vocab_embedding.weight"])
    (shared,) = convert(GPT_CONVERT_UNIFIED, gpt, tmp_path / "share", "--use_embedding_sharing")
    assert "lm_head.weight" not in shared
    assert json.loads((tmp_path / "share/config.json").read_text("utf-8"))["share_embedding_table"] is True


def test_llama3_keeps_short_wavelengths_and_stretches_long_ones() -> None:
    plain = inverse_frequencies(RopeSpec(500000.0), 128)
    scaled = inverse_frequencies(RopeSpec(500000.0, "llama3", 8.0, 1.0, 4.0, 8192), 128)
    wavelengths = 2 * np.pi / plain
    short, long = wavelengths < 8192 / 4, wavelengths > 8192
    assert short.any()
    assert long.any()
    np.testing.assert_array_equal(scaled[short], plain[short])
    np.testing.assert_allclose(scaled[long], plain[long] / 8, rtol=1e-6)
    between = ~short & ~long
    assert ((scaled[between] < plain[between]) & (scaled[between] > plain[between] / 8)).all()
