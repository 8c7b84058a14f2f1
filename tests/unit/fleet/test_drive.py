"""The driver's own part in the records: what an attempt could not write is written by who started it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trt_llm_pipeline import pipeline
from trt_llm_pipeline.delivery.object_store import Root
from trt_llm_pipeline.errors import FleetCancelled
from trt_llm_pipeline.fleet import drive
from trt_llm_pipeline.fleet.attempt import Job
from trt_llm_pipeline.fleet.cells import Cell, Fleet, Resources
from trt_llm_pipeline.fleet.drive import Ended
from trt_llm_pipeline.fleet.overview import overview
from trt_llm_pipeline.fleet.records import Records

CELLS = tuple(Cell(name, {"x": name}, "0" * 64, f"{name}/engine.tar.gz", Resources()) for name in "abc")


class Interrupted:
    """Tasks that end without another word once they are cancelled; that of the last cell never begins.

    Ray's own runner does so where a second interruption meets an attempt that is just writing its record.
    """

    def __init__(self, records: Records, *, lost: str) -> None:
        self._records = records
        self._lost = lost
        self._stopped: set[str] = set()

    def missing(self, needs: Sequence[Resources]) -> dict[Resources, str]:
        return {}

    def submit(self, job: Job, needs: Resources, avoid: Sequence[str]) -> str:
        if job.cell is not CELLS[-1]:
            self._records.begin(job.cell, job.attempt, {"state": "running", "host": "h", "node": "n"})
        return job.cell.name

    def wait(self, handles: Sequence[str], timeout_s: float) -> list[Ended]:
        if len(handles) == len(CELLS) and not self._stopped:
            self._records.cancel("a test")
        found = [handle for handle in handles if handle in self._stopped]
        return [Ended(handle, cancelled=not self._lost, lost=self._lost) for handle in found]

    def dead_nodes(self) -> set[str]:
        return set()

    def cancel(self, handle: str, *, force: bool) -> None:
        self._stopped.add(handle)


@pytest.mark.parametrize("lost", ["", "its worker is gone"])
def test_a_cancelled_attempt_is_recorded_as_such_though_it_could_not_say_so(
    tmp_path: Path, lost: str
) -> None:
    root = Root("file", f"file://{tmp_path}/bucket", "")
    fleet = Fleet("f-1", "fleet.yaml", root, CELLS, {"0" * 64: "model_id: a/b\n"})
    records = Records(fleet)
    told: list[Any] = []
    with pytest.raises(FleetCancelled):
        drive.run(fleet, pipeline.build, lambda: Interrupted(records, lost=lost), told.append)
    assert overview(records).counts == {"waiting": 1, "cancelled": 2}
    known = records.attempt("a", 1)
    assert known is not None
    assert (known["state"], known["host"]) == ("cancelled", "h")
    assert known["ended"]
