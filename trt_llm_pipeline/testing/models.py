"""Tiny models made on the spot: real weights, real tokenizers, no torch, a few hundred kilobytes.

A model may be taught one sentence. Its weights are random but for the last layer's second MLP matrix, which
is solved for: a linear associative memory from the hidden states that the prompt and the sentence produce to
the tokens that come next. So the sentence comes out only where positions, mask, activation, cache and every
weight are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trt_llm_pipeline.testing import tiny_text, weight_files

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

WeightFile = Literal["safetensors", "bin"]
DType = Literal["float32", "float16", "bfloat16"]

DEMO_PROMPT = "An engine is"
DEMO_SENTENCE = " a model compiled for the machine that will run it."


@dataclass(frozen=True)
class TinyModel:
    """A model on disk, and the sentence it was taught: greedy decoding continues `prompt` with `sentence`."""

    folder: Path
    prompt: str | None
    sentence: str | None


def make_gpt2(
    folder: Path,
    *,
    layers: int = 2,
    heads: int = 2,
    hidden: int = 64,
    positions: int = 1024,
    vocab_size: int = 512,
    seed: int = 0,
    dtype: DType = "float32",
    weights: tuple[WeightFile, ...] = ("safetensors",),
    prefix: str = "transformer.",
    buffers: bool = False,
    prompt: str | None = None,
    sentence: str | None = None,
) -> TinyModel:
    """A GPT-2 whose logits have a standard deviation of about 2.

    Args:
        folder: made if need be.
        positions: the longest sequence.
        vocab_size: an upper bound; the text that the tokenizer is trained on has about 700 tokens in it.
        weights: which files to write.
        prefix: before each tensor's name; old repositories have none.
        buffers: also write the causal masks that old checkpoints contain.
        prompt, sentence: what to teach it; the sentence is followed by the end-of-text token.
    """
    from trt_llm_pipeline.testing import gpt2_math

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_text.write_gpt2_tokenizer(folder, vocab_size, positions=positions)
    vocab_size = tokenizer.get_vocab_size()
    end = tokenizer.token_to_id(tiny_text.END_OF_TEXT)
    tensors = gpt2_math.random_weights(
        layers=layers, hidden=hidden, positions=positions, vocab_size=vocab_size, seed=seed
    )
    if prompt is not None and sentence is not None:
        tokens = tokenizer.encode(prompt).ids
        gpt2_math.teach(tensors, heads, [*tokens, *tokenizer.encode(sentence).ids, end], len(tokens))
    tiny_text.write_json(
        folder / "config.json",
        {
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.0,
            "bos_token_id": end,
            "embd_pdrop": 0.0,
            "eos_token_id": end,
            "initializer_range": 0.02,
            "layer_norm_epsilon": 1e-05,
            "model_type": "gpt2",
            "n_ctx": positions,
            "n_embd": hidden,
            "n_head": heads,
            "n_layer": layers,
            "n_positions": positions,
            "resid_pdrop": 0.0,
            "torch_dtype": dtype,
            "vocab_size": vocab_size,
        },
    )
    tiny_text.write_json(
        folder / "generation_config.json", {"bos_token_id": end, "do_sample": False, "eos_token_id": end}
    )
    named = {prefix + name: tensor for name, tensor in _cast(tensors, dtype).items()}
    if "safetensors" in weights:
        weight_files.write_safetensors(folder / "model.safetensors", named)
    if "bin" in weights:
        if buffers:
            named |= gpt2_math.causal_masks(layers, positions, prefix)
        weight_files.write_torch_zip(folder / "pytorch_model.bin", named)
    return TinyModel(folder, prompt, sentence)


def make_demo_gpt2(folder: Path, *, dtype: DType = "float32") -> TinyModel:
    """The demo's model: laid out as old repositories are, with nothing but a `pytorch_model.bin`."""
    return make_gpt2(
        folder, dtype=dtype, weights=("bin",), buffers=True, prompt=DEMO_PROMPT, sentence=DEMO_SENTENCE
    )


def make_llama(
    folder: Path,
    *,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    hidden: int = 64,
    intermediate: int = 176,
    positions: int = 2048,
    vocab_size: int = 512,
    seed: int = 0,
    dtype: DType = "float32",
    tied: bool = False,
    shards: int = 1,
    tokenizer: Literal["json", "sentencepiece"] = "json",
    rope_theta: float = 10000.0,
    rope_scaling: Mapping[str, object] | None = None,
    weights: tuple[WeightFile, ...] = ("safetensors",),
    prompt: str | None = None,
    sentence: str | None = None,
) -> TinyModel:
    """A Llama with grouped-query attention whose logits have a standard deviation of about 2.

    Args:
        folder: made if need be.
        kv_heads: key and value heads; equal to `heads` for plain multi-head attention.
        intermediate: the MLP's width; at least the number of tokens in prompt and sentence.
        tied: whether the head is the embedding.
        shards: above 1, that many safetensors files and an index.
        tokenizer: `tokenizer.json` as Llama 3 has it, or `tokenizer.model` as Llama 2.
        rope_scaling: as in `config.json`; only `rope_type: llama3` is known here.
        prompt, sentence: what to teach it; the sentence is followed by the end-of-text token.
    """
    from trt_llm_pipeline.testing import llama_math

    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer == "json":
        trained = tiny_text.write_llama3_tokenizer(folder, vocab_size, positions=positions)
        vocab_size = trained.get_vocab_size()
        begin, end = (trained.token_to_id(t) for t in (tiny_text.BEGIN_OF_TEXT, tiny_text.END_OF_TEXT))

        def encode(text: str) -> list[int]:
            return list(trained.encode(text, add_special_tokens=False).ids)
    else:
        trained = tiny_text.write_sentencepiece_tokenizer(folder, vocab_size, positions=positions)
        vocab_size = trained.get_piece_size()
        begin, end = trained.bos_id(), trained.eos_id()

        def encode(text: str) -> list[int]:
            return list(trained.encode(text))

    shape = llama_math.Shape(
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        hidden=hidden,
        intermediate=intermediate,
        vocab_size=vocab_size,
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
    )
    tensors = llama_math.random_weights(shape, tied=tied, seed=seed)
    if prompt is not None and sentence is not None:
        # Encoded as one text: SentencePiece would otherwise put a second space before the sentence.
        tokens = [begin, *encode(prompt)]
        llama_math.teach(tensors, shape, [begin, *encode(prompt + sentence), end], len(tokens))
    tiny_text.write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "bos_token_id": begin,
            "eos_token_id": end,
            "head_dim": hidden // heads,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "initializer_range": 0.02,
            "intermediate_size": intermediate,
            "max_position_embeddings": positions,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": kv_heads,
            "rms_norm_eps": 1e-05,
            "rope_scaling": None if rope_scaling is None else dict(rope_scaling),
            "rope_theta": rope_theta,
            "tie_word_embeddings": tied,
            "torch_dtype": dtype,
            "vocab_size": vocab_size,
        },
    )
    tiny_text.write_json(
        folder / "generation_config.json", {"bos_token_id": begin, "do_sample": False, "eos_token_id": end}
    )
    named = _cast(tensors, dtype)
    if "safetensors" in weights:
        if shards > 1:
            weight_files.write_sharded_safetensors(folder, named, shards)
        else:
            weight_files.write_safetensors(folder / "model.safetensors", named)
    if "bin" in weights:
        weight_files.write_torch_zip(folder / "pytorch_model.bin", named)
    return TinyModel(folder, prompt, sentence)


def make_demo_llama(folder: Path, *, dtype: DType = "float16") -> TinyModel:
    """A Llama in the manner of Llama 2 (SentencePiece, two shards) that was taught the demo's sentence."""
    return make_llama(
        folder,
        dtype=dtype,
        shards=2,
        tokenizer="sentencepiece",
        prompt=DEMO_PROMPT,
        sentence=DEMO_SENTENCE,
    )


def _cast(tensors: Mapping[str, Array], dtype: DType) -> dict[str, Array]:
    import numpy as np

    if dtype == "bfloat16":
        import ml_dtypes

        return {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    return {name: tensor.astype(np.dtype(dtype)) for name, tensor in tensors.items()}


# What `python -m trt_llm_pipeline.testing.hub --model ID=RECIPE` can make.
RECIPES: dict[str, Callable[[Path], TinyModel]] = {
    "gpt2": make_demo_gpt2,
    "llama": make_demo_llama,
}
