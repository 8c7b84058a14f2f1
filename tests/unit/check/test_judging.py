"""The rules: what is degenerate, what is out of range, what still counts as the model's choice."""

from __future__ import annotations

import math

import pytest

from trt_llm_pipeline.check.judging import (
    LENIENCY,
    Leniency,
    agrees,
    common_prefix,
    out_of_range,
    suspicions,
)
from trt_llm_pipeline.check.verdict import Answer, covers


def said(text: str, *tokens: int, prompt: str = "p") -> Answer:
    return Answer(prompt, (1,), tokens or None, text)


GOOD = [said(" Paris. It", 5, 6, 7, 8), said(" looked out", 9, 10, 11, 12), said(" hot. It", 13, 14, 7, 8)]


def what(answers: list[Answer]) -> list[str]:
    return [each.what for each in suspicions(answers)]


class TestLevel1:
    def test_in_range(self) -> None:
        assert out_of_range(GOOD, 15) is None

    def test_beyond_the_vocabulary(self) -> None:
        found = out_of_range(GOOD, 14)
        assert found is not None
        assert (found.what, found.answer) == ("token 14, beyond the vocabulary of 14", GOOD[2])

    def test_negative(self) -> None:
        assert out_of_range([said("x", -1)], None) is not None

    def test_unknown_vocabulary(self) -> None:
        assert out_of_range(GOOD, None) is None


class TestLevel2:
    def test_good(self) -> None:
        assert what(GOOD) == []

    @pytest.mark.parametrize("text", ["", "   ", "\n\t"])
    def test_nothing(self, text: str) -> None:
        assert what([*GOOD, said(text, 2)]) == ["nothing"]

    def test_one_token(self) -> None:
        assert what([*GOOD, said("aaaa", 1, 1, 1, 1)]) == ["one token over and over"]

    def test_few_tokens_are_no_repetition(self) -> None:
        assert what([*GOOD, said("ha ha", 1, 1)]) == []

    def test_one_word_where_only_the_text_is_known(self) -> None:
        assert what([*GOOD, said("the the the the the")]) == ["one word over and over"]

    def test_the_same_for_every_prompt(self) -> None:
        answers = [said("a b c d", 1, 2, 3, 4, prompt=str(at)) for at in range(3)]
        assert what(answers) == ["the same for every prompt"]

    def test_one_prompt_alone_has_nothing_to_be_compared_with(self) -> None:
        assert what(GOOD[:1]) == []

    def test_bytes_that_are_no_text(self) -> None:
        assert what([*GOOD, said("a\ufffdb and more", 1, 2, 3)]) == ["bytes that are no text"]

    def test_a_character_that_was_cut_off_is_text(self) -> None:
        assert what([*GOOD, said(" une journ\ufffd", 1, 2, 3)]) == []


class TestLevel3:
    def test_every_token_is_the_models_first_choice(self) -> None:
        assert common_prefix([0, 0, 0], 0.05) == 3

    def test_a_near_tie_counts(self) -> None:
        assert common_prefix([0, 0.04, 0, 3.1, 0], 0.05) == 3

    @pytest.mark.parametrize("gap", [math.nan, math.inf])
    def test_what_is_no_number_never_counts(self, gap: float) -> None:
        assert common_prefix([0, gap, 0], 1.0) == 1

    def test_all_prompts_together_decide(self) -> None:
        assert agrees([16, 16, 0], [16, 16, 16], Leniency(0, 0.6))
        assert not agrees([16, 1, 0], [16, 16, 16], Leniency(0, 0.6))

    def test_float32_forgives_nothing(self) -> None:
        assert not agrees([16, 16, 15], [16, 16, 16], LENIENCY["float32"])

    def test_a_coarser_type_is_forgiven_no_less(self) -> None:
        order = ["float32", "float16", "bfloat16", "int8", "int4"]
        ties = [LENIENCY[name].tie for name in order]
        shares = [LENIENCY[name].share for name in order]
        assert ties == sorted(ties)
        assert shares == sorted(shares, reverse=True)


class TestCovers:
    @pytest.mark.parametrize(
        ("level", "reference", "covered"), [(2, False, True), (2, True, False), (3, True, True)]
    )
    def test_an_earlier_verdict(self, level: int, reference: bool, covered: bool) -> None:
        assert covers({"status": "passed", "level": level}, reference=reference) is covered

    @pytest.mark.parametrize(
        "kept", [None, {}, [], {"status": "unchecked", "level": 2}, {"status": "passed"}]
    )
    def test_no_verdict(self, kept: object) -> None:
        assert not covers(kept, reference=False)
