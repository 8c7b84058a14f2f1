"""How a fleet stands, from its records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from trt_llm_pipeline.fleet.cells import Cell
from trt_llm_pipeline.fleet.records import CellState, Listing, Records

_SILENT_S = 20.0
#: The states of a cell, in the order in which people want to see them.
STATES = ("running", "failed", "interrupted", "waiting", "cancelled", "delivered")


@dataclass(frozen=True)
class CellView:
    """A cell as it is shown.

    Attributes:
        state: one of `STATES`; `interrupted` where an attempt ended with its driver, and `resume` goes on.
        attempt: the number of the last try; 0 before the first.
        node: the host that it runs or ran on.
        stage: what it is doing, or was.
        seconds: since the try began, or how long it took.
        size: of the archive, in bytes.
        detail: its address, or what went wrong.
    """

    name: str
    state: str
    attempt: int = 0
    node: str = ""
    stage: str = ""
    seconds: float | None = None
    size: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Overview:
    """A whole fleet as it is shown.

    Attributes:
        driver: who hands out the cells, in words.
        driven: whether that one lives.
    """

    fleet_id: str
    name: str
    address: str
    cells: tuple[CellView, ...]
    driver: str
    driven: bool
    cancelled: bool

    @property
    def counts(self) -> dict[str, int]:
        """How many cells are in each state."""
        found = Counter(cell.state for cell in self.cells)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def summary(self) -> str:
        """The counts in words."""
        return ", ".join(f"{count} {state}" for state, count in self.counts.items())

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "counts": self.counts}


def detail_of(kind: str, message: str) -> str:
    """What went wrong, in words: whose fault, unless the message begins with that, and the message."""
    return message if message.startswith(f"{kind} ") else f"{kind}: {message}"


def in_a_line(detail: str) -> str:
    """The first line of what went wrong, and the last one of what a script has printed, if any."""
    lines = [line.strip() for line in detail.splitlines() if line.strip()]
    quoted = [said for line in lines[1:] if (said := line.removeprefix("|").strip())]
    return " | ".join([*lines[:1], *quoted[-1:]])


def overview(records: Records) -> Overview:
    """Reads how a fleet stands: one listing, and one record of each cell that has any.

    Raises:
        DeliveryError: the records cannot be read.
    """
    listing = records.listing()
    driver, driven = _driver(records, listing)
    cells = {cell.name: cell for cell in records.fleet.cells}

    def view(name: str) -> CellView:
        return _cell(records, cells[name], listing.cell(name), driven)

    names = [name for name in cells if name in listing.cells]
    known = dict(records.many(view, names))
    views = tuple(known.get(name) or CellView(name, "waiting") for name in cells)
    fleet = records.fleet
    return Overview(fleet.fleet_id, fleet.name, records.address, views, driver, driven, listing.cancelled)


def _driver(records: Records, listing: Listing) -> tuple[str, bool]:
    if not listing.drivers:
        return "nobody has run it yet", False
    number = max(listing.drivers)
    known = records.driver(number) or {}
    who = f"process {known.get('pid')} on {known.get('host')}"
    if "ended" in known:
        return f"{who} ended at {known['ended']}", False
    silence = records.silence(number)
    if silence > _SILENT_S:
        return f"{who} was last heard of {silence:.0f} s ago; `fleet resume` goes on", False
    return f"{who}, since {known.get('started')}", True


def _cell(records: Records, cell: Cell, state: CellState, driven: bool) -> CellView:
    if state.delivered and (record := records.delivered(cell.name)) is not None:
        archive: Mapping[str, Any] = record.get("archive", {})
        return CellView(
            cell.name,
            "delivered",
            int(record.get("attempt", 0)),
            str(record.get("host", "")),
            "",
            record.get("seconds"),
            archive.get("size"),
            str(record.get("address", "")),
        )
    if not state.attempts:
        return CellView(cell.name, "waiting")
    number = max(state.attempts)
    known = records.attempt(cell.name, number) or {}
    shown = str(known.get("state", "waiting"))
    if shown == "running" and not driven:
        shown = "interrupted"
    if shown not in STATES:  # another attempt has won, or its record was cut off
        shown = "waiting"
    seconds = known.get("seconds")
    if shown == "running" and seconds is None:
        seconds = _since(str(known.get("started", "")))
    detail = detail_of(str(known["kind"]), str(known.get("message", ""))) if known.get("kind") else ""
    stage = str(known.get("stage") or "")
    return CellView(cell.name, shown, number, str(known.get("host", "")), stage, seconds, None, detail)


def _since(text: str) -> float | None:
    try:
        began = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return round(max(0.0, (datetime.now(timezone.utc) - began).total_seconds()), 1)
