"""Hashes of files, and when one is remembered."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from trt_llm_pipeline.cache import hashes as module
from trt_llm_pipeline.cache.hashes import FileHashes


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_as_before(path: Path, text: str) -> None:
    """Changes a file's content and leaves its size and times as they were, as far as a program can."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files need not be two seconds old to be remembered."""
    monkeypatch.setattr(module, "_SETTLED_NS", 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    time.sleep(0.02)  # more than a tick of the file system's clock
    return path


@pytest.mark.usefixtures("settled")
class TestMemory:
    def test_unchanged_file_is_not_read_again(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = FileHashes(tmp_path / "memo")
        assert first.of(file) == sha256("one")
        first.save()
        monkeypatch.setattr(module, "_read", lambda *_: pytest.fail("it was read"))
        assert FileHashes(tmp_path / "memo").of(file) == sha256("one")

    def test_same_size_and_mtime_do_not_deceive(self, file: Path) -> None:
        hashes = FileHashes()
        assert hashes.of(file) == sha256("one")
        write_as_before(file, "two")
        assert hashes.of(file) == sha256("two")

    def test_file_put_in_its_place_is_another(self, file: Path, tmp_path: Path) -> None:
        hashes = FileHashes()
        hashes.of(file)
        other = tmp_path / "other"
        other.write_text("two")
        os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
        other.replace(file)
        assert hashes.of(file) == sha256("two")

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}', '{"x": [1]}', "null"])
    def test_memo_of_garbage_counts_as_none(self, file: Path, tmp_path: Path, text: str) -> None:
        (tmp_path / "memo").write_text(text.replace("x", str(file)))
        hashes = FileHashes(tmp_path / "memo")
        assert hashes.of(file) == sha256("one")
        hashes.save()
        assert FileHashes(tmp_path / "memo").of(file) == sha256("one")

    def test_forgetting_is_for_good(self, file: Path, tmp_path: Path) -> None:
        hashes = FileHashes(tmp_path / "memo")
        hashes.of(file)
        hashes.save()
        hashes.forget()
        assert (tmp_path / "memo").read_text() == "{}"


def test_file_that_was_just_written_is_not_remembered(file: Path, tmp_path: Path) -> None:
    """Written to once more within the same tick of the clock it would look the same."""
    hashes = FileHashes(tmp_path / "memo")
    hashes.of(file)
    hashes.save()
    assert not (tmp_path / "memo").exists()


def test_link_stands_for_what_it_leads_to(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    assert FileHashes().of(tmp_path / "link") == sha256("one")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            FileHashes().of(path)


def test_no_more_is_read_than_the_file_had(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows as fast as it is read would never end."""
    read = os.read

    def growing(descriptor: int, size: int) -> bytes:
        with file.open("a") as end:
            end.write("more")
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", growing)
    with pytest.raises(OSError, match="changed while it was read"):
        FileHashes().of(file)


def test_large_file_is_announced(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WORTH_SAYING_BYTES", 3)
    told: list[str] = []
    FileHashes(None, told.append).of(file)
    assert told == [f"reading {file} (3 bytes) to tell whether it has changed"]
