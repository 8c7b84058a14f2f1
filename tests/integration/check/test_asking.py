"""Run scripts of every kind are asked in real processes: old and new, one rank or two, good and misbehaving.

The scripts stand for TensorRT-LLM's, which need a GPU; their parsers are cut to what matters here.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from trt_llm_pipeline.check.asking import PROGRAMS, Asker, NoAnswerError, ask_dialect, find_script
from trt_llm_pipeline.check.limits import Limits
from trt_llm_pipeline.check.options import CannotAskError
from trt_llm_pipeline.check.supervised import Supervision, environment, sandbox
from trt_llm_pipeline.preflight.parser_check import NotChecked, OptionFacts, probe
from trt_llm_pipeline.process import Policy, find_layers
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.testing import tiny_text
from trt_llm_pipeline.toolchain import Toolchain

TOKEN = "hf_a_token_of_somebody"

_COMMON = """
import argparse, csv, os, sys, time
from tokenizers import Tokenizer
parser = argparse.ArgumentParser()
parser.add_argument("--max_output_len", type=int, required=True)
parser.add_argument("--engine_dir", default="engine_outputs")
"""
#: As in 0.5: one text, the tokenizer's option has another name, ids or texts.
V0_5 = f"""{_COMMON}
parser.add_argument("--input_text", default="Born in")
parser.add_argument("--tokenizer", default="gpt2")
parser.add_argument("--output_csv")
parser.add_argument("--output_npy")
args = parser.parse_args()
tokenizer = Tokenizer.from_file(args.tokenizer + "/tokenizer.json")
ids = tokenizer.encode(args.input_text).ids
with open(args.output_csv, "w") as file:
    csv.writer(file).writerow(ids + tokenizer.encode(" is a model").ids + [0] * 8)
"""
#: As from 0.7 on: several texts.
V0_7 = f"""{_COMMON}
parser.add_argument("--input_text", nargs="+", default=["Born in"])
parser.add_argument("--no_prompt_template", action="store_true")
parser.add_argument("--max_input_length", type=int, default=923)
parser.add_argument("--tokenizer_dir")
parser.add_argument("--output_csv")
args = parser.parse_args()
assert args.no_prompt_template
tokenizer = Tokenizer.from_file(args.tokenizer_dir + "/tokenizer.json")
rows = [tokenizer.encode(text).ids[: args.max_input_length] for text in args.input_text]
rows = [row + tokenizer.encode(f" {{len(row)}} parts").ids for row in rows]
if os.environ.get("RANK", "0") == "0":
    with open(args.output_csv, "w") as file:
        csv.writer(file).writerows(row + [0] * (64 - len(row)) for row in rows)
"""
TEXTS_ONLY = f"""{_COMMON}
parser.add_argument("--input_text", nargs="+")
parser.add_argument("--tokenizer_dir")
args = parser.parse_args()
for number, text in enumerate(args.input_text):
    print(f'Input [Text {{number}}]: "{{text}}"')
    print(f'Output [Text {{number}} Beam 0]: " and so on"')
"""
_PARSER = """import argparse, sys, time
parser = argparse.ArgumentParser()
for name in ("--engine_dir", "--tokenizer_dir", "--input_text", "--max_output_len", "--output_csv"):
    parser.add_argument(name)
args = parser.parse_args()
"""
MISBEHAVING = {
    "fails": ("print('CUDA out of memory'); sys.exit(3)", r"run\.py exited with code 3"),
    "hangs": ("time.sleep(600)", r"run\.py did not answer within \d[\d.]* s"),
    "writes nothing": ("", r"run\.py exited 0, but tokens-1\.csv cannot be read"),
    "writes something else": (
        "open(args.output_csv, 'w').write('oops\\n')",
        "holds something else than rows",
    ),
    "answers too often": ("open(args.output_csv, 'w').write('1\\n1\\n')", "given 1 prompts and answered 2"),
}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    folder.mkdir()
    tiny_text.write_gpt2_tokenizer(folder, 512, positions=64)
    return folder


def asker(tmp_path: Path, engine: Path, script: str, *, timeout: float = 120, **changes: object) -> Asker:
    """Asks a script by its own parser, as the stage does."""
    example = tmp_path / "toolchain" / "examples" / "gpt"
    example.mkdir(parents=True)
    (example / "run.py").write_text(script)
    tools = Toolchain(example.parents[1], "tensorrt_llm", "0.7.1", ("0.7.1",), sys.executable, "for a test")
    scratch = tmp_path / "scratch"
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HF_TOKEN": TOKEN}
    layers = find_layers(Policy())
    supervision = Supervision(
        cwd=scratch,
        env=environment(env, layers, scratch),
        sandbox=sandbox(layers, tools, env, scratch, shown=[engine, PROGRAMS]),
        redactor=Redactor([TOKEN]),
        log_file=tmp_path / "check.log",
        timeout=timeout,
        lock=lambda: nullcontext(os.open(os.devnull, os.O_RDONLY)),
        each_second=lambda _usage: None,
    )

    def options(command: list[str]) -> tuple[OptionFacts, ...] | str:
        told = probe(command, interpreter=tools.python, toolchain_root=tools.root, env=env)
        return told.reason if isinstance(told, NotChecked) else told.options

    found = find_script(tools, example)
    dialect = ask_dialect(tools, found, options)
    limits = Limits(batch_size=8, input_len=40, output_len=16, vocab_size=512, precision="float16")
    made = Asker(tools, found, dialect, engine, 1, limits, supervision.run, scratch, env["PATH"])
    return replace(made, **changes)


def test_one_text_at_a_time_as_in_0_5(tmp_path: Path, engine: Path) -> None:
    answers = asker(tmp_path, engine, V0_5).ask(["An engine is", "The wind"])
    assert [answer.text for answer in answers] == [" is a model", " is a model"]
    assert (tmp_path / "check.log").read_text().count("--input_text=") == 2


def test_all_texts_at_once_as_from_0_7_on(tmp_path: Path, engine: Path) -> None:
    answers = asker(tmp_path, engine, V0_7).ask(["An engine is", "The wind"])
    counts = [len(answer.prompt_tokens or ()) for answer in answers]
    assert [answer.text for answer in answers] == [f" {count} parts" for count in counts]
    assert all(answer.tokens and answer.tokens[-1] == 0 for answer in answers)  # it ended
    assert [answer.cut for answer in answers] == [0, 0]
    assert (tmp_path / "check.log").read_text().count("/run.py ") == 1


def test_a_prompt_that_looks_like_an_option(tmp_path: Path, engine: Path) -> None:
    answers = asker(tmp_path, engine, V0_7).ask(["--help me", "The wind"])
    assert [answer.prompt for answer in answers] == ["--help me", "The wind"]
    assert all(answer.text.endswith(" parts") for answer in answers)


def test_as_many_at_once_as_the_engine_takes(tmp_path: Path, engine: Path) -> None:
    asked = asker(tmp_path, engine, V0_7)
    asked = replace(asked, limits=replace(asked.limits, batch_size=2))
    assert len(asked.ask(["a", "b", "c"])) == 3
    assert (tmp_path / "check.log").read_text().count("/run.py ") == 2


def test_a_prompt_that_is_too_long_is_cut(tmp_path: Path, engine: Path) -> None:
    (answer,) = asker(tmp_path, engine, V0_7).ask(["The wind turned to the north. " * 20])
    assert answer.prompt_tokens is not None
    assert len(answer.prompt_tokens) == 40
    assert answer.cut > 0
    assert answer.text == " 40 parts"


def test_texts_where_ids_are_not_told(tmp_path: Path, engine: Path) -> None:
    answers = asker(tmp_path, engine, TEXTS_ONLY).ask(["a", "b"])
    assert [(answer.tokens, answer.text) for answer in answers] == [(None, " and so on")] * 2


def test_two_ranks_run_below_mpirun(tmp_path: Path, engine: Path) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    mpirun = bin_dir / "mpirun"
    mpirun.write_text('#!/bin/sh\n[ "$1 $2" = "-n 2" ] || exit 9\nshift 2\nRANK=1 "$@" && RANK=0 "$@"\n')
    mpirun.chmod(mpirun.stat().st_mode | stat.S_IXUSR)
    asked = asker(tmp_path, engine, V0_7, world_size=2, search_path=str(bin_dir))
    assert asked.ask(["The wind"])[0].text.endswith(" parts")
    assert f"$ {mpirun} -n 2 " in (tmp_path / "check.log").read_text()


def test_two_ranks_without_mpirun_cannot_be_asked(tmp_path: Path, engine: Path) -> None:
    asked = asker(tmp_path, engine, V0_7, world_size=2, search_path=str(tmp_path))
    with pytest.raises(CannotAskError, match="2 ranks needs mpirun, which is not on PATH"):
        asked.ask(["The wind"])


@pytest.mark.parametrize("how", MISBEHAVING)
def test_a_run_script_that_misbehaves(tmp_path: Path, engine: Path, how: str) -> None:
    body, message = MISBEHAVING[how]
    timeout = 5 if how == "hangs" else 120
    with pytest.raises(NoAnswerError, match=message) as caught:
        asker(tmp_path, engine, _PARSER + body, timeout=timeout).ask(["The wind"])
    if how == "fails":
        assert caught.value.tail == ("CUDA out of memory",)


def test_a_script_that_cannot_be_imported_cannot_be_asked(tmp_path: Path, engine: Path) -> None:
    with pytest.raises(
        CannotAskError, match=r"the options of run\.py could not be asked for: .*no_such_module"
    ):
        asker(tmp_path, engine, f"import no_such_module\n{_PARSER}")


def test_it_gets_no_token_and_no_network_libraries(tmp_path: Path, engine: Path) -> None:
    tell = 'print("token", os.environ.get("HF_TOKEN"), os.environ["HF_HUB_OFFLINE"])\n'
    asker(tmp_path, engine, TEXTS_ONLY + tell).ask(["a"])
    assert "token None 1" in (tmp_path / "check.log").read_text()


def test_it_writes_its_scratch_directory_and_nothing_else(tmp_path: Path, engine: Path) -> None:
    if not find_layers(Policy()).files:
        pytest.skip("this kernel can hold no layer of the sandbox that is about files")
    tell = f"""
for place in ("here", {str(tmp_path / "elsewhere")!r}, {str(engine / "config.json")!r}):
    try:
        open(place, "w")
        print("wrote", place)
    except OSError as error:
        print("kept from", place)
"""
    asker(tmp_path, engine, TEXTS_ONLY + tell).ask(["a"])
    log = (tmp_path / "check.log").read_text()
    assert "wrote here" in log
    assert f"kept from {tmp_path / 'elsewhere'}" in log
    assert f"kept from {engine / 'config.json'}" in log


def test_a_token_that_it_finds_is_not_shown(tmp_path: Path, engine: Path) -> None:
    asker(tmp_path, engine, TEXTS_ONLY + f'print("found {TOKEN}")\n').ask(["a"])
    log = (tmp_path / "check.log").read_text()
    assert TOKEN not in log
    assert "found [secret]" in log
