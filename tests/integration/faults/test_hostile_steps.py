"""Steps that turn on what runs them, or write what nobody expects: one sentence, and the next build right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.cache.worlds import SCRIPT, Pair, Recipe, Step
from tests.integration.faults.test_crash import running_in, users_files
from tests.integration.house import PATIENCE_S, House, start_until, wait_for
from tests.integration.server.test_guard import ended, guarded
from trt_llm_pipeline.errors import EXIT_CODES
from trt_llm_pipeline.process import Layers
from trt_llm_pipeline.server.guard import EXIT_CODE
from trt_llm_pipeline.testing.hub import HubServer

COMMAND = Path(sys.executable).with_name("trt-llm-pipeline")
STARTED = "everything is started"
#: Two hundred thousand files take a busy disk minutes to make, and to remove.
LONG_S = 600
SCOPES_SINCE = 6  # the version of Landlock that keeps a step from signalling others
#: What a shell script does after it has written its results, and what is said of it.
DEEDS = {
    "a file of a terabyte without content": (
        'truncate -s 1T "$2/rank1.bin"',
        "rank1.bin is 1.1 TB long, of which only 0 bytes were ever written",
    ),
    "a name that is not UTF-8": (
        """touch "$2/$(printf 'bad-\\377.bin')" """,
        r"is not UTF-8: b'engine/bad-\xff.bin'",
    ),
    "kills its supervisor": ("kill -KILL $PPID; sleep 60", "was killed (SIGKILL)"),
    "stops its supervisor": ("kill -STOP $PPID; sleep 60", "was stopped (SIGSTOP)"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_hostile_step_is_told_of_and_the_next_build_is_right(tmp_path: Path, deed: str) -> None:
    """Without a sandbox; the service's part of it runs in this process."""
    does, said = DEEDS[deed]
    pair = Pair(tmp_path)
    world, recipe, other = pair.cached, *(Recipe(Step("./engine", text, ("./notes",))) for text in "xy")
    clean = world.build(recipe)
    assert isinstance(clean, dict), clean
    users = users_files(world)
    pair.script.write_text(f"{SCRIPT}\n{does}\n")
    told = world.build(other)
    assert isinstance(told, str), "it has succeeded"
    assert said in told
    assert running_in(world.root) == []
    pair.script.write_text(SCRIPT)
    assert isinstance(world.build(other), dict)
    assert world.build(recipe) == clean
    assert users_files(world) == users


@pytest.fixture(params=["off", "auto"])
def house(request: pytest.FixtureRequest, hub: HubServer, tmp_path: Path) -> House:
    """A house whose steps have no sandbox, or what this machine can hold of one."""
    return House(hub, tmp_path, {"TRT_LLM_SANDBOX": request.param})


def build(house: House, config: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [COMMAND, "build", config], env={**os.environ, **house.env}, stdout=pipe, stderr=pipe, text=True
    )


def until(told: subprocess.Popen[str], line: str) -> None:
    """Waits until a command has said something on stderr."""
    assert told.stderr is not None
    assert any(line in said for said in told.stderr), f"it ended without a word of {line!r}"


def built_again(house: House) -> bytes:
    """The archive of a build without faults, which succeeds, with nothing left of the one before."""
    wait_for(lambda: house.alive() == {}, "no process is left")
    told = build(house, house.config(args="seed: 1"))
    _, said = told.communicate(timeout=LONG_S)
    assert told.returncode == 0, said
    assert house.partial_files() == []
    return (house.workspace / "engine.tar.gz").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(2000)
class TestCommandLine:
    """The same and more of the same with the real command, in a sandbox and without one."""

    @pytest.mark.parametrize(
        ("what", "said"),
        [
            ("many", "it wrote 200,002 files, and an archive may have"),
            ("sparse", "rank1.bin is 1.1 TB long, of which only 4.1 kB were ever written"),
            ("names", r"is not UTF-8: b'engine/bad-\xff.bin'"),
        ],
    )
    def test_results_that_no_archive_can_hold(self, house: House, what: str, said: str) -> None:
        before = built_again(house)
        told = build(house, house.config("writes_oddly.py", f"what: {what}"))
        _, printed = told.communicate(timeout=LONG_S)
        assert told.returncode == EXIT_CODES["step"]
        assert said in printed
        assert "Traceback" not in printed
        assert built_again(house) == before

    def test_very_many_files_can_be_cancelled_while_they_are_looked_at(self, house: House) -> None:
        before = built_again(house)
        told = build(house, house.config("writes_oddly.py", "what: many"))
        until(told, "everything is written")
        told.send_signal(signal.SIGINT)
        told.communicate(timeout=LONG_S)
        assert told.returncode == EXIT_CODES["interrupted"]
        assert built_again(house) == before

    @pytest.mark.parametrize(
        ("deed", "said"),
        [("kill_supervisor", "was killed (SIGKILL)"), ("stop_supervisor", "was stopped (SIGSTOP)")],
    )
    def test_a_step_that_turns_on_its_supervisor(
        self, house: House, layers: Layers, deed: str, said: str
    ) -> None:
        before = built_again(house)
        told = build(house, house.config("turns_on_the_service.py", f"deed: {deed}"))
        _, printed = told.communicate(timeout=PATIENCE_S)
        if house.extra["TRT_LLM_SANDBOX"] == "off" or layers.landlock < SCOPES_SINCE:
            assert f"error: the supervisor of {sys.executable} {said}" in printed
        else:
            assert "PermissionError: [Errno 1] Operation not permitted" in printed
        assert told.returncode in (EXIT_CODES["internal"], EXIT_CODES["step"])
        assert built_again(house) == before

    @pytest.mark.parametrize("deed", ["kill_worker", "stop_worker"])
    def test_a_step_that_turns_on_the_command(self, house: House, layers: Layers, deed: str) -> None:
        before = built_again(house)
        told = build(house, house.config("turns_on_the_service.py", f"deed: {deed}"))
        if house.extra["TRT_LLM_SANDBOX"] != "off" and layers.landlock >= SCOPES_SINCE:
            _, printed = told.communicate(timeout=PATIENCE_S)
            assert "PermissionError: [Errno 1] Operation not permitted" in printed
        elif deed == "stop_worker":  # as with Ctrl-Z, it is for the user to say what becomes of it
            stopped = psutil.Process(told.pid)
            wait_for(lambda: stopped.status() == psutil.STATUS_STOPPED, "it is stopped")
            told.kill()
            told.communicate()
        else:
            told.communicate(timeout=PATIENCE_S)
            assert told.returncode == -signal.SIGKILL
        assert built_again(house) == before

    def test_directories_that_become_links_while_they_are_packed(self, house: House, tmp_path: Path) -> None:
        """By a program beside the build: the processes of a step end with it."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "rank0.engine").write_text("nobody may see this")
        (outside / "config.json").write_text("nobody may see this")
        config = house.config(args="seed: 1\nsize: 67108864")
        told = build(house, config)
        told.communicate(timeout=PATIENCE_S)
        before = (house.workspace / "engine.tar.gz").read_bytes()
        for number in range(6):
            told = build(house, house.config(args=f"seed: {number + 2}\nsize: 67108864"))
            until(told, "step build: done")
            with swapping(house.workspace / "engine", outside):
                _, printed = told.communicate(timeout=PATIENCE_S)
            assert told.returncode == 0 or "\nerror: " in printed
            assert "Traceback" not in printed
            assert b"nobody may see this" not in contents(house.workspace / "engine.tar.gz")
            assert sorted(path.name for path in outside.iterdir()) == ["config.json", "rank0.engine"]
            assert (outside / "config.json").read_text() == "nobody may see this"
        told = build(house, config)
        _, printed = told.communicate(timeout=PATIENCE_S)
        assert told.returncode == 0, printed
        assert (house.workspace / "engine.tar.gz").read_bytes() == before


SWAP = """
import os, sys, time
folder, outside = sys.argv[1:]
while True:
    try:
        os.rename(folder, folder + ".aside")
        os.symlink(outside, folder)
        time.sleep(0.002)
        os.unlink(folder)
        os.rename(folder + ".aside", folder)
    except OSError:
        if os.path.islink(folder):
            os.unlink(folder)
        if os.path.exists(folder + ".aside") and not os.path.exists(folder):
            os.rename(folder + ".aside", folder)
    time.sleep(0.02)
"""


@contextmanager
def swapping(folder: Path, outside: Path) -> Iterator[None]:
    """A program that puts a link in the folder's place for a moment, again and again."""
    with subprocess.Popen([sys.executable, "-c", SWAP, str(folder), str(outside)]) as swap:
        try:
            yield
        finally:
            swap.kill()
            swap.wait()
            aside = folder.with_name(f"{folder.name}.aside")
            if folder.is_symlink():
                folder.unlink()
            if aside.exists() and not folder.exists():
                aside.rename(folder)


def contents(archive: Path) -> bytes:
    with tarfile.open(archive) as tar:
        return b"".join(tar.extractfile(member).read() for member in tar if member.isfile())  # type: ignore[union-attr]


@pytest.mark.slow
class TestServer:
    """The same through HTTP, without a sandbox and with the guard that restarts a server."""

    @pytest.fixture
    def house(self, hub: HubServer, tmp_path: Path) -> House:
        return House(hub, tmp_path, {"TRT_LLM_SANDBOX": "off"})

    @pytest.mark.parametrize("deed", ["kill_supervisor", "stop_supervisor", "state_fifo"])
    def test_cancel_is_answered_and_the_server_goes_on(self, house: House, deed: str) -> None:
        with guarded(house) as server:
            config = house.config("turns_on_the_service.py", f"deed: {deed}")
            prediction = start_until(server, config, STARTED)
            server.cancel(prediction)
            server.wait_until_ready(PATIENCE_S)
            answer = server.predict(config=house.config())
            assert answer["status"] == "succeeded", answer["error"]
        wait_for(lambda: house.alive() == {}, "no process is left")

    @pytest.mark.parametrize(
        ("deed", "why"), [("kill_worker", "worker has died"), ("stop_worker", "stopped")]
    )
    def test_a_step_that_turns_on_the_worker_ends_in_a_restart(
        self, house: House, deed: str, why: str
    ) -> None:
        with guarded(house) as server:
            server.start("hostile", config=house.config("turns_on_the_service.py", f"deed: {deed}"))
            wait_for(lambda: ended(server), "the server has ended")
            assert server.process.returncode == EXIT_CODE
            assert why in server.output()
            wait_for(lambda: house.alive() == {}, "nothing is left")
        with guarded(house) as server:
            answer = server.predict(config=house.config())
        assert answer["status"] == "succeeded", answer["error"]
