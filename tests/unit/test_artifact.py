"""Packing an engine directory: what is in the archive, its exact bytes, and what is left after a failure."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from trt_llm_pipeline.artifact import pack
from trt_llm_pipeline.errors import ArtifactError


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    directory = tmp_path / "engine_outputs"
    directory.mkdir()
    (directory / "config.json").write_text('{"builder_config": {}}')
    (directory / "rank0.engine").write_bytes(bytes(range(256)) * 12_345)
    return directory


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_everything_is_at_the_root_and_the_manifest_is_last(
    engine: Path, tmp_path: Path, compression
) -> None:
    packed = pack(
        engine,
        tmp_path / "archive",
        extra={"tokenizer_config.json": b"{}", "config.json": b"not the engine's"},
        manifest={"model_id": "a/b"},
        compression=compression,
    )
    names = ["config.json", "rank0.engine", "tokenizer_config.json", "manifest.json"]
    assert [file.name for file in packed.files] == names
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xf", packed.path, "-C", out], check=True)
    assert (out / "rank0.engine").read_bytes() == (engine / "rank0.engine").read_bytes()
    assert (out / "config.json").read_text() == '{"builder_config": {}}'
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["model_id"] == "a/b"
    assert manifest["files"] == {
        name: {
            "size": (out / name).stat().st_size,
            "sha256": hashlib.sha256((out / name).read_bytes()).hexdigest(),
        }
        for name in names[:-1]
    }
    assert packed.size == packed.path.stat().st_size
    assert packed.sha256 == hashlib.sha256(packed.path.read_bytes()).hexdigest()
    with tarfile.open(packed.path) as archive:
        assert archive.getnames() == names
        for member in archive:
            facts = (member.mode, member.mtime, member.uid, member.gid, member.uname, member.gname)
            assert facts == (0o644, 0, 0, 0, "", "")


def test_a_link_out_of_the_directory_is_refused_by_name(engine: Path, tmp_path: Path) -> None:
    (engine / "stolen").symlink_to("/etc/hostname")
    with pytest.raises(ArtifactError, match="stolen is a symbolic link that leads out"):
        pack(engine, tmp_path / "archive", extra={}, manifest={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine_outputs"]
