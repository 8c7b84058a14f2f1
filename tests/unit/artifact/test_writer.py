"""The archive's bytes: their layout, that they depend on nothing but the content, and how writing ends."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import struct
import subprocess
import tarfile
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_llm_pipeline.artifact.entries import Entry, FinishedArchive
from trt_llm_pipeline.artifact.writer import BLOCK_BYTES, write_archive
from trt_llm_pipeline.errors import ArtifactError


def written(
    contents: dict[str, bytes], compression: str = "gzip", threads: int | None = None
) -> tuple[bytes, FinishedArchive]:
    sink = io.BytesIO()
    entries = [Entry.of_bytes(name, data) for name, data in contents.items()]
    result = write_archive(entries, sink, compression=compression, threads=threads)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("archive")]
    return sink.getvalue(), result


def noise(size: int, seed: int = 1) -> bytes:
    """Half random, half not, so that it compresses without vanishing."""
    part = random.Random(seed).randbytes(size // 2)
    return part + bytes(size - len(part))


def members(data: bytes) -> list[bytes]:
    """The decompressed gzip members, by zlib, every byte accounted for."""
    found = []
    while data:
        inflate = zlib.decompressobj(wbits=31)
        found.append(inflate.decompress(data))
        assert inflate.eof
        data = inflate.unused_data
    return found


def test_gzip_is_two_members_and_the_second_is_the_end_mark_alone() -> None:
    data, _ = written({"a": b"x" * 700})
    stream, end = members(data)
    assert end == bytes(1024)
    assert len(stream) == 512 + 1024
    assert stream[-(1024 - 700) :] == bytes(1024 - 700)


def test_plain_tar_ends_with_the_end_mark_and_no_record_padding() -> None:
    data, _ = written({"a": b"x" * 700}, "none")
    assert len(data) == 512 + 1024 + 1024
    assert data == members(written({"a": b"x" * 700})[0])[0] + bytes(1024)


def test_gzip_headers_say_nothing_of_time_or_name() -> None:
    data, _ = written({"a": b"x"})
    magic, method, flags, mtime = struct.unpack("<HBBL", data[:8])
    assert (magic, method, flags, mtime) == (0x8B1F, 8, 0, 0)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_the_bytes_do_not_depend_on_the_number_of_threads(compression: str) -> None:
    contents = {
        "big": noise(5 * BLOCK_BYTES + 77),
        "small": b"1",
        "empty": b"",
        "second": noise(BLOCK_BYTES, 2),
    }
    first = written(contents, compression, threads=1)
    for threads in (2, 3, 8):
        assert written(contents, compression, threads) == first


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize(
    "sizes",
    [
        [0],
        [1],
        [511, 512, 513],
        [BLOCK_BYTES - 512],  # header and content fill a block exactly
        [BLOCK_BYTES - 1024, 5],  # the next header falls on a block's edge
        [BLOCK_BYTES, BLOCK_BYTES + 1, BLOCK_BYTES - 1],
        [3 * BLOCK_BYTES + 13] + [10] * 50,
    ],
)
def test_any_sizes_come_back_with_their_hashes(sizes: Sequence[int], compression: str) -> None:
    contents = {f"f{index:03}": noise(size, index) for index, size in enumerate(sizes)}
    data, result = written(contents, compression)
    assert (result.size, result.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert {file.name: file.sha256 for file in result.files} == {
        name: hashlib.sha256(content).hexdigest() for name, content in contents.items()
    }
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        back = {member.name: archive.extractfile(member).read() for member in archive}
    assert back == contents


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=150), st.binary(max_size=2000), max_size=5
    )
)
def test_any_names_are_read_back_or_refused(contents: dict[str, bytes]) -> None:
    try:
        data, _ = written(contents)
    except ArtifactError:
        assert any(
            not name.isprintable() or name.startswith("/") or {"", ".", ".."} & set(name.split("/"))
            for name in contents
        )
        return
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == list(contents)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../b", "a//b", "./a", "", ".", "a\nb", "a/", "x\udcff"]
)
def test_names_that_would_surprise_an_extractor_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match="cannot be a file's name"):
        written({name: b""})


def test_the_same_name_twice_is_refused() -> None:
    with pytest.raises(ArtifactError, match="two files are named 'a'"):
        write_archive([Entry.of_bytes("a", b"1"), Entry.of_bytes("a", b"2")], io.BytesIO())


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_gnu_tar_reads_long_and_foreign_names(tmp_path: Path, compression: str) -> None:
    contents = {"d/" * 60 + "f" * 150: b"long", "\u5f15\u64ce.engine": b"foreign"}
    (tmp_path / "archive").write_bytes(written(contents, compression)[0])
    done = subprocess.run(
        ["tar", "-xf", "archive"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {name: (tmp_path / name).read_bytes() for name in contents} == contents


def test_gzips_own_check_passes() -> None:
    contents = {"a": noise(3 * BLOCK_BYTES)}
    assert gzip.decompress(written(contents)[0]) == written(contents, "none")[0]


@pytest.mark.parametrize(("said", "has"), [(10, 9), (10, 11), (0, 1), (2 * BLOCK_BYTES, BLOCK_BYTES)])
def test_a_file_that_changes_size_is_refused(said: int, has: int) -> None:
    entry = Entry("growing", said, lambda: io.BytesIO(bytes(has)))
    with pytest.raises(ArtifactError, match="growing changed its size"):
        write_archive([entry], io.BytesIO())


def test_a_failing_sink_ends_the_writing_and_every_thread() -> None:
    class Full:
        taken = 0

        def write(self, data: bytes | memoryview) -> None:
            self.taken += len(data)
            if self.taken > 3 * BLOCK_BYTES:
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_archive([Entry.of_bytes("a", noise(40 * BLOCK_BYTES))], Full(), compression="none")
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("archive")]


def test_a_slow_sink_holds_the_reading_back() -> None:
    """No more than the shared blocks may be read ahead of what the sink has taken."""
    gate = threading.Event()
    read = 0

    class Slow:
        def write(self, data: bytes | memoryview) -> None:
            gate.wait(20)

    class Counted(io.BytesIO):
        def readinto(self, buffer: memoryview) -> int:
            nonlocal read
            count = super().readinto(buffer)
            read += count
            return count

    content = bytes(60 * BLOCK_BYTES)
    entry = Entry("a", len(content), lambda: Counted(content))
    thread = threading.Thread(target=write_archive, args=([entry], Slow()), kwargs={"compression": "none"})
    thread.start()
    for _ in range(100):
        before = read
        threading.Event().wait(0.05)
        if read == before and read:
            break
    stalled = read
    gate.set()
    thread.join()
    assert 0 < stalled <= 8 * BLOCK_BYTES
    assert read == len(content)


def test_progress_ends_at_the_total() -> None:
    seen: list[tuple[int, int]] = []
    entries = [Entry.of_bytes("a", bytes(3 * BLOCK_BYTES)), Entry.of_bytes("b", b"xyz")]
    write_archive(entries, io.BytesIO(), progress=lambda done, total: seen.append((done, total)))
    total = 3 * BLOCK_BYTES + 3
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.slow
def test_a_file_beyond_the_limit_of_plain_tar_headers_is_read_by_gnu_tar_and_python(tmp_path: Path) -> None:
    """Over 8 GiB the size no longer fits a header's field. Zeros, kept as holes at both ends."""
    size = (8 << 30) + 513
    engine = tmp_path / "rank0.engine"
    with engine.open("wb") as file:
        file.seek(size - 3)
        file.write(b"end")
    zeros = bytes(BLOCK_BYTES)

    class Holes:
        def __init__(self, file: BinaryIO) -> None:
            self._file = file

        def write(self, data: bytes | memoryview) -> None:
            if data == zeros:
                self._file.seek(len(data), io.SEEK_CUR)
            else:
                self._file.write(data)

    with (tmp_path / "archive").open("wb") as file:
        entry = Entry("rank0.engine", size, lambda: engine.open("rb", buffering=0))
        write_archive([entry, Entry.of_bytes("z", b"after")], Holes(file), compression="none")
    listed = subprocess.run(
        ["tar", "-tvf", "archive"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert str(size) in listed.split()
    with tarfile.open(tmp_path / "archive") as archive:
        assert [(member.name, member.size) for member in archive] == [("rank0.engine", size), ("z", 5)]
        content = archive.extractfile("rank0.engine")
        assert content is not None
        content.seek(size - 3)
        assert content.read() == b"end"
