"""A build is killed at a random moment, again and again: what comes after it is as if it had never been."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.cache.worlds import Pair, Recipe, Step, World
from tests.integration.house import wait_for

_SLOW_STEP = "\nsleep 0.15\n"


def recipe(number: int) -> Recipe:
    """Two steps, of which both or only the second one are new."""
    convert = Step("./ckpt", f"c{number // 2}", ("./notes",))
    return Recipe(Step("./engine", f"e{number}", ("./ckpt",)), convert)


def running_in(root: Path) -> list[str]:
    """The living processes that work in a workspace or were told a path in it."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            inside = process.cwd().startswith(str(root)) or str(root) in line
            if inside and process.status() != psutil.STATUS_ZOMBIE:
                found.append(line)
        except psutil.Error:
            continue
    return found


def archive(world: World, wanted: Recipe) -> bytes:
    told = world.build(wanted)
    assert isinstance(told, dict), told
    return (world.root / "engine.tar").read_bytes()


def users_files(world: World) -> dict[str, bytes]:
    folders = (world.root / "notes", world.root / "models", world.root.parent / "outside")
    return {str(path): path.read_bytes() for top in folders for path in top.rglob("*") if path.is_file()}


def kill_and_build_again(folder: Path, times: int, seed: int) -> None:
    pair = Pair(folder)
    pair.script.write_text(pair.script.read_text() + _SLOW_STEP)
    killed = pair.cached
    (folder / "reference").mkdir()
    clean = World(folder / "reference", pair.script.parent.parent.parent, cache=True)
    choose = random.Random(seed)
    started = time.monotonic()
    assert archive(killed, recipe(0)) == archive(clean, recipe(0))
    takes = (time.monotonic() - started) / 2
    users, cut_short = users_files(killed), 0
    fork = multiprocessing.get_context("fork")
    for number in range(1, times + 1):
        wanted = recipe(number)
        build = fork.Process(target=killed.build, args=(wanted,))
        build.start()
        build.join(choose.uniform(0, takes))
        build.kill()
        build.join()
        cut_short += build.exitcode != 0
        wait_for(lambda: not running_in(killed.root), "no process is left")
        assert archive(killed, wanted) == archive(clean, wanted), f"killed build {number} of seed {seed}"
        assert users_files(killed) == users, f"killed build {number} of seed {seed}"
        assert killed.files() == clean.files(), f"killed build {number} of seed {seed}"
        assert not list(killed.root.rglob("*.partial"))
    assert cut_short >= times // 4, "hardly any build was killed before it was over"


def test_a_killed_build_costs_nothing(tmp_path: Path) -> None:
    kill_and_build_again(tmp_path, 8, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_killed_builds_cost_nothing(tmp_path: Path) -> None:
    kill_and_build_again(tmp_path, 60, seed=2)
