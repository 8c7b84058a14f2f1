"""A run.py is asked in its own words: by the options that its parser has, whatever the release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from trt_llm_pipeline.check.options import CannotAskError, dialect


@dataclass(frozen=True)
class Known:
    """An option as the parser's probe tells it."""

    strings: tuple[str, ...]
    required: bool = False
    nargs: str | None = None


# What the releases' parsers have, as far as it matters here.
V0_5_GPT = [
    Known(("--max_output_len",), required=True),
    Known(("--log_level",)),
    Known(("--engine_dir",)),
    Known(("--input_text",)),
    Known(("--input_tokens",)),
    Known(("--output_csv",)),
    Known(("--output_npy",)),
    Known(("--tokenizer",)),
    Known(("--num_beams",)),
]
V0_7_1 = [
    Known(("--max_output_len",), required=True),
    Known(("--engine_dir",)),
    Known(("--input_text",), nargs="+"),
    Known(("--no_prompt_template",), nargs="0"),
    Known(("--input_file",)),
    Known(("--max_input_length",)),
    Known(("--output_csv",)),
    Known(("--output_npy",)),
    Known(("--tokenizer_dir",)),
    Known(("--num_beams",)),
    Known(("--temperature",)),
    Known(("--top_k",)),
]
# From 0.16 the template is off unless it is asked for.
V0_16 = [option for option in V0_7_1 if option.strings != ("--no_prompt_template",)] + [
    Known(("--use_prompt_template",), nargs="0")
]


def words(options: list[Known], *prompts: str) -> list[str]:
    found = dialect(options, "run.py")
    return found.argv(Path("/e"), prompts, tokens=16, input_length=100, output=Path("/out/tokens"))


def test_0_5() -> None:
    said = words(V0_5_GPT, "Once upon")
    assert said[:6] == ["--engine_dir", "/e", "--tokenizer", "/e", "--max_output_len", "16"]
    assert said[6:] == ["--num_beams", "1", "--output_csv", "/out/tokens.csv", "--input_text=Once upon"]
    assert not dialect(V0_5_GPT, "run.py").several


def test_0_7_1() -> None:
    said = words(V0_7_1, "a b", "c")
    assert said[:4] == ["--engine_dir", "/e", "--tokenizer_dir", "/e"]
    assert "--no_prompt_template" in said
    assert said[said.index("--max_input_length") + 1] == "100"
    assert said[-3:] == ["--input_text", "a b", "c"]


def test_0_16() -> None:
    said = words(V0_16, "a")
    assert "--no_prompt_template" not in said
    assert "--use_prompt_template" not in said


def test_numpy_where_there_is_no_csv() -> None:
    without = [option for option in V0_7_1 if option.strings != ("--output_csv",)]
    assert dialect(without, "run.py").output == ("--output_npy", ".npy")


def test_texts_where_there_is_neither() -> None:
    without = [option for option in V0_7_1 if not option.strings[0].startswith("--output_")]
    said = dialect(without, "run.py")
    assert said.output is None
    assert "/out/tokens" not in " ".join(
        said.argv(Path("/e"), ["a"], tokens=1, input_length=None, output=Path("/out/tokens"))
    )


@pytest.mark.parametrize("missing", ["--engine_dir", "--tokenizer_dir", "--input_text", "--max_output_len"])
def test_what_is_needed_must_be_there(missing: str) -> None:
    rest = [option for option in V0_7_1 if option.strings != (missing,)]
    with pytest.raises(CannotAskError, match=rf"run\.py has no option for .*{missing}"):
        dialect(rest, "run.py")


def test_an_unknown_option_that_it_insists_on() -> None:
    with pytest.raises(CannotAskError, match=r"run\.py insists on --audio"):
        dialect([*V0_7_1, Known(("--audio",), required=True)], "run.py")
