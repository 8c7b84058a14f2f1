"""A fleet as a live page on this machine: one HTML file without a build step, and its figures as JSON.

The page asks for `status.json` every two seconds. Texts of the records are put into it as text, never as
HTML, because names and messages are other people's; the page may load and run nothing but itself.
"""

from __future__ import annotations

import json
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from trt_llm_pipeline.errors import BadArgument, DeliveryError
from trt_llm_pipeline.fleet.overview import overview
from trt_llm_pipeline.fleet.records import Records
from trt_llm_pipeline.report import style

_FRESH_S = 1.0  # however many look at the page, the store is asked once in that time
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:"
)

_OWN_STYLE = """
.counts { display: flex; flex-wrap: wrap; gap: 8px; margin: 14px 0 0; }
.counts .pill { margin: 0; }
.running { color: var(--step); background: var(--area); }
.meter { height: 8px; border-radius: 4px; background: var(--line); margin-top: 18px; overflow: hidden; }
.meter div { height: 100%; background: var(--good); }
.lost { color: var(--bad); margin-top: 12px; }
td .detail { color: var(--soft); font-size: 12.5px; }
@media (max-width: 700px) {
  thead { display: none; }
  tr { display: grid; grid-template-columns: 1fr auto; gap: 2px 12px; padding: 10px 0;
    border-bottom: 1px solid var(--line); }
  tr:last-child { border-bottom: 0; }
  td { border: 0; padding: 0; min-width: 0; }
  td.cell { grid-column: 1; }
  td.state { grid-column: 2; text-align: right; }
  td.number { text-align: left; }
  td.detail-cell { grid-column: 1 / -1; }
  td:empty { display: none; }
}
"""

_SCRIPT = """
"use strict";
const PILLS = {delivered: "ok", failed: "problem", running: "running", interrupted: "warning",
  cancelled: "warning", waiting: "unknown"};
const byId = (id) => document.getElementById(id);

function put(parent, tag, css, text) {
  const made = document.createElement(tag);
  if (css) made.className = css;
  if (text !== undefined && text !== null) made.textContent = text;
  parent.append(made);
  return made;
}

function time(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 60) return seconds.toFixed(1) + " s";
  const pad = (n) => String(n).padStart(2, "0");
  const s = Math.floor(seconds), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  return h ? h + ":" + pad(m) + ":" + pad(s % 60) : m + ":" + pad(s % 60);
}

function size(bytes) {
  if (!bytes) return "";
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 999.95 && at < units.length - 1) { bytes /= 1000; at += 1; }
  return (at ? bytes.toFixed(1) : bytes) + " " + units[at];
}

function show(fleet) {
  document.title = fleet.fleet_id + ": " + (fleet.counts.delivered || 0) + " of " + fleet.cells.length;
  byId("title").textContent = fleet.fleet_id;
  byId("records").textContent = fleet.address;
  byId("driver").textContent = fleet.driver;
  const counts = byId("counts");
  counts.replaceChildren();
  for (const [state, count] of Object.entries(fleet.counts)) {
    put(counts, "span", "pill " + PILLS[state], count + " " + state);
  }
  byId("done").style.width = 100 * (fleet.counts.delivered || 0) / fleet.cells.length + "%";
  const rows = document.createElement("tbody");
  for (const cell of fleet.cells) {
    const row = put(rows, "tr");
    put(row, "td", "cell", cell.name);
    const state = put(row, "td", "state");
    put(state, "span", "pill " + PILLS[cell.state], cell.state);
    if (cell.attempt > 1) put(state, "div", "detail", "try " + cell.attempt);
    put(row, "td", "", cell.node);
    put(row, "td", "", cell.stage);
    put(row, "td", "number", time(cell.seconds));
    put(row, "td", "number", size(cell.size));
    put(row, "td", "detail-cell", "").append(...[cell.detail].filter(Boolean).map((text) => {
      const made = document.createElement("span");
      made.className = "detail";
      made.textContent = text;
      return made;
    }));
  }
  byId("cells").tBodies[0].replaceWith(rows);
}

async function look() {
  try {
    const answer = await fetch("status.json", {cache: "no-store"});
    const fleet = await answer.json();
    if (!answer.ok) throw new Error(fleet.error);
    show(fleet);
    byId("lost").textContent = "";
  } catch (error) {
    byId("lost").textContent = "Not up to date: " + error.message;
  }
  document.body.dataset.looked = Number(document.body.dataset.looked || 0) + 1;
  setTimeout(look, 2000);
}
look();
"""

PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fleet</title>
<link rel="icon" href="data:,">
<style>{style()}{_OWN_STYLE}</style>
</head>
<body>
<main>
<p class="kicker">Fleet</p>
<h1 id="title">...</h1>
<ul class="facts"><li>records <b id="records"></b></li><li>driver <b id="driver"></b></li></ul>
<div id="counts" class="counts"></div>
<div class="meter"><div id="done"></div></div>
<p id="lost" class="lost" role="status"></p>
<section>
<table id="cells">
<thead><tr><th>cell</th><th>state</th><th>node</th><th>stage</th><th class="number">time</th>
<th class="number">size</th><th></th></tr></thead>
<tbody></tbody>
</table>
</section>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


class StatusServer:
    """Serves the page on 127.0.0.1. Use as a context manager.

    Args:
        records: of the fleet.
        port: 0 for a free one.
    """

    def __init__(self, records: Records, port: int) -> None:
        self._records = records
        self._port = port
        self._lock = threading.Lock()
        self._answer: tuple[HTTPStatus, bytes] = (HTTPStatus.OK, b"")
        self._asked = -_FRESH_S
        self._done = threading.Event()

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> StatusServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                return

            def do_GET(self) -> None:
                if self.path == "/":
                    self._send(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.encode())
                elif self.path == "/status.json":
                    status, body = outer.figures()
                    self._send(status, "application/json", body)
                else:
                    self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")

            def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Security-Policy", _POLICY)
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(body)

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        except OSError as error:
            reason = error.strerror or error
            message = f"--port: {self._port} cannot be used: {reason}; name another, or 0 for a free one"
            raise BadArgument(message) from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self) -> None:
        """Returns when it is interrupted."""
        while not self._done.wait(0.5):
            continue

    def figures(self) -> tuple[HTTPStatus, bytes]:
        """How the fleet stands, as JSON, at most a second old."""
        with self._lock:
            if time.monotonic() - self._asked >= _FRESH_S:
                try:
                    found = overview(self._records).as_json()
                    self._answer = HTTPStatus.OK, json.dumps(found).encode()
                except DeliveryError as error:
                    body = json.dumps({"error": str(error)}).encode()
                    self._answer = HTTPStatus.BAD_GATEWAY, body
                self._asked = time.monotonic()
            return self._answer
