"""Servers that lie about ranges, sizes and ETags, or change the file half-way: never a wrong file."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import ANYWHERE
from trt_llm_pipeline.errors import ModelSourceError, ModelUnavailable
from trt_llm_pipeline.model_source import partial
from trt_llm_pipeline.model_source.record import RecordedFile
from trt_llm_pipeline.model_source.transfer import Transfer, Wanted
from trt_llm_pipeline.net import pool, window
from trt_llm_pipeline.net.failures import HttpStatusError
from trt_llm_pipeline.net.read_ahead import ReadAhead
from trt_llm_pipeline.net.retrying import RetryLimits
from trt_llm_pipeline.net.window import Wording

SIZE = 300_000
PIECE = 30_000
ONE = random.Random(1).randbytes(SIZE)
TWO = random.Random(2).randbytes(SIZE)
LIMITS = RetryLimits(attempts=5, first_wait=0.001, longest_wait=0.002, patience=20, silence=5)

#: Lies that a careful client can see in the head of an answer.
SEEN = [
    "range starts elsewhere",
    "range ends early",
    "range is longer",
    "total is another",
    "total is not told",
    "no content-range",
    "content-range makes no sense",
    "whole file",
    "whole file of another size",
    "another etag",
    "encoded",
    "body is cut",
    "no such range",
    "no content",
    "busy",
    "no answer",
    "not HTTP",
    "changed with its etag",
]
#: Lies that only a digest tells.
UNSEEN = ["wrong bytes", "other range", "changed in secret"]


class Liar(BaseHTTPRequestHandler):
    """Serves a file, and tells the next lie of the list with every answer."""

    protocol_version = "HTTP/1.1"
    lies: ClassVar[list[str]] = []
    content: ClassVar[bytes] = ONE
    lock: ClassVar[threading.Lock] = threading.Lock()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        kind = type(self)
        with kind.lock:
            lie = kind.lies.pop(0) if kind.lies else "none"
            if lie in ("changed with its etag", "changed in secret"):
                kind.content = TWO
            content = kind.content
        etag = '"one"' if content is ONE or lie == "changed in secret" else '"two"'
        asked = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        start, end, status = 0, SIZE, 200
        if asked and condition in (None, etag):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(SIZE, int(last) + 1 if last else SIZE), 206
        body = content[start:end]
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        total = str(SIZE)
        if lie == "range starts elsewhere":
            start, end = start + 1, end + 1
        elif lie == "range ends early":
            end, body = end - len(body) // 2, body[: len(body) - len(body) // 2]
        elif lie == "range is longer":
            body += b"x" * 100
        elif lie == "total is another":
            total = str(SIZE + 5)
        elif lie == "total is not told":
            total = "*"
        elif lie == "whole file":
            status, body = 200, content
        elif lie == "whole file of another size":
            status, body = 200, content + b"more"
        elif lie == "another etag":
            headers["ETag"] = '"other"'
        elif lie == "encoded":
            headers["Content-Encoding"] = "gzip"
        elif lie == "wrong bytes":
            body = bytes(len(body))
        elif lie == "other range":
            body = content[: len(body)]
        if status == 206 and lie != "no content-range":
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{total}"
            if lie == "content-range makes no sense":
                headers["Content-Range"] = "bytes all of them"
        if lie in ("no such range", "no content", "busy"):
            status = {"no such range": 416, "no content": 204, "busy": 503}[lie]
            body = b""
        if lie in ("no answer", "not HTTP"):
            if lie == "not HTTP":
                self.wfile.write(b"what?\r\n\r\n")
            self.close_connection = True
            return
        headers["Content-Length"] = str(len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if lie == "body is cut":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)


@contextmanager
def liar(lies: list[str]) -> Iterator[str]:
    handler = type("Handler", (Liar,), {"lies": list(lies), "content": ONE, "lock": threading.Lock()})

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up on a liar is right."""

    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many ranges without many bytes."""
    monkeypatch.setattr(pool, "_SMALLEST_PIECE", PIECE)
    monkeypatch.setattr(pool, "_LARGEST_PIECE", PIECE)
    monkeypatch.setattr(partial, "LEAST_RECORDED", PIECE)
    monkeypatch.setattr(window, "PIECE", PIECE)
    monkeypatch.setattr("trt_llm_pipeline.net.read_ahead.PIECE", PIECE)


def transfer(folder: Path, url: str, content: bytes) -> None:
    def refused(error: HttpStatusError, path: str) -> ModelSourceError:
        return ModelSourceError(f"{path}: {error}")

    Transfer(
        folder=folder,
        partial=folder / "partial",
        headers={},
        refused=refused,
        limits=LIMITS,
        log=[].append,
        progress=None,
        finished=lambda _: None,
        reach=ANYWHERE,
    ).run([Wanted(url, RecordedFile("file", SIZE, f"sha256:{sha256(content).hexdigest()}"))])


@settings(max_examples=60)
@given(lies=st.lists(st.sampled_from([*SEEN, *UNSEEN, "none"]), max_size=25))
def test_a_file_with_a_digest_is_right_or_not_there(
    tmp_path_factory: pytest.TempPathFactory, lies: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("lies")
    with liar(lies) as url:
        try:
            transfer(folder, url, ONE)
        except (ModelUnavailable, ModelSourceError):
            assert not (folder / "file").exists()
        else:
            assert (folder / "file").read_bytes() == ONE
    if not (folder / "file").exists():
        with liar([]) as url:
            transfer(folder, url, ONE)
        assert (folder / "file").read_bytes() == ONE


@settings(max_examples=60)
@given(lies=st.lists(st.sampled_from([*SEEN, "none"]), max_size=25))
@example(
    [
        *("encoded", "no answer", "no content-range", "range ends early", "no content-range"),
        *("total is not told", "content-range makes no sense", "content-range makes no sense", "whole file"),
    ]
)  # a piece of which a half was there went back to be fetched, by the stream that brings it all
def test_what_has_no_digest_is_one_version_or_an_error(lies: list[str]) -> None:
    with liar(lies) as url:
        wording = Wording("the file", ModelUnavailable, lambda error: ModelUnavailable(str(error)))
        reader = ReadAhead(url, wording, limits=LIMITS, log=[].append, reach=ANYWHERE)
        try:
            reader.open()
            with reader:
                read = b"".join(bytes(chunk) for chunk in reader.chunks())
                digest = reader.sha256
        except ModelUnavailable:
            return
    assert digest == sha256(read).hexdigest()
    if reader.length == SIZE:
        assert read in (ONE, TWO)
    else:  # it lied about the length of all of it in the first answer, and only a digest could tell
        assert read[:SIZE] in (ONE, TWO) or read in (ONE[: reader.length], TWO[: reader.length])


@pytest.mark.parametrize("lie", ["another etag", "changed with its etag"])
def test_a_tar_that_changes_half_way_is_refused(lie: str) -> None:
    with liar(["body is cut", lie]) as url:
        wording = Wording("the file", ModelUnavailable, lambda error: ModelUnavailable(str(error)))
        reader = ReadAhead(url, wording, limits=LIMITS, log=[].append, reach=ANYWHERE)
        reader.open()
        with reader, pytest.raises(ModelUnavailable, match="changed on the server"):
            for _ in reader.chunks():
                pass
