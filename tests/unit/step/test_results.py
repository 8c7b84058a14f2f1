"""Which directory a step's results are in, told by the files that it has made."""

from __future__ import annotations

from pathlib import Path

import pytest

from trt_llm_pipeline.step import results
from trt_llm_pipeline.workspace import FileMark, Workspace


@pytest.fixture
def root(workspace: Workspace) -> Path:
    workspace.prepare()
    return workspace.root


def find(workspace: Workspace, made: list[str], *named: str) -> str | None:
    found = results.find(workspace, made, [workspace.root / name for name in named])
    return None if found is None else str(found.relative_to(workspace.root))


def test_new_and_changed_files_are_a_steps() -> None:
    old, new = FileMark(1, 1), FileMark(1, 2)
    assert results.changed(
        {"same": old, "other": old, "gone": old}, {"same": old, "other": new, "new": old}
    ) == {
        "other": new,
        "new": old,
    }


@pytest.mark.parametrize(
    ("made", "named", "found"),
    [
        (["c-model/1-gpu/config.ini", "c-model/1-gpu/wte.bin"], ["c-model"], "c-model/1-gpu"),
        (["c-model/1-gpu/a", "model.cache"], ["c-model"], "c-model/1-gpu"),
        (["enc_dec/tp1/encoder/config.json", "enc_dec/tp1/decoder/config.json"], ["enc_dec"], "enc_dec/tp1"),
        (["out/a", "out/deep/b"], ["out"], "out"),
        (["out/a", "logs/b"], ["out"], "out"),
        (["out/a", "logs/b"], ["out", "logs"], None),
        (["out/a"], [], "out"),
        (["out/a", "other/b"], [], None),
        (["out/__pycache__/x.pyc"], ["out"], None),
        (["out/a", "lib/__pycache__/x.pyc", "hf/.cache/x"], [], "out"),
        (["model.cache"], ["out"], None),
        ([], ["out"], None),
    ],
)
def test_results_are_in_the_deepest_directory_that_holds_them_all(
    workspace: Workspace, made: list[str], named: list[str], found: str | None
) -> None:
    assert find(workspace, made, *named) == found


def test_several_directories_can_be_named() -> None:
    made = ["out/a", "logs/deep/b", "stray", "x/__pycache__/y"]
    assert results.top_directories(made) == ["./logs", "./out"]
