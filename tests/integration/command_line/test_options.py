"""Options that every command line has, and those that change what a config says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import trt_llm_pipeline
from tests.conftest import MODEL_ID, ROOT
from tests.integration.conftest import TOOLCHAIN
from trt_llm_pipeline.cli import app
from trt_llm_pipeline.testing.hub import HubServer

COMMAND = Path(sys.executable).with_name("trt-llm-pipeline")
QUICK_START = str(ROOT / "examples" / "gpt" / "config.yaml")


@pytest.fixture
def env(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    place = str(tmp_path / "ws")
    return {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": place}


def run(env: dict[str, str], *arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, env=env, input=text)


def test_version() -> None:
    done = run({}, "--version")
    assert (done.exit_code, done.stdout) == (0, f"trt-llm-pipeline {trt_llm_pipeline.__version__}\n")


@pytest.mark.parametrize("command", [[], ["build"], ["cache"], ["cache", "lookup"], ["fleet", "run"]])
def test_short_help_is_the_long_one(command: list[str]) -> None:
    short, long = run({}, *command, "-h"), run({}, *command, "--help")
    assert (short.exit_code, short.stdout) == (0, long.stdout)
    assert "Usage: " in short.stdout


def test_a_shell_is_given_the_commands_that_begin_so() -> None:
    asked = {
        "_TRT_LLM_PIPELINE_COMPLETE": "complete_bash",
        "COMP_WORDS": "trt-llm-pipeline va",
        "COMP_CWORD": "1",
    }
    done = subprocess.run([COMMAND], env=asked, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["validate"]
    assert "--install-completion" in run({}, "--help").stdout


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("-h", 0), ("--fast", 2)])
def test_the_demo_says_what_it_does_and_does_it_only_when_asked_for_nothing_else(
    argument: str, code: int
) -> None:
    done = subprocess.run([ROOT / "script" / "demo", argument], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "Cog server" in done.stdout) == (code, False)
    assert ("usage: script/demo" in done.stdout) == (code == 0)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["build", "--json", "--drry"], "NoSuchOption", "--drry"),
        (["build", "--json"], "MissingParameter", "CONFIG"),
        (["buidl", "--json"], "UsageError", "buidl"),
        (
            ["submit", QUICK_START, "--to", "http://127.0.0.1:9", "--input", "x", "--json"],
            "BadParameter",
            "'x'",
        ),
        (["cache", "lookup", "--json"], "MissingParameter", "CONFIG"),
    ],
)
def test_a_mistyped_command_is_told_of_in_json(arguments: list[str], kind: str, said: str) -> None:
    done = run({}, *arguments)
    assert (done.exit_code, done.stderr) == (2, "")
    told = json.loads(done.stdout)
    assert (told["type"], told["kind"]) == (kind, "config")
    assert said in told["error"]
    assert told["usage"].startswith("Usage: ")
    plain = run({}, *(argument for argument in arguments if argument != "--json"))
    assert (plain.exit_code, plain.stdout) == (2, "")


def test_json_of_a_command_that_ends_well_is_as_ever(env: dict[str, str]) -> None:
    done = run(env, "validate", QUICK_START, "--json")
    assert (done.exit_code, json.loads(done.stdout)["valid"]) == (0, True)


class TestValidate:
    """Several files, and none."""

    def test_every_file_has_its_answer_and_one_mistake_is_enough(
        self, env: dict[str, str], tmp_path: Path
    ) -> None:
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text("model_id: a\n")
        done = run(env, "validate", QUICK_START, str(wrong), QUICK_START)
        assert done.exit_code == 2
        assert done.stdout.count("config.yaml: OK for cpu toolchain (build.py of ") == 2
        assert done.stdout.count(f"{QUICK_START}: OK") == done.stdout.count("config.yaml: OK")  # as typed
        assert "wrong.yaml" in done.stderr
        told = json.loads(run(env, "validate", QUICK_START, str(wrong), "--json").stdout)
        assert [(each["config"], each["valid"]) for each in told] == [
            (QUICK_START, True),
            (str(wrong), False),
        ]
        assert told[0]["checked"]["script"] == "build.py"
        assert told[1]["kind"] == "config"

    def test_stdin(self, env: dict[str, str]) -> None:
        text = Path(QUICK_START).read_text()
        done = run(env, "validate", "-", text=text)
        assert (done.exit_code, done.stdout.partition(":")[0]) == (0, "stdin")
        assert "stdin:2: " in run(env, "validate", "-", text="model_id: [\n").stderr

    def test_a_value_that_is_given_is_checked_by_the_script(self, env: dict[str, str]) -> None:
        done = run(env, "validate", QUICK_START, "--set", "build.args.max_batch_size=many")
        assert done.exit_code == 2
        said = "--set: build.args.max_batch_size: --max_batch_size: invalid int value 'many'"
        assert said in done.stderr


def test_plan_shows_what_is_given(env: dict[str, str]) -> None:
    done = run(env, "plan", QUICK_START, "--set", "build.args.max_batch_size=16")
    assert done.exit_code == 0, done.stderr
    assert "--max_batch_size 16" in done.stdout
    assert "OK for cpu toolchain (build.py of 0.5.0 and 0.7.1): 2 steps, 9 options" in done.stdout


def test_plan_calls_steps_and_directories_as_the_config_does(env: dict[str, str]) -> None:
    text = Path(QUICK_START).read_text().replace("convert_to_ft:", "convert_checkpoint:")
    found = text.replace("  output_dir: ./c-model/gpt2/1-gpu\n", "").replace(
        "model_dir: ./c-model/gpt2/1-gpu", "model_dir: ${convert_checkpoint.output_dir}"
    )
    done = run(env, "plan", "-", text=found)
    assert done.exit_code == 0, done.stderr
    assert "step convert_checkpoint\n" in done.stdout
    assert "--model_dir '${convert_checkpoint.output_dir}'" in done.stdout
    assert "to-be-found" not in done.stdout
    assert "convert_to_ft" not in done.stdout


class TestBuild:
    """What is given goes into the engine and into the record of it."""

    @pytest.mark.slow
    def test_given_values_output_cache_and_hub(
        self, env: dict[str, str], hub: HubServer, tmp_path: Path
    ) -> None:
        output = tmp_path / "mine.tar.gz"
        given = ["--set", "build.args.max_batch_size=3", "--set", "check=off"]
        done = run(env, "build", QUICK_START, *given, "--output", str(output), "--json")
        assert done.exit_code == 0, done.stderr
        record = json.loads(done.stdout)
        assert record["output"] == str(output)
        with tarfile.open(output) as tar:
            config = json.load(tar.extractfile("config.json"))  # type: ignore[arg-type]
            written = tar.extractfile("cog-trt-llm-config.yaml").read().decode()  # type: ignore[union-attr]
        assert config["builder_config"]["max_batch_size"] == 3
        assert "max_batch_size: '3'" in written
        assert run(env, "verify", str(output)).exit_code == 0

        again = json.loads(run(env, "build", QUICK_START, *given, "--no-cache", "--json").stdout)
        assert not any(step["cached"] for step in again["steps"])
        assert "answered_from" not in again
        assert again["key"] is None

        hub.clear_requests()
        offline = run(env, "build", QUICK_START, *given, "--offline")
        assert offline.exit_code == 0, offline.stderr
        assert not hub.requests

    def test_offline_without_the_model_is_the_model_s_source(self, env: dict[str, str]) -> None:
        done = run(env, "build", QUICK_START, "--offline", "--json")
        assert done.exit_code == 3
        told = json.loads(done.stdout)["error"]
        assert MODEL_ID in told
        assert "Leave out --offline" in told

    def test_a_workspace_that_cannot_be_made_is_told_of_by_its_option(self, env: dict[str, str]) -> None:
        done = run(env, "build", QUICK_START, "--workspace", "/proc/none")
        assert done.exit_code == 1
        assert "/proc/none cannot be made: " in done.stderr
        assert "choose another with --workspace or TRT_LLM_WORKSPACE" in done.stderr

    @pytest.mark.parametrize(
        "command", [["validate"], ["plan"], ["build"], ["cache", "lookup"]], ids=lambda words: words[-1]
    )
    def test_a_file_where_the_workspace_is_to_be_is_told_of_by_all(
        self, env: dict[str, str], tmp_path: Path, command: list[str]
    ) -> None:
        (tmp_path / "mine").write_text("mine")
        place = tmp_path / "mine" / "workspace"
        done = run({**env, "TRT_LLM_WORKSPACE": str(place)}, *command, QUICK_START)
        assert done.exit_code == 1
        assert f"{place} cannot be made: {tmp_path / 'mine'} is no directory; choose another" in done.stderr

    @pytest.mark.parametrize(
        ("output", "said"),
        [("no/such/engine.tar.gz", "has no directory to lie in"), (".", "is a directory; name a file in it")],
    )
    def test_an_output_that_cannot_be_is_said_before_the_build(
        self, env: dict[str, str], tmp_path: Path, output: str, said: str
    ) -> None:
        done = run(env, "build", QUICK_START, "--output", str(tmp_path / output))
        assert done.exit_code == 2
        assert said in done.stderr
        assert not (tmp_path / "ws").exists()

    def test_what_runs_no_python_is_not_taken_for_the_toolchains(self, env: dict[str, str]) -> None:
        done = run({**env, "TRTLLM_PYTHON": "/bin/ls"}, "validate", QUICK_START)
        assert done.exit_code == 1
        assert "TRTLLM_PYTHON is /bin/ls, which runs no Python script: hf_gpt_convert.py ended" in done.stderr

    @pytest.mark.parametrize("command", [["build"], ["submit", "--to", "http://127.0.0.1:9"]])
    def test_a_file_that_is_no_archive_is_not_replaced(
        self, env: dict[str, str], tmp_path: Path, command: list[str]
    ) -> None:
        config = tmp_path / "config.yaml"
        shutil.copy(QUICK_START, config)
        text = config.read_text()
        done = run(env, *command, str(config), "--output", str(config))
        assert done.exit_code == 2
        assert f"the output {config} is there already and is no archive" in done.stderr
        assert config.read_text() == text


@pytest.mark.parametrize("command", [[], ["builds"], ["cache"], ["fleet"]])
def test_a_list_of_commands_is_not_cut_off(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], terminal_width=80).stdout
    commands = shown.partition("Commands:")[2].strip().splitlines()
    assert commands
    assert not [line for line in commands if line.endswith("...") or len(line) > 80]
