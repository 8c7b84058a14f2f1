"""Parameters and KV cache of published models, from what their `config.json` says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fit.known import MODELS, Known, known
from trt_llm_pipeline.fit import EngineArguments, UnknownShape, shape_of
from trt_llm_pipeline.fit.families import KNOWN_FAMILIES
from trt_llm_pipeline.fit.sums import kv_per_token


class TestPublishedModels:
    """Against what the repositories hold."""

    @pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
    def test_parameters_are_within_half_a_percent(self, model: Known) -> None:
        assert model.shape.parameters == pytest.approx(model.parameters, rel=0.005)

    @pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
    def test_parameters_are_exact(self, model: Known) -> None:
        assert model.shape.parameters == model.parameters

    @pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
    def test_kv_cache_of_a_token_is_exact(self, model: Known) -> None:
        assert kv_per_token(model.shape, EngineArguments()) == model.kv_bytes_per_token

    def test_every_family_has_a_model_or_is_built_like_one_that_has(self) -> None:
        alike = {"qwen3": "llama", "gemma2": "gemma", "phi3": "llama"}
        alike |= {"RefinedWebModel": "falcon", "RefinedWeb": "falcon"}
        tried = {model.config["model_type"] for model in MODELS}
        assert {alike.get(family, family) for family in KNOWN_FAMILIES} == tried


class TestVariants:
    """Keys that change a model's tensors."""

    def test_a_tied_head_is_counted_once(self) -> None:
        config = known("Llama 2 7B").config
        untied, tied = shape_of(config), shape_of({**config, "tie_word_embeddings": True})
        assert untied.parameters - tied.parameters == 32000 * 4096

    def test_llama_with_biases_has_them_everywhere(self) -> None:
        config = known("Llama 3.1 8B").config
        biased = shape_of({**config, "attention_bias": True, "mlp_bias": True})
        a_layer = 4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096
        assert biased.parameters - shape_of(config).parameters == 32 * a_layer

    def test_key_value_heads_are_as_many_as_heads_where_nothing_says(self) -> None:
        config = {key: value for key, value in known("Llama 2 13B").config.items() if "key_value" not in key}
        assert shape_of(config).kv_heads == 40

    def test_mistral_has_eight_where_nothing_says(self) -> None:
        config = {key: value for key, value in known("Mistral 7B").config.items() if "key_value" not in key}
        assert shape_of(config).parameters == known("Mistral 7B").parameters

    def test_bigcode_without_multi_query_has_all_heads(self) -> None:
        assert shape_of({**known("StarCoder").config, "multi_query": False}).kv_heads == 48

    def test_falcon_s_first_name_is_the_same_model(self) -> None:
        config = {"model_type": "RefinedWebModel", "vocab_size": 65024, "hidden_size": 4544, "n_layer": 32}
        config |= {"n_head": 71, "multi_query": True, "parallel_attn": True, "bias": False}
        assert shape_of(config).parameters == known("Falcon 7B").parameters

    def test_heads_wider_than_the_model_are_taken_as_they_are(self) -> None:
        assert known("Gemma 2B").shape.head_size * known("Gemma 2B").shape.heads == 2048
        assert known("Gemma 7B").shape.head_size * known("Gemma 7B").shape.heads == 4096


class TestWhatIsNotKnown:
    """Said, with the reason, and never guessed."""

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ({}, "no model_type"),
            ({"model_type": "mamba"}, "model_type mamba are not known"),
            ({"model_type": 3}, "no model_type"),
            ({"model_type": "llama"}, "no hidden_size"),
            ({**known("Llama 2 7B").config, "num_hidden_layers": "32"}, "num_hidden_layers .* no sensible"),
            ({**known("Llama 2 7B").config, "hidden_size": -1}, "hidden_size .* no sensible"),
            ({**known("Llama 2 7B").config, "vocab_size": 10**30}, "a very large number"),
            ({**known("Llama 2 7B").config, "vocab_size": True}, "vocab_size .* no sensible"),
            ({**known("GPT-2").config, "n_head": 7}, "768 that 7 do not divide"),
        ],
    )
    def test_is_said(self, config: dict[str, Any], reason: str) -> None:
        with pytest.raises(UnknownShape, match=reason):
            shape_of(config)

    @given(
        st.sampled_from(MODELS),
        st.data(),
        st.one_of(
            st.none(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
        ),
    )
    def test_a_strange_value_is_refused_or_counted_and_nothing_else(
        self, model: Known, data: st.DataObject, value: Any
    ) -> None:
        key = data.draw(st.sampled_from(sorted(model.config)))
        try:
            shape = shape_of({**model.config, key: value})
        except UnknownShape:
            return
        assert shape.parameters > 0
        assert kv_per_token(shape, EngineArguments()) > 0
