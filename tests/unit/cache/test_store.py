"""Entries that were damaged, and what else is where an entry belongs."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trt_llm_pipeline.cache import StepCache
from trt_llm_pipeline.workspace import Workspace

KEY = "0" * 64


@pytest.fixture
def cache(workspace: Workspace) -> StepCache:
    workspace.prepare()
    return StepCache(workspace, 1 << 20)


def kept(cache: StepCache, workspace: Workspace) -> Path:
    """An entry with one result and two files beside it; the workspace has none of them any more."""
    for name in ("engine/rank0.engine", "side/a", "side/b"):
        (workspace.root / name).parent.mkdir(exist_ok=True)
        (workspace.root / name).write_text(name)
    cache.store(KEY, "build", "owner/model", workspace.root / "engine", ("side/a", "side/b"))
    shutil.rmtree(workspace.root / "engine")
    shutil.rmtree(workspace.root / "side")
    return workspace.state / "cache" / KEY


def _link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize("instead", [Path.mkdir, _link, os.mkfifo, Path.touch])
@pytest.mark.parametrize("name", ["files/rank0.engine", "beside/side/b"])
def test_what_is_no_such_file_counts_as_damaged(
    cache: StepCache, workspace: Workspace, name: str, instead: Callable[[Path], None]
) -> None:
    place = kept(cache, workspace) / name
    place.unlink()
    instead(place)
    assert not cache.restore(KEY, workspace.root / "engine")
    assert cache.has(KEY) is None
    left = [
        path for path in workspace.root.rglob("*") if path.is_file() and workspace.state not in path.parents
    ]
    assert left == []


@pytest.mark.parametrize("there", [os.mkfifo, Path.mkdir])
def test_note_that_arguments_are_accepted_takes_the_place_of_anything(
    cache: StepCache, workspace: Workspace, there: Callable[[Path], None]
) -> None:
    place = workspace.state / "cache" / "accepted" / KEY
    place.parent.mkdir(parents=True)
    there(place)
    noted = threading.Thread(target=cache.accept, args=(KEY,), daemon=True)
    noted.start()
    noted.join(30)
    assert cache.accepted(KEY)


def test_note_that_arguments_are_accepted_is_not_written_through_a_link(
    cache: StepCache, workspace: Workspace, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    place = workspace.state / "cache" / "accepted" / KEY
    place.parent.mkdir(parents=True)
    place.symlink_to(mine)
    cache.accept(KEY)
    assert mine.read_text() == "mine"
    assert cache.accepted(KEY)


def test_entries_that_go_meanwhile_are_not_missed(cache: StepCache, workspace: Workspace) -> None:
    """Workspaces that share a cache remove each other's entries."""
    entry = kept(cache, workspace)
    real = StepCache._record

    def removed(self: StepCache, path: Path) -> object:
        record = real(self, path)
        shutil.rmtree(entry, ignore_errors=True)
        return record

    StepCache._record = removed  # type: ignore[method-assign,assignment]
    try:
        assert cache.entries() == []
        kept(cache, workspace)
        assert cache.changed("build", "owner/model", {}) == []
    finally:
        StepCache._record = real  # type: ignore[method-assign]
