"""The HTTP side of the loopback Hub."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import struct
import sys
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, Protocol, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from trt_llm_pipeline.testing.hub.faults import Fault, FaultBook
from trt_llm_pipeline.testing.hub.link import LinkState
from trt_llm_pipeline.testing.hub.repository import (
    MAIN,
    Commit,
    Repository,
    describe,
    describe_file,
    list_tree,
)
from trt_llm_pipeline.testing.hub.uploads import RefusedUpload, Uploads

_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+?)"
    r"(?:/(?P<what>revision|tree|refs|paths-info)(?:/(?P<revision>[^/]+)(?:/(?P<under>.*))?)?)?$"
)
_OWNERLESS = re.compile(
    r"/(?:api/(?:models|datasets)/(?P<id>[^/]+)(?:/revision/[^/]+)?|(?!api/)(?P<name>[^/]+)/resolve/.+)$"
)
_RESOLVE = re.compile(r"/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
_STORAGE = re.compile(r"/storage/(?P<id>[^/]+)/(?P<sha256>[0-9a-f]{64})$")
_PLAIN = re.compile(r"/files/(?P<path>.+)$")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_ETAG_OF_PLAIN = '"{size:x}-{stamp:x}"'
_CHUNK = 1 << 20


@dataclass(frozen=True)
class RequestRecord:
    """One request as it arrived. Header names are in lower case; `path` has no query."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


class _Hub(Protocol):
    """What is served; see `HubServer`."""

    faults: FaultBook
    line: LinkState
    tokens: frozenset[str]
    uploads: Uploads

    @property
    def url(self) -> str: ...
    @property
    def storage_url(self) -> str: ...
    def record(self, request: RequestRecord) -> None: ...
    def connected(self) -> None: ...
    def repository(self, model_id: str) -> Repository | None: ...
    def plain_file(self, path: str) -> Path | bytes | None: ...


def _full_id(match: re.Match[str]) -> str:
    """Datasets are kept as `datasets/owner/name`, as the Hub's own addresses have them."""
    is_dataset = (match["kind"] or "").startswith("datasets")
    return f"datasets/{unquote(match['id'])}" if is_dataset else unquote(match["id"])


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: _Hub, address: tuple[str, int]) -> None:
        self.hub = hub
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def shutdown(self) -> None:
        super().shutdown()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is nothing to report; anything else goes to stderr."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def make_server(hub: _Hub, address: tuple[str, int]) -> ThreadingHTTPServer:
    return _Server(hub, address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "LoopbackHub"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)
        line = self.server.hub.line
        self._to_be_cut = line.is_cut()
        time.sleep(line.link.latency)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """The request log is `HubServer.requests`."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server.hub
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        hub.record(RequestRecord(self.command, path, parts.query, headers))
        fault = hub.faults.take(self.command, path)
        time.sleep(hub.line.link.latency)
        try:
            if fault is not None and fault.kind == "status":
                return self._fail(fault)
            if fault is not None and fault.kind == "moved":
                return self._send_head(fault.status, {"Location": self.path, "Content-Length": "0"})
            if hub.uploads.is_storage(parts.path) or hub.uploads.repository_of(parts.path):
                return self._upload(parts.path, body)
            if match := _API.match(parts.path):
                if fault is not None and fault.kind == "stall":
                    self._wait(fault.seconds)
                return self._api(match, parse_qs(parts.query), body)
            if match := _OWNERLESS.match(parts.path):
                # There is none without an owner here.
                self._repository(match["id"] or match["name"], files=False)
            if match := _RESOLVE.match(parts.path):
                return self._resolve(match, fault)
            if match := _STORAGE.match(parts.path):
                return self._storage(match, fault)
            if match := _PLAIN.match(parts.path):
                return self._plain(unquote(match["path"]), fault)
            raise _Refused(404, "EntryNotFound", "Not Found")
        except _Refused as refusal:
            self._send_json(
                refusal.status,
                {"error": refusal.message},
                {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message},
            )
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        return None

    # What may be seen by whom. Missing and private look alike, as on the Hub.

    def _repository(self, model_id: str, *, files: bool) -> Repository:
        hub = self.server.hub
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        known = scheme.lower() == "bearer" and token in hub.tokens
        if token and not known:
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        repository = hub.repository(model_id)
        may = repository is not None and known and (not repository.granted or token in repository.granted)
        if repository is None or (repository.private and not may):
            if known:
                raise _Refused(404, "RepoNotFound", "Repository not found")
            raise _Refused(401, "RepoNotFound", "Invalid username or password.")
        if repository.gated and files and not may:
            sentence = f"Access to model {model_id} is restricted and you are not in the authorized list."
            raise _Refused(403 if known else 401, "GatedRepo", sentence)
        return repository

    def _commit(self, repository: Repository, revision: str) -> Commit:
        commit = repository.resolve(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # Endpoints.

    def _upload(self, path: str, body: bytes) -> None:
        hub = self.server.hub
        try:
            model_id = hub.uploads.repository_of(path)
            if model_id is None:
                hub.uploads.put(path, body)
                return self._send_json(200, {})
            if not self.headers.get("Authorization"):
                raise _Refused(401, "", "Invalid username or password.")
            repository = self._repository(model_id, files=True)
            return self._send_json(200, hub.uploads.answer(path, body, repository, hub.url, hub.storage_url))
        except RefusedUpload as refusal:
            raise _Refused(refusal.status, "", str(refusal)) from None

    def _api(self, match: re.Match[str], query: Mapping[str, list[str]], body: bytes) -> None:
        repository = self._repository(_full_id(match), files=False)
        what = match["what"]
        if what == "refs":
            return self._send_json(200, self._refs(repository))
        revision = unquote(match["revision"] or MAIN)
        commit = self._commit(repository, revision)
        if what in (None, "revision"):
            blobs = query.get("blobs", ["false"])[0].lower() == "true"
            return self._send_json(200, describe(repository, commit, blobs=blobs))
        under = unquote(match["under"] or "")
        if what == "tree":
            recursive = query.get("recursive", ["false"])[0].lower() == "true"
            tree = list_tree(commit, under, recursive=recursive)
            if tree is None:
                raise _Refused(404, "EntryNotFound", f"{under} does not exist on {revision}")
            return self._send_json(200, tree)
        asked = json.loads(body)["paths"] if body else []
        found = [describe_file(path, blob) for path, blob in commit.files.items() if path in asked]
        return self._send_json(200, found)

    def _refs(self, repository: Repository) -> dict[str, object]:
        def listed(kind: str, names: Mapping[str, str]) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}
                for name, sha in names.items()
            ]

        return {
            "branches": listed("heads", repository.branches),
            "tags": listed("tags", repository.tags),
            "converts": [],
        }

    def _resolve(self, match: re.Match[str], fault: Fault | None) -> None:
        repository = self._repository(_full_id(match), files=True)
        commit = self._commit(repository, unquote(match["revision"]))
        blob = commit.files.get(unquote(match["path"]))
        headers = {"X-Repo-Commit": commit.sha}
        if blob is None:
            self._send_json(404, {"error": "Entry not found"}, {**headers, "X-Error-Code": "EntryNotFound"})
            return None
        headers["ETag"] = f'"{blob.etag}"'
        if blob.sha256 is None or fault is not None:
            return self._send_blob(blob.source, blob.size, headers, fault)
        # Large files are elsewhere, as on the Hub.
        headers |= {"X-Linked-Size": str(blob.size), "X-Linked-Etag": f'"{blob.etag}"'}
        place = quote(_full_id(match), safe="")
        headers["Location"] = f"{self.server.hub.storage_url}/storage/{place}/{blob.sha256}"
        return self._send_head(302, {**headers, "Content-Length": "0"})

    def _storage(self, match: re.Match[str], fault: Fault | None) -> None:
        repository = self.server.hub.repository(unquote(match["id"]))
        if repository is None:
            raise _Refused(404, "EntryNotFound", "Not Found")
        for commit in repository.commits.values():
            for blob in commit.files.values():
                if blob.sha256 == match["sha256"]:
                    return self._send_blob(blob.source, blob.size, {"ETag": f'"{blob.etag}"'}, fault)
        raise _Refused(404, "EntryNotFound", "Not Found")

    def _plain(self, path: str, fault: Fault | None) -> None:
        source = self.server.hub.plain_file(path)
        if source is None:
            raise _Refused(404, "EntryNotFound", "Not Found")
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        stamp = source.stat().st_mtime_ns if isinstance(source, Path) else zlib.crc32(source)
        return self._send_blob(source, size, {"ETag": _ETAG_OF_PLAIN.format(size=size, stamp=stamp)}, fault)

    # Sending.

    def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_json(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        kept = {name: text for name, text in (headers or {}).items() if text}
        self._send_head(
            status, {**kept, "Content-Type": "application/json", "Content-Length": str(len(content))}
        )
        if self.command != "HEAD":
            self.wfile.write(content)

    def _fail(self, fault: Fault) -> None:
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        self._send_json(fault.status, {"error": "the Hub was asked to fail"}, headers)

    def _send_blob(
        self, source: Path | bytes, size: int, headers: Mapping[str, str], fault: Fault | None
    ) -> None:
        line = self.server.hub.line
        if not line.admit():
            raise _Refused(503, "", "too many downloads at once")
        try:
            self._send_admitted(source, size, headers, fault)
        finally:
            line.leave()

    def _send_admitted(
        self, source: Path | bytes, size: int, headers: Mapping[str, str], fault: Fault | None
    ) -> None:
        start, end, status = self._range(size, headers["ETag"], fault)
        if status == 416:
            self._send_head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        if fault is not None and fault.kind == "short":
            end = min(end, max(start, fault.after))
        extra = fault.after if fault is not None and fault.kind == "longer" else 0
        head = {
            **headers,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start + extra),
        }
        if status == 206:
            head["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._send_head(status, head)
        if self.command == "HEAD":
            return
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as stream:
            self._send_body(cast(BinaryIO, stream), start, end, fault)
        if extra:
            self.wfile.write(bytes(extra))

    def _range(self, size: int, etag: str, fault: Fault | None) -> tuple[int, int, int]:
        match = _RANGE.match(self.headers.get("Range") or "")
        condition = self.headers.get("If-Range")
        if match is None or (condition and condition != etag) or (fault and fault.kind == "ignore_range"):
            return 0, size, 200
        start = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        return (start, end, 206) if start < end else (start, end, 416)

    def _send_body(self, stream: BinaryIO, start: int, end: int, fault: Fault | None) -> None:
        self.wfile.flush()
        line = self.server.hub.line
        kind = None if fault is None else fault.kind
        if fault is None or kind in ("short", "longer", "ignore_range"):
            if self._to_be_cut:
                line.send(self.connection, stream, start, line.cut_after(start, end))
                self._reset()
            else:
                line.send(self.connection, stream, start, end)
            return
        if kind in ("reset", "stall"):
            stop = min(end, max(start, fault.after))
            if stop > start:
                line.send(self.connection, stream, start, stop)
            if kind == "stall":
                self._wait(fault.seconds)
                self.close_connection = True
            else:
                self._reset()
            return
        stream.seek(start)
        place = start
        step = max(1, fault.after // 20) if kind == "slow" else _CHUNK
        while place < end:
            chunk = bytearray(stream.read(min(step, end - place)))
            if kind == "corrupt" and place <= fault.after < place + len(chunk):
                chunk[fault.after - place] ^= 1
            self.connection.sendall(chunk)
            place += len(chunk)
            if kind == "slow":
                time.sleep(0.05)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    def _wait(self, seconds: float) -> None:
        """Sleeps, but not longer than the client or the server stays."""
        self.connection.settimeout(seconds)
        with contextlib.suppress(OSError):
            self.connection.recv(1)
