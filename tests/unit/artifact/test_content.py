"""An archive's identity: the same for the same files, whatever compressed them, and for no others."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from isal import igzip

from trt_llm_pipeline.artifact import ArchivedFile, pack_engine, read_archive
from trt_llm_pipeline.artifact.content import content_sha256

FILES = {
    "rank0.engine": bytes(range(256)) * 5_001,
    "deep/er/file": b"1",
    "empty": b"",
    "Zoë.txt": b"ab" * 999,
}
BY_HAND = "find . -type f | cut -c3- | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
SECURITY = Path(__file__).parents[3] / "docs" / "security.md"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def file(name: str, data: bytes) -> ArchivedFile:
    return ArchivedFile(name, len(data), hashlib.sha256(data).hexdigest())


def test_every_compressor_and_none_gives_the_same_identity(engine: Path, tmp_path: Path) -> None:
    gzipped = pack_engine(engine, tmp_path / "a.tar.gz", extra={}, manifest={"a": 1})
    plain = pack_engine(engine, tmp_path / "a.tar", extra={}, manifest={"a": 1}, compression="none")
    tar = (tmp_path / "a.tar").read_bytes()
    # igzip's other levels write what its level 1 might on another processor: other bytes, the same files.
    others = [gzip.compress(tar, level) for level in (1, 6, 9)] + [igzip.compress(tar, n) for n in (0, 2, 3)]
    read = [read_archive(io.BytesIO(data)) for data in (*others, tar, gzipped.path.read_bytes())]
    assert len({archive.sha256 for archive in read}) == len(read)
    assert {archive.content_sha256 for archive in read} == {gzipped.content_sha256}
    assert plain.content_sha256 == gzipped.content_sha256


def test_a_shell_finds_the_same_in_the_extracted_folder(engine: Path, tmp_path: Path) -> None:
    packed = pack_engine(engine, tmp_path / "a.tar.gz", extra={}, manifest={"a": 1})
    (tmp_path / "out").mkdir()
    with tarfile.open(packed.path) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    found = subprocess.run(["sh", "-c", BY_HAND], cwd=tmp_path / "out", capture_output=True, check=True)
    assert found.stdout.decode().split()[0] == packed.content_sha256
    assert f"```bash\n{BY_HAND}\n```" in SECURITY.read_text()


def test_it_is_what_in_toto_calls_dir_hash() -> None:
    # The example of the specification: a Go module, whose h1: hash stands in the public checksum database.
    name = "github.com/marklodato/go-hello-world@v0.0.1"
    files = {
        "README.md": "3a137eef6458bfb76bb2c63fc29ffc7166604d2d2e09ed9d8250a534122a8364",
        "go.mod": "28e7c942a036902d981759d0bf5704d2bfc7cb500caf68b84711b234af01c6a5",
        "main.go": "ddc4da627d9a9f45fb29641a1b185d6f53287ecfd921aacbf4fe54b7a86fe8d1",
    }
    listed = [ArchivedFile(f"{name}/{file}", 0, sha256) for file, sha256 in files.items()]
    assert content_sha256(listed) == "2a1bb6127fb481c60f67692e22285fb306f3c6ffe62075e0ccf674d7c3adcb8f"


def test_order_does_not_matter_and_everything_else_does() -> None:
    files = [file("a", b"1"), file("b/c", b"2"), file("é", b"3")]
    identity = content_sha256(files)
    assert content_sha256(files[::-1]) == identity
    others = [
        files[:-1],
        [*files, file("d", b"")],
        [replace(files[0], name="A"), *files[1:]],
        [file("a", b"2"), file("b/c", b"1"), files[2]],
    ]
    found = {content_sha256(other) for other in others}
    assert len(found) == len(others)
    assert identity not in found


def test_the_manifest_counts_because_it_says_how_the_files_were_made(engine: Path, tmp_path: Path) -> None:
    one = pack_engine(engine, tmp_path / "one", extra={}, manifest={"revision": "1"})
    two = pack_engine(engine, tmp_path / "two", extra={}, manifest={"revision": "2"})
    assert one.files[:-1] == two.files[:-1]
    assert one.content_sha256 != two.content_sha256
