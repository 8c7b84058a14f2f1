"""Archives streamed to a real S3 server: whole, in parts, through faults, and withdrawn when called off."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import obstore
import pytest

from tests.integration.delivery.cancelling import cancelled_once_stuck
from tests.integration.house import STORE_SERVER
from trt_llm_pipeline.artifact import pack_engine, read_archive
from trt_llm_pipeline.delivery import check_reachable, parse_destination
from trt_llm_pipeline.delivery.send import deliver, deliver_file
from trt_llm_pipeline.errors import DeliveryError
from trt_llm_pipeline.testing.servers import ServerProcess, free_port

BUCKET = "engines"
# Before 0.12 (the last for Python 3.10) the store's client withdraws an upload that its caller gives up, but
# not one
# that the store refuses midway.
WITHDRAWS_REFUSED = tuple(map(int, obstore.__version__.split(".")[:2])) >= (0, 12)
KEY_ID, SECRET = "AKIAMARKEDKEY", "marked-s3cret-key"


@pytest.fixture(scope="module")
def store() -> Iterator[int]:
    """The port of an S3 server in a process of its own."""
    port = free_port()
    argv = [sys.executable, str(STORE_SERVER), str(port)]
    with ServerProcess(argv, port, cwd=STORE_SERVER.parent, env=os.environ):
        client(port).create_bucket(Bucket=BUCKET)
        yield port


def client(port: int) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
    )


@dataclass
class Fault:
    """What a proxy does to a request instead of passing it on; None passes it on."""

    choose: Callable[[str, str, int], int | str | None] = lambda method, path, seen: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@pytest.fixture
def proxy(store: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fault]:
    """A proxy before the store, which the environment names as the endpoint."""
    fault = Fault()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with fault.lock:
                fault.requests.append((self.command, self.path))
                seen = fault.requests.count((self.command, self.path))
            does = fault.choose(self.command, self.path, seen)
            if does == "reset":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if isinstance(does, int):
                self.answer(does, b"<Error><Code>Planted</Code><Message>m</Message></Error>", {})
                return
            onward = http.client.HTTPConnection("127.0.0.1", store)
            onward.request(self.command, self.path, body, dict(self.headers))
            response = onward.getresponse()
            self.answer(response.status, response.read(), dict(response.getheaders()))
            onward.close()

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in (
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "server",
                    "date",
                ):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815  the base class's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield fault
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """About 30 MB that hardly compress: four parts."""
    directory = tmp_path / "engine_outputs"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "rank0.engine").write_bytes(os.urandom(30_000_000))
    return directory


def objects(port: int) -> dict[str, int]:
    listed = client(port).list_objects_v2(Bucket=BUCKET)
    return {item["Key"]: item["Size"] for item in listed.get("Contents", [])}


def unfinished(port: int) -> list[str]:
    """Keys of uploads neither completed nor withdrawn, those of refused ones aside where they are
    expected."""
    keys = [item["Key"] for item in client(port).list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]
    return keys if WITHDRAWS_REFUSED else [key for key in keys if key != "refused"]


def parts_sent(fault: Fault) -> list[str]:
    return [
        path.partition("partNumber=")[2].split("&")[0] for _, path in fault.requests if "partNumber=" in path
    ]


@pytest.mark.parametrize("compression", ["gzip", pytest.param("none", marks=pytest.mark.slow)])
def test_the_object_is_the_archive_that_packing_would_make(
    store: int, proxy: Fault, engine: Path, tmp_path: Path, compression: Any
) -> None:
    key = f"whole/{compression}"
    progress: list[tuple[int, int]] = []
    delivered = deliver(
        engine,
        parse_destination(f"s3://{BUCKET}/{key}", tmp_path),
        extra={"tokenizer.json": b"{}"},
        manifest={"model_id": "a/b"},
        compression=compression,
        progress=lambda done, total: progress.append((done, total)),
    )
    body = client(store).get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert delivered.address == f"s3://{BUCKET}/{key}"
    assert (delivered.size, delivered.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    packed = pack_engine(
        engine,
        tmp_path / "local",
        extra={"tokenizer.json": b"{}"},
        manifest={"model_id": "a/b"},
        compression=compression,
    )
    assert packed.path.read_bytes() == body
    assert packed.files == delivered.files
    assert read_archive(io.BytesIO(body)).problems == ()
    assert sorted(parts_sent(proxy)) == ["1", "2", "3", "4"]
    assert progress[-1][0] == progress[-1][1]
    assert unfinished(store) == []


@pytest.mark.parametrize("fault", [503, pytest.param(500, marks=pytest.mark.slow), "reset"])
def test_a_part_that_fails_is_sent_again_and_only_that_part(
    store: int, proxy: Fault, engine: Path, tmp_path: Path, fault: int | str
) -> None:
    proxy.choose = lambda method, path, seen: fault if "partNumber=2&" in path and seen <= 2 else None
    key = f"healed/{fault}"
    delivered = deliver(engine, parse_destination(f"s3://{BUCKET}/{key}", tmp_path), extra={}, manifest={})
    assert sorted(parts_sent(proxy)) == ["1", "2", "2", "2", "3", "4"]
    assert objects(store)[key] == delivered.size
    body = client(store).get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert hashlib.sha256(body).hexdigest() == delivered.sha256


@pytest.mark.parametrize(
    ("where", "status", "message"),
    [
        ("partNumber=1&", 403, r"refuses access \(403 Planted\): check AWS_ACCESS_KEY_ID"),
        ("uploads", 403, r"refuses access \(403 Planted\): check AWS_ACCESS_KEY_ID"),
        ("uploads", 401, r"refuses access"),
        ("uploads", 404, r"knows no such bucket"),
        ("partNumber=2&", 400, r"refuses it \(400 Planted\)"),
    ],
)
def test_a_refusal_is_told_without_secrets_and_leaves_nothing(
    store: int, proxy: Fault, engine: Path, tmp_path: Path, where: str, status: int, message: str
) -> None:
    proxy.choose = lambda method, path, seen: status if where in path and method != "DELETE" else None
    before = objects(store)
    with pytest.raises(DeliveryError, match=message) as caught:
        deliver(engine, parse_destination(f"s3://{BUCKET}/refused", tmp_path), extra={}, manifest={})
    text = str(caught.value)
    assert text.startswith(f"the archive could not be sent to s3://{BUCKET}/refused: ")
    assert not any(part in text for part in (KEY_ID, SECRET, "uploadId", "http://", "Signature"))
    assert objects(store) == before
    assert unfinished(store) == []


def test_a_bucket_that_is_not_there_is_named(proxy: Fault, engine: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DeliveryError, match=r"s3://no-such-bucket/x: the store knows no such bucket.*NoSuchBucket"
    ):
        deliver(engine, parse_destination("s3://no-such-bucket/x", tmp_path), extra={}, manifest={})


def test_a_bucket_is_asked_for_before_anything_is_made_for_it(
    store: int, proxy: Fault, tmp_path: Path
) -> None:
    there = parse_destination(f"s3://{BUCKET}/a/x", tmp_path)
    before = objects(store)
    check_reachable(there)
    assert {method for method, _ in proxy.requests} == {"GET"}
    assert objects(store) == before
    with pytest.raises(DeliveryError, match=r"s3://no-such-bucket/x cannot be written: .*NoSuchBucket"):
        check_reachable(parse_destination("s3://no-such-bucket/x", tmp_path))
    proxy.choose = lambda method, path, seen: 403
    with pytest.raises(DeliveryError, match=r"refuses access \(403 Planted\)"):
        check_reachable(there)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit])
def test_an_upload_that_is_called_off_is_withdrawn(
    store: int, proxy: Fault, engine: Path, tmp_path: Path, failure: type[BaseException]
) -> None:
    before = objects(store)
    (engine / "rank1.engine").write_bytes(bytes(200_000_000))  # more than what is read ahead of the parts

    def interrupt(done: int, total: int) -> None:
        if parts_sent(proxy):
            raise failure

    with pytest.raises(failure):
        deliver(
            engine,
            parse_destination(f"s3://{BUCKET}/off", tmp_path),
            extra={},
            manifest={},
            compression="none",
            progress=interrupt,
        )
    assert parts_sent(proxy)
    assert objects(store) == before
    assert unfinished(store) == []
    assert not [thread.name for thread in threading.enumerate() if thread.name == "store-upload"]


def test_calling_off_does_not_wait_for_a_stalled_store(
    store: int, proxy: Fault, engine: Path, tmp_path: Path
) -> None:
    stalled, release = threading.Event(), threading.Event()

    def stall(method: str, path: str, seen: int) -> None:
        if "partNumber=" in path:
            stalled.set()
            release.wait(60)
            release.set()

    proxy.choose = stall
    (engine / "rank1.engine").write_bytes(bytes(100_000_000))
    try:
        with cancelled_once_stuck(stalled) as progress, pytest.raises(KeyboardInterrupt):
            deliver(
                engine,
                parse_destination(f"s3://{BUCKET}/stalled", tmp_path),
                extra={},
                manifest={},
                compression="none",
                progress=progress,
            )
        assert not release.is_set(), "it was the store that ended it"
    finally:
        release.set()
    assert "stalled" not in objects(store)


def test_an_archive_that_is_there_already_is_sent_as_it_is(
    store: int, proxy: Fault, engine: Path, tmp_path: Path
) -> None:
    packed = pack_engine(engine, tmp_path / "engine.tar.gz", extra={}, manifest={})
    delivered = deliver_file(packed.path, parse_destination(f"s3://{BUCKET}/again/", tmp_path))
    assert (delivered.address, delivered.size, delivered.sha256) == (
        f"s3://{BUCKET}/again/engine.tar.gz",
        packed.size,
        packed.sha256,
    )
    assert objects(store)["again/engine.tar.gz"] == packed.size


@pytest.mark.slow
def test_memory_stays_bounded_and_no_copy_is_on_disk(
    store: int, proxy: Fault, engine: Path, tmp_path: Path
) -> None:
    with (engine / "rank0.engine").open("wb") as file:
        file.truncate(400_000_000)
    script = """
import pathlib, sys
from trt_llm_pipeline.delivery import parse_destination
from trt_llm_pipeline.delivery.send import deliver
workspace = pathlib.Path(sys.argv[1])
destination = parse_destination(sys.argv[2], workspace)
deliver(workspace / "engine_outputs", destination, extra={}, manifest={}, compression="none")
status = pathlib.Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path, f"s3://{BUCKET}/large"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert objects(store)["large"] > 400_000_000
    assert int(done.stdout) < 250 * 1024
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine_outputs"]
    client(store).delete_object(Bucket=BUCKET, Key="large")
