"""What a script's parser does not accept is reported all at once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.integration.preflight.preflight_place import (
    GOOD,
    PACKAGE,
    Place,
    messages,
    place,
    python,
)
from trt_llm_pipeline.preflight.parser_check import Checked

# The fixtures are found by their names, which the tests that ask for them share.
# ruff: noqa: F401, F811


UNLIKE = "nor one like it; its --help lists those that it has"


def test_the_probe_and_argparse_agree_on_random_arguments(place: Place, python: str, tmp_path: Path) -> None:
    cases = 2000
    driver = Path(__file__).with_name("preflight_agreement.py")
    asked = subprocess.run(
        [python, "-B", str(driver), str(PACKAGE), str(tmp_path), str(cases)],
        capture_output=True,
        text=True,
        check=True,
    )
    *disagreements, counts = map(json.loads, asked.stdout.splitlines())
    assert disagreements == []
    assert counts["cases"] == cases
    assert cases / 4 < counts["not_accepted"] < cases * 3 / 4


class TestMistakes:
    """What the parser does not accept, all at once."""

    def test_every_kind_in_one_run(self, place: Place, python: str) -> None:
        answer = place.script(
            "behaves.py",
            *("--max_batchsize", "3", "--dtype", "float15", "--max_b", "4", "--max_beam_width", "abc"),
            *("--remove_input_padding", "yes", "--use_gemm_plugin", "int3", "--rotary_pct", "--shape", "1"),
            python=python,
        )
        assert isinstance(answer, Checked)
        assert [(m.argv_index, m.option, m.message) for m in answer.mistakes] == [
            (
                0,
                "--max_batchsize",
                "behaves.py has no option --max_batchsize; the closest is --max_batch_size",
            ),
            (2, "--dtype", "--dtype: invalid choice 'float15' (choose from float32, float16, bfloat16)"),
            (
                4,
                "--max_b",
                "--max_b is ambiguous for behaves.py: it could be --max_batch_size or --max_beam_width",
            ),
            (6, "--max_beam_width", "--max_beam_width: invalid int value 'abc'"),
            (8, "--remove_input_padding", "--remove_input_padding takes no value, but was given 'yes'"),
            (
                10,
                "--use_gemm_plugin",
                "--use_gemm_plugin: invalid choice 'int3' (choose from float16, float32)",
            ),
            (12, "--rotary_pct", "--rotary_pct: expected one argument"),
            (13, "--shape", "--shape: expected 2 arguments"),
            (None, "--model_dir", "--model_dir is required by behaves.py"),
        ]
        assert answer.mistakes[0].closest == ("--max_batch_size",)
        assert answer.mistakes[1].closest == ("float16", "bfloat16", "float32")

    def test_several_unknown_options_and_their_values(self, place: Place, python: str) -> None:
        answer = place.script(
            "behaves.py", *GOOD, "--use_float8", "a", "b", "--out_dir", "x", "--zzz=-5", "tail", python=python
        )
        assert messages(answer) == [
            f"behaves.py has no option --use_float8, {UNLIKE}",
            "behaves.py has no option --out_dir; the closest is --out-dir",
            f"behaves.py has no option --zzz, {UNLIKE}",
        ]

    def test_a_value_too_many(self, place: Place, python: str) -> None:
        answer = place.script(
            "behaves.py", "stray", *GOOD, "more", "--shape", "1", "2", "3", "--out-dir=-x", python=python
        )
        assert messages(answer) == [
            "behaves.py has no place for the argument 'stray'",
            "--model_dir takes one value; 'more' is one too many",
            "--shape takes 2 values; '3' is one too many",
        ]

    def test_each_bad_value_of_a_list(self, place: Place, python: str) -> None:
        answer = place.script("behaves.py", *GOOD, "--layers", "1", "two", "3", "four", python=python)
        assert messages(answer) == [
            "--layers: invalid int value 'two'",
            "--layers: invalid int value 'four'",
        ]
        assert isinstance(answer, Checked)
        assert [mistake.argv_index for mistake in answer.mistakes] == [2, 2]

    def test_the_second_occurrence_is_the_one_to_blame(self, place: Place, python: str) -> None:
        args = (*GOOD, "--max_batch_size", "1", "--max_batch_size", "x", "--max_batch", "y")
        answer = place.script("behaves.py", *args, python=python)
        assert isinstance(answer, Checked)
        assert [(m.argv_index, m.option) for m in answer.mistakes] == [
            (4, "--max_batch_size"),
            (6, "--max_batch"),
            (6, "--max_batch"),
        ]

    def test_abbreviations_are_refused_though_they_are_clear(self, place: Place, python: str) -> None:
        """Fit, and where a step writes, go by whole names: they would not see what the script does."""
        answer = place.script("behaves.py", "--model", "x", "--max_ba=4", "-oout", python=python)
        assert isinstance(answer, Checked)
        assert [(each.argv_index, each.option, each.closest) for each in answer.mistakes] == [
            (0, "--model", ("--model_dir",)),
            (2, "--max_ba", ("--max_batch_size",)),
        ]
        assert messages(answer)[0].startswith("behaves.py takes --model for --model_dir; write --model_dir: ")

    def test_an_abbreviated_required_option_is_not_missing(self, place: Place, python: str) -> None:
        answer = place.script("behaves.py", "--mod=x", "--m", "y", python=python)
        assert messages(answer)[0].startswith("behaves.py takes --mod for --model_dir; ")
        assert messages(answer)[1:] == [
            "--m is ambiguous for behaves.py: it could be --model_dir or --max_batch_size or --max_beam_width"
        ]

    def test_values_that_look_like_options_after_an_equals_sign(self, place: Place, python: str) -> None:
        args = (*GOOD, "--out-dir=--x", "--max_batch_size=-3", "--rotary_pct=-1e-3")
        assert messages(place.script("behaves.py", *args, python=python)) == []

    def test_help_builds_nothing(self, place: Place, python: str) -> None:
        answer = place.script("behaves.py", "--help", "--max_batch_size", "x", python=python)
        assert messages(answer) == [
            "--help only makes behaves.py print something and stop; leave it out",
            "--max_batch_size: invalid int value 'x'",
            "--model_dir is required by behaves.py",
        ]

    def test_options_that_exclude_each_other(self, place: Place, python: str) -> None:
        answer = place.script(
            "excludes_options.py", "--use_smooth_quant", "--weight_only_precision", "int8", python=python
        )
        assert messages(answer) == [
            "--weight_only_precision cannot be used together with --use_smooth_quant",
            "one of --model_dir, --ft_model_dir is required by excludes_options.py",
        ]

    def test_options_of_a_subcommand(self, place: Place, python: str) -> None:
        answer = place.script(
            "has_subcommands.py", "build", "--workers", "many", "--dtype", "x", python=python
        )
        assert messages(answer) == [
            "--workers: invalid int value 'many'",
            f"has_subcommands.py has no option --dtype, {UNLIKE}",
            "--checkpoint_dir is required by has_subcommands.py",
        ]

    def test_an_unknown_subcommand(self, place: Place, python: str) -> None:
        answer = place.script("has_subcommands.py", "--log_level", "x", "bild", python=python)
        assert messages(answer) == ["command: invalid choice 'bild' (choose from build, convert)"]
        assert isinstance(answer, Checked)
        assert answer.mistakes[0].argv_index == 2
        assert answer.mistakes[0].option is None

    def test_a_missing_subcommand(self, place: Place, python: str) -> None:
        answer = place.script("has_subcommands.py", python=python)
        assert messages(answer) == ["the argument command is required by has_subcommands.py"]

    def test_options_added_at_run_time(self, place: Place, python: str) -> None:
        args = (*GOOD, "--lookup_plugins", "float16", "--paged_kv_cache", "on")
        assert messages(place.script("adds_options_in_a_loop.py", *args, python=python)) == [
            "adds_options_in_a_loop.py has no option --lookup_plugins; the closest is --lookup_plugin",
            "--paged_kv_cache: invalid choice 'on' (choose from enable, disable)",
        ]

    def test_intermixed_arguments(self, place: Place, python: str) -> None:
        answer = place.script(
            "uses_parse_intermixed_args.py", "bild", "1", "--tp_size", "2", "x", "--y", python=python
        )
        assert messages(answer) == [
            "command: invalid choice 'bild' (choose from convert, build)",
            "files: invalid int value 'x'",
            f"uses_parse_intermixed_args.py has no option --y, {UNLIKE}",
        ]

    def test_a_parser_that_overrides_its_way_to_complain(self, place: Place, python: str) -> None:
        answer = place.script("overrides_error.py", "--tp_size", "two", "--pp_size", "1", python=python)
        assert messages(answer) == [
            "--tp_size: invalid int value 'two'",
            "overrides_error.py has no option --pp_size; the closest is --tp_size",
        ]

    def test_a_strict_method_of_a_subclass(self, place: Place, python: str) -> None:
        answer = place.script("parses_into_dataclasses.py", "--learnign_rate", "1e-3", python=python)
        assert messages(answer) == [
            "parses_into_dataclasses.py has no option --learnign_rate; the closest is --learning_rate"
        ]

    def test_arguments_that_the_script_rewrites_first(self, place: Place, python: str) -> None:
        answer = place.script("rewrites_dashes.py", "--tp_size", "two", "--pp_size", "1", python=python)
        assert messages(answer) == [
            "--tp_size: invalid int value 'two'",
            "rewrites_dashes.py has no option --pp_size; the closest is --tp-size",
        ]

    def test_actions_that_raise_or_exit(self, place: Place, python: str) -> None:
        answer = place.script(
            "has_actions_that_refuse.py",
            *("--tp_size", "3", "--list_models", "--workers", "x", "--version"),
            python=python,
        )
        assert messages(answer) == [
            "--tp_size: 3 is no power of two",
            "--list_models: gpt2, llama",
            "--workers: invalid int value 'x'",
            "--version only makes has_actions_that_refuse.py print something and stop; leave it out",
        ]

    def test_what_is_left_to_the_script_is_no_mistake(self, place: Place, python: str) -> None:
        answer = place.script("uses_parse_known_args.py", "--later", "1", "--dtype", "x", python=python)
        assert messages(answer) == [
            "--dtype: invalid choice 'x' (choose from float32, float16, bfloat16)",
            "--model_dir is required by uses_parse_known_args.py",
        ]
        assert isinstance(answer, Checked)
        assert answer.leftovers == ("--later", "1")

    def test_paths_that_do_not_exist_yet_are_no_mistake(
        self, place: Place, python: str, tmp_path: Path
    ) -> None:
        log = tmp_path / "run.log"
        log.write_text("kept")
        args = (
            *("--checkpoint_dir", "./c-model/gpt2", "--quant_config", "./quant.json"),
            *("--log_file", str(log), "--head_size", "3"),
        )
        assert messages(place.script("wants_existing_paths.py", *args, python=python)) == [
            "--head_size: 3 is not even"
        ]
        assert log.read_text() == "kept"
