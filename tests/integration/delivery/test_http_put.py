"""Archives sent by one HTTP PUT, and to files of the workspace."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ANYWHERE
from tests.integration.delivery.cancelling import cancelled_once_stuck
from trt_llm_pipeline.artifact import pack_engine
from trt_llm_pipeline.delivery import parse_destination
from trt_llm_pipeline.delivery.send import deliver, deliver_file
from trt_llm_pipeline.errors import DeliveryError
from trt_llm_pipeline.testing.servers import free_port

SIGNED = "/up/engine.tar.gz?X-Signature=marked-s3cret"


@dataclass
class Receiver:
    """Takes PUTs. `answers` holds what to do with each in turn; after the last, everything is taken."""

    port: int = 0
    answers: list[int | str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_PUT(self) -> None:
            state.paths.append(self.path)
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            does = state.answers.pop(0) if state.answers else 200
            if does == "reset":
                self.rfile.read(1000)
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if does == "stall":
                state.stalled.set()
                state.released.wait(60)
                state.released.set()
                return
            if does == "early":  # answers before it has read the body, as a store that refuses does
                self.send_response(413)
                self.end_headers()
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_WR)
                time.sleep(0.3)
                return
            state.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            assert isinstance(does, int)
            self.send_response(does)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield state
    state.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    directory = tmp_path / "engine_outputs"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "rank0.engine").write_bytes(os.urandom(5_000_000))
    return directory


def test_the_body_is_the_archive_and_its_length_is_announced(
    receiver: Receiver, engine: Path, tmp_path: Path
) -> None:
    progress: list[tuple[int, int]] = []
    delivered = deliver(
        engine,
        parse_destination(f"http://127.0.0.1:{receiver.port}{SIGNED}", tmp_path, reach=ANYWHERE),
        extra={"a": b"1"},
        manifest={"m": 1},
        progress=lambda done, total: progress.append((done, total)),
    )
    packed = pack_engine(engine, tmp_path / "local.tar.gz", extra={"a": b"1"}, manifest={"m": 1})
    assert receiver.bodies == [packed.path.read_bytes()]
    assert receiver.paths == [SIGNED]
    assert receiver.headers[0]["content-length"] == str(packed.size)
    assert "transfer-encoding" not in receiver.headers[0]
    assert "content-type" not in receiver.headers[0]  # some signatures cover it
    assert delivered.address == f"http://127.0.0.1:{receiver.port}/up/engine.tar.gz"
    assert (delivered.size, delivered.sha256, delivered.files) == (packed.size, packed.sha256, packed.files)
    assert progress == sorted(progress)
    # It is made twice and sent once; the total is that of its files all the same.
    files = sum(path.stat().st_size for path in engine.iterdir()) + 1
    assert {total for _, total in progress} == {files}
    assert progress[-1] == (files, files)


@pytest.mark.parametrize("answer", [503, 500, 429, "reset"])
def test_a_passing_failure_is_tried_again_from_the_first_byte(
    receiver: Receiver, engine: Path, tmp_path: Path, answer: int | str
) -> None:
    receiver.answers = [answer]
    delivered = deliver(
        engine,
        parse_destination(f"http://127.0.0.1:{receiver.port}{SIGNED}", tmp_path, reach=ANYWHERE),
        extra={},
        manifest={},
    )
    assert len(receiver.paths) == 2
    assert hashlib.sha256(receiver.bodies[-1]).hexdigest() == delivered.sha256


@pytest.mark.parametrize(
    ("answers", "message", "attempts"),
    [
        ([403], "HTTP 403 Forbidden; check that the address takes a PUT", 1),
        ([301], "HTTP 301 Moved Permanently", 1),
        (["early"], "HTTP 413", 1),
        pytest.param([503] * 4, "HTTP 503 Service Unavailable after 4 attempts", 4, marks=pytest.mark.slow),
    ],
)
def test_a_refusal_is_told_without_the_signature(
    receiver: Receiver, engine: Path, tmp_path: Path, answers: list[int | str], message: str, attempts: int
) -> None:
    receiver.answers = answers
    destination = parse_destination(f"http://127.0.0.1:{receiver.port}{SIGNED}", tmp_path, reach=ANYWHERE)
    with pytest.raises(DeliveryError, match=message) as caught:
        deliver(engine, destination, extra={}, manifest={})
    assert "s3cret" not in str(caught.value)
    assert len(receiver.paths) == attempts


def test_nobody_listening_is_told(engine: Path, tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(DeliveryError, match="Connection refused"):
        deliver(
            engine,
            parse_destination(f"http://127.0.0.1:{port}/x", tmp_path, reach=ANYWHERE),
            extra={},
            manifest={},
        )


def test_a_receiver_that_stalls_does_not_hold_up_calling_off(
    receiver: Receiver, engine: Path, tmp_path: Path
) -> None:
    receiver.answers = ["stall"]
    (engine / "rank1.engine").write_bytes(bytes(100_000_000))

    with cancelled_once_stuck(receiver.stalled) as progress, pytest.raises(KeyboardInterrupt):
        deliver(
            engine,
            parse_destination(f"http://127.0.0.1:{receiver.port}{SIGNED}", tmp_path, reach=ANYWHERE),
            extra={},
            manifest={},
            compression="none",
            progress=progress,
        )
    assert not receiver.released.is_set(), "it was the receiver that ended it"
    assert not [each.name for each in threading.enumerate() if each.name.startswith("archive_")]


def test_an_archive_that_is_there_already_is_sent_in_one_pass(
    receiver: Receiver, engine: Path, tmp_path: Path
) -> None:
    packed = pack_engine(engine, tmp_path / "engine.tar.gz", extra={}, manifest={})
    destination = parse_destination(f"http://127.0.0.1:{receiver.port}{SIGNED}", tmp_path, reach=ANYWHERE)
    progress: list[int] = []
    delivered = deliver_file(packed.path, destination, progress=lambda done, total: progress.append(total))
    assert (delivered.size, delivered.sha256) == (packed.size, packed.sha256)
    assert receiver.bodies == [packed.path.read_bytes()]
    assert set(progress) == {packed.size}


def test_a_file_destination_appears_whole_in_a_folder_made_for_it(engine: Path, tmp_path: Path) -> None:
    delivered = deliver(engine, parse_destination("file:///src/out/", tmp_path), extra={}, manifest={})
    path = tmp_path / "out" / "engine.tar.gz"
    assert delivered.address == f"file://{path.resolve()}"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == delivered.sha256
    assert [child.name for child in path.parent.iterdir()] == ["engine.tar.gz"]


def test_a_file_destination_that_fails_leaves_what_was_there(engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "engine.tar.gz"
    path.write_bytes(b"the last good one")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver(
            engine,
            parse_destination("file:///src/engine.tar.gz", tmp_path),
            extra={},
            manifest={},
            progress=interrupt,
        )
    assert path.read_bytes() == b"the last good one"
    assert sorted(child.name for child in tmp_path.iterdir()) == ["engine.tar.gz", "engine_outputs"]
