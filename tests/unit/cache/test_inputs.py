"""Which files a step can read by its arguments."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trt_llm_pipeline.cache import inputs
from trt_llm_pipeline.cache.inputs import Disks, UnhashableError, named_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with a few files, and some more outside."""
    root = tmp_path / "ws"
    for name in ("a", "dir/b", "dir/deep/c", "models/m/x", "builds/y"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "d").write_text("d")
    return root


def named(root: Path, *argv: str, skip: tuple[str, ...] = ()) -> dict[str, str]:
    """Names of the files, and where they are as seen from the workspace."""
    found = named_files(
        root,
        argv,
        skip=[root / name for name in skip],
        hidden=[root / "models", root / "builds"],
        disks=Disks(),
    )
    return {name: os.path.relpath(path, root) for name, path in found.items()}


def test_files_and_directories_count_and_values_do_not(root: Path) -> None:
    assert named(root, "--x", "a", "float16", "dir", "", "a" * 300, "1e-3", "x\0y", "b" * 5000) == {
        "1:": "a",
        "3:b": "dir/b",
        "3:deep/c": "dir/deep/c",
    }


def test_value_of_an_option_counts(root: Path) -> None:
    assert named(root, "--x=a", "--y=-1") == {"0:": "a"}


def test_names_do_not_depend_on_where_the_files_are(root: Path, tmp_path: Path) -> None:
    assert named(root, str(tmp_path / "out"), str(root / "a")) == {"0:d": "../out/d", "1:": "a"}


def test_what_something_else_accounts_for_is_left_out(root: Path) -> None:
    (root / "link").symlink_to("dir/deep/c")
    assert named(root, "dir", "dir/deep/c", "link", "a", skip=("dir/deep", "a")) == {"0:b": "dir/b"}


def test_links_are_followed_to_files_and_directories_and_end(root: Path, tmp_path: Path) -> None:
    (root / "links").mkdir()
    (root / "links/file").symlink_to(tmp_path / "out" / "d")
    (root / "links/dir").symlink_to(root / "dir")
    (root / "links/round").symlink_to(root / "links")
    (root / "links/self").symlink_to("self")
    (root / "links/broken").symlink_to("nothing")
    assert named(root, "links") == {
        "0:file": "../out/d",
        "0:dir/b": "dir/b",
        "0:dir/deep/c": "dir/deep/c",
    }


def test_workspace_itself_counts_without_the_services_own(root: Path) -> None:
    assert set(named(root, ".").values()) == {"a", "dir/b", "dir/deep/c"}


def test_service_directory_counts_where_it_is_named(root: Path) -> None:
    assert named(root, "models/m") == {"0:x": "models/m/x"}


@pytest.mark.parametrize("argument", ["..", "/", "./dir/../.."])
def test_what_is_around_the_workspace_is_too_much(root: Path, argument: str) -> None:
    with pytest.raises(UnhashableError, match="around the workspace"):
        named(root, argument)


@pytest.mark.parametrize(
    "argument",
    ["/proc/kmsg", "/proc/version", "/proc/self/environ", "/proc/self", "/sys/kernel", "/dev/zero"],
)
def test_what_the_system_makes_up_has_no_content(root: Path, argument: str) -> None:
    with pytest.raises(UnhashableError, match=r"makes up|not a regular file"):
        named(root, argument)


@pytest.mark.parametrize("argument", ["fifo", "pipes", "--data=fifo"])
def test_fifo_has_no_content(root: Path, argument: str) -> None:
    (root / "pipes").mkdir()
    os.mkfifo(root / "fifo")
    os.mkfifo(root / "pipes" / "fifo")
    with pytest.raises(UnhashableError, match="not a regular file"):
        named(root, argument)


def test_null_device_is_nothing(root: Path) -> None:
    assert named(root, os.devnull) == {}


def test_very_many_files_are_too_much(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MOST_FILES", 1)
    with pytest.raises(UnhashableError, match="more than 1 files"):
        named(root, "dir")


def test_sparse_file_of_a_terabyte_is_too_much(root: Path) -> None:
    with (root / "sparse").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(UnhashableError, match=r"256\.0 GB"):
        named(root, "sparse")
