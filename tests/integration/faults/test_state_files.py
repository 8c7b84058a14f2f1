"""Every file that the service remembers something in, spoilt: the next build is right, or says why not."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cache.worlds import MODEL_ID, Pair, Recipe, Step, World, make_model
from trt_llm_pipeline.records import read_record, write_record
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.workspace.shapes import MADE

RECIPE = Recipe(Step("./engine", "x", ("./notes",)))
FILES = (
    *("made.json", "running", "published.json", "hashes.json", "lock-holder.json", "lock", "step.lock"),
    *("cache/*/entry.json", "../builds/*/build.json"),
)
HUGE_BYTES = 1 << 40  # sparse, so it takes no room; reading it would take hours
WRONG = {
    "files": [[]],
    "archive": None,
    "steps": "none",
    "running": 7,
    "found": {"build": ["/"]},
    "size": "x",
}


def _write(data: bytes) -> Callable[[Path, bytes], None]:
    return lambda path, _before: void(path.write_bytes(data))


def void(_value: object) -> None:
    """For what is done and not asked about."""


def _half(path: Path, before: bytes) -> None:
    path.write_bytes(before[: len(before) // 2])


def _wrong(path: Path, before: bytes) -> None:
    """The same keys with values of other types; what makes it worth reading, a build's key, stays."""
    try:
        known: Any = json.loads(before)
    except ValueError:
        known = {}
    kept = {name: known[name] for name in ("key", "build_id") if name in known}
    path.write_text(json.dumps({**{name: [[]] for name in known}, **WRONG, **kept}))


def _less(path: Path, before: bytes) -> None:
    """Every object within it without its last key."""
    try:
        known: Any = json.loads(before)
    except ValueError:
        known = {}
    less = {key: dict(list(v.items())[:-1]) if isinstance(v, dict) else v for key, v in known.items()}
    path.write_text(json.dumps(less))


def _huge(path: Path, before: bytes) -> None:
    path.write_bytes(before)
    os.truncate(path, HUGE_BYTES)


def _directory(path: Path, _before: bytes) -> None:
    path.mkdir()
    (path / "kept").write_text("somebody's")


def _link(path: Path, before: bytes) -> None:
    target = path.parent / f"{path.name}.target"
    target.write_bytes(before or b"precious")
    path.symlink_to(target.name)


SPOILT: dict[str, Callable[[Path, bytes], None]] = {
    "empty": _write(b""),
    "garbage": _write(b"\xff\x00{[nonsense" * 9),
    "half": _half,
    "wrong-types": _wrong,
    "less": _less,
    "list": _write(b"[[[]], null]"),
    "deep": _write(b"[" * 200_000),
    "leads-out": _write(json.dumps({"files": {"../../x": [1, 2, "build"]}, "output_dir": "/"}).encode()),
    "huge": _huge,
    "directory": _directory,
    "fifo": lambda path, _before: os.mkfifo(path),
    "link": _link,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Any]:
    """A workspace after a build, and what is in its archive."""
    world = Pair(tmp_path_factory.mktemp("state")).cached
    clean = world.build(RECIPE)
    assert isinstance(clean, dict), clean
    return world, clean


@pytest.fixture
def world(built: tuple[World, Any], tmp_path: Path) -> World:
    """A copy of it, which may be spoilt."""
    tools = built[0].tools
    made = World(tmp_path, tools.root, cache=True)
    shutil.rmtree(made.root)
    shutil.copytree(built[0].root, made.root, symlinks=True)
    return made


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("name", FILES)
def test_spoilt_state_never_makes_a_wrong_archive(
    world: World, built: tuple[World, Any], name: str, how: str
) -> None:
    state = world.root / ".trt-llm-pipeline"
    found = list(state.glob(name)) or [state / name]
    for path in found:
        before = path.read_bytes() if path.is_file() else b""
        path.unlink(missing_ok=True)
        SPOILT[how](path, before)
    users = (world.root / "notes" / "a").read_text()
    for _ in range(2):
        # An error that is no TrtLlmPipelineError, a traceback for the user, is raised by `build` here.
        told = world.build(RECIPE)
        if isinstance(told, dict):
            assert told == built[1]
        else:
            assert told.startswith(("WorkspaceError: ", "refused: ")), told
            assert any(way in told for way in ("remove", "move them away", "choose another")), told
    assert (world.root / "notes" / "a").read_text() == users
    for path in state.rglob("*.target"):
        assert path.read_bytes() not in (b"", b"{}"), "it was written through a link"


@pytest.fixture(scope="module")
def downloaded(
    built: tuple[World, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, Any]]:
    """A workspace whose model came from a Hub, and what is in its archive."""
    folder = tmp_path_factory.mktemp("downloaded")
    make_model(folder / "hub" / MODEL_ID, "model.safetensors")
    with HubServer(folder / "hub") as hub:
        world = World(folder, built[0].tools.root, cache=True, hub=hub.url)
        clean = world.build(RECIPE)
        assert isinstance(clean, dict), clean
        yield world, clean


@pytest.mark.parametrize("how", SPOILT)
def test_spoilt_record_of_a_model_never_makes_a_wrong_archive(
    downloaded: tuple[World, Any], how: str
) -> None:
    world, clean = downloaded
    model = world.root / "models" / MODEL_ID
    record = model / ".cache" / "trt-llm-pipeline" / "snapshot.json"
    before = record.read_bytes()
    assert json.loads(before)["complete"]
    record.unlink()
    SPOILT[how](record, before)
    (model / "tokenizer.json").write_text("{ }")  # only a right record, or the Hub, knows that this is wrong
    for is_wrong in (how != "less", False):  # of a snapshot "less" leaves out nothing
        assert world.build(RECIPE) == clean
        assert any("snapshot.json is not as this service" in line for line in world.log.lines) == is_wrong
    assert json.loads(record.read_bytes())["complete"]
    assert (model / "tokenizer.json").read_text() == "{}"
    if how == "link":
        assert (record.parent / "snapshot.json.target").read_bytes() == before, "written through a link"


def test_a_record_that_cannot_be_read_just_now_does_not_count_as_absent(tmp_path: Path) -> None:
    """Else it would be written anew without what it says: which files are a build's own, for instance."""
    path = tmp_path / "made.json"
    write_record(path, {"files": {"engine/config.json": [1, 2, "build"]}})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open(path, os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            read_record(path, MADE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert read_record(path, MADE) is not None


def test_what_is_wrong_is_said(world: World) -> None:
    (world.root / ".trt-llm-pipeline" / "hashes.json").write_text('{"x": 7}')
    assert isinstance(world.build(RECIPE), dict)
    (line,) = [line for line in world.log.lines if "hashes.json is not as this service writes it" in line]
    assert "counts as absent" in line
