"""What a person sees of a build at a terminal of 80 columns, stage by stage, on a real pseudo-terminal."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.screen import Screen
from trt_llm_pipeline.terminal import PlainTerminal, show

ROOT = "/somewhere/else/with/a/long/name/that/fills/a/line/of/a/terminal/workspace"
#: Does what it reads, line by line; the screen can be looked at meanwhile.
DRIVER = f"""
import sys
from pathlib import Path
from trt_llm_pipeline.terminal import show
root = Path({ROOT!r})
with show(False, root) as s:
    for line in sys.stdin:
        if line.strip() == "end":
            break
        exec(line)
"""
RECORD = {
    "manifest": {
        "model_id": "acme/tiny",
        "revision": "0123456789abcdef",
        "toolchain": {"name": "tensorrt_llm", "version": "0.9.0"},
    },
    "steps": [{"name": "build", "output_bytes": 6_900_000}],
    "seconds": {"download": 2.5, "build": 61.0, "package": 0.3},
    "archive": {"size": 5_400_000},
    "readiness": [{"name": "gpus", "status": "ok", "message": "", "settings": {"WORLD_SIZE": "2"}}],
    "check": {"status": "passed", "level": 2},
    "logs": ["build.log"],
}
BARS = "━╸╺"


@pytest.fixture
def screen() -> Iterator[Screen]:
    with Screen([sys.executable, "-c", DRIVER], {}) as shown:
        shown.type("import termios\n")  # what is typed is not echoed any more
        off = "a = termios.tcgetattr(0); a[3] &= ~termios.ECHO; termios.tcsetattr(0, termios.TCSANOW, a)"
        shown.type(f"{off}; s.log('begin')\n")
        yield shown.until(lambda now: "begin" in now.text.splitlines(), "the driver starts")


def stages(screen: Screen) -> None:
    for name in ("download", "convert_to_ft", "build", "check", "package"):
        screen.type(f"s.stage({name!r}, 'waiting')\n")
    screen.until(lambda now: "package" in now.text, "the stages are there")


def fits(screen: Screen) -> bool:
    """Every row is one line: five stages, and at most one line below the one that is running."""
    rows = [line for line in screen.text.splitlines() if line[:1] in "✓·-✗⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"]
    return len(rows) == 5 and all(len(line) <= 80 for line in screen.text.splitlines())


def test_a_stage_is_drawn_when_it_begins_however_soon_it_ends(screen: Screen, tmp_path: Path) -> None:
    stages(screen)
    over = tmp_path / "over"
    screen.type(f"s.stage('package', 'running'); s.stage('package', 'done'); Path({str(over)!r}).touch()\n")
    deadline = time.monotonic() + 60
    while not over.exists():  # both pictures are there before either is read
        assert time.monotonic() < deadline
        time.sleep(0.01)
    screen.until(lambda now: now.row("package").startswith("✓"), "the stage ends")
    rows = [row for shown in screen.seen for row in shown.splitlines() if row[1:].split()[:1] == ["package"]]
    assert any(row[0] in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" for row in rows)


def test_every_stage_is_announced(screen: Screen) -> None:
    stages(screen)
    assert [screen.row(name)[0] for name in ("download", "build", "package")] == ["·", "·", "·"]
    assert fits(screen)


def test_a_download_has_a_bar_with_its_rate_and_leaves_none(screen: Screen) -> None:
    stages(screen)
    screen.type("s.stage('download', 'running'); s.progress('download', 10**9, 14 * 10**9)\n")
    screen.until(lambda now: "1.0 GB of 14.0 GB" in now.text, "the size is shown")
    screen.type("import time; time.sleep(0.2); s.progress('download', 4 * 10**9, 14 * 10**9)\n")
    screen.until(lambda now: "4.0 GB of 14.0 GB" in now.row("download") and "B/s, " in now.text, "its rate")
    row = screen.row("download")
    assert any(bar in row for bar in BARS)
    assert row.rstrip().endswith(" s")
    assert " left" in screen.text
    assert screen.color("━") == "cyan"
    assert fits(screen)
    screen.type("s.stage('download', 'done')\n")
    screen.until(lambda now: now.row("download").startswith("✓"), "the tick")
    assert not any(bar in screen.text for bar in BARS)
    assert "GB" not in screen.text


def test_a_step_shows_its_memory_and_the_scripts_last_line_relative_to_the_workspace(screen: Screen) -> None:
    stages(screen)
    screen.type("s.stage('build', 'running'); s.usage('build', 3 * 10**9, 5 * 10**9, [10**10, 2 * 10**10])\n")
    screen.type(f"s.output('writing {ROOT}/engine/' + 'rank0-' * 30)\n")
    screen.until(lambda now: "writing engine/rank0-" in now.text and "memory" in now.text, "memory, line")
    assert "memory 3.0 GB (at most 5.0 GB), GPU 10.0 GB to 20.0 GB" in screen.row("build")
    assert "/somewhere" not in screen.text
    assert fits(screen)
    screen.type("s.output('and the next one')\n")
    screen.until(lambda now: "and the next one" in now.text, "the next line")
    assert "rank0" not in screen.text


def test_time_passes_while_nothing_is_said(screen: Screen) -> None:
    stages(screen)
    screen.type("s.stage('check', 'running')\n")
    screen.until(lambda now: re.search(r" ([2-9]|\d\d) s$", now.row("check").rstrip()), "two seconds")


def test_a_strangers_line_cannot_move_the_cursor(screen: Screen) -> None:
    stages(screen)
    screen.type(
        "s.stage('build', 'running'); s.output('\\x1b[2J\\x1b[H\\x1b]0;t\\x07[bold]A\\x1bcB\\x9b2J[/]:x:')\n"
    )
    screen.until(lambda now: "[bold]AB" in now.text, "the line")
    assert "2J[/]:x:" in screen.text
    assert screen.row("download")
    assert fits(screen)


def test_what_comes_before_the_stages_is_a_line_each(screen: Screen) -> None:
    screen.type("s.log('sandbox: ' + 'files, ' * 30); s.log('then')\n")
    screen.until(lambda now: "then" in now.text, "the lines")
    lines = screen.text.splitlines()
    assert lines[lines.index("then") - 1].endswith("…")
    assert sum("files" in line for line in lines) == 1


def test_warnings_and_notes_stay_and_other_lines_make_room(screen: Screen) -> None:
    stages(screen)
    screen.type("s.stage('download', 'running'); s.log('warning: there is [red]little[/] room')\n")
    screen.type("s.log('looking at the model'); s.log('note: this is slow')\n")
    screen.until(lambda now: "this is slow" in now.text and "looking" in now.text, "the lines")
    screen.type("s.log('and on'); s.stage('download', 'done')\n")
    screen.until(lambda now: now.row("download").startswith("✓"), "the tick")
    assert "warning: there is [red]little[/] room\nnote: this is slow\n" in screen.text
    assert "looking at" not in screen.text


def test_at_the_end_there_is_a_table_and_no_bar(screen: Screen) -> None:
    stages(screen)
    screen.type("s.stage('download', 'running'); s.progress('download', 9, 9); s.stage('download', 'done')\n")
    screen.type("s.stage('convert_to_ft', 'running'); s.stage('convert_to_ft', 'reused')\n")
    screen.type("s.stage('build', 'running'); s.stage('build', 'done'); s.stage('check', 'left out')\n")
    screen.type("s.stage('package', 'running'); s.progress('package', 5, 9); s.stage('package', 'done')\n")
    screen.type(
        f"root = Path.cwd() / 'ws'; s.finished({RECORD!r}, root / 'builds/B', root / 'engine.tar.gz')\n"
    )
    screen.type("end\n")
    assert screen.end() == 0
    assert not any(bar in screen.text for bar in BARS)
    assert [screen.row(name)[0] for name in ("download", "convert_to_ft", "check", "package")] == [*"✓✓-✓"]
    assert "unchanged, used again" in screen.row("convert_to_ft")
    table = screen.text.split("package")[-1].splitlines()[2:]
    assert [line.split("  ")[0] for line in table] == [
        *("engine", "size", "time", "verdict", "check", "set", "archive", "report", "logs")
    ]
    said = "\n".join(" ".join(line.split()) for line in table)
    for fact in (
        "engine acme/tiny at 0123456789ab, by the toolchain tensorrt_llm 0.9.0",
        "size 5.4 MB, unpacked 6.9 MB",
        "time 1 min 4 s",
        "verdict ready for cog-triton",
        "check the engine writes (level 2 of 3)",
        "set WORLD_SIZE=2",
        "archive ws/engine.tar.gz",
        "report ws/builds/B/report.html",
        "logs ws/builds/B/logs",
    ):
        assert fact in said
    assert str(Path.cwd()) not in screen.text


def test_a_failure_marks_its_stage_and_names_what_is_left(screen: Screen) -> None:
    stages(screen)
    screen.type("s.stage('build', 'running'); s.stage('build', 'failed')\n")
    screen.type("here = Path.cwd() / 'ws/builds/B'; s.kept('report', here / 'report.html')\n")
    screen.type("s.kept('logs', root / 'logs')\n")
    screen.type("end\n")
    assert screen.end() == 0
    assert screen.row("build").startswith("✗")
    left = screen.text.partition("report  ")[2].replace("\n", "")  # what is not below stays whole
    assert left == f"ws/builds/B/report.htmllogs    {ROOT}/logs"


def test_verbose_keeps_every_line() -> None:
    driver = DRIVER.replace("show(False, root)", "show(False, root, verbose=True)")
    with Screen([sys.executable, "-c", driver], {}) as screen:
        screen.type("s.stage('build', 'running'); s.output('one'); s.log('two'); s.output('three')\nend\n")
        assert screen.end() == 0
    assert "one\ntwo\nthree\n" in screen.text


def test_without_color_there_is_none() -> None:
    with Screen([sys.executable, "-c", DRIVER], {"NO_COLOR": "1"}) as screen:
        screen.type("s.stage('build', 'running'); s.log('warning: w')\nend\n")
        assert screen.end() == 0
    assert b"\x1b[3" not in screen.raw.replace(b"\x1b[3m", b"")
    assert "warning: w" in screen.text


def test_a_terminal_that_cannot_move_gets_lines() -> None:
    with Screen([sys.executable, "-c", DRIVER], {"TERM": "dumb"}) as screen:
        screen.type("s.stage('build', 'running'); s.log('a line')\nend\n")
        assert screen.end() == 0
    assert "a line" in screen.text
    assert b"\x1b" not in screen.raw


def test_what_is_no_terminal_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with show(False, Path(ROOT)) as told:
        assert isinstance(told, PlainTerminal)
        told.stage("build", "running")
        told.progress("package", 1, 2)
        told.log("a line")
        told.output(f"{ROOT}/engine")
    assert capsys.readouterr().err == f"a line\n{ROOT}/engine\n"


#: Its words stand nowhere in what is typed.
TALK = "s.stage('build', 'running')\nfor n in '1', '2': s.output(n + ' of two lines')\n\n"


def test_a_script_s_line_gives_way_to_the_next(screen: Screen) -> None:
    screen.type(TALK)
    screen.until(lambda now: "2 of two lines" in now.text, "the second line is shown")
    assert "1 of two lines" not in screen.text


def test_verbose_keeps_every_line_of_a_script() -> None:
    driver = DRIVER.replace("show(False, root)", "show(False, root, verbose=True)")
    assert driver != DRIVER
    with Screen([sys.executable, "-c", driver], {}) as screen:
        screen.type(TALK)
        screen.until(lambda now: "1 of two" in now.text and "2 of two" in now.text, "both are there")


#: Is told three times to end, and ends at the third.
STUBBORN = f"""
import signal, termios, threading
from pathlib import Path
from trt_llm_pipeline.terminal import show
told = threading.Semaphore(0)
signal.signal(signal.SIGINT, lambda *_: told.release())
with show(False, Path({ROOT!r})) as s:
    for name in ("download", "build"):
        s.stage(name, "waiting")
    s.stage("download", "running")
    s.stage("download", "done")
    s.stage("build", "running")
    for number in range(3):
        told.acquire()
        s.output("heard " + str(number))
print("restored" if termios.tcgetattr(0)[3] & termios.ECHOCTL else "lost")
"""


def test_ctrl_c_typed_again_and_again_leaves_one_picture() -> None:
    with Screen([sys.executable, "-c", STUBBORN], {}) as screen:
        screen.until(lambda now: bool(now.row("build")), "the stages are there")
        screen.type("\x03")
        screen.until(lambda now: "heard 0" in now.text, "it is heard")
        screen.type("\x03")
        screen.until(lambda now: "heard 1" in now.text, "it is heard again")
        screen.type("\x03")
        assert screen.end() == 0
    assert [screen.text.count(f" {name} ") for name in ("download", "build")] == [1, 1]
    assert b"^C" not in screen.raw
    assert "restored" in screen.text
