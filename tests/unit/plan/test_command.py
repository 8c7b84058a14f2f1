"""What a config's args become on a command line, and what the script's argparse makes of that."""

from __future__ import annotations

import argparse
import subprocess

import pytest

from trt_llm_pipeline.config import ArgValue
from trt_llm_pipeline.plan.command import RenderedArgs, argument_dirs, render, shell_line
from trt_llm_pipeline.workspace import Workspace


def argv(args: dict[str, ArgValue]) -> tuple[str, ...]:
    return render(args, str).argv


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, ()),
        ({"dtype": "float16"}, ("--dtype", "float16")),
        ({"flag": True}, ("--flag",)),
        ({"flag": False}, ()),
        ({"names": ["a", "b"]}, ("--names", "a", "b")),
        ({"names": []}, ("--names",)),
        (
            {"zero": "0", "half": "0.50", "small": "1e-3"},
            ("--zero", "0", "--half", "0.50", "--small", "1e-3"),
        ),
        ({"empty": ""}, ("--empty", "")),
        ({"offset": "-1"}, ("--offset=-1",)),
        ({"rest": "--x y"}, ("--rest=--x y",)),
        ({"offsets": ["-1"]}, ("--offsets=-1",)),
        ({"offsets": ["-1", "-.5"]}, ("--offsets", "-1", "-.5")),
        ({"-tp": "2"}, ("-tp", "2")),
        ({"-t": "-2"}, ("-t=-2",)),
        ({"--already": "x"}, ("--already", "x")),
        ({"in-file": "a b", "in_file": "$(id)"}, ("--in-file", "a b", "--in_file", "$(id)")),
    ],
)
def test_args_become_arguments_in_their_order(args: dict[str, ArgValue], expected: tuple[str, ...]) -> None:
    assert argv(args) == expected


def test_every_argument_knows_its_key_and_every_scalar_is_mapped() -> None:
    args: dict[str, ArgValue] = {"a": "x", "off": False, "b": True, "-c": ["y", "z"], "d": "minus"}
    rendered = render(args, lambda text: {"minus": "-1"}.get(text, text.upper()))
    assert rendered == RenderedArgs(
        ("--a", "X", "--b", "-c", "Y", "Z", "--d=-1"), ("a", "a", "b", "-c", "-c", "-c", "d")
    )


def test_argparse_reads_the_three_states_of_a_plugin_option() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--use_gpt_attention_plugin", nargs="?", const="bare", default="absent")
    states: list[dict[str, ArgValue]] = [
        {"use_gpt_attention_plugin": value} for value in (False, True, "float16", "")
    ]
    read = [parser.parse_args(argv(state)).use_gpt_attention_plugin for state in states]
    assert read == ["absent", "bare", "float16", ""]


def test_a_shell_reads_the_line_back() -> None:
    words = [
        "printf",
        "%s\\0",
        "",
        "a b",
        "'",
        '"',
        "$HOME",
        "`id`",
        "*",
        "~",
        "\\",
        "ü\n",
        "-n",
        "!x",
        ";",
        "#",
    ]
    done = subprocess.run(["bash", "-c", shell_line(words)], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words[2:]


def test_paths_that_arguments_name(workspace: Workspace) -> None:
    workspace.prepare()
    root = workspace.root
    (root / "real").mkdir()
    (root / "link").symlink_to("real")
    argv = [
        "--out-dir",
        "./c-model",
        "--x=sub/dir",
        str(root / "abs"),
        "link/x",
        "/etc",
        "..",
        ".",
        "",
        "a\0b",
    ]
    named = argument_dirs(workspace, argv)
    assert {str(path.relative_to(root)) for path in named} == {
        *("--out-dir", "c-model", "--x=sub/dir", "sub/dir", "abs", "real/x"),
    }
