"""Models from a tar address: over real HTTP from loopback, the hostile ones included."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from isal import isal_zlib

from tests.conftest import INSIDE
from trt_llm_pipeline.errors import (
    ModelAccessDenied,
    ModelNotFound,
    ModelSourceError,
    ModelUnavailable,
    WorkspaceError,
)
from trt_llm_pipeline.model_source import ModelRequest, Snapshot, fetch, model_files, plan, tar_extract
from trt_llm_pipeline.net.retrying import RetryLimits
from trt_llm_pipeline.testing.hub import Fault, HubServer

QUICK = RetryLimits(attempts=4, first_wait=0.02, longest_wait=0.1, patience=5.0, silence=1.0)
MODEL = {"config.json": b"{}", "model.safetensors": os.urandom(300_000), "tokenizer/vocab.json": b"[]"}


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), link
    return info, content


def tar_of(*entries: tuple, end: bool = True) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
        size = output.tell()
    return output.getvalue() if end else output.getvalue()[:size]


def model_tar(prefix: str = "") -> bytes:
    return tar_of(*(entry(prefix + path, content) for path, content in MODEL.items()))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


class Caller:
    """Asks for one model and keeps the log."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.lines: list[str] = []

    def fetch(self, url: str, **options: object) -> Snapshot:
        request = ModelRequest("owner/model", tar_url=url)
        options.setdefault("limits", QUICK)
        return fetch(request, self.models, token=None, log=self.lines.append, env=INSIDE, **options)

    @property
    def folder(self) -> Path:
        return self.models / "owner/model"


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    return Caller(tmp_path / "models")


def contents(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in model_files(folder)}


@pytest.mark.parametrize("compressed", [False, True], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("prefix", ["", "./", "wrapper/"], ids=["flat", "dotted", "wrapped"])
def test_a_model_is_unpacked_without_its_wrapper(
    hub: HubServer, caller: Caller, prefix: str, compressed: bool
) -> None:
    content = gzip.compress(model_tar(prefix)) if compressed else model_tar(prefix)
    told: list[tuple[int, int | None]] = []
    snapshot = caller.fetch(
        hub.add_file("m", content), progress=lambda done, total: told.append((done, total))
    )
    assert contents(snapshot.path) == MODEL
    assert snapshot.source == "tar"
    assert snapshot.revision == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert snapshot.downloaded_bytes == len(content)
    assert told[-1] == (len(content), len(content))
    assert len(caller.lines) == 2


class TestModelsInModels:
    """A model's folder is never in another's: who may have the one would have the other with it."""

    def test_owner_of_a_model_is_no_model(self, hub: HubServer, caller: Caller) -> None:
        url = hub.add_file("m.tar", model_tar())
        caller.fetch(url)
        request = ModelRequest("owner", tar_url=url)
        with pytest.raises(WorkspaceError, match=r"owner's models \(model\).*write model_id like owner/name"):
            fetch(request, caller.models, token=None, log=caller.lines.append, env=INSIDE)
        assert contents(caller.folder) == MODEL

    def test_owner_of_a_model_is_no_model_of_the_users(self, hub: HubServer, caller: Caller) -> None:
        caller.fetch(hub.add_file("m.tar", model_tar()))
        (caller.folder.parent / "notes").mkdir()
        request = ModelRequest("owner", tar_url=hub.add_file("m.tar", model_tar()))
        for ask in (plan, fetch):
            more = {"log": caller.lines.append} if ask is fetch else {}
            with pytest.raises(WorkspaceError, match="owner's models"):
                ask(request, caller.models, token=None, env=INSIDE, **more)

    def test_users_own_model_of_that_owner_stays_as_it_is(self, hub: HubServer, caller: Caller) -> None:
        caller.folder.mkdir(parents=True)
        (caller.folder / "config.json").write_text("{}")
        request = ModelRequest("owner", tar_url=hub.add_file("m.tar", model_tar("x/model/")))
        with pytest.raises(WorkspaceError, match="owner's models"):
            fetch(request, caller.models, token=None, log=caller.lines.append, env=INSIDE)
        assert contents(caller.folder) == {"config.json": b"{}"}

    def test_nothing_is_put_into_a_model(self, hub: HubServer, caller: Caller) -> None:
        url = hub.add_file("m.tar", model_tar())
        own = ModelRequest("owner", tar_url=url)
        fetch(own, caller.models, token=None, log=caller.lines.append, env=INSIDE)
        with pytest.raises(WorkspaceError, match="folder of a model without an owner, and model"):
            caller.fetch(url)
        assert contents(caller.models / "owner") == MODEL

    def test_parts_of_a_model_with_a_config_are_no_models(self, hub: HubServer, caller: Caller) -> None:
        url = hub.add_file(
            "m.tar", tar_of(*(entry(n, b"{}") for n in ("config.json", "1_Pooling/config.json")))
        )
        request = ModelRequest("owner", tar_url=url)
        for _ in range(2):
            fetch(request, caller.models, token=None, log=caller.lines.append, env=INSIDE)


def test_two_gzip_members_are_one_archive(hub: HubServer, caller: Caller) -> None:
    whole = model_tar()
    content = gzip.compress(whole[:-1024]) + gzip.compress(whole[-1024:])
    assert contents(caller.fetch(hub.add_file("m.tar.gz", content)).path) == MODEL


@pytest.mark.parametrize("padding", [0, 1, 511, 513, 5000])
def test_small_gzip_members_with_zeros_between_them_are_one_archive(
    hub: HubServer, caller: Caller, padding: int
) -> None:
    whole = model_tar()
    pieces = [whole[place : place + 3000] for place in range(0, len(whole), 3000)]
    content = b"".join(gzip.compress(piece) + bytes(padding) for piece in pieces) + gzip.compress(b"") * 500
    assert contents(caller.fetch(hub.add_file("m.tar.gz", content)).path) == MODEL


def test_work_on_very_many_empty_gzip_members_is_linear(
    hub: HubServer, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given to the decompressor and lies behind the end of a member is copied."""
    given = []

    class Counting:
        def __init__(self, bits: int) -> None:
            self._real = real(bits)

        def decompress(self, data: bytes, most: int) -> bytes:
            given.append(len(data))
            return self._real.decompress(data, most)

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    real = isal_zlib.decompressobj
    monkeypatch.setattr(isal_zlib, "decompressobj", Counting)
    model = gzip.compress(model_tar())
    content = model + gzip.compress(b"") * 50_000
    assert contents(caller.fetch(hub.add_file("m.tar.gz", content)).path) == MODEL
    assert sum(given) < 2 * len(content) + 1000 * 50_000


def test_the_same_address_with_the_same_etag_is_not_downloaded_again(hub: HubServer, caller: Caller) -> None:
    url = hub.add_file("m.tar", model_tar())
    first = caller.fetch(url)
    again = caller.fetch(url)
    assert again.revision == first.revision
    assert again.downloaded_bytes == 0
    request = ModelRequest("owner/model", tar_url=url)
    assert plan(request, caller.models, token=None, env=INSIDE, limits=QUICK).files == ()


def test_another_archive_at_the_same_address_replaces_the_model(hub: HubServer, caller: Caller) -> None:
    url = hub.add_file("m.tar", model_tar())
    caller.fetch(url)
    hub.add_file("m.tar", tar_of(entry("config.json", b'{"new": 1}'), entry("new.safetensors", b"w")))
    request = ModelRequest("owner/model", tar_url=url)
    assert plan(request, caller.models, token=None, env=INSIDE, limits=QUICK).missing_bytes > 0
    assert contents(caller.fetch(url).path) == {"config.json": b'{"new": 1}', "new.safetensors": b"w"}


def test_a_file_that_was_changed_is_noticed(hub: HubServer, caller: Caller) -> None:
    url = hub.add_file("m.tar", model_tar())
    caller.fetch(url)
    (caller.folder / "config.json").write_bytes(b"[]")
    assert contents(caller.fetch(url).path) == MODEL


def test_a_file_changed_with_size_and_date_kept_is_noticed(hub: HubServer, caller: Caller) -> None:
    url = hub.add_file("m.tar", model_tar())
    caller.fetch(url)
    path = caller.folder / "config.json"
    before = path.stat()
    path.write_bytes(b"[]")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert contents(caller.fetch(url).path) == MODEL


def test_a_file_with_another_date_but_the_same_content_is_kept(hub: HubServer, caller: Caller) -> None:
    """Its SHA-256 was noted while it was unpacked."""
    url = hub.add_file("m.tar", model_tar("wrapper/"))
    caller.fetch(url)
    os.utime(caller.folder / "config.json", (1, 1))
    assert caller.fetch(url).downloaded_bytes == 0


def test_a_server_that_is_down_leaves_a_complete_model_usable(hub: HubServer, caller: Caller) -> None:
    url = hub.add_file("m.tar", model_tar())
    first = caller.fetch(url)
    hub.faults.add(Fault("status", "/files/*", times=9, status=503))
    again = caller.fetch(url)
    assert again.revision == first.revision
    assert len(again.warnings) == 1


def test_a_broken_connection_is_resumed(hub: HubServer, caller: Caller) -> None:
    content = gzip.compress(model_tar())
    url = hub.add_file("m.tar.gz", content)
    hub.faults.add(Fault("stall", "/files/*", after=100_000, seconds=20))
    snapshot = caller.fetch(url)
    assert contents(snapshot.path) == MODEL
    assert snapshot.downloaded_bytes == len(content)
    assert [request.headers.get("range") for request in hub.requests] == [None, "bytes=100000-"]
    assert any("nothing came any more" in line for line in caller.lines)


def test_a_file_that_changed_meanwhile_is_not_gone_on_with(hub: HubServer, caller: Caller) -> None:
    url = hub.add_file("m.tar", model_tar())
    hub.faults.add(Fault("stall", "/files/*", after=100_000, seconds=20))
    hub.faults.add(Fault("ignore_range", "/files/*"))
    with pytest.raises(ModelUnavailable, match="cannot be resumed"):
        caller.fetch(url)
    assert not caller.folder.exists()


@pytest.mark.parametrize(
    ("status", "kind"), [(403, ModelAccessDenied), (404, ModelNotFound), (410, ModelNotFound)]
)
def test_a_refusal_is_said_at_once(
    hub: HubServer, caller: Caller, status: int, kind: type[Exception]
) -> None:
    url = hub.add_file("m.tar", b"")
    hub.faults.add(Fault("status", "/files/*", status=status, times=9))
    with pytest.raises(kind, match=r"/files/m\.tar"):
        caller.fetch(url)
    assert len(hub.requests) == 1


def test_the_query_of_a_signed_address_is_never_shown(hub: HubServer, caller: Caller) -> None:
    url = hub.add_file("m.tar", model_tar()) + "?X-Signature=s3cret"
    snapshot = caller.fetch(url)
    hub.add_file("m.tar", b"junk" * 1000)
    with pytest.raises(ModelSourceError) as caught:
        caller.fetch(url)
    written = "".join(path.read_text("latin-1") for path in snapshot.path.rglob("*") if path.is_file())
    assert "s3cret" not in "".join(caller.lines) + str(caught.value) + written


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/m.tar", "https://user:pw@host/m.tar", "m.tar"]
)
def test_other_addresses_are_refused(caller: Caller, url: str) -> None:
    with pytest.raises(ModelSourceError, match="model_tar_url"):
        caller.fetch(url)


def test_a_folder_that_the_user_filled_is_not_touched(hub: HubServer, caller: Caller) -> None:
    caller.folder.mkdir(parents=True)
    (caller.folder / "config.json").write_text("mine")
    snapshot = caller.fetch(hub.add_file("m.tar", model_tar()))
    assert snapshot.source == "local"
    assert contents(caller.folder) == {"config.json": b"mine"}


GOOD = entry("config.json", b"{}")
HOSTILE = {
    "absolute path": (tar_of(GOOD, entry("/tmp/evil", b"x")), "absolute path"),
    "dot dot": (tar_of(GOOD, entry("a/../../evil", b"x")), r"'\.\.'"),
    "backslash": (tar_of(GOOD, entry("a\\..\\evil", b"x")), "refused"),
    "link out": (tar_of(GOOD, entry("l", kind=tarfile.SYMTYPE, link="../evil")), "leads out"),
    "absolute link": (tar_of(GOOD, entry("l", kind=tarfile.SYMTYPE, link="/etc/passwd")), "leads out"),
    "write through a link": (
        tar_of(GOOD, entry("d", kind=tarfile.SYMTYPE, link="."), entry("d/evil", b"x")),
        "behind the link",
    ),
    "folder over a link": (
        tar_of(GOOD, entry("d", kind=tarfile.SYMTYPE, link="."), entry("d", kind=tarfile.DIRTYPE)),
        "a link and a folder",
    ),
    "links that lead out together": (
        tar_of(
            GOOD,
            entry("one/two/x", b"x"),
            entry("here", kind=tarfile.SYMTYPE, link="one/two"),
            entry("one/l", kind=tarfile.SYMTYPE, link="../here/../../../evil"),
        ),
        "leads out",
    ),
    "hard link out": (tar_of(GOOD, entry("l", kind=tarfile.LNKTYPE, link="../evil")), r"'\.\.'"),
    "hard link to nothing": (tar_of(GOOD, entry("l", kind=tarfile.LNKTYPE, link="nothing")), "leads out"),
    "hard link to a link": (
        tar_of(
            GOOD,
            entry("s", kind=tarfile.SYMTYPE, link="config.json"),
            entry("l", kind=tarfile.LNKTYPE, link="s"),
        ),
        "leads out",
    ),
    "device": (tar_of(GOOD, entry("dev", kind=tarfile.CHRTYPE)), "device"),
    "pipe": (tar_of(GOOD, entry("pipe", kind=tarfile.FIFOTYPE)), "device"),
    "cut short in a file": (model_tar()[:200_000], "cut short"),
    "cut short between files": (tar_of(GOOD, GOOD, end=False), "cut short"),
    "cut short gzip": (gzip.compress(model_tar())[:200_000], "cut short"),
    "damaged gzip": (gzip.compress(model_tar())[:200_000] + b"\0" * 90_000, "damaged|cut short"),
    "garbage in the middle": (tar_of(GOOD, end=False) + os.urandom(5120), "cut short|damaged"),
    "no tar": (b"hello\n" * 1000, "no tar"),
    "a web page": (b"<!DOCTYPE html>" + b" " * 600, "web page"),
    "zip": (b"PK\x03\x04" + bytes(600), "zip"),
    "empty": (b"", "no tar"),
    "no files": (tar_of(entry("d", kind=tarfile.DIRTYPE)), "no files"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_or_broken_archive_is_refused_and_leaves_nothing(
    hub: HubServer, caller: Caller, tmp_path: Path, what: str
) -> None:
    content, sentence = HOSTILE[what]
    url = hub.add_file("m.tar", content)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ModelSourceError, match=sentence):
        caller.fetch(url)
    assert set(tmp_path.rglob("*")) - before <= {caller.models}
    assert threading.active_count() < 30


def test_a_refused_archive_leaves_the_model_that_was_there(hub: HubServer, caller: Caller) -> None:
    url = hub.add_file("m.tar", model_tar())
    first = caller.fetch(url)
    hub.add_file("m.tar", tar_of(GOOD, entry("../evil", b"x")))
    with pytest.raises(ModelSourceError):
        caller.fetch(url)
    assert contents(caller.folder) == MODEL
    hub.add_file("m.tar", model_tar())
    assert caller.fetch(url).downloaded_bytes == 0
    assert first.path == caller.folder


def test_more_entries_than_any_model_has_are_refused(
    hub: HubServer, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_extract, "MOST_ENTRIES", 500)
    url = hub.add_file("m.tar", tar_of(*(entry(f"d{n}", kind=tarfile.DIRTYPE) for n in range(501))))
    with pytest.raises(ModelSourceError, match="500 entries"):
        caller.fetch(url)
    assert not caller.folder.exists()


@pytest.mark.slow
def test_a_million_entries_are_refused(hub: HubServer, caller: Caller, tmp_path: Path) -> None:
    info = tarfile.TarInfo("folder")
    info.type = tarfile.DIRTYPE
    path = tmp_path / "m.tar"
    with path.open("wb") as output:
        for _ in range(1000):
            output.write(info.tobuf() * 1000)
        output.write(bytes(1024))
    with pytest.raises(ModelSourceError, match="100,000 entries"):
        caller.fetch(hub.add_file("m.tar", path))
    assert not caller.folder.exists()


def test_a_path_of_very_many_parts_is_refused(hub: HubServer, caller: Caller) -> None:
    """In `tests/unit/model_source/test_tar_extract.py`: how little time and memory that takes."""
    content = gzip.compress(tar_of(entry("/".join(["a"] * 500_000), b"x")))
    assert len(content) < 5000
    with pytest.raises(ModelSourceError, match="at most 1,024 are allowed"):
        caller.fetch(hub.add_file("m.tar.gz", content))
    assert not caller.folder.exists()


def test_a_chain_of_headers_without_files_is_refused(hub: HubServer, caller: Caller) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 0
    url = hub.add_file("m.tar", header.tobuf() * 5000 + tar_of(GOOD))
    with pytest.raises(ModelSourceError, match="damaged"):
        caller.fetch(url)


def test_a_header_that_would_fill_the_memory_is_refused(hub: HubServer, caller: Caller) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    url = hub.add_file("m.tar", header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    with pytest.raises(ModelSourceError, match="header of"):
        caller.fetch(url)


def test_a_decompression_bomb_is_refused(hub: HubServer, caller: Caller) -> None:
    zeros = tarfile.TarInfo("zeros.bin")
    zeros.size = 1 << 31
    bomb = gzip.compress(zeros.tobuf()) + gzip.compress(bytes(1 << 24)) * 128
    url = hub.add_file("m.tar.gz", bomb)
    with pytest.raises(ModelSourceError, match="expands to more than 200 times"):
        caller.fetch(url)
    assert not caller.folder.exists()


def test_an_archive_larger_than_the_disk_is_refused_by_its_headers(hub: HubServer, caller: Caller) -> None:
    huge = tarfile.TarInfo("huge.bin")
    huge.size = 1 << 50
    url = hub.add_file("m.tar", huge.tobuf() + bytes(10_000))
    with pytest.raises(ModelSourceError, match="there is room for"):
        caller.fetch(url)


def test_an_interrupt_ends_the_download_and_removes_what_came(hub: HubServer, caller: Caller) -> None:
    url = hub.add_file("m.tar", model_tar())
    hub.faults.add(Fault("slow", "/files/*", after=50_000))

    def interrupt(done: int, total: int | None) -> None:
        if done > 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caller.fetch(url, progress=interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("model-")]
    assert not caller.folder.exists()
