"""Reading an archive back: what is sound, and how each kind of damage is named."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trt_llm_pipeline.artifact import ArchivedFile, pack_engine, read_archive
from trt_llm_pipeline.errors import ArchiveDamaged, ArchiveMissing, ArtifactError
from trt_llm_pipeline.net.addresses import Reach

ENGINE = bytes(range(256)) * 9_001
INSIDE = Reach(inside=True)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    directory = tmp_path / "engine_outputs"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "rank0.engine").write_bytes(ENGINE)
    return directory


def tarred(members: dict[str, bytes], *, fmt: int = tarfile.PAX_FORMAT) -> bytes:
    """An ordinary uncompressed tar, padded to its record."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=fmt) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def manifest(**files: bytes) -> bytes:
    listed = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }
    return json.dumps({"files": listed}).encode()


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_what_was_packed_is_sound_and_strict(engine: Path, tmp_path: Path, compression: str) -> None:
    packed = pack_engine(
        engine, tmp_path / "archive", extra={}, manifest={"model_id": "a/b"}, compression=compression
    )
    read = read_archive(packed.path)
    assert (read.size, read.sha256, read.files) == (packed.size, packed.sha256, packed.files)
    assert (read.problems, read.strict, read.compression) == ((), True, compression)
    assert read.manifest is not None
    assert read.manifest["model_id"] == "a/b"


def test_asked_for_contents_are_kept(engine: Path, tmp_path: Path) -> None:
    packed = pack_engine(engine, tmp_path / "archive", extra={}, manifest={})
    read = read_archive(packed.path, keep=lambda name, size: size < 100)
    assert set(read.kept) == {"config.json", "manifest.json"}
    assert read.kept["config.json"] == b"{}"


def test_an_ordinary_archive_is_read_and_is_strict_only_without_gzip() -> None:
    padded = tarred({"a": b"1", "manifest.json": manifest(a=b"1")})
    bare = padded.rstrip(b"\0") + bytes(-len(padded.rstrip(b"\0")) % 512) + bytes(1024)
    assert len(bare) < len(padded)
    for data in (padded, bare):
        for packed, strict in ((data, True), (gzip.compress(data), False)):
            read = read_archive(io.BytesIO(packed))
            assert (read.problems, read.strict) == ((), strict)
            assert read.files[0] == ArchivedFile("a", 1, hashlib.sha256(b"1").hexdigest())


@pytest.mark.parametrize("spelled", ["./{}", ".//{}", "././{}"])
def test_names_are_what_extraction_makes_of_them(spelled: str) -> None:
    members = {"./": b"", spelled.format("a"): b"1", spelled.format("manifest.json"): manifest(a=b"1")}
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.REGTYPE if data else tarfile.DIRTYPE
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    read = read_archive(io.BytesIO(sink.getvalue()), keep=lambda name, _size: name == "a")
    assert (read.problems, read.kept["a"]) == ((), b"1")
    assert [file.name for file in read.files] == ["a", "manifest.json"]
    assert not read.plain
    same = read_archive(io.BytesIO(tarred({"a": b"1", "manifest.json": manifest(a=b"1")})))
    assert read.content_sha256 == same.content_sha256


@pytest.mark.parametrize("name", ["./../a", "a/./../../b", "..", ".//..//a", "/a", "//a", "./a/.."])
def test_no_spelling_leads_out(name: str) -> None:
    problems = read_archive(io.BytesIO(tarred({name: b"1"}))).problems
    assert f"{name!r} leads out of the folder that the archive is extracted to" in problems


@pytest.mark.parametrize("name", [".", "./.", ""])
def test_a_file_with_the_name_of_the_folder_itself_is_named(name: str) -> None:
    read = read_archive(io.BytesIO(tarred({name: b"1", "manifest.json": manifest()})))
    assert f"{name!r} is no name for a file" in read.problems


@pytest.mark.parametrize("again", ["./a", ".//a", "././a"])
def test_a_file_that_is_there_twice_under_two_spellings_is_named(again: str) -> None:
    for members in ({"a": b"1", again: b"2"}, {again: b"2", "a": b"1"}):
        read = read_archive(io.BytesIO(tarred({**members, "manifest.json": manifest(a=b"1")})))
        assert "a is there twice" in read.problems


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (b"x", "1 byte"),
        (b"\x1f", "1 byte"),
        (b"\x1f\x8bxyz", "5 bytes"),
        (b"x" * 22, "22 bytes"),
        (bytes(512), "512 bytes"),
        (b"x" * (3 << 20), "3,145,728 bytes"),
    ],
)
def test_bytes_after_a_whole_gzip_archive_are_counted(
    engine: Path, tmp_path: Path, after: bytes, said: str
) -> None:
    data = pack_engine(engine, tmp_path / "a", extra={}, manifest={}).path.read_bytes()
    wanted = rf"the stream has {said} after the end of its gzip data; fetch or build it again$"
    with pytest.raises(ArchiveDamaged, match=wanted):
        read_archive(io.BytesIO(data + after))


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"a": b"2", "manifest.json": manifest(a=b"1")}, "a was altered: its SHA-256 is"),
        ({"a": b"12", "manifest.json": manifest(a=b"1")}, "a has 2 bytes; manifest.json says 1"),
        ({"manifest.json": manifest(a=b"1")}, "a is in manifest.json but not in the archive"),
        ({"a": b"1", "manifest.json": manifest()}, "a is not in manifest.json"),
        (
            {"manifest.json": manifest(a=b"1"), "a": b"1"},
            "manifest.json is not the last file: the archive was packed again in another order, or files",
        ),
        ({"a": b"1"}, "it has no manifest.json"),
        ({"a": b"1", "manifest.json": b"{"}, "manifest.json is not valid JSON"),
        ({"a": b"1", "manifest.json": b"[]"}, "manifest.json does not list the archive's files"),
        ({"../a": b"1", "manifest.json": b'{"files": {}}'}, "'../a' leads out of the folder"),
    ],
)
def test_each_difference_from_the_manifest_is_named(members: dict[str, bytes], problem: str) -> None:
    problems = read_archive(io.BytesIO(tarred(members))).problems
    assert any(text.startswith(problem) for text in problems), problems


def test_a_file_that_is_there_twice_is_named() -> None:
    first, second = tarred({"a": b"1"}), tarred({"a": b"1", "manifest.json": manifest(a=b"1")})
    assert "a is there twice" in read_archive(io.BytesIO(first[:1024] + second)).problems


def test_links_and_devices_are_named() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, kind in (
            ("link", tarfile.SYMTYPE),
            ("device", tarfile.CHRTYPE),
            ("folder", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            archive.addfile(info)
    problems = read_archive(io.BytesIO(sink.getvalue())).problems
    assert [problem.split()[0] for problem in problems[:3]] == ["link", "device", "folder"]


def test_a_missing_end_mark_and_bytes_after_it_are_named() -> None:
    members = {"a": b"1", "manifest.json": manifest(a=b"1")}
    data = tarred(members)
    end = 4 * 512
    assert any(
        "end-of-archive mark is missing" in text for text in read_archive(io.BytesIO(data[:end])).problems
    )
    extended = io.BytesIO(data + b"x" * 512)
    assert any("something after the end-of-archive" in text for text in read_archive(extended).problems)


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_archive_that_was_cut_off_is_refused(
    engine: Path, tmp_path: Path, compression: str, share: float
) -> None:
    data = pack_engine(
        engine, tmp_path / "a", extra={}, manifest={}, compression=compression
    ).path.read_bytes()
    with pytest.raises(ArchiveDamaged, match=r"is cut off: .*; fetch or build it again"):
        read_archive(io.BytesIO(data[: int(len(data) * share)]))


def test_a_flipped_bit_never_passes(engine: Path, tmp_path: Path) -> None:
    data = bytearray(pack_engine(engine, tmp_path / "a", extra={}, manifest={}).path.read_bytes())
    for position in range(12, len(data), len(data) // 25):
        data[position] ^= 16
        try:
            read = read_archive(io.BytesIO(data))
        except ArtifactError:
            pass
        else:
            assert read.problems, position
        data[position] ^= 16


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"PK\x03\x04" + bytes(2000), gzip.compress(b"hi" * 999, mtime=0)]
)
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveDamaged, match=r"is no tar or tar.gz archive; fetch or build it again"):
        read_archive(io.BytesIO(data))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveMissing, match=r"cannot read .*gone: no such file"):
        read_archive(tmp_path / "gone")


def test_a_directory_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveMissing, match=r"cannot read .*: it is a directory; name the file in it"):
        read_archive(tmp_path)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_streamed_and_its_query_never_repeated(
    engine: Path, tmp_path: Path, address: str
) -> None:
    packed = pack_engine(engine, tmp_path / "engine.tar.gz", extra={}, manifest={})
    assert read_archive(f"{address}/engine.tar.gz?signature=s3cret", reach=INSIDE).files == packed.files
    with pytest.raises(ArtifactError) as caught:
        read_archive(f"{address}/gone?signature=s3cret", reach=INSIDE)
    assert str(caught.value) == f"cannot read {address}/gone: there is nothing (HTTP 404)"


class Breaks(BaseHTTPRequestHandler):
    """Announces chunks, and hangs up in the middle of one."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"1000\r\n" + gzip.compress(bytes(512), mtime=0))


def test_a_connection_that_breaks_off_is_said() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Breaks)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with pytest.raises(ArtifactError, match="broke off at"):
            read_archive(f"http://127.0.0.1:{server.server_port}/engine.tar.gz", reach=INSIDE)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Zeros(io.RawIOBase):
    """Bytes and then zeros, as many as are asked for."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.given = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self.head[:size] or bytes(size)
        self.head = self.head[size:]
        self.given += len(data)
        return data


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
@pytest.mark.parametrize("first", [b"", tarred({"a": b"1"})[:1024]])
def test_a_description_that_would_fill_the_memory_is_not_read(kind: bytes, first: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 1 << 33
    stream = Zeros(first + info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(ArtifactError, match=r"description is 8,589,934,592 bytes long"):
        read_archive(stream)
    assert stream.given < 8 << 20


def test_a_sparse_file_is_not_read() -> None:
    info = tarfile.TarInfo("x")
    info.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(ArtifactError, match="it holds a sparse file"):
        read_archive(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))


def test_more_files_than_any_engine_has_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_llm_pipeline.artifact.reader.MOST_FILES", 20)
    assert len(read_archive(io.BytesIO(tarred({str(n): b"" for n in range(20)}))).files) == 20
    with pytest.raises(ArtifactError, match="it holds more than 20 files"):
        read_archive(io.BytesIO(tarred({str(n): b"" for n in range(21)})))
