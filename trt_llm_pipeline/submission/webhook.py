"""A receiver of webhooks on a free port, for as long as one prediction runs."""

from __future__ import annotations

import errno
import json
import queue
import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from trt_llm_pipeline.errors import BadArgument

_LARGEST = 2 << 30  # the last event of a prediction holds the whole archive, as base64


class Receiver:
    """Takes a prediction's events. Use as a context manager.

    Args:
        host: the address of this machine that the server can reach, on which is listened.

    Attributes:
        events: what came, in order.

    Raises:
        BadArgument: on entering: it is no address of this machine.
    """

    def __init__(self, host: str) -> None:
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._host = host
        self._path = f"/{secrets.token_urlsafe(16)}"  # nobody else's events are taken

    def __enter__(self) -> Receiver:
        events, path = self.events, self._path

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                known = self.path == path and 0 < length <= _LARGEST
                body = self.rfile.read(length) if known else b""
                self.send_response(200 if known else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                try:
                    event = json.loads(body)
                except ValueError:
                    return
                if isinstance(event, dict):
                    events.put(event)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        try:
            self._server = ThreadingHTTPServer((self._host, 0), Handler)
        except OSError as error:
            if not isinstance(error, socket.gaierror) and error.errno != errno.EADDRNOTAVAIL:
                raise
            raise BadArgument(
                f"--listen: {self._host} is no IPv4 address of this machine; name one for the server"
            ) from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where to send events."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.server_port}{self._path}"
