"""Which program a step's command starts, told without starting it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trt_llm_pipeline.preflight.parser_check import NotChecked, _Program, _program

ENV = {"PATH": "/usr/bin:/bin"}


def program(*command: str, interpreter: str = "/opt/python3", env: dict[str, str] | None = None) -> _Program:
    found = _program(command, interpreter, env or ENV)
    assert isinstance(found, _Program), found
    return found


def refusal(*command: str) -> str:
    found = _program(command, "/opt/python3", ENV)
    assert isinstance(found, NotChecked), found
    return found.reason


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "build.py"
    path.touch()
    return path


def executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_script(script: Path) -> None:
    found = program("/opt/python3", str(script), "-m", "x")
    assert found == _Program(("/opt/python3",), "script", str(script), ("-m", "x"), "build.py")


def test_the_interpreters_own_options_are_kept(script: Path) -> None:
    found = program("/opt/python3", "-u", "-X", "utf8", "-Wignore", str(script), "--x")
    assert found.interpreter == ("/opt/python3", "-u", "-X", "utf8", "-Wignore")
    assert found.args == ("--x",)


def test_a_module() -> None:
    found = program("python3.10", "-m", "tensorrt_llm.commands.build", "--x")
    assert found == _Program(
        ("python3.10",), "module", "tensorrt_llm.commands.build", ("--x",), "tensorrt_llm.commands.build"
    )


@pytest.mark.parametrize("command", [["/opt/python3"], ["/opt/python3", "-c", "1"], ["/opt/python3", "-m"]])
def test_a_command_without_a_script(command: list[str]) -> None:
    assert refusal(*command) == "the command names no script, so no options can be asked for"


def test_an_interpreter_named_by_a_relative_path_is_found_from_anywhere(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(script.parent)
    assert program("bin/python3", "build.py").interpreter == (f"{script.parent}/bin/python3",)
    assert program("bin/python3", "build.py").target == str(script)


@pytest.mark.parametrize(
    ("first_lines", "interpreter"),
    [
        (f"#!{sys.executable}\n", (sys.executable,)),
        (f"#!{sys.executable} -E\n", (sys.executable, "-E")),
        (f"#!/usr/bin/env -S {sys.executable}\n", (sys.executable,)),
        (f"#!/bin/sh\n'''exec' {sys.executable} \"$0\" \"$@\"\n' '''\n", (sys.executable,)),
        (f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n", (sys.executable,)),
        ("#!/gone/bin/python3.10\n", ("/opt/python3",)),
    ],
)
def test_a_console_scripts_interpreter(
    tmp_path: Path, first_lines: str, interpreter: tuple[str, ...]
) -> None:
    path = executable(tmp_path / "trtllm-build", first_lines + "import sys\n")
    assert program(path, "--x") == _Program(interpreter, "script", path, ("--x",), "trtllm-build")


@pytest.mark.parametrize(
    "text", ["#!/bin/sh\nexec python3 x.py\n", "\x7fELF\x02", "", "#!\n", "import sys\n"]
)
def test_an_executable_that_is_not_python(tmp_path: Path, text: str) -> None:
    path = executable(tmp_path / "trtllm-build", text)
    assert refusal(path) == f"{path} is not a Python program, so its options cannot be asked for"


def test_an_executable_that_may_not_be_executed(tmp_path: Path) -> None:
    path = tmp_path / "trtllm-build"
    path.write_text(f"#!{sys.executable}\n")
    assert refusal(str(path)) == f"{path} was not found on PATH, so its options cannot be asked for"
