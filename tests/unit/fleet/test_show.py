"""What a person sees of a fleet before Ray has started, and of one with more cells than rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import pytest
import typer

from tests.screen import Screen
from trt_llm_pipeline import fleet as package
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.cli import fleet as cli
from trt_llm_pipeline.cli.edge import failures
from trt_llm_pipeline.delivery.object_store import Root
from trt_llm_pipeline.errors import BadArgument, FleetBusy, FleetError
from trt_llm_pipeline.fleet import drive
from trt_llm_pipeline.fleet.cells import Cell, Fleet, Resources
from trt_llm_pipeline.fleet.overview import Overview, detail_of
from trt_llm_pipeline.fleet.ray_runner import submit_driver
from trt_llm_pipeline.fleet.records import Records, now
from trt_llm_pipeline.fleet.show import LineShow, print_overview, view_of

DRIVER = """
import sys
from trt_llm_pipeline.fleet.show import TableShow
names = [f"cell-{number:02}" for number in range(40)]
told = {"event": "fleet", "id": "f-1", "records": "r", "cells": 40, "already": 0, "waiting": names}
with TableShow() as show:
    show.tell({"event": "log", "line": "begun"})
    show.tell(told)
    sys.stdin.readline()
    for name in names[:25]:
        show.tell({"event": "cell", "cell": name, "state": "delivered", "attempt": 1})
    show.tell({"event": "cell", "cell": names[30], "state": "running", "attempt": 1})
    sys.stdin.readline()
"""


def rows(screen: Screen, state: str) -> list[str]:
    return [line.split()[0] for line in screen.text.splitlines() if line.split()[1:2] == [state]]


def test_cells_wait_in_the_table_and_give_way_to_those_that_run() -> None:
    with Screen([sys.executable, "-c", DRIVER], {}) as screen:
        screen.until(lambda now: len(rows(now, "waiting")) > 20, "the cells wait")
        screen.type("\n")
        screen.until(lambda now: rows(now, "running") == ["cell-30"], "one runs")
        screen.type("\n")
        assert screen.end() == 0
    last = screen.text[screen.text.rindex("25 of 40 delivered") :]
    states = [line.split()[1] for line in last.splitlines() if line.startswith("cell-")]
    assert len(states) == 30
    assert states.count("running") == 1
    assert states.count("waiting") == 14


def test_what_takes_long_is_said_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "trt_llm_pipeline.fleet.ray_runner", None)
    monkeypatch.delattr(package, "ray_runner", raising=False)
    cells = tuple(Cell(name, {"x": name}, "0" * 64, f"{name}/e.tar.gz", Resources()) for name in ("a", "b"))
    root = Root("file", f"file://{tmp_path}/bucket", "")
    found = Fleet("f-1", "fleet.yaml", root, cells, {"0" * 64: "model_id: a/b\n"})
    with pytest.raises(FleetError, match="Ray is not installed"):
        cli._run(
            found, None, wait=False, detach=False, take_over=False, workspace=tmp_path / "ws", as_json=True
        )
    told = capsys.readouterr().err.splitlines()
    assert '"waiting": ["a", "b"]' in told[0]
    assert "starting Ray, which takes some seconds" in told[1]


SAID = "step build: exited with code 3\n  | starting\n  | ValueError: no such head size"


def test_a_failed_cell_shows_the_script_s_own_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = view_of(
        {"cell": "a", "state": "failed", "attempt": 1, "kind": "step", "message": SAID, "seconds": 1.1}
    )
    assert view.detail == SAID
    overview = Overview("f-1", "fleet.yaml", "file:///f", (view,), "nobody", False, False)
    print_overview(overview)
    assert "step build: exited with code 3 | ValueError: no such head size" in " ".join(
        capsys.readouterr().out.split()
    )
    assert detail_of("node_lost", "its node is gone") == "node_lost: its node is gone"


def test_lines_tell_how_far_a_long_stage_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    told = {"event": "cell", "cell": "a", "state": "running", "attempt": 1, "stage": "download"}
    with LineShow() as show:
        for now, share in ((0.0, 0.01), (2.0, 0.1), (12.0, 0.4), (24.0, None)):  # noqa: B007
            show.tell({**told, "share": share})
    assert capsys.readouterr().err.splitlines() == ["a: running, download 1%", "a: running, download 40%"]


def test_an_interrupted_fleet_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trt_llm_pipeline.fleet.drive.run", interrupted)
    root = Root("file", f"file://{tmp_path}/bucket", "")
    cells = (Cell("a", {}, "0" * 64, "a/e.tar.gz", Resources()),)
    found = Fleet("f-1", "fleet.yaml", root, cells, {"0" * 64: "model_id: a/b\n"})
    with pytest.raises(typer.Exit) as caught, failures(False):
        cli._run(found, None, False, False, False, tmp_path / "ws", False)
    assert caught.value.exit_code == 130
    said = f"interrupted; `trt-llm-pipeline fleet resume {found.records.address}` goes on with it"
    assert capsys.readouterr().err.splitlines() == [said]


def test_only_a_cluster_s_fleet_is_left_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = Fleet("f-1", "fleet.yaml", Root("file", f"file://{tmp_path}/bucket", ""), (), {})
    with pytest.raises(BadArgument, match="--detach: name a cluster with --address"):
        cli._run(found, None, False, True, False, tmp_path / "ws", False)


def test_a_second_run_is_refused_before_ray_starts(tmp_path: Path) -> None:
    cells = (Cell("a", {}, "0" * 64, "a/e.tar.gz", Resources()),)
    root = Root("file", f"file://{tmp_path}/bucket", "")
    found = Fleet("f-1", "fleet.yaml", root, cells, {"0" * 64: "model_id: a/b\n"})
    records = Records(found)
    records.write_plan()
    records.claim_driver(1, {"pid": 4711, "host": "head", "started": now()})
    records.heartbeat(1)

    def start() -> NoReturn:
        raise AssertionError("Ray was started")

    with pytest.raises(FleetBusy, match=r"is being built already, since .* by process 4711 on head"):
        drive.run(found, pipeline.build, start, lambda _event: None)
    with pytest.raises(FleetBusy):  # a job of the cluster would be refused where nobody sees it
        submit_driver(found, "http://127.0.0.1:9", wait=False, take_over=False)


def test_an_event_does_nothing_to_a_terminal_wherever_its_texts_are() -> None:
    event = {"event": "log", "line": "a\x1b[31m\nb", "waiting": ["\x07"], "share": 0.5, "node": None}
    assert cli._for_people(event) == {**event, "line": "a\\x1b[31m\nb", "waiting": ["\\x07"]}
