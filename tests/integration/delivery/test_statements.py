"""The statement about an archive, where the archive is sent: a store, an address that takes PUTs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ANYWHERE
from tests.integration.delivery.test_object_store import BUCKET, KEY_ID, SECRET, client
from tests.integration.delivery.test_object_store import store as store  # a fixture
from trt_llm_pipeline.artifact.dsse import Envelope
from trt_llm_pipeline.artifact.statement import (
    CONFIG_NAME,
    PAYLOAD_TYPE,
    Run,
    Subject,
    encoded,
    make_statement,
    model_reference,
    toolchain_reference,
)
from trt_llm_pipeline.delivery import Attesting, Destination, collect, parse_destination
from trt_llm_pipeline.delivery.send import deliver
from trt_llm_pipeline.errors import ArtifactError, DeliveryError, TrtLlmPipelineError
from trt_llm_pipeline.inspection import inspect
from trt_llm_pipeline.inspection.verify import Verification, verify

CONFIG = b"model_id: owner/name\n"
MANIFEST: dict[str, Any] = {
    "model_id": "owner/name",
    "revision": "0" * 40,
    "source": "hub",
    "toolchain": {"name": "cpu", "version": "cpu"},
    "steps": [],
    "gpus": "cpu",
}


def send(folder: Path, destination: Destination) -> tuple[dict[str, Any], list[str]]:
    """Sends a small archive and the statement about it; what is told of the statement, and warnings."""
    engine, directory = folder / "engine", folder / "build"
    engine.mkdir(exist_ok=True)
    directory.mkdir(exist_ok=True)
    (engine / "rank0.engine").write_bytes(b"engine" * 999)
    sent = deliver(engine, destination, extra={CONFIG_NAME: CONFIG}, manifest=MANIFEST)
    made_from = [model_reference(MANIFEST, {}), toolchain_reference(MANIFEST)]
    subject = Subject("engine.tar.gz", sent.sha256, sent.content_sha256)
    said = make_statement(subject, MANIFEST, CONFIG, made_from, Run("x", "x", "x", "1"))
    warnings: list[str] = []
    told = Attesting(directory, destination, None).put("engine.tar.gz", said, warnings.append)
    kept = directory / "engine.tar.gz.intoto.jsonl"
    assert kept.read_bytes() == Envelope(PAYLOAD_TYPE, encoded(said)).as_json_line()
    assert told["path"] == str(kept)
    return told, warnings


def check(place: str, statement: str | None = None) -> Verification:
    """What the command line's `verify` finds."""
    envelope = collect.read_statement(place, ANYWHERE, statement)
    with collect.opened(place, ANYWHERE) as stream:
        return verify(stream, envelope, label=collect.shown(place))


@pytest.fixture
def s3(store: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return store


class TestStore:
    """Beside the archive in a bucket."""

    def test_both_are_verified_where_they_are(self, s3: int, tmp_path: Path) -> None:
        place = f"s3://{BUCKET}/some/engine.tar.gz"
        told, warnings = send(tmp_path, parse_destination(place, tmp_path, reach=ANYWHERE))
        assert told["address"] == f"{place}.intoto.jsonl"
        assert warnings == []
        assert check(place).holds

    def test_an_altered_archive_there_is_refused(self, s3: int, tmp_path: Path) -> None:
        place = f"s3://{BUCKET}/altered/engine.tar.gz"
        send(tmp_path, parse_destination(place, tmp_path, reach=ANYWHERE))
        engine = tmp_path / "engine"
        (engine / "rank0.engine").write_bytes(b"Engine" * 999)
        deliver(
            engine,
            parse_destination(place, tmp_path, reach=ANYWHERE),
            extra={CONFIG_NAME: CONFIG},
            manifest=MANIFEST,
        )
        found = check(place)
        assert not found.holds
        assert [entry.name for entry in found.checks if entry.status == "problem"] == ["content"]

    def test_without_a_statement_there_is_none(self, s3: int, tmp_path: Path) -> None:
        place = f"s3://{BUCKET}/bare/engine.tar.gz"
        send(tmp_path, parse_destination(place, tmp_path, reach=ANYWHERE))
        client(s3).delete_object(Bucket=BUCKET, Key="bare/engine.tar.gz.intoto.jsonl")
        assert not check(place).holds
        assert check(place, str(tmp_path / "build" / "engine.tar.gz.intoto.jsonl")).holds
        with pytest.raises(ArtifactError, match="there is nothing"):
            check(f"s3://{BUCKET}/nowhere.tar.gz")

    def test_an_archive_there_is_inspected_where_it_is(self, s3: int, tmp_path: Path) -> None:
        place = f"s3://{BUCKET}/inspected/engine.tar.gz"
        send(tmp_path, parse_destination(place, tmp_path, reach=ANYWHERE))
        with collect.source(place, ANYWHERE) as source:
            found = inspect(source, label=place)
        assert (found.label, found.contents.problems) == (place, ())
        assert [file.name for file in found.contents.files][-1] == "manifest.json"


class Web:
    """Takes PUTs and gives back what it took."""

    def __init__(self, port: int) -> None:
        self.at = f"http://127.0.0.1:{port}"
        self.stored: dict[str, bytes] = {}
        self.refused: tuple[str, ...] = ()
        self.closed: tuple[str, ...] = ()


@contextmanager
def serving() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.endswith(web.refused):
                return self.answer(403)
            web.stored[self.path.partition("?")[0]] = body
            return self.answer(200)

        def do_GET(self) -> None:
            body = web.stored.get(self.path.partition("?")[0])
            if self.path.endswith(web.closed):
                return self.answer(401)
            return self.answer(404) if body is None else self.answer(200, body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web = Web(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield web
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as web:
        yield web


class TestAddress:
    """Beside the archive at an address, where that takes a second file."""

    def test_both_are_verified_where_they_are(self, web: Web, tmp_path: Path) -> None:
        told, warnings = send(tmp_path, parse_destination(f"{web.at}/a.tar.gz", tmp_path, reach=ANYWHERE))
        assert told["address"] == f"{web.at}/a.tar.gz.intoto.jsonl"
        assert (set(web.stored), warnings) == ({"/a.tar.gz", "/a.tar.gz.intoto.jsonl"}, [])
        assert check(f"{web.at}/a.tar.gz").holds

    def test_a_signed_address_takes_the_archive_alone(self, web: Web, tmp_path: Path) -> None:
        place = f"{web.at}/a.tar.gz?signature=s3cret"
        told, warnings = send(tmp_path, parse_destination(place, tmp_path, reach=ANYWHERE))
        assert "address" not in told
        assert set(web.stored) == {"/a.tar.gz"}
        assert len(warnings) == 1
        assert f"stays at {told['path']}" in warnings[0]
        assert "s3cret" not in warnings[0]
        with pytest.raises(ArtifactError, match="name the statement about it with --statement") as caught:
            check(place)
        assert "s3cret" not in str(caught.value)
        found = check(place, told["path"])
        assert found.holds
        assert "s3cret" not in found.as_text()

    def test_a_refused_statement_does_not_cost_the_archive(self, web: Web, tmp_path: Path) -> None:
        web.refused = (".jsonl",)
        told, warnings = send(tmp_path, parse_destination(f"{web.at}/a.tar.gz", tmp_path, reach=ANYWHERE))
        assert "address" not in told
        assert set(web.stored) == {"/a.tar.gz"}
        assert "HTTP 403" in warnings[0]
        found = check(f"{web.at}/a.tar.gz")
        assert not found.holds
        assert found.checks[-1].message.startswith("there is none")

    def test_a_store_that_refuses_is_explained(
        self, web: Web, s3: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        web.closed = ("/engine.tar.gz",)
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.at)
        with pytest.raises(DeliveryError) as caught, collect.opened("s3://b/engine.tar.gz", ANYWHERE):
            pass
        assert str(caught.value).startswith(
            "cannot read s3://b/engine.tar.gz: the store refuses access (401): check AWS_ACCESS_KEY_ID"
        )

    def test_a_folder_is_named_as_it_was_given(
        self, web: Web, s3: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        web.closed = ("/engine.tar.gz",)
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.at)
        for place in ("s3://b", "s3://b/"):
            with pytest.raises(DeliveryError) as caught, collect.opened(place, ANYWHERE):
                pass
            assert str(caught.value).startswith(f"cannot read {place} (engine.tar.gz in it): the store ref")

    @pytest.mark.parametrize(
        ("token", "words"),
        [
            ("", "that everybody may read (HTTP 401); check its name, or set HF_TOKEN to a token that may"),
            (
                "hf_s3cret7token",
                "that this token may read (HTTP 401); check its name, or use another HF_TOKEN",
            ),
        ],
    )
    def test_a_repository_that_is_not_everybodys_names_the_token(
        self, web: Web, token: str, words: str
    ) -> None:
        web.closed = ("/engine.tar.gz",)
        env = {"HF_ENDPOINT": web.at, "HF_TOKEN": token}
        with (
            pytest.raises(DeliveryError) as caught,
            collect.opened("hf://acme/engines/engine.tar.gz", ANYWHERE, env),
        ):
            pass
        assert str(caught.value) == (
            f"cannot read hf://acme/engines/engine.tar.gz: {web.at} has no repository acme/engines {words}"
        )


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (
            "ftp://host/a.tar.gz",
            "cannot read ftp://host/a.tar.gz: ftp:// is not supported; use a file, or an",
        ),
        ("s3://", "the address s3:// names no bucket; use a file, or an https://"),
        ("hf://acme", "the address hf://acme names no repository; write hf://OWNER/REPO/PATH"),
        ("file:///no/such.tar.gz", "cannot read file:///no/such.tar.gz: no such file"),
    ],
)
def test_an_address_that_names_no_archive_says_what_does(place: str, words: str) -> None:
    with pytest.raises(TrtLlmPipelineError) as caught, collect.opened(place, ANYWHERE):
        pass
    assert str(caught.value).startswith(words)
    assert caught.value.kind == "config"
