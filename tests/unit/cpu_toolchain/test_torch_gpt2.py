"""A GPT-2 engine computes what Hugging Face's GPT-2 computes in torch, and the comparison sees a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toolchain_support import (
    GPT_BUILD,
    GPT_CONVERT,
    GPT_CONVERT_UNIFIED,
    TRTLLM_BUILD,
    assert_close_directions,
    assert_same_model,
    ok,
)
from transformers import GPT2Config, GPT2LMHeadModel
from trt_llm_cpu import compiler
from trt_llm_cpu.engine_file import read_engine
from trt_llm_cpu.ft_checkpoint import open_ft_checkpoint
from trt_llm_cpu.graph import DecoderGraph
from trt_llm_cpu.runtime import Limits, Session, load_engine_dir

# The models are tiny: more threads only wait for each other, and for the engine's.
torch.set_num_threads(1)

TOLERANCE = {"float32": 1e-4, "float16": 2e-2}


def make_model(directory: Path, *, heads: int = 4, tied: bool = True, **changes: Any) -> GPT2LMHeadModel:
    """A GPT-2 in `directory`, its weights scaled until its logits spread and its greedy text varies."""
    settings = {"vocab_size": 131, "n_positions": 96, "n_embd": 48, "n_layer": 2, "n_head": heads}
    config = GPT2Config(**{**settings, **changes}, bos_token_id=0, eos_token_id=0, tie_word_embeddings=tied)
    torch.manual_seed(11)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif name.endswith("bias"):
                parameter.copy_(torch.randn_like(parameter) * 0.2)
            elif "wte" in name or "lm_head" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.18)
            elif "wpe" in name:
                parameter.copy_(torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.25)
    model.save_pretrained(directory)
    return model


def reference_of(model: GPT2LMHeadModel) -> Callable[[np.ndarray], np.ndarray]:
    def reference(ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(ids)).logits.numpy()

    return reference


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[[np.ndarray], np.ndarray]]:
    directory = tmp_path_factory.mktemp("gpt2")
    return directory / "m", reference_of(make_model(directory / "m"))


def build(model: Path, work: Path, dtype: str, *options: str) -> Session:
    ok(GPT_CONVERT, "-i", model, "-o", work / "c", "-t", dtype)
    ok(GPT_BUILD, "--model_dir", work / "c/1-gpu", "--output_dir", work / "e", *options)
    return load_engine_dir(work / "e")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_logits_and_greedy_tokens_are_the_references(model: Any, tmp_path: Path, dtype: str) -> None:
    session = build(model[0], tmp_path, dtype)
    assert_same_model(session, model[1], tolerance=TOLERANCE[dtype], greedy=dtype == "float32")


@pytest.mark.parametrize(
    ("heads", "changes"),
    [
        pytest.param(1, {}, id="one head"),
        pytest.param(12, {}, id="twelve heads"),
        pytest.param(2, {"tie_word_embeddings": False}, id="untied head"),
        pytest.param(4, {"activation_function": "gelu"}, id="exact gelu"),
        pytest.param(4, {"n_inner": 160, "activation_function": "relu"}, id="narrow MLP, relu"),
    ],
)
def test_other_shapes_of_model_match_too(tmp_path: Path, heads: int, changes: dict[str, Any]) -> None:
    tied = changes.pop("tie_word_embeddings", True)
    reference = reference_of(make_model(tmp_path / "m", heads=heads, tied=tied, **changes))
    session = build(tmp_path / "m", tmp_path, "float32")
    assert_same_model(session, reference, tolerance=1e-4, greedy=True, prompt_lengths=(3, 30))


def test_the_unified_checkpoint_gives_the_same_engine_weights(model: Any, tmp_path: Path) -> None:
    ok(GPT_CONVERT_UNIFIED, "--model_dir", model[0], "--output_dir", tmp_path / "c", "--dtype", "float32")
    ok(TRTLLM_BUILD, "--checkpoint_dir", tmp_path / "c", "--output_dir", tmp_path / "e")
    session = load_engine_dir(tmp_path / "e")
    assert_same_model(session, model[1], tolerance=1e-4, greedy=True, prompt_lengths=(5,))


def test_int8_weights_stay_close(model: Any, tmp_path: Path) -> None:
    session = build(model[0], tmp_path, "float16", "--use_weight_only")
    assert_close_directions(session, model[1])


def test_a_batch_of_prompts_gives_what_each_gives_alone(model: Any, tmp_path: Path) -> None:
    session = build(model[0], tmp_path, "float32")
    generator = np.random.default_rng(5)
    prompts = [generator.integers(0, 131, length).tolist() for length in (1, 9, 4)]
    assert session.generate(prompts, 20) == [session.generate([prompt], 20)[0] for prompt in prompts]


class NoPositions(DecoderGraph):
    def embed(self) -> str:
        tokens = self._rows("transformer.vocab_embedding.weight", "input_ids")
        positions = self._rows("transformer.position_embedding.weight", "position_ids")
        return self.op("Add", [tokens, self.op("Mul", [positions, self.constant(np.float32(0))])])


class NoCausalMask(DecoderGraph):
    def attention_bias(self) -> str:
        visible = self.op("Sub", ["attention_mask", self.constant(1)])
        return self._unsqueeze(self.op("Cast", [visible], to=1), 1, 2, 3)


class PositionsOffByOne(Session):
    @staticmethod
    def positions(seen: np.ndarray, new: int) -> np.ndarray:
        right = Session.positions(seen, new)
        return right if new == seen.shape[1] else right - 1


class CacheOffByOne(Session):
    def step(self, ids: np.ndarray, cache: Any, **options: Any) -> Any:
        # Keys and values one place late: the newest is lost, the oldest is there twice.
        for name, value in cache.values.items():
            array = value.numpy()
            if array.shape[2] > 1:
                late = np.concatenate([array[:, :, :1], array[:, :, :-1]], axis=2)
                cache.values[name] = type(value).ortvalue_from_numpy(late)
        return super().step(ids, cache, **options)


@pytest.mark.parametrize(
    ("dtype", "activation", "graph", "session", "fault"),
    [
        pytest.param("float32", "gelu_new", DecoderGraph, Session, False, id="float32, no fault"),
        pytest.param("float16", "gelu_new", DecoderGraph, Session, False, id="float16, no fault"),
        # The two GELUs differ by less than float16 rounds: only the float32 bound can tell them apart.
        pytest.param("float32", "gelu", DecoderGraph, Session, True, id="float32, the other GELU"),
        pytest.param("float32", "gelu_new", NoPositions, Session, True, id="float32, no positions"),
        pytest.param("float16", "gelu_new", NoPositions, Session, True, id="float16, no positions"),
        pytest.param("float32", "gelu_new", NoCausalMask, Session, True, id="float32, no causal mask"),
        pytest.param("float16", "gelu_new", NoCausalMask, Session, True, id="float16, no causal mask"),
        pytest.param(
            "float32", "gelu_new", DecoderGraph, PositionsOffByOne, True, id="float32, positions late"
        ),
        pytest.param(
            "float16", "gelu_new", DecoderGraph, PositionsOffByOne, True, id="float16, positions late"
        ),
        pytest.param(
            "float32", "gelu_new", DecoderGraph, CacheOffByOne, True, id="float32, cache off by one"
        ),
        pytest.param(
            "float16", "gelu_new", DecoderGraph, CacheOffByOne, True, id="float16, cache off by one"
        ),
    ],
)
def test_a_planted_fault_makes_the_comparison_fail(
    model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    activation: str,
    graph: type[DecoderGraph],
    session: type[Session],
    fault: bool,
) -> None:
    ok(GPT_CONVERT, "-i", model[0], "-o", tmp_path, "-t", dtype)
    checkpoint = open_ft_checkpoint(tmp_path / "1-gpu")
    monkeypatch.setattr(compiler, "DecoderGraph", graph)
    spec = replace(checkpoint.spec, activation=activation)
    compiler.compile_engine(tmp_path / "x.engine", spec, checkpoint.weights())
    loaded = session(read_engine(tmp_path / "x.engine"), Limits(8, 96, 96))

    def compare() -> None:
        assert_same_model(
            loaded, model[1], tolerance=TOLERANCE[dtype], greedy=dtype == "float32", prompt_lengths=(5,)
        )

    if fault:
        with pytest.raises(AssertionError, match="off by"):
            compare()
    else:
        compare()
