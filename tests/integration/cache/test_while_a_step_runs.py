"""A user works in the workspace while a step runs in its sandbox: what is whose stays known."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.cache.worlds import SCRIPT, Pair, Recipe, Step
from trt_llm_pipeline.process import Layers

SLOW = "sleep 1\n" + SCRIPT


@pytest.fixture
def pair(tmp_path: Path, layers: Layers) -> Pair:
    assert layers.files, "a view needs Landlock"
    pair = Pair(tmp_path, layers)
    pair.script.write_text(SLOW)
    return pair


def writes(name: str, text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    return change


def build(pair: Pair, recipe: Recipe, meanwhile: Callable[[Path], None]) -> list[str]:
    pair.cached.meanwhile = pair.plain.meanwhile = meanwhile
    return pair.build(recipe)


ENGINE = Recipe(Step("./engine", "x"))
READER = Recipe(Step("./engine", "x", ("./notes",)))
TWO = Recipe(Step("./engine", "x", ("./ckpt",)), Step("./ckpt", "x"))


def test_a_file_that_the_user_changes_is_not_the_steps(pair: Pair) -> None:
    pair.each(writes("private.txt", "draft 1"))
    build(pair, ENGINE, writes("private.txt", "draft 2"))
    kept = pair.cached.root / ".trt-llm-pipeline" / "cache"
    assert not [path for path in kept.rglob("*") if path.is_file() and b"draft" in path.read_bytes()]
    pair.each(lambda root: (root / "private.txt").unlink())
    assert pair.build(ENGINE) == []  # and is not put back


@pytest.mark.slow
def test_a_file_that_the_user_adds_to_an_input_is_not_the_steps(pair: Pair) -> None:
    build(pair, READER, writes("notes/b", "mine"))
    pair.build(READER)
    assert "mine" in pair.cached.build(READER)["rank0.engine"].decode()


@pytest.mark.slow
def test_a_file_that_the_user_adds_to_the_results_stays(pair: Pair) -> None:
    build(pair, ENGINE, writes("engine/NOTES.txt", "mine"))
    assert any("NOTES.txt appeared in the output directory" in line for line in pair.cached.log.lines)
    assert "holds files that no build made" in pair.cached.build(Recipe(Step("./engine", "y")))
    assert (pair.cached.root / "engine" / "NOTES.txt").read_text() == "mine"


def test_an_edit_of_what_an_earlier_build_made_is_not_lost(pair: Pair) -> None:
    beside = Recipe(Step("./engine", "x", beside="./side/one.txt"))
    pair.build(beside)
    told = Recipe(Step("./engine", "y", beside="./side/one.txt"))
    pair.cached.meanwhile = writes("side/one.txt", "hours of work")
    assert "side/one.txt" in pair.cached.build(told)
    assert (pair.cached.root / "side" / "one.txt").read_text() == "hours of work"


def test_results_of_an_earlier_step_that_change_are_not_taken_for_what_they_were(pair: Pair) -> None:
    pair.build(Recipe(Step("./engine", "y", ("./ckpt",)), TWO.convert))
    pair.cached.meanwhile = writes("ckpt/rank0.engine", "BAD")  # while `build` runs: the other is there
    assert "BAD" in pair.cached.build(TWO)["rank0.engine"].decode()
    assert any("the results of convert_to_ft changed" in line for line in pair.cached.log.lines)
    pair.each(lambda root: shutil.rmtree(root / "ckpt"))
    assert pair.cached.build(TWO) == pair.plain.build(TWO)


def test_folders_of_a_named_folder_are_found_by_whoever_walks_it(pair: Pair) -> None:
    walking = SCRIPT.replace("find -L", "find").replace("-type f", "! -type d")
    pair.script.write_text(walking)
    pair.each(writes("notes/sub/deep/c", "deep down"))
    pair.build(READER)
    assert "deep down" in pair.cached.build(READER)["rank0.engine"].decode()
