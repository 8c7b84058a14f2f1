"""Tiny models: they say their sentence in the reference implementation, and are the same on every run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from trt_llm_pipeline.testing.models import (
    DEMO_PROMPT,
    DEMO_SENTENCE,
    TinyModel,
    make_demo_gpt2,
    make_demo_llama,
    make_gpt2,
    make_llama,
)

LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def speaking_llama_3(folder: Path, *, dtype: str) -> TinyModel:
    return make_llama(
        folder, dtype=dtype, tied=True, rope_scaling=LLAMA_3_ROPE, prompt=DEMO_PROMPT, sentence=DEMO_SENTENCE
    )


MAKERS: dict[str, Callable[..., TinyModel]] = {
    "gpt2": make_demo_gpt2,
    "llama 2": make_demo_llama,
    "llama 3": speaking_llama_3,
}


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("gpt2", "float32"),
        ("gpt2", "float16"),
        ("gpt2", "bfloat16"),
        ("llama 2", "float16"),
        ("llama 3", "float32"),
    ],
)
def test_the_reference_implementation_says_the_sentence(tmp_path: Path, family: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    made = MAKERS[family](tmp_path / "m", dtype=dtype)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.folder)
    prompt = tokenizer(made.prompt, return_tensors="pt").input_ids
    for computed_in in (torch.float32, torch.float16):
        model = transformers.AutoModelForCausalLM.from_pretrained(made.folder, dtype=computed_in)
        with torch.no_grad():
            said = model.generate(prompt, max_new_tokens=40, do_sample=False)[0]
            logits = model(said[None, :-1]).logits[0].float()
        assert tokenizer.decode(said, skip_special_tokens=True) == DEMO_PROMPT + DEMO_SENTENCE
        assert said[-1].item() == tokenizer.eos_token_id
        assert len(set(said[prompt.shape[1] :].tolist())) >= 8
        assert logits.std() >= 1
        # Far from a tie: an engine may round and still says it.
        first, second = logits[prompt.shape[1] - 1 :].topk(2).values.T
        assert (first - second).min() > 3


def test_what_the_demo_model_says_depends_on_positions_and_on_earlier_tokens(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    made = make_demo_gpt2(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.folder)
    model = transformers.GPT2LMHeadModel.from_pretrained(made.folder)
    tokens = tokenizer(DEMO_PROMPT + DEMO_SENTENCE, return_tensors="pt").input_ids
    with torch.no_grad():
        right = model(tokens).logits.argmax(-1)
        shifted = model(tokens, position_ids=torch.arange(1, tokens.shape[1] + 1)[None]).logits.argmax(-1)
        alone = model(tokens.T).logits.argmax(-1).T  # each token without those before it
    learned = slice(len(tokenizer(DEMO_PROMPT).input_ids) - 1, -1)
    assert right[0, learned].tolist() == tokens[0, learned.start + 1 :].tolist()
    for wrong in (shifted, alone):
        assert (wrong[0, learned] == right[0, learned]).float().mean() < 0.5


@pytest.mark.parametrize("family", MAKERS)
def test_the_same_call_makes_the_same_bytes_and_they_are_few(tmp_path: Path, family: str) -> None:
    for name in ("one", "two"):
        MAKERS[family](tmp_path / name, dtype="float16")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert size_of(tmp_path / "one") < 5_000_000


def test_the_demo_repository_has_what_old_repositories_have(tmp_path: Path) -> None:
    make_demo_gpt2(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "merges.txt",
        "pytorch_model.bin",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]
    assert (
        json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "GPT2TokenizerFast"
    )
    assert json.loads((tmp_path / "config.json").read_text())["n_positions"] == 1024


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_torch_reads_the_bin_file_without_running_code_from_it(tmp_path: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    make_gpt2(tmp_path, dtype=dtype, weights=("bin", "safetensors"), positions=32, buffers=True)
    from_bin = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    mask = from_bin.pop("transformer.h.0.attn.bias")
    assert mask.shape == (1, 1, 32, 32)
    assert mask.tril().equal(mask)
    from safetensors.torch import load_file as load_torch

    from_safetensors = load_torch(tmp_path / "model.safetensors")
    del from_bin["transformer.h.1.attn.bias"]
    assert set(from_bin) == set(from_safetensors)
    assert all(from_bin[name].equal(tensor) for name, tensor in from_safetensors.items())


def test_shards_hold_every_tensor_once(tmp_path: Path) -> None:
    make_llama(tmp_path / "one", seed=3)
    make_llama(tmp_path / "three", seed=3, shards=3)
    index = json.loads((tmp_path / "three/model.safetensors.index.json").read_text())
    parts = {path.name: load_file(path) for path in (tmp_path / "three").glob("*.safetensors")}
    assert len(parts) == 3
    assert {name: file for file, part in parts.items() for name in part} == index["weight_map"]
    whole = load_file(tmp_path / "one/model.safetensors")
    joined = {name: tensor for part in parts.values() for name, tensor in part.items()}
    assert set(joined) == set(whole)
    assert all(np.array_equal(joined[name], tensor) for name, tensor in whole.items())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())


def test_tied_and_untied_heads(tmp_path: Path) -> None:
    make_llama(tmp_path / "tied", tied=True)
    make_llama(tmp_path / "untied", tied=False)
    assert "lm_head.weight" not in load_file(tmp_path / "tied/model.safetensors")
    assert "lm_head.weight" in load_file(tmp_path / "untied/model.safetensors")


def test_a_sentence_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        make_llama(tmp_path, intermediate=4, prompt=DEMO_PROMPT, sentence=DEMO_SENTENCE)
