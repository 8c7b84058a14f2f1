"""The live page of a fleet, in a real browser: it follows the records, and fits a telephone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trt_llm_pipeline.cli import app
from trt_llm_pipeline.delivery.object_store import Root
from trt_llm_pipeline.fleet.cells import Cell, Fleet, Resources
from trt_llm_pipeline.fleet.records import Records, now
from trt_llm_pipeline.fleet.status_page import PAGE, StatusServer

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROBE = Path(__file__).parent / "page_probe.js"
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Five cells: one delivered, one running, one failed, one cancelled, one that nobody has begun."""
    names = ["float16-H100", "int8-H100", "fp8-" + "very-long-" * 9, "int4-A100", "float16-L40S"]
    cells = tuple(Cell(name, {}, "0" * 64, f"{name}/engine.tar.gz", Resources()) for name in names)
    root = Root("file", f"file://{tmp_path}/bucket", "")
    made = Records(Fleet("sweep-0123456789ab", "sweep.yaml", root, cells, {"0" * 64: ""}))
    made.write_plan()
    made.claim_driver(1, {"pid": 4711, "host": "head", "started": now()})
    made.heartbeat(1)
    made.begin(cells[0], 1, {"state": "running"})
    made.win(
        cells[0],
        {
            "attempt": 1,
            "host": "gpu-1",
            "seconds": 4000.5,
            "archive": {"size": 14_200_000_000},
            "address": "s3://bucket/float16/H100/engine.tar.gz",
        },
    )
    made.begin(cells[1], 1, {"state": "running", "host": "gpu-2", "stage": "build", "started": now()})
    made.begin(
        cells[2],
        2,
        {
            "state": "failed",
            "host": "gpu-3",
            "kind": "step",
            "seconds": 61.0,
            "message": f"step build: {EVIL} exited with code 3 " + "a" * 200,
        },
    )
    made.begin(cells[3], 1, {"state": "cancelled", "host": "gpu-4", "seconds": 1.5})
    return made


def fetch(url: str) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def test_the_figures_are_those_of_the_records(records: Records) -> None:
    with StatusServer(records, 0) as server:
        status, body, headers = fetch(server.url)
        assert (status, body.decode()) == (200, PAGE)
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        status, body, _ = fetch(server.url + "status.json")
        assert fetch(server.url + "other")[0] == 404
    found = json.loads(body)
    assert status == 200
    assert found["counts"] == {"running": 1, "failed": 1, "waiting": 1, "cancelled": 1, "delivered": 1}
    assert found["driver"].startswith("process 4711 on head, since")
    assert [cell["state"] for cell in found["cells"]][:2] == ["delivered", "running"]


def test_a_store_that_fails_is_told_and_not_hidden(records: Records, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "bucket")
    (tmp_path / "bucket").write_text("no directory any more")
    with StatusServer(records, 0) as server:
        status, body, _ = fetch(server.url + "status.json")
    assert status == 502
    assert "cannot be used" in json.loads(body)["error"]


@pytest.fixture
def probed(records: Records) -> Iterator[str]:
    """The page with a probe in it, and figures from a real status server."""
    page = PAGE.replace("</body>", f"<script>{PROBE.read_text()}</script></body>").encode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            body = page if self.path == "/" else fetch(server.url + self.path[1:])[1]
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if self.path == "/" else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with StatusServer(records, 0) as server:
        front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        front.daemon_threads = True
        thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{front.server_port}/"
        front.shutdown()
        thread.join()
        front.server_close()


def browse(url: str, profile: Path, width: int) -> dict[str, Any]:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser is not None, f"install one of {', '.join(BROWSERS)}: apt-get install chromium"
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=10000"
    )
    argv = [
        browser,
        *quiet.split(),
        f"--user-data-dir={profile}",
        f"--window-size={width},900",
        "--dump-dom",
        url,
    ]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="probe">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert found, ran.stderr[-2000:]
    return dict(json.loads(unescape(found[1])))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_every_cell(probed: str, tmp_path: Path, width: int) -> None:
    found = browse(probed, tmp_path / "profile", width)
    assert found["rows"] == 5
    assert found["states"] == ["delivered", "running", "failed", "cancelled", "waiting"]
    assert found["title"] == "sweep-0123456789ab: 1 of 5"
    assert "14.2 GB" in found["text"]
    assert "1:06:40" in found["text"]
    assert EVIL in found["text"]  # as text
    assert found["images"] == 0
    assert found["looked"] >= 2  # it asks again by itself
    assert {name.rpartition("/")[2] for name in found["fetched"]} == {"status.json"}
    assert found["overflow"] <= 0
    assert found["narrow_overflow"] <= 0  # in a frame of 400 px, whatever the browser's least window is
    assert found["narrow_outside"] == []


@pytest.mark.parametrize("port", ["-1", "99999"])
def test_a_port_that_is_none_is_an_argument_s_mistake(records: Records, port: str) -> None:
    done = CliRunner().invoke(app, ["fleet", "status", records.address, "--serve", "--port", port])
    assert (done.exit_code, "Invalid value for '--port'" in done.output) == (2, True), done.output


def test_a_port_that_is_taken_names_the_option(records: Records) -> None:
    with StatusServer(records, 0) as server:
        port = server.url.rpartition(":")[2].rstrip("/")
        done = CliRunner().invoke(app, ["fleet", "status", records.address, "--serve", "--port", port])
    said = (
        f"error: --port: {port} cannot be used: Address already in use; name another, or 0 for a free one\n"
    )
    assert (done.exit_code, done.stderr) == (2, said)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("fp8-" + "very-long-" * 9, "--attempt: {} has no try 7; it has had try 2"),
        ("float16-L40S", "{} has not begun: there is no log yet"),
        ("float64", "sweep-0123456789ab has no cell '{}'; `fleet status` lists them"),
    ],
)
def test_a_log_that_is_not_there_is_an_argument_s_mistake(records: Records, cell: str, words: str) -> None:
    done = CliRunner().invoke(app, ["fleet", "logs", records.address, cell, "--attempt", "7"])
    assert (done.exit_code, done.stderr) == (2, f"error: {words.format(cell)}\n")
