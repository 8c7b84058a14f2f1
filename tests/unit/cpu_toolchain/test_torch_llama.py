"""A Llama engine computes what Hugging Face's Llama computes in torch, and the comparison sees a fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from toolchain_support import (
    LLAMA_BUILD,
    LLAMA_CONVERT,
    TRTLLM_BUILD,
    assert_close_directions,
    assert_same_model,
    ok,
)
from transformers import LlamaConfig, LlamaForCausalLM
from trt_llm_cpu import compiler
from trt_llm_cpu.engine_file import read_engine
from trt_llm_cpu.graph import DecoderGraph
from trt_llm_cpu.llama import open_llama
from trt_llm_cpu.runtime import Limits, Session, load_engine_dir
from trt_llm_cpu.weights import engine_weights

# The models are tiny: more threads only wait for each other, and for the engine's.
torch.set_num_threads(1)

TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def make_model(directory: Path, shard_size: str = "1GB", **changes: Any) -> LlamaForCausalLM:
    """A Llama in `directory`, its weights scaled until its logits spread and its greedy text varies."""
    settings = {
        "vocab_size": 131,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
    }
    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif "embed" in name or "lm_head" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
            elif name.endswith("bias"):
                parameter.copy_(torch.randn_like(parameter) * 0.3)
            else:
                # Unit gain: what goes in comes out as large, as in a trained model.
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[1] ** 0.5)
    model.save_pretrained(directory, max_shard_size=shard_size)
    return model


def reference_of(model: LlamaForCausalLM) -> Callable[[np.ndarray], np.ndarray]:
    def reference(ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(ids)).logits.numpy()

    return reference


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[[np.ndarray], np.ndarray]]:
    directory = tmp_path_factory.mktemp("llama") / "m"
    return directory, reference_of(make_model(directory))


def build(model: Path, work: Path, dtype: str, *options: str) -> Session:
    ok(LLAMA_BUILD, "--model_dir", model, "--dtype", dtype, "--output_dir", work / "e", *options)
    return load_engine_dir(work / "e")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_logits_and_greedy_tokens_are_the_references(model: Any, tmp_path: Path, dtype: str) -> None:
    session = build(model[0], tmp_path, dtype)
    assert_same_model(session, model[1], tolerance=TOLERANCE[dtype], greedy=dtype == "float32")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_unified_checkpoint_gives_the_same_engine(model: Any, tmp_path: Path, dtype: str) -> None:
    ok(LLAMA_CONVERT, "--model_dir", model[0], "--output_dir", tmp_path / "c", "--dtype", dtype)
    ok(TRTLLM_BUILD, "--checkpoint_dir", tmp_path / "c", "--output_dir", tmp_path / "e2")
    session = load_engine_dir(tmp_path / "e2")
    assert_same_model(
        session, model[1], tolerance=TOLERANCE[dtype], greedy=dtype == "float32", prompt_lengths=(9,)
    )
    build(model[0], tmp_path, dtype)
    both = [tmp_path / "e2/rank0.engine", tmp_path / f"e/llama_{dtype}_tp1_rank0.engine"]
    assert both[0].read_bytes() == both[1].read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"num_key_value_heads": 4}, id="multi-head attention"),
        pytest.param({"num_key_value_heads": 1}, id="multi-query attention"),
        pytest.param({"rope_parameters": LLAMA3}, id="Llama 3 scaling"),
        pytest.param(
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}},
            id="linear scaling",
        ),
        pytest.param({"tie_word_embeddings": True}, id="tied head"),
        pytest.param({"attention_bias": True, "mlp_bias": True}, id="biases"),
        pytest.param({"head_dim": 24}, id="heads wider than the hidden size"),
        pytest.param({"shard_size": "50KB"}, id="shards with an index"),
        pytest.param({"rms_norm_eps": 0.1}, id="a large epsilon"),
    ],
)
def test_other_kinds_of_llama_match_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    reference = reference_of(make_model(tmp_path / "m", **changes))
    assert (tmp_path / "m/model.safetensors.index.json").exists() == ("shard_size" in changes)
    ok(LLAMA_CONVERT, "--model_dir", tmp_path / "m", "--output_dir", tmp_path / "c", "--dtype", "float32")
    ok(TRTLLM_BUILD, "--checkpoint_dir", tmp_path / "c", "--output_dir", tmp_path / "e")
    session = load_engine_dir(tmp_path / "e")
    assert_same_model(session, reference, tolerance=1e-4, greedy=True, prompt_lengths=(4, 40))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_int8_weights_stay_close_by_either_way(model: Any, tmp_path: Path, dtype: str) -> None:
    assert_close_directions(build(model[0], tmp_path, dtype, "--use_weight_only"), model[1])
    options = ("--dtype", dtype, "--use_weight_only", "--weight_only_precision", "int8")
    ok(LLAMA_CONVERT, "--model_dir", model[0], "--output_dir", tmp_path / "c", *options)
    ok(TRTLLM_BUILD, "--checkpoint_dir", tmp_path / "c", "--output_dir", tmp_path / "e2")
    assert_close_directions(load_engine_dir(tmp_path / "e2"), model[1])
    both = [tmp_path / "e2/rank0.engine", tmp_path / f"e/llama_{dtype}_tp1_rank0.engine"]
    assert both[0].read_bytes() == both[1].read_bytes()


def test_rotary_scaling_may_be_given_to_build(tmp_path: Path) -> None:
    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    reference = reference_of(make_model(tmp_path / "scaled", rope_parameters=linear))
    make_model(tmp_path / "plain")
    session = build(tmp_path / "plain", tmp_path, "float32", "--rotary_scaling", "linear", "4.0")
    assert_same_model(session, reference, tolerance=1e-4, greedy=True, prompt_lengths=(4, 40))


def test_the_checkpoint_names_and_orients_as_tensorrt_llm_does(model: Any, tmp_path: Path) -> None:
    ok(LLAMA_CONVERT, "--model_dir", model[0], "--output_dir", tmp_path, "--dtype", "float32")
    found = load_file(tmp_path / "rank0.safetensors")
    theirs = load_file(model[0] / "model.safetensors")
    layer = "transformer.layers.1"
    np.testing.assert_array_equal(
        found[f"{layer}.mlp.fc.weight"], theirs["model.layers.1.mlp.gate_proj.weight"]
    )
    np.testing.assert_array_equal(
        found[f"{layer}.mlp.gate.weight"], theirs["model.layers.1.mlp.up_proj.weight"]
    )
    attention = "model.layers.1.self_attn"
    qkv = np.concatenate([theirs[f"{attention}.{name}_proj.weight"] for name in "qkv"])
    np.testing.assert_array_equal(found[f"{layer}.attention.qkv.weight"], qkv)
    np.testing.assert_array_equal(found["lm_head.weight"], theirs["lm_head.weight"])


class NoPositions(DecoderGraph):
    def rotate(self, vectors: str, rotation: tuple[str, str]) -> str:
        return self.op("Identity", [vectors])


class NeighboursRotated(DecoderGraph):
    """Pairs (2i, 2i + 1), as GPT-J rotates, and not (i, i + half), as Llama does."""

    def rotate(self, vectors: str, rotation: tuple[str, str]) -> str:
        size = self.spec.head_size
        order = np.arange(size).reshape(-1, 2).T.ravel()
        apart = self.op("Gather", [vectors, self.constant(order)], axis=-1)
        return self.op("Gather", [super().rotate(apart, rotation), self.constant(np.argsort(order))], axis=-1)


class GateAndFcSwapped(DecoderGraph):
    def mlp(self, prefix: str, hidden: str) -> str:
        gate = self.activation(self.linear(f"{prefix}.mlp.gate", hidden))
        product = self.op("Mul", [gate, self.linear(f"{prefix}.mlp.fc", hidden)])
        return self.linear(f"{prefix}.mlp.proj", product)


class NoCausalMask(DecoderGraph):
    def attention_bias(self) -> str:
        visible = self.op("Sub", ["attention_mask", self.constant(1)])
        return self._unsqueeze(self.op("Cast", [visible], to=1), 1, 2, 3)


@pytest.mark.parametrize(
    ("graph", "fault"),
    [
        pytest.param(DecoderGraph, False, id="no fault"),
        pytest.param(NoPositions, True, id="no positions"),
        pytest.param(NeighboursRotated, True, id="rotary pairs of another layout"),
        pytest.param(GateAndFcSwapped, True, id="gate and fc swapped"),
        pytest.param(NoCausalMask, True, id="no causal mask"),
    ],
)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_planted_fault_makes_the_comparison_fail(
    model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    graph: type[DecoderGraph],
    fault: bool,
) -> None:
    opened = open_llama(model[0], dtype)
    monkeypatch.setattr(compiler, "DecoderGraph", graph)
    compiler.compile_engine(tmp_path / "x.engine", opened.spec, engine_weights(opened.weights))
    loaded = Session(read_engine(tmp_path / "x.engine"), Limits(8, 96, 96))

    def compare() -> None:
        assert_same_model(
            loaded, model[1], tolerance=TOLERANCE[dtype], greedy=dtype == "float32", prompt_lengths=(5,)
        )

    if fault:
        with pytest.raises(AssertionError, match="off by"):
            compare()
    else:
        compare()
