"""Which fleets were run from a workspace, so that an id is enough to name one."""

from __future__ import annotations

import re
from contextlib import suppress

from trt_llm_pipeline.fleet.cells import Fleet
from trt_llm_pipeline.workspace import Workspace

_ID = re.compile(r"[A-Za-z0-9-]{1,80}")


def remember(workspace: Workspace, fleet: Fleet) -> None:
    """Notes where a fleet's records lie. A workspace that cannot be written costs the note only."""
    with suppress(OSError):
        folder = workspace.state / "fleet" / "known"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / fleet.fleet_id).write_text(fleet.records.address + "\n")


def address(workspace: Workspace, fleet_id: str) -> str | None:
    """Where the records of a fleet lie that was run from here; None for any other text."""
    if not _ID.fullmatch(fleet_id):
        return None
    try:
        return (workspace.state / "fleet" / "known" / fleet_id).read_text().strip()
    except OSError:
        return None
