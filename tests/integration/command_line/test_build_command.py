"""`trt-llm-pipeline build`, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import TOOLCHAIN
from tests.screen import Screen
from trt_llm_pipeline.testing.hub import Fault, HubServer
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

CONFIG = PROJECT_ROOT / "examples" / "gpt" / "config.yaml"
BARS = "━╸╺"
COMMAND = Path(sys.executable).with_name("trt-llm-pipeline")


def test_archive_of_the_users_own_stays_and_the_new_ones_path_is_printed(
    hub: HubServer, tmp_path: Path
) -> None:
    mine = tmp_path / "ws" / "engine.tar.gz"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": str(tmp_path / "ws")}
    told = subprocess.run(
        [COMMAND, "build", CONFIG], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    printed = Path(told.stdout.strip())
    assert printed.is_file()
    assert printed.parent.parent == tmp_path / "ws" / "builds"
    assert mine.read_bytes() == b"mine"
    assert "is not this service's, so it stays" in told.stderr
    # What is no terminal gets plain lines, and the result as a list.
    assert not any(glyph in told.stderr for glyph in [*BARS, "✓", "\x1b"])
    assert "Wrote " in told.stderr  # a script's own words
    last = [line.split(":")[0] for line in told.stderr.splitlines()[-9:]]
    assert last == ["engine", "size", "time", "verdict", "check", "set", "archive", "report", "logs"]


@pytest.fixture(scope="module")
def place(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A workspace with so long a path that a line with it would not fit."""
    long = tmp_path_factory.mktemp("a-workspace-with-a-name-that-does-not-fit-on-a-line-beside-anything")
    return {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": str(long / "ws")}


def test_a_terminal_shows_each_stage_and_then_the_result(hub: HubServer, place: dict[str, str]) -> None:
    workspace = Path(place["TRT_LLM_WORKSPACE"])
    hub.faults.add(Fault("slow", match="*/resolve/*/pytorch_model.bin", after=2_000_000, times=99))
    with Screen([COMMAND, "build", CONFIG], place, cwd=workspace.parent) as screen:
        assert screen.end() == 0, screen.text
    hub.faults.clear()
    for name in ("download", "convert_to_ft", "build", "check", "package"):
        running = [
            row for shown in screen.seen for row in shown.splitlines() if row[1:].split()[:1] == [name]
        ]
        assert [row for row in running if row[0] in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"], name
        assert screen.row(name).startswith("✓")
        assert screen.row(name).endswith(" s")
    bars = [shown for shown in screen.seen if any(bar in shown for bar in BARS)]
    assert any(re.search(r"download +[━╸╺]+ +\S+ [kM]B of 2\.9 MB", shown) for shown in bars)
    assert not any(bar in screen.text for bar in BARS)
    newest = screen.text.splitlines()[-1]
    assert newest.endswith("/engine.tar.gz")  # stdout: the one path that is whole, for other programs
    told = screen.text.removesuffix(newest)
    assert str(workspace) not in told
    table = dict(line.split("  ", 1) for line in told.splitlines()[-10:] if "  " in line)
    (build,) = (workspace / "builds").iterdir()
    assert table["archive"].strip() == "ws/engine.tar.gz"
    assert table["report"].strip() == f"ws/builds/{build.name}/report.html"
    assert table["logs"].strip() == f"ws/builds/{build.name}/logs"
    assert "sshleifer/tiny-gpt2 at " in table["engine"]


@pytest.mark.slow
def test_a_second_build_shows_what_is_used_again(place: dict[str, str]) -> None:
    subprocess.run([COMMAND, "build", CONFIG], env={**os.environ, **place}, capture_output=True, check=True)
    with Screen([COMMAND, "build", CONFIG], place) as screen:
        assert screen.end() == 0, screen.text
    for name in ("convert_to_ft", "build", "check"):
        assert "unchanged, used again" in screen.row(name)


def test_a_failure_shows_its_stage_and_where_report_and_logs_are(
    place: dict[str, str], tmp_path: Path
) -> None:
    here = Path(place["TRT_LLM_WORKSPACE"]).parent
    config = tmp_path / "config.yaml"
    text = CONFIG.read_text()
    config.write_text(text.replace("  output_dir: ./engine_outputs/", "  output_dir: ./elsewhere/", 1))
    with Screen([COMMAND, "build", config], place, cwd=here) as screen:
        assert screen.end() != 0
    assert screen.row("build").startswith("✗")
    assert screen.row("package").startswith("·")
    found = dict(re.findall(r"^(report|logs) +(ws/builds/\S+)$", screen.text, re.MULTILINE))
    for relative in (found["report"], found["logs"]):
        assert (here / relative).exists()
    assert "error: step build:" in screen.text


@pytest.mark.slow
def test_ctrl_c_marks_the_stage_and_leaves_one_picture(place: dict[str, str]) -> None:
    env = {**os.environ, **place}
    subprocess.run([COMMAND, "build", CONFIG], env=env, capture_output=True, check=True)  # has the model now
    with Screen([COMMAND, "build", CONFIG, "--no-cache"], place) as screen:
        screen.until(lambda now: now.row("check")[:1] not in ("", "·"), "the engine is asked")
        screen.type("\x03")
        assert screen.end() == 130, screen.text
    assert screen.row("check").startswith("✗")
    assert [screen.text.count(f" {name} ") for name in ("download", "build")] == [1, 1]
    assert "interrupted" in screen.text
    assert "kept" not in screen.text  # nothing was downloaded


def test_json_stays_json(place: dict[str, str]) -> None:
    argv = [COMMAND, "build", CONFIG, "--json"]
    told = subprocess.run(argv, env={**os.environ, **place}, capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in told.stderr.splitlines()]
    assert {event["event"] for event in events} <= {"log", "progress", "metric"}
