"""What the preflight says, and what it suggests."""

from __future__ import annotations

from typing import Any

import pytest

from trt_llm_pipeline.preflight import messages

BUILD_OPTIONS = [
    *(
        "--model_dir",
        "--dtype",
        "--max_batch_size",
        "--max_beam_width",
        "--max_input_len",
        "--max_output_len",
    ),
    *(
        "--use_gpt_attention_plugin",
        "--use_gemm_plugin",
        "--remove_input_padding",
        "--tensor-parallelism",
        "-tp",
    ),
]


def found(kind: str, option: str | None = None, **facts: Any) -> dict[str, Any]:
    """A mistake as the probe reports it."""
    blank = {"place": 0, "name": option, "positional": False, "nargs": None, "strings": [option]}
    return {"kind": kind, "option": option, **blank, **facts}


class TestClosestOptions:
    """Which of the script's options an unknown one may have meant."""

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("--max_batchsize", "--max_batch_size"),
            ("--max-batch-size", "--max_batch_size"),
            ("--MAX_BATCH_SIZE", "--max_batch_size"),
            ("--tensor_parallelism", "--tensor-parallelism"),
            ("-max_batch_size", "--max_batch_size"),
            ("--use_gemm_plugins", "--use_gemm_plugin"),
            ("--modeldir", "--model_dir"),
            ("--dtyp", "--dtype"),
        ],
    )
    def test_the_one_that_was_meant_comes_first(self, written: str, meant: str) -> None:
        assert messages.close_options(written, BUILD_OPTIONS)[0] == meant

    def test_one_that_differs_in_dashes_only_comes_alone(self) -> None:
        assert messages.close_options("--max-input-len", BUILD_OPTIONS) == ("--max_input_len",)

    def test_at_most_three(self) -> None:
        assert messages.close_options("--max_inout_len", BUILD_OPTIONS) == (
            "--max_input_len",
            "--max_output_len",
        )

    def test_none_where_none_is_like_it(self) -> None:
        assert messages.close_options("--smoothquant", BUILD_OPTIONS) == ()

    def test_several_are_listed(self) -> None:
        said, closest = messages.mistake(found("unknown", "--max_inout_len"), "build.py", BUILD_OPTIONS)
        assert said == (
            "build.py has no option --max_inout_len; the closest are --max_input_len, --max_output_len"
        )
        assert closest == ("--max_input_len", "--max_output_len")


class TestChoices:
    """A choice that the parser refuses."""

    def test_few_choices_are_listed(self) -> None:
        wrong = found("choice", "--dtype", value="fp16", choices=["float32", "float16"])
        said, closest = messages.mistake(wrong, "build.py", BUILD_OPTIONS)
        assert said == "--dtype: invalid choice 'fp16' (choose from float32, float16)"
        assert closest == ()

    def test_of_many_choices_the_closest_are(self) -> None:
        wrong = found("choice", "--layer", value="layer-7", choices=[f"layer_{n}" for n in range(80)])
        said, closest = messages.mistake(wrong, "build.py", BUILD_OPTIONS)
        assert said == (
            "--layer: invalid choice 'layer-7' (one of 80 choices; the closest: layer_7, layer_79, layer_78)"
        )
        assert closest[0] == "layer_7"

    def test_of_many_choices_the_first_where_none_is_close(self) -> None:
        wrong = found("choice", "--size", value="huge", choices=[str(n) for n in range(1, 21)])
        said, _ = messages.mistake(wrong, "build.py", BUILD_OPTIONS)
        assert said == (
            "--size: invalid choice 'huge' (choose from 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 8 more)"
        )


class TestValues:
    """Values that are too many, or of no use."""

    @pytest.mark.parametrize(
        ("nargs", "said"),
        [
            ("0", "--x takes no value, but was given 'b'"),
            (None, "--x takes one value; 'b' is one too many"),
            ("?", "--x takes at most one value; 'b' is one too many"),
            ("2", "--x takes 2 values; 'b' is one too many"),
        ],
    )
    def test_a_value_too_many(self, nargs: str | None, said: str) -> None:
        wrong = found("unexpected_value", "--x", value="b", nargs=nargs)
        assert messages.mistake(wrong, "build.py", [])[0] == said

    def test_a_type_speaks_for_itself(self) -> None:
        wrong = found("type", "--x", value="3", type="even", reason="3 is not even")
        assert messages.mistake(wrong, "build.py", [])[0] == "--x: 3 is not even"

    def test_a_type_that_says_nothing(self) -> None:
        wrong = found("type", "--x", value="3.5", type="int", reason=None)
        assert messages.mistake(wrong, "build.py", [])[0] == "--x: invalid int value '3.5'"


class TestSilence:
    """A script that left no report."""

    @pytest.mark.parametrize(
        ("exit_code", "stderr", "timed_out", "said"),
        [
            (-9, "", True, "x.py did not read its options within 20 s"),
            (-9, "", False, "x.py was ended by SIGKILL before it read its options"),
            (-250, "", False, "x.py was ended by signal 250 before it read its options"),
            (1, "a\nlast words\n\n", False, "x.py ended with code 1 before it read its options: last words"),
            (2, "", False, "x.py ended with code 2 before it read its options"),
        ],
    )
    def test_says_how_it_ended(self, exit_code: int, stderr: str, timed_out: bool, said: str) -> None:
        assert said == messages.silent("x.py", exit_code, stderr, timed_out=timed_out, time_limit=20.0)


class TestFollowers:
    """What is missing only because it, or its value, was mistyped."""

    def test_a_mistyped_required_option_is_one_mistake(self) -> None:
        reported = [found("unknown", "--modeldir"), found("missing", "--model_dir", place=None)]
        assert messages.without_followers(reported, BUILD_OPTIONS) == reported[:1]

    def test_one_that_nothing_else_stands_for_stays(self) -> None:
        reported = [found("unknown", "--dtyp"), found("missing", "--model_dir", place=None)]
        assert messages.without_followers(reported, BUILD_OPTIONS) == reported

    def test_an_option_whose_value_is_wrong_is_not_called_missing_too(self) -> None:
        reported = [
            found("type", "--model_dir", reason="is needed", place=None),
            found("type", "--model_dir", reason="expected one argument", place=3),
            found("type", "--dtype", reason="is needed", place=None),
        ]
        assert messages.without_followers(reported, BUILD_OPTIONS) == reported[1:]

    def test_an_option_that_the_script_itself_asks_for_may_be_mistyped(self) -> None:
        reported = [
            found("unknown", "--modeldir", place=0),
            found("other", "--model_dir", reason="is needed", place=None),
        ]
        assert messages.without_followers(reported, BUILD_OPTIONS) == reported[:1]
