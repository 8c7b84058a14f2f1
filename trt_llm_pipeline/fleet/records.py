"""What is known of a fleet, in the store beside its archives: the truth, whatever becomes of Ray.

Below `<root>/fleet/<id>/`:

    plan.json                          every cell and every config; written once
    cells/<cell>/cell.json             the delivered archive; put if absent, so that the first success wins
    cells/<cell>/attempt-<n>.json      one try: who, where, in which stage, how it ended
    cells/<cell>/attempt-<n>.log       what it printed
    cells/<cell>/attempt-<n>.tar.gz    its archive, until that is decided and moved to the destination
    cancel.json                        present while the fleet is to stop
    drivers/<n>.json                   who hands out the cells; the highest number does
    drivers/<n>.alive                  written again every few seconds by that one

Once `cell.json` is there its attempt is the only one whose archive may go to the destination, so whoever
finishes the move, the attempt itself or a later `resume`, writes the same bytes, and a node that was cut off
and comes back overwrites nothing.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from trt_llm_pipeline.artifact.statement import STATEMENT_SUFFIX
from trt_llm_pipeline.delivery.object_store import Bucket, StoredObject
from trt_llm_pipeline.errors import BadArgument
from trt_llm_pipeline.fleet.cells import FLEETS as FLEETS
from trt_llm_pipeline.fleet.cells import Cell, Fleet, as_record, from_record

_PLAN = "plan.json"
_CANCEL = "cancel.json"
_CELL = re.compile(r"cells/([^/]+)/(?:(cell\.json)|attempt-(\d+)\.(json|log|tar\.gz))")
_READERS = 16


@dataclass
class CellState:
    """What the names of a cell's objects tell.

    Attributes:
        attempts: the numbers that have been taken.
        delivered: whether `cell.json` is there.
        staged: attempts whose archive has not been moved or removed.
    """

    attempts: list[int] = field(default_factory=list)
    delivered: bool = False
    staged: list[int] = field(default_factory=list)

    @property
    def next_attempt(self) -> int:
        """The number that the next try should take."""
        return max(self.attempts, default=0) + 1


@dataclass
class Listing:
    """What one listing of a fleet's records tells."""

    cells: dict[str, CellState] = field(default_factory=dict)
    cancelled: bool = False
    has_plan: bool = False
    drivers: list[int] = field(default_factory=list)

    def cell(self, name: str) -> CellState:
        """The state of a cell, of which nothing may be there yet."""
        return self.cells.get(name) or CellState()


class Records:
    """The records of one fleet.

    Args:
        fleet: what it is of.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.root = Bucket(fleet.root)
        self._bucket = Bucket(fleet.records, small=True)

    @property
    def address(self) -> str:
        """Where they lie."""
        return self.fleet.records.address

    def listing(self) -> Listing:
        """What is there, by name; reads no object."""
        found = Listing()
        for entry in self._bucket.objects():
            if match := _CELL.fullmatch(entry.key):
                _take_in(found.cells.setdefault(match[1], CellState()), match)
            elif entry.key == _CANCEL:
                found.cancelled = True
            elif entry.key == _PLAN:
                found.has_plan = True
            elif match := re.fullmatch(r"drivers/(\d+)\.json", entry.key):
                found.drivers.append(int(match[1]))
        return found

    def write_plan(self) -> None:
        """Writes the plan, if it is not there."""
        self._bucket.put_new(_PLAN, _bytes(as_record(self.fleet)))

    # Cells

    def begin(self, cell: Cell, attempt: int, fields: Mapping[str, Any]) -> bool:
        """Takes an attempt's number. False where somebody else has it."""
        return self._bucket.put_new(_attempt(cell.name, attempt, "json"), _bytes(fields))

    def note(self, cell: Cell, attempt: int, fields: Mapping[str, Any]) -> None:
        """Replaces what is known of an attempt; called by the one who has its number."""
        self._bucket.put(_attempt(cell.name, attempt, "json"), _bytes(fields))

    def attempt(self, cell: str, attempt: int) -> dict[str, Any] | None:
        """What is known of an attempt."""
        return _value(self._bucket.get(_attempt(cell, attempt, "json")))

    def write_log(self, cell: Cell, attempt: int, text: bytes) -> None:
        """Replaces an attempt's log."""
        self._bucket.put(_attempt(cell.name, attempt, "log"), text)

    def log(self, cell: str, attempt: int) -> str | None:
        """An attempt's log."""
        data = self._bucket.get(_attempt(cell, attempt, "log"))
        return None if data is None else data.decode(errors="replace")

    def staging(self, cell: Cell, attempt: int) -> str:
        """Where an attempt puts its archive before it is decided: a key below the fleet's root."""
        return f"{FLEETS}/{self.fleet.fleet_id}/{_attempt(cell.name, attempt, 'tar.gz')}"

    def win(self, cell: Cell, fields: Mapping[str, Any]) -> bool:
        """Writes `cell.json`. False where another attempt has: its archive counts, and not this one's."""
        return self._bucket.put_new(f"cells/{cell.name}/cell.json", _bytes(fields))

    def delivered(self, cell: str) -> dict[str, Any] | None:
        """What `cell.json` says; None while no attempt has delivered."""
        return _value(self._bucket.get(f"cells/{cell}/cell.json"))

    def is_decided(self, cell: str) -> bool:
        """Whether an attempt has delivered."""
        return self._bucket.head(f"cells/{cell}/cell.json") is not None

    def publish(self, cell: Cell, record: Mapping[str, Any]) -> None:
        """Moves the archive that has won to its destination; does nothing where that has been done.

        The statement about it, which the record holds, goes first: it is worth nothing without the archive.
        """
        staged = self.staging(cell, int(record["attempt"]))
        size = self.root.size(staged)
        if size is None:
            return
        if isinstance(statement := record.get("statement"), str):
            self.root.put(f"{cell.key}{STATEMENT_SUFFIX}", statement.encode())
        self.root.move(staged, cell.key, size)

    def settle(self, cell: Cell, state: CellState) -> None:
        """Finishes what attempts that were killed have left of a delivered cell: moves, then removes."""
        record = self.delivered(cell.name)
        if record is None:
            return
        self.publish(cell, record)
        others = [n for n in state.staged if n != record["attempt"]]
        self.root.delete([self.staging(cell, n) for n in others])

    def settle_one(self, cell: Cell) -> None:
        """As `settle`, of a cell whose state is not known."""
        state = CellState()
        for entry in self._bucket.objects(f"cells/{cell.name}/"):
            if match := _CELL.fullmatch(entry.key):
                _take_in(state, match)
        if state.delivered and state.staged:
            self.settle(cell, state)

    def withdraw(self, cell: Cell, attempt: int) -> None:
        """Removes an archive that has lost."""
        self.root.delete([self.staging(cell, attempt)])

    def many(self, read: Callable[[str], Any], names: list[str]) -> Iterator[tuple[str, Any]]:
        """Reads something of many cells, several at a time."""
        with ThreadPoolExecutor(_READERS) as pool:
            yield from zip(names, pool.map(read, names), strict=True)

    # Cancelling

    def cancel(self, by: str) -> None:
        """Asks every attempt and the driver to stop."""
        self._bucket.put(_CANCEL, _bytes({"by": by, "at": now()}))

    def uncancel(self) -> None:
        """Lets the fleet go on."""
        self._bucket.delete([_CANCEL])

    def is_cancelled(self) -> bool:
        """Whether the fleet is to stop."""
        return self._bucket.head(_CANCEL) is not None

    # Drivers

    def claim_driver(self, number: int, fields: Mapping[str, Any]) -> bool:
        """Takes a driver's number. False where somebody else has it."""
        return self._bucket.put_new(_driver(number), _bytes(fields))

    def driver(self, number: int) -> dict[str, Any] | None:
        """Who a driver is."""
        return _value(self._bucket.get(_driver(number)))

    def driver_alive(self, number: int) -> StoredObject | None:
        """When a driver last said that it lives."""
        return self._bucket.head(f"drivers/{number:06d}.alive")

    def heartbeat(self, number: int) -> None:
        """Says that a driver lives."""
        self._bucket.put(f"drivers/{number:06d}.alive", b"")

    def driver_done(self, number: int, fields: Mapping[str, Any]) -> None:
        """Says that a driver has ended, so that nobody waits for it."""
        self._bucket.put(_driver(number), _bytes({**fields, "ended": now()}))

    def silence(self, number: int) -> float:
        """Seconds since a driver last said that it lives, by the store's own clock."""
        self._bucket.put("drivers/clock", b"")
        clock = self._bucket.head("drivers/clock")
        signs = [self._bucket.head(_driver(number)), self.driver_alive(number)]
        times = [sign.modified for sign in signs if sign is not None]
        if clock is None or not times:
            return float("inf")
        return (clock.modified - max(times)).total_seconds()

    def has_driver(self, number: int) -> bool:
        """Whether a driver's number is taken."""
        return self._bucket.head(_driver(number)) is not None


def open_records(address: str) -> Records:
    """The records at `<root>/fleet/<id>`.

    Raises:
        BadArgument: it is no such address, or there is no plan.
        DeliveryError: the store cannot be used, or the plan cannot be read.
    """
    from trt_llm_pipeline.delivery.object_store import parse_root

    root_text, _, fleet_id = address.rstrip("/").rpartition(f"/{FLEETS}/")
    if not root_text or not fleet_id or "/" in fleet_id:
        raise BadArgument(f"{address} is no fleet's address; it ends in /{FLEETS}/ID, as `fleet run` says")
    root = parse_root(root_text, "the fleet's address")
    data = Bucket(root.below(f"{FLEETS}/{fleet_id}"), small=True).get(_PLAN)
    if data is None:
        raise BadArgument(f"{address} holds no {_PLAN}; check the address")
    return Records(from_record(_value(data) or {}, root))


def now() -> str:
    """The time for records: UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _take_in(state: CellState, match: re.Match[str]) -> None:
    if match[2]:
        state.delivered = True
    elif match[4] == "json":
        state.attempts.append(int(match[3]))
    elif match[4] == "tar.gz":
        state.staged.append(int(match[3]))


def _attempt(cell: str, attempt: int, ending: str) -> str:
    return f"cells/{cell}/attempt-{attempt}.{ending}"


def _driver(number: int) -> str:
    return f"drivers/{number:06d}.json"


def _bytes(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1).encode()


def _value(data: bytes | None) -> dict[str, Any] | None:
    if data is None:
        return None
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
