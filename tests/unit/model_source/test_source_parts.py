"""What the books of a model say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trt_llm_pipeline.errors import ModelSourceError, WorkspaceError
from trt_llm_pipeline.model_source.record import (
    Record,
    RecordedFile,
    check_no_links,
    check_path,
    digest_of,
    matches,
    read_record,
    record_path,
    remove_files,
    write_record,
)


def record(*files: RecordedFile, **changes: object) -> Record:
    values = {
        "source": "hub",
        "origin": "https://hub",
        "model_id": "a/b",
        "requested_revision": None,
        "weight_format": None,
        "revision": "c" * 40,
        "complete": True,
        "files": files,
    }
    return Record(**{**values, **changes})


class TestRecord:
    def test_it_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        written = record(
            RecordedFile("a/b.json", 2, "git-sha1:abc", 5),
            RecordedFile("c", 3, ""),
            stale=("old",),
            validators={"etag": "x"},
        )
        write_record(tmp_path, written)
        assert read_record(tmp_path) == written
        assert [path.name for path in record_path(tmp_path).parent.iterdir()] == ["snapshot.json"]

    def test_no_record_is_none_and_a_damaged_one_is_of_nothing(self, tmp_path: Path) -> None:
        assert read_record(tmp_path) is None
        write_record(tmp_path, record())
        whole = record_path(tmp_path).read_text()
        for damage in (
            whole[:40],
            "",
            "[]",
            '{"schema": 2}',
            json.dumps({**json.loads(whole), "files": [1]}),
        ):
            record_path(tmp_path).write_text(damage)
            found = read_record(tmp_path)
            assert found is not None
            assert not found.complete
            assert found.files == ()

    def test_a_link_planted_in_its_place_is_not_followed(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        path = record_path(tmp_path / "model")
        path.parent.mkdir(parents=True)
        path.symlink_to(victim)
        path.with_suffix(".tmp").symlink_to(victim)
        write_record(tmp_path / "model", record())
        assert victim.read_text() == "precious"

    def test_a_file_matches_by_date_or_by_content(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"hello\n")
        git = "git-sha1:ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
        assert digest_of(path, git) == git
        found = matches(tmp_path, RecordedFile("x", 6, git))
        assert found is not None
        assert found.mtime_ns == path.stat().st_mtime_ns
        assert matches(tmp_path, found) == found
        assert matches(tmp_path, RecordedFile("x", 7, git)) is None
        assert matches(tmp_path, RecordedFile("x", 6, "sha256:00")) is None
        assert matches(tmp_path, RecordedFile("x", 6, "")) is None
        assert matches(tmp_path, RecordedFile("y", 6, git)) is None
        (tmp_path / "link").symlink_to("x")
        assert matches(tmp_path, RecordedFile("link", 6, git)) is None
        assert matches(tmp_path, RecordedFile("link", 0, "link:x")) is not None
        assert matches(tmp_path, RecordedFile("link", 0, "link:y")) is None

    @pytest.mark.parametrize("path", ["/a", "../a", "a/../../b", "", ".cache/a", "a\\b", "a\0b", ".."])
    def test_paths_that_lead_out_are_refused(self, path: str) -> None:
        with pytest.raises(ModelSourceError, match="does not stay inside"):
            check_path(path)

    def test_links_on_the_way_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "l").symlink_to("/")
        check_no_links(tmp_path, "l")
        with pytest.raises(WorkspaceError):
            check_no_links(tmp_path, "l/etc")

    def test_removal_takes_the_files_and_the_folders_that_it_empties(self, tmp_path: Path) -> None:
        for path in ("a/b/one", "a/b/two", "c/three", "c/users"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        remove_files(tmp_path, ("a/b/one", "a/b/two", "c/three", "gone"))
        left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
        assert left == ["c", "c/users"]


def test_importing_it_brings_neither_the_hub_client_nor_the_test_tools() -> None:
    program = (
        "import sys, trt_llm_pipeline.model_source; "
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('huggingface_hub', 'httpx2', 'numpy', 'isal') or 'testing' in name.split('.')])"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr
