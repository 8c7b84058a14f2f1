"""From a model's `config.json` to its tensors, one function a family.

The keys and their defaults are those of each family's configuration class in transformers
(`src/transformers/models/<family>/configuration_<family>.py`) or, where a model came before its class, of the
`configuration_*.py` in the model's own repository.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trt_llm_pipeline.fit.shape import ModelShape, Tensors

_LARGEST = 1 << 32
_TEXT_CHARS = 60


class UnknownShape(Exception):
    """The size of a model cannot be told; the text says why, as a part of a sentence."""


class _Facts:
    """The keys of a `config.json`, checked: it is a stranger's file."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def number(self, *names: str, default: int | None = None) -> int:
        """The first of the keys that is there, as a whole number above 0."""
        for name in names:
            value = self._config.get(name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _LARGEST:
                raise UnknownShape(f"{name} in its config.json is {_shown(value)} and no sensible number")
            return value
        if default is None:
            raise UnknownShape(f"its config.json has no {names[0]}")
        return default

    def flag(self, name: str, default: bool) -> bool:
        value = self._config.get(name)
        return value if isinstance(value, bool) else default

    def text(self, name: str) -> str | None:
        value = self._config.get(name)
        return value[:_TEXT_CHARS] if isinstance(value, str) and value else None

    def limit(self, *names: str) -> int | None:
        """A number of tokens; None where the model has no limit of its own."""
        for name in names:
            if self._config.get(name) is not None:
                return self.number(name)
        return None


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The shape of the model that a `config.json` describes.

    Args:
        config: the file's content.

    Raises:
        UnknownShape: the family is not known here, or a key that its size depends on is missing or absurd.
    """
    facts = _Facts(config)
    family = facts.text("model_type")
    if family is None:
        raise UnknownShape("its config.json has no model_type")
    make = _FAMILIES.get(family)
    if make is None:
        raise UnknownShape(f"the sizes of model_type {family} are not known")
    return make(family, facts)


def _llama(family: str, facts: _Facts) -> ModelShape:
    """Llama and what is built like it: gated MLP, RMS norms, rotary positions, grouped key-value heads."""
    hidden, inner = facts.number("hidden_size"), facts.number("intermediate_size")
    heads = facts.number("num_attention_heads")
    kv_heads = facts.number("num_key_value_heads", default=_KV_HEADS.get(family, heads))
    size = facts.number("head_dim", default=_HEAD_SIZES.get(family) or _divided(hidden, heads))
    experts = facts.number("num_local_experts", default=8) if family == "mixtral" else 1
    bias = facts.flag("attention_bias", default=False) and family in ("llama", "qwen3")
    norms = 4 if family == "gemma2" else 2
    tensors = [
        *_attention(hidden, heads, kv_heads, size, qkv_bias=bias or family == "qwen2", out_bias=bias),
        Tensors("mlp", 3 * hidden * inner * experts),
        Tensors("norms", norms * hidden, kind="float", split="whole"),
    ]
    if family == "qwen3":
        tensors.append(Tensors("head norms", 2 * size, kind="float", split="whole"))
    if experts > 1:
        tensors.append(Tensors("router", hidden * experts, kind="float", split="whole"))
    if facts.flag("mlp_bias", default=False) and family == "llama":
        tensors.append(Tensors("mlp bias in", 2 * inner, kind="float"))
        tensors.append(Tensors("mlp bias out", hidden, kind="float", split="whole"))
    tied = facts.flag("tie_word_embeddings", default=family in ("gemma", "gemma2"))
    return _shape(family, facts, tensors, heads, kv_heads, size, tied=tied, final_norm=hidden, hidden=hidden)


def _qwen(family: str, facts: _Facts) -> ModelShape:
    """Qwen's first generation: `intermediate_size` counts both halves of the gated MLP."""
    hidden, heads = facts.number("hidden_size"), facts.number("num_attention_heads")
    size = facts.number("kv_channels", default=_divided(hidden, heads))
    bias = not facts.flag("no_bias", default=True)
    tensors = [
        *_attention(hidden, heads, heads, size, qkv_bias=True, out_bias=bias),
        Tensors("mlp", 3 * hidden * _divided(facts.number("intermediate_size"), 2)),
        Tensors("norms", 2 * hidden, kind="float", split="whole"),
    ]
    tied = facts.flag("tie_word_embeddings", default=False)
    return _shape(family, facts, tensors, heads, heads, size, tied=tied, final_norm=hidden, hidden=hidden)


def _gpt2(family: str, facts: _Facts) -> ModelShape:
    """GPT-2, and GPT-BigCode (StarCoder) with one key-value head for all."""
    hidden, heads = facts.number("n_embd", "hidden_size"), facts.number("n_head", "num_attention_heads")
    single = family == "gpt_bigcode" and facts.flag("multi_query", default=True)
    kv_heads, size = 1 if single else heads, _divided(hidden, heads)
    positions = facts.number("n_positions", "max_position_embeddings", default=1024)
    tensors = [
        Tensors("position embedding", positions * hidden, "first", "float", "whole"),
        *_attention(hidden, heads, kv_heads, size, qkv_bias=True, out_bias=True),
        *_plain_mlp(hidden, facts.number("n_inner", default=4 * hidden), bias=True),
        Tensors("norms", 4 * hidden, kind="float", split="whole"),
    ]
    tied = facts.flag("tie_word_embeddings", default=True)
    return _shape(
        family, facts, tensors, heads, kv_heads, size, tied=tied, final_norm=2 * hidden, hidden=hidden
    )


def _opt(family: str, facts: _Facts) -> ModelShape:
    hidden, heads = facts.number("hidden_size"), facts.number("num_attention_heads")
    bias = facts.flag("enable_bias", default=True)
    narrow = facts.number("word_embed_proj_dim", default=hidden)
    # Positions are counted from 2.
    positions = facts.number("max_position_embeddings", default=2048) + 2
    first = facts.flag("do_layer_norm_before", default=True)
    final = first and not facts.flag("_remove_final_layer_norm", default=False)
    tensors = [
        Tensors("position embedding", positions * hidden, "first", "float", "whole"),
        *_attention(hidden, heads, heads, _divided(hidden, heads), qkv_bias=bias, out_bias=bias),
        *_plain_mlp(hidden, facts.number("ffn_dim"), bias=bias),
        Tensors("norms", 4 * hidden, kind="float", split="whole"),
    ]
    if narrow != hidden:
        tensors.append(Tensors("projection in", narrow * hidden, "first", "float", "whole"))
        tensors.append(Tensors("projection out", narrow * hidden, "last", "float", "whole"))
    tied = facts.flag("tie_word_embeddings", default=True)
    norm = 2 * hidden if final else 0
    size = _divided(hidden, heads)
    return _shape(family, facts, tensors, heads, heads, size, tied=tied, final_norm=norm, hidden=narrow)


def _bloom(family: str, facts: _Facts) -> ModelShape:
    hidden = facts.number("hidden_size", "n_embed")
    heads = facts.number("n_head", "num_attention_heads")
    size = _divided(hidden, heads)
    tensors = [
        Tensors("norm of the embedding", 2 * hidden, "first", "float", "whole"),
        *_attention(hidden, heads, heads, size, qkv_bias=True, out_bias=True),
        *_plain_mlp(hidden, 4 * hidden, bias=True),
        Tensors("norms", 4 * hidden, kind="float", split="whole"),
    ]
    tied = facts.flag("tie_word_embeddings", default=True)
    return _shape(family, facts, tensors, heads, heads, size, tied=tied, final_norm=2 * hidden, hidden=hidden)


def _falcon(family: str, facts: _Facts) -> ModelShape:
    """Falcon: 7B has one key-value head for all, 40B and 180B have groups, the RW ones have one each."""
    hidden = facts.number("hidden_size")
    heads = facts.number("num_attention_heads", "n_head")
    grouped = facts.flag("new_decoder_architecture", default=family == "RefinedWeb")
    single = facts.flag("multi_query", default=True)
    kv_heads = facts.number("num_kv_heads", "n_head_kv", default=heads) if grouped else 1 if single else heads
    parallel = facts.flag("parallel_attn", default=True)
    bias = facts.flag("bias", default=False)
    size = _divided(hidden, heads)
    norms = 2 if grouped or not parallel else 1
    tensors = [
        *_attention(hidden, heads, kv_heads, size, qkv_bias=bias, out_bias=bias),
        *_plain_mlp(hidden, facts.number("ffn_hidden_size", default=4 * hidden), bias=bias),
        Tensors("norms", norms * 2 * hidden, kind="float", split="whole"),
    ]
    # Published with a head of its own, although transformers ties the two when it loads them.
    tied = facts.flag("tie_word_embeddings", default=False)
    return _shape(
        family, facts, tensors, heads, kv_heads, size, tied=tied, final_norm=2 * hidden, hidden=hidden
    )


def _gptj(family: str, facts: _Facts) -> ModelShape:
    hidden, heads = facts.number("n_embd", "hidden_size"), facts.number("n_head", "num_attention_heads")
    size, vocab = _divided(hidden, heads), facts.number("vocab_size")
    tensors = [
        *_attention(hidden, heads, heads, size, qkv_bias=False, out_bias=False),
        *_plain_mlp(hidden, facts.number("n_inner", default=4 * hidden), bias=True),
        Tensors("norms", 2 * hidden, kind="float", split="whole"),
        Tensors("head bias", vocab, "last", "float"),
    ]
    tied = facts.flag("tie_word_embeddings", default=False)
    return _shape(family, facts, tensors, heads, heads, size, tied=tied, final_norm=2 * hidden, hidden=hidden)


def _gpt_neox(family: str, facts: _Facts) -> ModelShape:
    hidden, heads = facts.number("hidden_size"), facts.number("num_attention_heads")
    size, bias = _divided(hidden, heads), facts.flag("attention_bias", default=True)
    tensors = [
        *_attention(hidden, heads, heads, size, qkv_bias=bias, out_bias=bias),
        *_plain_mlp(hidden, facts.number("intermediate_size"), bias=True),
        Tensors("norms", 4 * hidden, kind="float", split="whole"),
    ]
    tied = facts.flag("tie_word_embeddings", default=False)
    return _shape(family, facts, tensors, heads, heads, size, tied=tied, final_norm=2 * hidden, hidden=hidden)


def _mpt(family: str, facts: _Facts) -> ModelShape:
    hidden, heads = facts.number("d_model"), facts.number("n_heads")
    size = _divided(hidden, heads)
    tensors = [
        *_attention(hidden, heads, heads, size, qkv_bias=False, out_bias=False),
        *_plain_mlp(hidden, facts.number("expansion_ratio", default=4) * hidden, bias=False),
        Tensors("norms", 2 * hidden, kind="float", split="whole"),
    ]
    return _shape(family, facts, tensors, heads, heads, size, tied=True, final_norm=hidden, hidden=hidden)


def _attention(
    hidden: int, heads: int, kv_heads: int, size: int, *, qkv_bias: bool, out_bias: bool
) -> Iterator[Tensors]:
    yield Tensors("query", hidden * heads * size)
    yield Tensors("key and value", 2 * hidden * kv_heads * size, split="kv_heads")
    yield Tensors("attention output", heads * size * hidden)
    if qkv_bias:
        yield Tensors("query bias", heads * size, kind="float")
        yield Tensors("key and value bias", 2 * kv_heads * size, kind="float", split="kv_heads")
    if out_bias:
        yield Tensors("attention output bias", hidden, kind="float", split="whole")


def _plain_mlp(hidden: int, inner: int, *, bias: bool) -> Iterator[Tensors]:
    yield Tensors("mlp", 2 * hidden * inner)
    if bias:
        yield Tensors("mlp bias in", inner, kind="float")
        yield Tensors("mlp bias out", hidden, kind="float", split="whole")


def _shape(
    family: str,
    facts: _Facts,
    tensors: list[Tensors],
    heads: int,
    kv_heads: int,
    size: int,
    *,
    tied: bool,
    final_norm: int,
    hidden: int,
) -> ModelShape:
    """Adds what every family has: the word embedding `hidden` wide, the final norm, and the head."""
    vocab = facts.number("vocab_size")
    ends = [Tensors("word embedding", vocab * hidden, "first", "embedding", "whole")]
    if final_norm:
        ends.append(Tensors("final norm", final_norm, "last", "float", "whole"))
    if not tied:
        ends.append(Tensors("head", vocab * hidden, "last", "head"))
    return ModelShape(
        family=family,
        layers=facts.number("num_hidden_layers", "n_layer", "n_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        hidden_size=facts.number("hidden_size", "n_embd", "n_embed", "d_model"),
        vocab_size=vocab,
        tied=tied,
        max_positions=facts.limit("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
        dtype=facts.text("torch_dtype") or facts.text("dtype"),
        tensors=(*ends, *tensors),
    )


def _divided(whole: int, parts: int) -> int:
    if whole % parts:
        raise UnknownShape(f"its config.json has a size of {whole} that {parts} do not divide")
    return whole // parts


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a very large number"
    return text if len(text) <= _TEXT_CHARS else f"{text[:_TEXT_CHARS]}..."


#: Where the configuration class has a default of its own.
_KV_HEADS = {"mistral": 8, "mixtral": 8, "gemma": 16, "gemma2": 4}
_HEAD_SIZES = {"gemma": 256, "gemma2": 256, "qwen3": 128}

_FAMILIES: Mapping[str, Callable[[str, _Facts], ModelShape]] = {
    "llama": _llama,
    "mistral": _llama,
    "mixtral": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
    "gemma": _llama,
    "gemma2": _llama,
    "phi3": _llama,
    "qwen": _qwen,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt2,
    "opt": _opt,
    "bloom": _bloom,
    "falcon": _falcon,
    "RefinedWebModel": _falcon,
    "RefinedWeb": _falcon,
    "gptj": _gptj,
    "gpt_neox": _gpt_neox,
    "mpt": _mpt,
}

#: The families whose sizes are known, by their `model_type`.
KNOWN_FAMILIES = tuple(_FAMILIES)
