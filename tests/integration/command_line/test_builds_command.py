"""`trt-llm-pipeline builds`: what earlier builds have left, listed, shown, read and opened."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.conftest import MODEL_ID
from tests.integration.conftest import TOOLCHAIN
from tests.screen import Screen
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.cli.commands import app
from trt_llm_pipeline.errors import TrtLlmPipelineError
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT
from trt_llm_pipeline.workspace import Workspace
from trt_llm_pipeline.workspace.builds import new_build_id

COMMAND = Path(sys.executable).with_name("trt-llm-pipeline")
QUICK_START = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> Settings:
    """A workspace where one build has succeeded; then five were mistyped, and one step has failed."""
    env = {
        "HF_ENDPOINT": hub.url,
        "TRTLLM_DIR": str(TOOLCHAIN),
        "TRT_LLM_WORKSPACE": str(tmp_path_factory.mktemp("ws")),
        "PATH": "/usr/bin:/bin",
    }
    made = replace(Settings.from_env(env), keep_builds=3)
    typos = [QUICK_START.replace(MODEL_ID, f"nobody/typo-{number}") for number in range(5)]
    wrong_place = QUICK_START.replace("  output_dir: ./engine_outputs/", "  output_dir: ./elsewhere/", 1)
    pipeline.build(validate(QUICK_START, "config.yaml", made), made, Recorder())
    for text in (*typos, wrong_place):
        with pytest.raises(TrtLlmPipelineError):
            pipeline.build(validate(text, "config.yaml", made), made, Recorder())
    return made


def run(settings: Settings, *arguments: str, **env: str) -> Result:
    found = CliRunner().invoke(
        app, ["builds", *arguments, "--workspace", str(settings.workspace.root)], env=env
    )
    assert "Traceback" not in found.output
    return found


def listed(settings: Settings) -> list[dict[str, str]]:
    return list(json.loads(run(settings, "list", "--json").stdout))


@pytest.mark.slow
def test_five_typos_evict_nothing(settings: Settings) -> None:
    found = listed(settings)
    assert [build["state"] for build in found] == ["failed"] * 4 + ["succeeded"]
    assert Path(found[-1]["archive"]).is_file()
    assert (settings.workspace.root / "engine.tar.gz").is_file()


def test_the_list_has_a_line_for_each_and_says_why_it_failed(settings: Settings) -> None:
    head, *lines = run(settings, "list").stdout.splitlines()
    assert head.split() == ["BUILD", "STATE", "MODEL", "AND", "RESULT"]
    assert [line.split()[1] for line in lines] == ["failed"] * 4 + ["succeeded"]
    assert f"{MODEL_ID}: step build: exited 0, but" in lines[0]
    assert "has no model nobody/typo-4" in lines[1]
    assert "kB" in lines[4]
    assert [line.split()[0] for line in lines] == [build["build_id"] for build in listed(settings)]
    assert run(settings).stdout.splitlines() == [head, *lines]  # `builds` alone lists, too


def test_a_narrow_terminal_has_a_line_for_each_too(settings: Settings) -> None:
    with Screen(
        [COMMAND, "builds", "--workspace", settings.workspace.root], {"COLUMNS": "60"}, columns=60
    ) as screen:
        assert screen.end() == 0
    assert [line[:8] for line in screen.text.splitlines()] == [
        "BUILD   ",
        *(build["build_id"][:8] for build in listed(settings)),
    ]


def test_at_a_terminal_each_is_a_line_without_half_words(settings: Settings) -> None:
    with Screen([COMMAND, "builds", "--workspace", settings.workspace.root], {}) as screen:
        assert screen.end() == 0
    shown = screen.text.splitlines()
    whole = run(settings).stdout.splitlines()
    assert len(shown) == len(whole)
    for cut, line in zip(shown, whole, strict=True):
        kept = cut.removesuffix("...")
        assert line.startswith(kept)
        assert cut == line or not line[len(kept)].isalnum()


def test_nothing_is_said_to_be_nothing(tmp_path: Path) -> None:
    for command, said in (("builds", "no build has left anything"), ("cache", "nothing is cached")):
        found = CliRunner().invoke(app, [command, "--workspace", str(tmp_path)])
        assert (found.exit_code, found.stdout) == (0, "")
        assert said in found.stderr


def test_clear_is_an_option_of_the_cache(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["cache", "clear"])
    assert (found.exit_code, found.stderr) == (
        2,
        "error: write `trt-llm-pipeline cache --clear` to remove what is cached\n",
    )


def test_the_cache_says_when_a_result_was_last_used(settings: Settings) -> None:
    found = CliRunner().invoke(app, ["cache", "--workspace", str(settings.workspace.root)])
    head, *rows = found.stdout.splitlines()
    assert head.split()[:3] == ["KEY", "LAST", "USED"]
    assert len(rows) == 2
    for row in rows:
        time.strptime(" ".join(row.split()[1:3]), "%Y-%m-%d %H:%M")


def test_show_tells_the_result_or_the_error(settings: Settings) -> None:
    newest, *_, good = listed(settings)
    shown = run(settings, "show", good["build_id"]).stdout
    for fact in (f"engine:   {MODEL_ID} at ", "verdict:  ", f"archive:  {good['archive']}", good["report"]):
        assert fact in shown
    shown = run(settings, "show").stdout
    head = f"build:    {newest['build_id']}\nstate:    failed\nmodel:    {MODEL_ID}\ntime:     "
    assert shown.startswith(head)
    assert "\nstage:    build\ncommand:  " in shown
    assert "build.py --model_dir " in shown
    assert "\nerror:    step build: exited 0" in shown
    assert f"logs:     {newest['logs']}" in shown
    assert json.loads(run(settings, "show", good["build_id"], "--json").stdout)["archive"]["size"] > 0
    assert json.loads(run(settings, "show", "--json").stdout)["state"] == "failed"


def test_logs_prints_what_the_scripts_have_printed(settings: Settings) -> None:
    newest, *_, good = listed(settings)
    shown = run(settings, "logs", good["build_id"]).stdout
    heads = [line for line in shown.splitlines() if line.startswith("== ")]
    assert heads == ["== convert_to_ft", "== build", "== check"]
    own = (Path(newest["logs"]) / "build.log").read_text()
    assert run(settings, "logs", "--step", "build").stdout == own
    wrong = run(settings, "logs", "--step", "quantize")
    assert wrong.exit_code == 2
    assert "has no log of 'quantize'; it has build" in wrong.output


def test_a_log_cannot_move_the_cursor(settings: Settings) -> None:
    log = Path(listed(settings)[0]["logs"]) / "zzz.log"
    log.write_text("a\x1b[2Jb\x07\n")
    try:
        assert run(settings, "logs", "--step", "zzz").stdout == "a\\x1b[2Jb\\x07\n"
    finally:
        log.unlink()


def test_open_opens_the_report_in_the_browser(settings: Settings, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser.sh"
    browser.write_text(f'#!/bin/sh\necho "$1" > {shlex.quote(str(opened))}\n')
    browser.chmod(0o755)
    good = listed(settings)[-1]
    found = run(settings, "open", good["build_id"], BROWSER=f"{browser} %s")
    assert found.stdout.strip() == good["report"]
    assert opened.read_text().strip() == Path(good["report"]).as_uri()


class TestWithoutALog:
    """`builds logs` says why nothing was printed."""

    def test_a_build_from_the_cache_names_the_one_that_ran(self, settings: Settings, tmp_path: Path) -> None:
        elsewhere = Workspace.at(tmp_path)
        shutil.copytree(settings.workspace.root, tmp_path, dirs_exist_ok=True)
        good = listed(settings)[-1]["build_id"]
        record = json.loads((elsewhere.builds / good / "build.json").read_text())
        name = new_build_id()
        (elsewhere.builds / name).mkdir()
        record |= {"build_id": name, "answered_from": good}
        (elsewhere.builds / name / "build.json").write_text(json.dumps(record))
        found = run(replace(settings, workspace=elsewhere), "logs")
        assert (found.exit_code, found.stdout) == (0, "")
        assert f"everything came from the cache; its archive is that of build {good}" in found.stderr

    def test_a_build_that_failed_before_a_script_ran(self, settings: Settings) -> None:
        typo = listed(settings)[1]["build_id"]
        found = run(settings, "logs", typo)
        assert (found.exit_code, found.stdout) == (0, "")
        assert f"it ended before a script ran; `trt-llm-pipeline builds show {typo}` says why" in found.stderr


class TestWithoutARecord:
    """A build that is running, or was killed."""

    def test_it_is_running_while_its_process_is_there(self, settings: Settings, tmp_path: Path) -> None:
        place, name = Workspace.at(tmp_path), new_build_id()
        place.prepare()
        (place.builds / name).mkdir()
        there = replace(settings, workspace=place)
        with place.lock("a build", build_id=name, model_id="a/b"):
            process = f"process {os.getpid()}"
            assert run(there).stdout.splitlines()[1].split(None, 2)[1:] == ["running", f"a/b, {process}"]
            assert f"state:    running ({process})\nmodel:    a/b\n" in run(there, "show").stdout
            assert f"has no logs: it is running ({process}), and no" in run(there, "logs").stderr
            opened = run(there, "open")
        assert opened.exit_code == 2
        assert opened.stderr == f"error: build {name} has no report yet: it is running\n"

    def test_it_has_ended_without_a_record_when_it_was_killed(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        place, name = Workspace.at(tmp_path), new_build_id()
        (place.builds / name / "logs").mkdir(parents=True)
        there = replace(settings, workspace=place)
        ended = "it ended without a record, as a build that is killed does"
        assert run(there).stdout.splitlines()[1].split(None, 2)[1:] == ["unfinished", ended]
        assert f"state:    unfinished\nerror:    {ended}\n" in run(there, "show").stdout
        assert run(there, "open").stderr == f"error: build {name} has no report: {ended}\n"
        (place.builds / name / "logs" / "build.log").write_text("x\n")
        assert run(there, "open").stderr.endswith("; `builds logs` prints what its scripts have printed\n")


def test_a_name_has_to_be_of_one_build(settings: Settings) -> None:
    missing, several = run(settings, "show", "1999"), run(settings, "show", "20")
    assert missing.exit_code != 0
    assert "'1999' names no build; `trt-llm-pipeline builds` lists them" in missing.output
    assert "'20' begins the names of 5 builds" in several.output


def test_a_workspace_without_builds_says_so(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["builds", "show", "--workspace", str(tmp_path)])
    assert found.exit_code == 2
    assert "no build has left anything in this workspace" in found.output
    assert not list(tmp_path.iterdir())
