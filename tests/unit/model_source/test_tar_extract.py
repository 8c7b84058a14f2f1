"""Paths in a tar: bounded before anything is done with them, and linear work on each."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from trt_llm_pipeline.errors import ModelSourceError
from trt_llm_pipeline.model_source import tar_extract
from trt_llm_pipeline.model_source.tar_extract import DEEPEST_PATH, LONGEST_PATH, Unpacked, unpack

_MIB = 1 << 20


def tar_of(*entries: tuple[str, bytes, str]) -> bytes:
    """A tar of entries: name, type, and what a link leads to; a regular file holds one byte."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = 1 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"x"))
    return output.getvalue()


def unpacked(content: bytes, folder: Path) -> Unpacked:
    folder.mkdir()
    return unpack(iter([content]), folder, "the tar", most_bytes=1000, tick=lambda: None)


def deep(parts: int) -> str:
    return "/".join(["a"] * parts)


@pytest.mark.parametrize("parts", [20_000, 500_000])
@pytest.mark.parametrize(
    "entry",
    [
        lambda name: (name, tarfile.REGTYPE, ""),
        lambda name: (name, tarfile.DIRTYPE, ""),
        lambda name: ("link", tarfile.SYMTYPE, name),
        lambda name: ("link", tarfile.LNKTYPE, name),
    ],
    ids=["file", "folder", "symlink", "hard link"],
)
def test_path_of_very_many_parts_is_refused_in_no_time_and_no_memory(
    tmp_path: Path, entry: Callable[[str], tuple[str, bytes, str]], parts: int
) -> None:
    content = tar_of(entry(deep(parts)))
    before, started = psutil.Process().memory_info().rss, time.process_time()
    with pytest.raises(ModelSourceError, match=r"path of .* bytes; at most 1,024") as refused:
        unpacked(content, tmp_path / "model")
    assert time.process_time() - started < 2
    assert psutil.Process().memory_info().rss - before < 100 * _MIB
    assert len(str(refused.value)) < 500
    assert list((tmp_path / "model").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("b" * (LONGEST_PATH + 1), "path of 1,025 bytes"),
        (deep(DEEPEST_PATH + 2), "33 folders deep; at most 32"),
        ("folder/" + "c" * 256, "more than 255 bytes"),
    ],
)
def test_bounds_are_named(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(ModelSourceError, match=sentence):
        unpacked(tar_of((name, tarfile.REGTYPE, "")), tmp_path / "model")


def test_what_is_just_within_the_bounds_is_unpacked(tmp_path: Path) -> None:
    long = "/".join(["d" * 250] * 4)
    result = unpacked(
        tar_of((deep(DEEPEST_PATH + 1), tarfile.REGTYPE, ""), (long, tarfile.REGTYPE, "")), tmp_path / "m"
    )
    assert result.files == (deep(DEEPEST_PATH + 1), long)
    assert all((result.root / name).read_bytes() == b"x" for name in result.files)


def test_folders_are_counted_wherever_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_extract, "MOST_FOLDERS", 100)
    names = [f"{number}/{deep(9)}" for number in range(20)]
    with pytest.raises(ModelSourceError, match="more than 100 folders"):
        unpacked(tar_of(*((name, tarfile.REGTYPE, "") for name in names)), tmp_path / "model")


@pytest.mark.parametrize(
    "entries",
    [
        [("a/b", tarfile.REGTYPE, ""), ("a", tarfile.REGTYPE, "")],
        [("a", tarfile.REGTYPE, ""), ("a/b", tarfile.REGTYPE, "")],
        [("a", tarfile.REGTYPE, ""), ("a", tarfile.DIRTYPE, "")],
    ],
)
def test_file_and_folder_of_one_name_are_refused(
    tmp_path: Path, entries: list[tuple[str, bytes, str]]
) -> None:
    with pytest.raises(ModelSourceError, match="a is a file and a folder"):
        unpacked(tar_of(*entries), tmp_path / "model")


def test_link_in_the_way_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="a/b lies behind the link a"):
        unpacked(
            tar_of(("c", tarfile.REGTYPE, ""), ("a", tarfile.SYMTYPE, "c"), ("a/b", tarfile.REGTYPE, "")),
            tmp_path / "model",
        )
