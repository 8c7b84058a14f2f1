"""Bytes on a rank and tokens in what is left, against sums that are written out here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.fit.known import MODELS, Known, known
from trt_llm_pipeline.fit import Device, EngineArguments
from trt_llm_pipeline.fit.sums import kv_per_token, needs, room

FOUR_GPUS = EngineArguments(tp=4, max_batch_size=8, max_input_len=2048, max_output_len=2048)


def device(memory: int) -> Device:
    return Device("a GPU", memory, "9.0", "for a test")


class TestWeights:
    """What a rank holds."""

    @pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
    def test_one_rank_holds_every_parameter(self, model: Known) -> None:
        assert needs(model.shape, EngineArguments()).rank_weights == 2 * model.parameters

    def test_of_four_ranks_each_has_the_embedding_and_the_norms_whole(self) -> None:
        embedding, norms = 32000 * 8192, (2 * 80 + 1) * 8192
        divided = known("Llama 2 70B").parameters - embedding - norms
        found = needs(known("Llama 2 70B").shape, FOUR_GPUS)
        assert found.rank_weights == 2 * (divided // 4 + embedding + norms) == 34_883_518_464
        assert found.weights == 4 * found.rank_weights

    def test_a_divided_embedding_is_divided(self) -> None:
        shape = known("Llama 2 70B").shape
        divided = needs(shape, replace(FOUR_GPUS, divided_embedding=True)).rank_weights
        assert needs(shape, FOUR_GPUS).rank_weights - divided == 2 * 32000 * 8192 * 3 // 4

    @pytest.mark.parametrize(
        ("weights", "bits"), [("int8", 8), ("int4", 4), ("fp8", 8), ("int4_groups", 4.125)]
    )
    def test_embedding_head_and_norms_are_never_quantized(self, weights: str, bits: float) -> None:
        model = known("Llama 2 7B")
        kept = 2 * 32000 * 4096 + 65 * 4096
        expected = (model.parameters - kept) * bits / 8 + 2 * kept
        assert needs(model.shape, EngineArguments(weights=weights)).rank_weights == int(expected)  # type: ignore[arg-type]

    def test_one_key_value_head_is_on_every_rank(self) -> None:
        model = known("StarCoder")
        # [query, key, value], with one head of 128 for key and value each
        single = 40 * (2 * 128 * 6144 + 2 * 128)
        four = needs(model.shape, EngineArguments(tp=4)).rank_weights
        eight = needs(model.shape, EngineArguments(tp=8)).rank_weights
        whole = 49152 * 6144 + 8192 * 6144 + 40 * 4 * 6144 + 2 * 6144 + 40 * 2 * 6144 + single
        assert four == 2 * ((model.parameters - whole) // 4 + whole)
        assert eight == 2 * ((model.parameters - whole) // 8 + whole)

    def test_the_last_rank_of_a_pipeline_has_the_head_and_the_first_the_embedding(self) -> None:
        model = known("Llama 2 13B")
        found = needs(model.shape, EngineArguments(pp=2))
        layers = model.parameters - 2 * 32000 * 5120 - 5120
        assert found.rank_weights == 2 * (layers // 2 + 32000 * 5120 + 5120)
        assert found.weights == 2 * model.parameters

    def test_a_tied_head_needs_a_matrix_of_its_own_on_the_last_of_several_ranks(self) -> None:
        model = known("GPT-2")
        assert needs(model.shape, EngineArguments(pp=2)).weights == 2 * (model.parameters + 50257 * 768)


class TestKvCache:
    """Bytes of a token on a rank."""

    @pytest.mark.parametrize(
        ("name", "tp", "heads"),
        [("Llama 2 70B", 4, 2), ("Llama 2 70B", 8, 1), ("Llama 2 70B", 16, 1), ("Falcon 7B", 1, 1)],
    )
    def test_heads_are_divided_but_never_split(self, name: str, tp: int, heads: int) -> None:
        shape = known(name).shape
        expected = 2 * shape.layers * heads * shape.head_size * 2
        assert kv_per_token(shape, EngineArguments(tp=tp)) == expected

    def test_one_byte_types_halve_it(self) -> None:
        shape = known("Llama 3.1 8B").shape
        assert kv_per_token(shape, EngineArguments(kv="fp8")) == 65_536
        assert kv_per_token(shape, EngineArguments(kv="int8")) == 65_536
        assert kv_per_token(shape, EngineArguments(kv="float32")) == 262_144

    def test_a_pipeline_divides_the_layers(self) -> None:
        assert kv_per_token(known("Llama 2 7B").shape, EngineArguments(pp=4)) == 131_072


class TestRoom:
    """What is left beside the weights."""

    def test_nine_tenths_of_what_is_left_are_cache(self) -> None:
        shape = known("Llama 2 70B").shape
        need = needs(shape, FOUR_GPUS)
        there = room(need, FOUR_GPUS, shape, device(80_000_000_000))
        assert there.left == 80_000_000_000 - 34_883_518_464
        assert there.kv_bytes == 40_604_833_382
        assert there.tokens == 40_604_833_382 // 81_920 == 495_664
        assert there.max_batch_size == 495_664 // 4096
        assert there.max_length == 4096  # the model's own limit

    def test_beams_are_sequences_of_their_own(self) -> None:
        shape, beams = known("Llama 2 70B").shape, replace(FOUR_GPUS, max_beam_width=4)
        need = needs(shape, beams)
        assert need.tokens == 8 * 4 * 4096
        there = room(need, beams, shape, device(80_000_000_000))
        assert there.max_batch_size == 495_664 // (4096 * 4)

    def test_without_lengths_there_are_tokens_alone(self) -> None:
        shape, plain = known("Llama 2 7B").shape, EngineArguments()
        need = needs(shape, plain)
        there = room(need, plain, shape, device(40_000_000_000))
        assert (need.tokens, there.max_batch_size, there.max_length) == (None, None, None)
        assert there.tokens > 0

    def test_too_small_a_device_has_room_for_nothing(self) -> None:
        shape, plain = known("Llama 2 7B").shape, EngineArguments()
        there = room(needs(shape, plain), plain, shape, device(10_000_000_000))
        assert there.left < 0
        assert (there.kv_bytes, there.tokens) == (0, 0)
