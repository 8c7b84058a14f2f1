"""Packing an engine directory: what is in the archive, its exact bytes, and what is left after a failure."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trt_llm_pipeline.artifact import FinishedArchive, pack_engine
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
    packed = pack_engine(
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


def names(packed: FinishedArchive) -> list[str]:
    return [file.name for file in packed.files]


def content(packed: FinishedArchive, name: str) -> bytes:
    with tarfile.open(packed.path) as archive:
        member = archive.extractfile(name)
        assert member is not None
        return member.read()


def assert_only_the_engine_is_left(tmp_path: Path) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine_outputs"]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("archive")]


def test_the_same_inputs_give_the_same_bytes_whatever_their_dates_owners_and_modes(
    engine: Path, tmp_path: Path
) -> None:
    first = pack_engine(engine, tmp_path / "first", extra={"a": b"1"}, manifest={"m": 1})
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    for name in ("rank0.engine", "config.json"):  # another order of creation
        (copy / name).write_bytes((engine / name).read_bytes())
        (copy / name).chmod(0o755)
        os.utime(copy / name, (1, 1))
    second = pack_engine(copy, tmp_path / "second", extra={"a": b"1"}, manifest={"m": 1})
    assert second.path.read_bytes() == first.path.read_bytes()
    assert second.sha256 == first.sha256


def test_folders_of_an_engine_keep_their_place(engine: Path, tmp_path: Path) -> None:
    (engine / "encoder").mkdir()
    (engine / "encoder" / "rank0.engine").write_bytes(b"e")
    packed = pack_engine(
        engine, tmp_path / "archive", extra={"encoder": b"loses", "encoder/rank0.engine": b""}, manifest={}
    )
    assert names(packed) == ["config.json", "encoder/rank0.engine", "rank0.engine", "manifest.json"]
    assert content(packed, "encoder/rank0.engine") == b"e"


def test_a_link_inside_the_directory_counts_as_the_file(engine: Path, tmp_path: Path) -> None:
    (engine / "d").mkdir()
    (engine / "d" / "alias.json").symlink_to("../config.json")
    packed = pack_engine(engine, tmp_path / "archive", extra={}, manifest={})
    assert content(packed, "d/alias.json") == (engine / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (
            lambda path: path.symlink_to("/etc/hostname"),
            "planted is a symbolic link that leads out of the directory",
        ),
        (
            lambda path: path.symlink_to("../outside"),
            "planted is a symbolic link that leads out of the directory",
        ),
        (lambda path: path.symlink_to("/etc"), "planted is a symbolic link that leads out of the directory"),
        (
            lambda path: path.symlink_to("."),
            "planted is a symbolic link to something other than a regular file",
        ),
        (lambda path: path.symlink_to("nowhere"), "planted is a symbolic link to nothing"),
        (lambda path: path.symlink_to("planted"), "planted is a symbolic link"),
        (os.mkfifo, "planted is a FIFO"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "planted is a socket"),
        (lambda path: path.mkdir() or os.mkfifo(path / "deep"), "planted/deep is a FIFO"),
        (
            lambda path: path.mkdir() or (path / "out").symlink_to("/proc/self"),
            "planted/out is a symbolic link",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_what_is_no_regular_file_of_the_directory_is_refused_by_name(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], object], words: str
) -> None:
    monkeypatch.chdir(engine)  # a socket's address is short
    plant(Path("planted"))
    with pytest.raises(ArtifactError, match=words):
        pack_engine(engine, tmp_path / "archive", extra={}, manifest={})
    assert_only_the_engine_is_left(tmp_path)


def test_all_that_cannot_be_packed_is_named_at_once(engine: Path, tmp_path: Path) -> None:
    for index in range(10):
        os.mkfifo(engine / f"pipe{index}")
    with pytest.raises(ArtifactError, match=r"pipe0 is a FIFO; .*pipe7 is a FIFO; and 2 more"):
        pack_engine(engine, tmp_path / "archive", extra={}, manifest={})


def test_an_engine_directory_that_is_itself_a_link_is_refused(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(ArtifactError, match="cannot pack"):
        pack_engine(tmp_path / "link", tmp_path / "archive", extra={}, manifest={})


@pytest.mark.parametrize("late", ["a-link", "a-fifo", "another-file", "a-linked-folder"])
def test_a_file_replaced_while_packing_is_never_read(engine: Path, tmp_path: Path, late: str) -> None:
    folder = engine / "z"
    folder.mkdir()
    (folder / "last").write_bytes(b"mine")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "last").write_bytes(b"SECRET")

    def swap(done: int, total: int) -> None:
        if secret.exists() and (folder / "last").exists() and not folder.is_symlink():
            (folder / "last").unlink()
            if late == "a-link":
                (folder / "last").symlink_to(secret / "last")
            elif late == "a-fifo":
                os.mkfifo(folder / "last")
            elif late == "another-file":
                os.link(secret / "last", folder / "last")
            else:
                folder.rmdir()
                folder.symlink_to(secret)

    with pytest.raises(ArtifactError, match="z/last"):
        pack_engine(engine, tmp_path / "archive", extra={}, manifest={}, progress=swap, compression="none")
    assert not (tmp_path / "archive").exists()


def test_a_file_that_grows_while_packing_is_refused(engine: Path, tmp_path: Path) -> None:
    def grow(done: int, total: int) -> None:
        with (engine / "rank0.engine").open("ab") as file:
            file.write(b"more")

    with pytest.raises(ArtifactError, match=r"rank0.engine changed its size while it was being packed"):
        pack_engine(engine, tmp_path / "archive", extra={}, manifest={}, progress=grow)
    assert_only_the_engine_is_left(tmp_path)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_any_exception_leaves_the_archive_before_as_it_was(
    engine: Path, tmp_path: Path, failure: type[BaseException]
) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(b"the last good one")

    def interrupt(done: int, total: int) -> None:
        raise failure

    with pytest.raises(failure):
        pack_engine(engine, archive, extra={}, manifest={}, progress=interrupt)
    assert archive.read_bytes() == b"the last good one"
    archive.unlink()
    assert_only_the_engine_is_left(tmp_path)


def test_a_manifest_of_the_engines_own_is_refused(engine: Path, tmp_path: Path) -> None:
    (engine / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"already holds a manifest.json"):
        pack_engine(engine, tmp_path / "archive", extra={}, manifest={})


def test_an_extra_file_that_is_a_link_or_missing_is_refused(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(ArtifactError, match="it is a symbolic link, not a regular file"):
        pack_engine(engine, tmp_path / "archive", extra={"x": tmp_path / "link"}, manifest={})
    with pytest.raises(ArtifactError, match="cannot read"):
        pack_engine(engine, tmp_path / "archive", extra={"x": tmp_path / "gone"}, manifest={})


def test_a_folder_that_is_not_there_is_named(engine: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot write .*no-folder/archive: No such file or directory"):
        pack_engine(engine, tmp_path / "no-folder" / "archive", extra={}, manifest={})


def test_a_full_disk_is_called_that_and_nothing_is_left_on_it(engine: Path, tmp_path: Path) -> None:
    """On a real filesystem of one megabyte, mounted in a namespace of the test's own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (engine / "rank0.engine").write_bytes(os.urandom(3 << 20))
    script = f"""
import os, pathlib
from trt_llm_pipeline.artifact import pack_engine
from trt_llm_pipeline.errors import DiskFull
try:
    engine, archive = pathlib.Path({str(engine)!r}), pathlib.Path({str(disk / "archive")!r})
    pack_engine(engine, archive, extra={{}}, manifest={{}})
except DiskFull as problem:
    print(problem, os.listdir({str(disk)!r}))
"""
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--map-root-user",
            "sh",
            "-c",
            f'mount -t tmpfs -o size=1m none {disk} && exec "$0" -c "$1"',
            sys.executable,
            script,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(f"the disk of {disk} is full ("), done.stderr
    assert done.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize("compression", ["gzip", pytest.param("none", marks=pytest.mark.slow)])
def test_memory_stays_small_whatever_the_size(engine: Path, tmp_path: Path, compression: str) -> None:
    with (engine / "rank1.engine").open("wb") as file:
        file.truncate(600 << 20)
    script = """
import pathlib, sys
from trt_llm_pipeline.artifact.pack import write_artifact
class Gone:
    def write(self, data): pass
write_artifact(pathlib.Path(sys.argv[1]), Gone(), extra={}, manifest={}, compression=sys.argv[2])
status = pathlib.Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, engine, compression], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100 * 1024
