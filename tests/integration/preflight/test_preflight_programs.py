"""Interpreters, console scripts and modules: whatever a step's command starts."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.integration.preflight.preflight_place import (
    SCRIPTS,
    TOOLCHAIN,
    Place,
    messages,
    place,
    python,
    reason,
)

# The fixtures are found by their names, which the tests that ask for them share.
# ruff: noqa: F401, F811


def test_a_script_that_is_not_python(place: Place, python: str, tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    script.write_text("import argparse\nif True\n    pass\n")
    assert reason(place.ask([python, str(script)], python=python)).startswith(
        "build.py is not valid Python for the interpreter that runs it: line 2: "
    )


def test_a_script_that_is_not_there(place: Place, python: str, tmp_path: Path) -> None:
    assert reason(place.ask([python, str(tmp_path / "absent.py")], python=python)) == (
        f"{tmp_path}/absent.py does not exist, so its options cannot be asked for"
    )


def test_an_interpreter_that_is_not_there(place: Place, tmp_path: Path) -> None:
    missing = str(tmp_path / "python3")
    answer = place.ask([missing, str(SCRIPTS / "behaves.py")], python=missing)
    assert reason(answer).startswith(f"behaves.py: {missing} could not be started: No such file")


class TestConsoleScripts:
    """Executables that are Python underneath, and modules."""

    WRONG = ("--gemm_plugn", "float16")
    SAID = "has no option --gemm_plugn; the closest is --gemm_plugin"

    def test_one_with_a_shebang(self, place: Place) -> None:
        executable = str(TOOLCHAIN / "bin" / "trtllm-build")
        answer = place.ask([executable, "--checkpoint_dir", "x", *self.WRONG], python=sys.executable)
        assert messages(answer) == [f"trtllm-build {self.SAID}"]

    def test_one_that_is_found_on_path(self, place: Place) -> None:
        place.env["PATH"] = f"{TOOLCHAIN / 'bin'}:{place.env['PATH']}"
        answer = place.ask(["trtllm-build", *self.WRONG], python=sys.executable)
        assert messages(answer) == [
            f"trtllm-build {self.SAID}",
            "--checkpoint_dir is required by trtllm-build",
        ]

    def test_one_given_to_the_interpreter(self, place: Place, python: str) -> None:
        executable = str(TOOLCHAIN / "bin" / "trtllm-build")
        answer = place.ask([python, executable, "--checkpoint_dir", "x", *self.WRONG], python=python)
        assert messages(answer) == [f"trtllm-build {self.SAID}"]

    def test_one_whose_interpreters_path_is_too_long_for_a_shebang(
        self, place: Place, tmp_path: Path
    ) -> None:
        executable = tmp_path / "trtllm-build"
        body = "import sys\nfrom compiler.build import main\nsys.exit(main())\n"
        executable.write_text(f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n{body}")
        executable.chmod(0o755)
        answer = place.ask([str(executable), "--checkpoint_dir", "x", *self.WRONG], python="/absent/python")
        assert messages(answer) == [f"trtllm-build {self.SAID}"]

    def test_one_whose_interpreter_is_gone(self, place: Place, python: str, tmp_path: Path) -> None:
        executable = tmp_path / "trtllm-build"
        executable.write_text("#!/gone/python3\nfrom compiler.build import main\nmain()\n")
        executable.chmod(0o755)
        answer = place.ask([str(executable), "--checkpoint_dir", "x", *self.WRONG], python=python)
        assert messages(answer) == [f"trtllm-build {self.SAID}"]

    def test_a_module(self, place: Place, python: str) -> None:
        command = [python, "-m", "compiler.build", "--checkpoint_dir", "x", *self.WRONG]
        assert messages(place.ask(command, python=python)) == [f"compiler.build {self.SAID}"]

    def test_a_module_that_is_not_there(self, place: Place, python: str) -> None:
        command = [python, "-m", "tensorrt_llm.commands.build", "--checkpoint_dir", "x"]
        assert reason(place.ask(command, python=python)) == (
            "tensorrt_llm.commands.build cannot be imported on this machine: "
            "ModuleNotFoundError: No module named 'tensorrt_llm.commands.build'"
        )

    def test_one_that_is_not_python(self, place: Place, python: str) -> None:
        executable = str(TOOLCHAIN / "bin" / "native-build")
        assert reason(place.ask([executable, "--x"], python=python)) == (
            f"{executable} is not a Python program, so its options cannot be asked for"
        )

    def test_one_that_is_not_there(self, place: Place, python: str) -> None:
        assert reason(place.ask(["absent-build", "--x"], python=python)) == (
            "absent-build was not found on PATH, so its options cannot be asked for"
        )
