"""A script that misbehaves is stopped in its parser, or says why it cannot be asked."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.preflight.preflight_place import (
    GOOD,
    SCRIPTS,
    Place,
    messages,
    place,
    python,
    reason,
)
from trt_llm_pipeline.preflight import parser_check
from trt_llm_pipeline.preflight.parser_check import Checked

# The fixtures are found by their names, which the tests that ask for them share.
# ruff: noqa: F401, F811


# Scripts that reach their parser, with arguments that they accept.
REACHES_ITS_PARSER = {
    "behaves.py": GOOD,
    "parses_at_import.py": GOOD,
    "imports_a_module_that_parses.py": GOOD,
    "adds_options_in_a_loop.py": (*GOOD, "--paged_kv_cache", "enable"),
    "uses_parse_intermixed_args.py": ("build", "1", "--tp_size", "2", "3"),
    "has_subcommands.py": ("--log_level", "info", "build", "--checkpoint_dir", "x", "--workers", "2"),
    "excludes_options.py": ("--use_smooth_quant", "--ft_model_dir", "x"),
    "overrides_error.py": ("--tp_size", "2"),
    "parses_into_dataclasses.py": ("--learning_rate", "1e-3"),
    "rewrites_dashes.py": ("--tp_size", "2"),
    "has_actions_that_refuse.py": ("--tp_size", "4", "--workers", "2"),
    "imports_a_library_that_parses_its_defaults.py": GOOD,
    "prints_before_parsing.py": GOOD,
    "forks_before_parsing.py": GOOD,
    "spawns_workers_before_parsing.py": GOOD,
    "starts_threads_before_parsing.py": GOOD,
    "catches_everything.py": GOOD,
    "imports_a_module_that_starts_a_monitor.py": GOOD,
    "writes_files_before_parsing.py": GOOD,
}


@pytest.mark.parametrize("script", REACHES_ITS_PARSER)
def test_a_script_is_stopped_in_its_parser(place: Place, python: str, script: str) -> None:
    answer = place.script(script, *REACHES_ITS_PARSER[script], python=python)
    assert messages(answer) == []
    assert isinstance(answer, Checked)
    assert answer.leftovers == ()
    assert len(answer.options) > 1


# Without it, a script that could do no work would pass for one that was held back.
@pytest.mark.slow
@pytest.mark.parametrize(
    "script", sorted({*REACHES_ITS_PARSER} - {"imports_a_module_that_starts_a_monitor.py"})
)
def test_the_same_script_does_its_work_when_it_is_not_checked(tmp_path: Path, script: str) -> None:
    place = Place(tmp_path)
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    place.env["TMPDIR"] = str(place.scratch)
    subprocess.run(
        [sys.executable, "-B", str(SCRIPTS / script), *REACHES_ITS_PARSER[script]],
        cwd=cwd,
        env=place.env,
        capture_output=True,
        check=False,
    )
    assert place.work_mark.exists()


def test_the_parsers_options_are_reported(place: Place, python: str) -> None:
    answer = place.script("behaves.py", *GOOD, python=python)
    assert isinstance(answer, Checked)
    facts = {option.name: option for option in answer.options}
    assert facts["--out-dir"].strings == ("--out-dir", "-o")
    assert facts["--model_dir"].required
    assert facts["--dtype"].choices == ("float32", "float16", "bfloat16")
    assert facts["--max_batch_size"].type == "int"
    assert facts["--use_gemm_plugin"].nargs == "?"
    assert facts["--remove_input_padding"].nargs == "0"


# Scripts that cannot be asked, and why.
CANNOT_BE_ASKED = {
    "reads_argv_by_hand.py": (
        "reads_argv_by_hand.py has no argparse parser, so its options cannot be asked for"
    ),
    "parses_a_list_of_its_own.py": (
        "parses_a_list_of_its_own.py parses other arguments than those of its command line"
    ),
    "exits_before_parsing.py": "exits_before_parsing.py exited with code 3 before it read its options",
    "exits_with_a_message_before_parsing.py": (
        "exits_with_a_message_before_parsing.py exited with code 1 before it read its options: needs a GPU"
    ),
    "ends_before_parsing.py": "ends_before_parsing.py ended without reading its options",
    "misses_an_import.py": (
        "misses_an_import.py cannot be imported on this machine: "
        "ModuleNotFoundError: No module named 'tensorrt_llm_of_another_machine'"
    ),
    "raises_before_parsing.py": (
        "raises_before_parsing.py stopped before it read its options: RuntimeError: no GPU for [secret]"
    ),
    "is_killed_before_parsing.py": (
        "is_killed_before_parsing.py was ended by SIGSEGV before it read its options"
    ),
    "leaves_by_the_back_door.py": (
        "leaves_by_the_back_door.py ended with code 7 before it read its options: license server not reached"
    ),
    "has_a_parser_that_breaks.py": (
        "has_a_parser_that_breaks.py: its parser failed: KeyError: 'plugin_config'"
    ),
    "writes_beside_itself.py": (
        f"writes_beside_itself.py tried to write {SCRIPTS}/started.log before it read its options, "
        "which a check does not allow"
    ),
    "removes_a_file_before_parsing.py": (
        f"removes_a_file_before_parsing.py tried to change {SCRIPTS}/work.py before it read its options, "
        "which a check does not allow"
    ),
    "connects_before_parsing.py": (
        "connects_before_parsing.py tried to connect to 127.0.0.1 before it read its options, "
        "which a check does not allow"
    ),
    "runs_a_program_before_parsing.py": (
        "runs_a_program_before_parsing.py tried to start touch before it read its options, "
        "which a check does not allow"
    ),
}


@pytest.mark.parametrize("script", CANNOT_BE_ASKED)
def test_a_script_that_cannot_be_asked_says_why(place: Place, python: str, script: str) -> None:
    assert reason(place.script(script, *GOOD, python=python)) == CANNOT_BE_ASKED[script]


def test_a_script_that_starts_itself_again_is_held_back(place: Place, python: str) -> None:
    assert reason(place.script("starts_itself_again.py", *GOOD, python=python)) == (
        f"starts_itself_again.py tried to become {python} before it read its options, "
        "which a check does not allow"
    )


def test_a_script_that_never_parses_is_ended_at_the_time_limit(place: Place, python: str) -> None:
    answer = place.script("never_parses.py", *GOOD, python=python, time_limit=0.6)
    assert reason(answer) == "never_parses.py did not read its options within 0.6 s"


@pytest.mark.parametrize(
    "script", ["reads_options_with_click.py", "reads_options_with_click_beside_argparse.py"]
)
def test_another_library_for_options_is_named(place: Place, script: str) -> None:
    answer = place.script(script, "--model_dir", "x", python=sys.executable)
    assert reason(answer) == f"{script} reads its options with click, which cannot be asked"


def test_the_service_lends_the_script_no_modules(place: Place, python: str, tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    script.write_text("import argparse\nimport preflight_messages\nargparse.ArgumentParser().parse_args()\n")
    assert reason(place.ask([python, str(script)], python=python)) == (
        "build.py cannot be imported on this machine: "
        "ModuleNotFoundError: No module named 'preflight_messages'"
    )


def test_a_source_tree_does_not_hide_the_installed_package(place: Place, python: str, tmp_path: Path) -> None:
    root, installed = tmp_path / "root", tmp_path / "installed"
    for folder, option in ((root, "--source"), (installed, "--installed")):
        folder.mkdir()
        (folder / "tensorrt_llm_like.py").write_text(f"OPTION = {option!r}\n")
    script = tmp_path / "build.py"
    script.write_text(
        "import argparse\nfrom tensorrt_llm_like import OPTION\n"
        "parser = argparse.ArgumentParser()\nparser.add_argument(OPTION)\nparser.parse_args()\n"
    )
    answer = parser_check.probe(
        [python, str(script), "--installed", "x"],
        interpreter=python,
        toolchain_root=root,
        env=place.env,
        python_path=[installed],
        scratch=place.scratch,
    )
    assert messages(answer) == []


def test_several_threads_may_ask_at_once(place: Place) -> None:
    def ask(number: int) -> list[str]:
        return messages(place.script("behaves.py", *GOOD, f"--layers{number}", "1", python=sys.executable))

    calls: list[Callable[[], list[str]]] = [functools.partial(ask, number) for number in range(4)]
    with ThreadPoolExecutor(2) as pool:
        said = [future.result() for future in [pool.submit(call) for call in calls]]
    assert said == [[f"behaves.py has no option --layers{n}; the closest is --layers"] for n in range(4)]
