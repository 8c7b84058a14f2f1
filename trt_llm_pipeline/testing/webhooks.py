"""A webhook receiver: what a client of the prediction API would run.

`python -m trt_llm_pipeline.testing.webhooks` prints what it is sent: each state, and each new piece of a log.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trt_llm_pipeline.printable import printable
from trt_llm_pipeline.units import in_words

_LARGEST_BODY = 2 << 30  # an archive may be inlined as base64
_SHOWN_OUTPUT = 200
_LOOK_EVERY_S = 0.5
PORT = 8004
_LAST = ("succeeded", "failed", "canceled")


class WebhookReceiver:
    """Takes POSTed JSON objects. Use as a context manager; what came is in `events`, in order.

    Args:
        host, port: where it listens; port 0 takes a free one.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._place = (host, port)

    def __enter__(self) -> WebhookReceiver:
        events = self.events

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                try:
                    length = min(int(self.headers.get("Content-Length", 0)), _LARGEST_BODY)
                    event = json.loads(self.rfile.read(length))
                except ValueError:
                    event = None
                if isinstance(event, dict):  # before the answer, after which the next one may come
                    events.put(event)
                self.send_response(200 if isinstance(event, dict) else 400)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(self._place, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where to send webhooks."""
        return f"http://{self._place[0]}:{self._server.server_address[1]}/"


class Follower:
    """Says what is new in the webhooks of predictions: a webhook carries the whole log each time.

    Args:
        say: takes the lines.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._known: dict[str, tuple[str, int]] = {}

    def tell(self, event: dict[str, Any]) -> None:
        """Says what one webhook has that those before it had not."""
        name = str(event.get("id") or "prediction")
        state, shown = self._known.get(name, ("", 0))
        log, status = str(event.get("logs") or ""), str(event.get("status"))
        if status not in _LAST:  # half a line waits for its other half
            log = log[: log.rfind("\n") + 1]
        for line in log[shown:].splitlines():
            self._say(printable(line))
        if status != state:
            self._say(printable(f"== {name}: {status}{_outcome(event)}"))
        self._known[name] = (status, max(shown, len(log)))


def _outcome(event: dict[str, Any]) -> str:
    if event.get("error"):
        return f": {event['error']}"
    output = event.get("output")
    if not output:
        return ""
    text = output if isinstance(output, str) else json.dumps(output)
    if text.startswith("data:"):
        kind, _, data = text.partition(",")
        return f": {in_words(len(data))} after {kind[:_SHOWN_OUTPUT]},"
    return f": {text[:_SHOWN_OUTPUT]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints its address, and then what it is sent, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m trt_llm_pipeline.testing.webhooks", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT, help=f"0 picks a free one [default: {PORT}]")
    options = parser.parse_args(arguments)

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        with WebhookReceiver(options.host, options.port) as receiver:
            say(f"waiting for webhooks at {receiver.url}")
            follower = Follower(say)
            while True:
                # A signal that comes just before an endless wait does not end that.
                with suppress(queue.Empty):
                    follower.tell(receiver.events.get(timeout=_LOOK_EVERY_S))
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        where = f"{options.host}:{options.port}"
        parser.error(f"cannot listen on {where}: {error.strerror}; --port 0 picks another")


if __name__ == "__main__":
    raise SystemExit(main())
