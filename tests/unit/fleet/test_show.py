"""What a person sees of a fleet before Ray has started, and of one with more cells than rows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.screen import Screen
from trt_llm_pipeline import fleet as package
from trt_llm_pipeline.cli import fleet as cli
from trt_llm_pipeline.delivery.object_store import Root
from trt_llm_pipeline.errors import FleetError
from trt_llm_pipeline.fleet.cells import Cell, Fleet, Resources

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
