"""Files that appear whole or not at all, and files that are not what they seem."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trt_llm_pipeline.files import (
    copy_verified,
    disk_full,
    free_bytes,
    hash_file,
    read_json,
    read_regular,
    walk,
    write_all,
    write_json,
)


class TestWriteJson:
    def test_what_is_at_the_path_is_replaced_and_never_written_through(self, tmp_path: Path) -> None:
        precious = tmp_path / "precious"
        precious.write_text("mine")
        path = tmp_path / "record.json"
        path.symlink_to(precious)
        write_json(path, {"ü": [1, None]})
        assert precious.read_text() == "mine"
        assert not path.is_symlink()
        assert json.loads(path.read_text()) == {"ü": [1, None]}

    def test_a_value_that_cannot_be_written_leaves_the_old_one(self, tmp_path: Path) -> None:
        path = tmp_path / "record.json"
        write_json(path, "old")
        with pytest.raises(TypeError):
            write_json(path, ["new", object()])
        assert json.loads(path.read_text()) == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_reader_never_sees_a_half(self, tmp_path: Path) -> None:
        path = tmp_path / "record.json"
        values = [["a" * 200_000], ["b" * 300_000]]
        write_json(path, values[0])
        program = (
            "import sys; from pathlib import Path; from trt_llm_pipeline.files import write_json\n"
            "values = [['a' * 200_000], ['b' * 300_000]]\n"
            "for turn in range(60): write_json(Path(sys.argv[1]), values[turn % 2])"
        )
        writer = subprocess.Popen([sys.executable, "-c", program, str(path)])
        seen = set()
        while writer.poll() is None:
            value = json.loads(path.read_text())
            assert value in values
            seen.add(value[0][0])
        assert writer.returncode == 0
        assert seen == {"a", "b"}


class TestReading:
    """Nothing that a step can put in a file's place blocks its reader, or is followed."""

    @pytest.mark.parametrize("kind", ["fifo", "link", "directory", "device", "absent"])
    def test_what_is_not_a_regular_file_is_refused_at_once(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "record.json"
        (tmp_path / "else").write_text("{}")
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to("else")
        elif kind == "directory":
            path.mkdir()
        elif kind == "device":
            path = Path("/dev/zero")
        for read in (read_json, hash_file, lambda path: read_regular(path, 10)):
            with pytest.raises(OSError, match=r"regular|links|directory|No such file") as refused:
                read(path)
            assert refused.value.errno in (errno.EINVAL, errno.ELOOP, errno.ENOENT)

    def test_more_than_asked_for_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"12345")
        assert read_regular(path, 5) == b"12345"
        with pytest.raises(OSError, match="larger than 4 bytes"):
            read_regular(path, 4)

    def test_json_without_end_is_no_json(self, tmp_path: Path) -> None:
        path = tmp_path / "deep.json"
        path.write_text("[" * 1_000_000)
        with pytest.raises(ValueError, match=r"too deeply|Expecting"):
            read_json(path)


class TestWriteAll:
    DATA = bytes(range(256)) * 2000

    @pytest.mark.parametrize("place", [None, 1000])
    def test_all_of_it_is_there_though_the_system_takes_a_part_at_a_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int | None
    ) -> None:
        write, pwrite = os.write, os.pwrite
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:70_000]))
        monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:70_000], at))
        with (tmp_path / "file").open("wb", buffering=0) as file:
            write_all(file.fileno(), self.DATA, place)
        assert (tmp_path / "file").read_bytes() == bytes(place or 0) + self.DATA


class TestCopies:
    def test_a_copy_tells_size_and_hash(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(b"x" * 10_000_000)
        seen: list[tuple[int, int]] = []
        copied = copy_verified(source, target, lambda done, total: seen.append((done, total)))
        assert copied == (10_000_000, hash_file(source)) == (10_000_000, hash_file(target))
        assert seen[-1] == (10_000_000, 10_000_000)

    def test_a_copy_that_is_broken_off_leaves_nothing(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"x" * 10_000_000)

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            copy_verified(source, tmp_path / "target", stop)
        assert list(tmp_path.iterdir()) == [source]


def test_a_full_disk_is_one_sentence_with_a_remedy(tmp_path: Path) -> None:
    told = str(disk_full(tmp_path / "not" / "yet", "there is no room for x, and nothing was kept of it"))
    assert told.startswith(f"the disk of {tmp_path}/not/yet is full (")
    assert told.endswith(
        "free): there is no room for x, and nothing was kept of it. Free some space, or choose another "
        "TRT_LLM_WORKSPACE, and build again"
    )
    assert free_bytes(tmp_path / "not" / "yet") > 0


#: Not one descriptor more: what is imported lazily is imported before.
NO_DESCRIPTORS = """\
import resource, sys
from pathlib import Path
from trt_llm_pipeline.engine.tokenizer_files import tokenizer_files
from trt_llm_pipeline.files import walk
top = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
for work in (lambda: list(walk(top)), lambda: tokenizer_files(top)):
    try:
        print("it gave", work())
    except OSError as error:
        print(error.strerror, error.filename)
"""


class TestNothingIsLeftOutSilently:
    def test_where_descriptors_are_short(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{}")
        argv = [sys.executable, "-c", NO_DESCRIPTORS, str(tmp_path)]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert ran.stdout.splitlines() == [f"Too many open files {tmp_path}"] * 2, ran.stderr

    def test_a_directory_that_goes_meanwhile_is_passed_over(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").touch()
        seen = []
        for folder, folders, _ in walk(tmp_path):
            seen.append(Path(folder).name)
            if folders:
                shutil.rmtree(tmp_path / "a")
        assert seen == [tmp_path.name, "b"]

    def test_links_are_followed_where_that_is_asked_for(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "file").touch()
        (tmp_path / "top").mkdir()
        (tmp_path / "top" / "link").symlink_to(tmp_path / "there")
        top = tmp_path / "top"
        assert list(walk(top)) == [(str(top), ["link"], [])]
        assert list(walk(top, follow=True))[1:] == [(f"{top}/link", [], ["file"])]
