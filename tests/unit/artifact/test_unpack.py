"""An archive's files in a directory: whole and as its manifest says, or an error."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from trt_llm_pipeline.artifact.unpack import unpack
from trt_llm_pipeline.errors import ArchiveDamaged, ArtifactError


def archive(members: dict[str, bytes], *, listed: bool = True) -> io.BytesIO:
    """A tar with a manifest of its members, or without one."""
    files = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in members.items()
    }
    manifest = {"manifest.json": json.dumps({"files": files}).encode()} if listed else {}
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in {**members, **manifest}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    sink.seek(0)
    return sink


def there(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("listed", [True, False])
def test_every_file_is_there_as_it_was(tmp_path: Path, listed: bool) -> None:
    members = {"config.json": b"{}", "lora/rank0.bin": bytes(range(256)) * 9000, "empty": b""}
    contents = unpack(archive(members, listed=listed), tmp_path, "a.tar")
    found = there(tmp_path)
    assert (found.pop("manifest.json", None) is not None) == listed
    assert found == members
    assert {file.name for file in contents.files} - {"manifest.json"} == set(members)


def test_names_that_begin_with_the_folder_itself_are_put_at_its_top(tmp_path: Path) -> None:
    unpack(archive({"./config.json": b"{}"}, listed=False), tmp_path, "a.tar")
    assert there(tmp_path) == {"config.json": b"{}"}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [(b"{}", "manifest.json does not list the archive's files"), (b"{", "manifest.json is not valid JSON")],
)
def test_a_manifest_that_says_nothing_is_refused_unlike_none(
    tmp_path: Path, manifest: bytes, words: str
) -> None:
    with pytest.raises(ArchiveDamaged, match=rf"^a\.tar is not as a build has left it: {words}; fetch or"):
        unpack(archive({"a": b"1", "manifest.json": manifest}, listed=False), tmp_path, "a.tar")


def test_nothing_is_written_outside_nor_after_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(ArchiveDamaged, match=r"^a\.tar is not as a build has left it: '\.\./out' leads out"):
        unpack(archive({"first": b"1", "../out": b"2", "later": b"3"}), folder, "a.tar")
    assert there(tmp_path) == {"in/first": b"1"}


def test_a_file_where_a_folder_must_be(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^a\.tar cannot be unpacked: "):
        unpack(archive({"a": b"1", "a/b": b"2"}), tmp_path, "a.tar")
