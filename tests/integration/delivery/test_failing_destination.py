"""A destination that answers and then refuses, twice; the second build begins with what is kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.integration.house import House
from trt_llm_pipeline.cli import app
from trt_llm_pipeline.testing.hub import HubServer


@dataclass
class Address:
    """Takes a PUT once `open` is true, and has an answer for everything."""

    port: int = 0
    open: bool = False
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/engine.tar.gz"


@pytest.fixture
def address() -> Iterator[Address]:
    state = Address()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            state.asked.append("HEAD")
            self._answer(403)

        def do_PUT(self) -> None:
            state.asked.append("PUT")
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(200 if state.open else 403)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def build(house: House, config: str, url: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    done = CliRunner().invoke(app, ["build", config, "--destination", url, "--json"], env=house.env)
    return done.exit_code, json.loads(done.stdout), [json.loads(line) for line in done.stderr.splitlines()]


def test_the_engine_is_kept_and_sent_by_the_next_build(
    hub: HubServer, address: Address, tmp_path: Path
) -> None:
    house = House(hub, tmp_path)
    config = house.config(check="off")
    totals = []
    for time in ("first", "second"):
        code, told, events = build(house, config, address.url)
        assert code == 7, told
        assert address.asked[:2] == ["HEAD", "PUT"]  # asked for before the first step
        address.asked.clear()
        assert f"The engine is kept in {house.workspace}/engine: build again to send it" in told["error"]
        lines = [event["line"] for event in events if event["event"] == "log"]
        assert any("step build: done in" in line for line in lines) == (time == "first")
        assert not [line for line in lines if "report.html" in line and "warning" in line]
        totals += [event["total_bytes"] for event in events if event.get("stage") == "package"]
    address.open = True
    code, record, _ = build(house, config, address.url)
    assert (code, record["archive"]["address"]) == (0, address.url)
    files = sum(file["size"] for name, file in record["files"].items() if name != "manifest.json")
    assert set(totals) == {files}  # though the archive is made twice, once to be measured
    assert [step["cached"] for step in record["steps"]] == [True]
    assert address.asked == ["HEAD", "PUT", "PUT"]  # the archive, and the statement about it
