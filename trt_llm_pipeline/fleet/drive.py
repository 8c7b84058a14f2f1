"""Hands out a fleet's cells, tries again where a machine failed, and stops everything when asked to.

Whatever it knows it has from the records, so it can die at any time and `resume` goes on.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from trt_llm_pipeline.errors import (
    CellsFailed,
    DeliveryError,
    FleetBusy,
    FleetCancelled,
    FleetInfeasible,
)
from trt_llm_pipeline.fleet.attempt import NODE_LOST, Build, Job, Outcome, job_of
from trt_llm_pipeline.fleet.cells import Cell, Fleet, Resources
from trt_llm_pipeline.fleet.driving import Driving
from trt_llm_pipeline.fleet.nodes import cannot_run
from trt_llm_pipeline.fleet.records import Listing, Records, now
from trt_llm_pipeline.units import counted

_TURN_S = 0.5
_LOOK_AFTER_EVERY_S = 2.0
_ENDS_WITHIN_S = 4.0
_MOST_IN_FLIGHT = 1000
_MOST_TOLD = 32
_LONGEST_PAUSE_S = 60.0
_SHOWN = 20

Handle = Any
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a task ended.

    Attributes:
        handle: the task's.
        outcome: what it returned; None where it did not return.
        lost: its node or its worker is gone: why, in words; empty otherwise.
        kind, message: of an error that is nobody's fault but the program's, or of a worker out of memory.
    """

    handle: Handle
    outcome: Outcome | None = None
    lost: str = ""
    cancelled: bool = False
    kind: str = ""
    message: str = ""


class Runner(Protocol):
    """Where tasks run."""

    def missing(self, needs: Sequence[Resources]) -> dict[Resources, str]:
        """What no node has of those needs that none can ever fulfil."""

    def submit(self, job: Job, needs: Resources, avoid: Sequence[str]) -> Handle:
        """Starts a task, not on the nodes of `avoid` if there are others."""

    def wait(self, handles: Sequence[Handle], timeout_s: float) -> list[Ended]:
        """Those that have ended, after at most that long."""

    def dead_nodes(self) -> set[str]:
        """The ids of nodes that were in the cluster and are dead, or cut off from it."""

    def cancel(self, handle: Handle, *, force: bool) -> None:
        """Interrupts a task, or kills its process."""


@dataclass
class _Try:
    cell: Cell
    attempt: int
    tries: int
    avoid: tuple[str, ...]
    node: str = ""
    started: float = 0.0
    not_before: float = 0.0


@dataclass
class Result:
    """What has become of the cells, by name."""

    already: list[str] = field(default_factory=list)
    delivered: dict[str, Outcome] = field(default_factory=dict)
    failed: dict[str, Outcome] = field(default_factory=dict)

    def failure(self, fleet: Fleet) -> CellsFailed | None:
        """The error that says which cells have failed, with each one's reason; None where none has."""
        if not self.failed:
            return None
        lines = [f"{name}: {end.kind}: {end.message}" for name, end in list(self.failed.items())[:_SHOWN]]
        if len(self.failed) > _SHOWN:
            lines.append(f"and {len(self.failed) - _SHOWN} more")
        good = len(self.already) + len(self.delivered)
        return CellsFailed(
            f"{len(self.failed)} of {counted(len(fleet.cells), 'cell')} failed, "
            f"{good} {'is' if good == 1 else 'are'} delivered; their logs: "
            f"trt-llm-pipeline fleet logs {fleet.fleet_id} CELL\n" + "\n".join(lines)
        )


def run(
    fleet: Fleet,
    build: Build,
    start: Callable[[], Runner],
    tell: Callable[[Event], None],
    *,
    workspace: str | None = None,
    wait: bool = False,
    take_over: bool = False,
    unless_cancelled: bool = False,
) -> Result:
    """Builds every cell that is not delivered yet.

    Args:
        fleet: what to build.
        build: makes the archive of one cell, on a node: `pipeline.build`.
        start: connects to where tasks run; called only if there is something to do.
        tell: is told what happens: events with a `cell` and its `state`, and others.
        workspace: the nodes', where this machine decides it.
        wait: whether cells that no node can run wait for one.
        take_over: whether a driver that still lives is replaced.
        unless_cancelled: whether a fleet that has been cancelled stays so, and is not begun again.

    Raises:
        FleetInfeasible: no node can run some of the cells; nothing has been started.
        FleetBusy: another driver lives.
        FleetCancelled: it was cancelled.
        DeliveryError: the records cannot be written.
        KeyboardInterrupt: every task has been stopped.
    """
    records = Records(fleet)
    listing = records.listing()
    result = Result()
    for cell in fleet.cells:
        state = listing.cell(cell.name)
        if state.delivered:
            if state.staged:
                records.settle(cell, state)
            result.already.append(cell.name)
    tell(
        {
            "event": "fleet",
            "id": fleet.fleet_id,
            "records": records.address,
            "cells": len(fleet.cells),
            "already": len(result.already),
            "waiting": [cell.name for cell in fleet.cells if cell.name not in result.already],
        }
    )
    if len(result.already) == len(fleet.cells):
        return result
    if listing.cancelled and unless_cancelled:
        raise _cancelled(fleet)
    driving = Driving(records, listing, take_over)
    driving.check()
    runner = start()
    done = set(result.already)
    left = [cell for cell in fleet.cells if cell.name not in done]
    missing = runner.missing(list(dict.fromkeys(cell.resources for cell in left)))
    if missing and not wait:
        raise FleetInfeasible("\n".join(cannot_run(left, missing)))
    if missing:
        tell({"event": "log", "line": "\n".join(["waiting for nodes", *cannot_run(left, missing)])})
    records.write_plan()
    with driving:
        if listing.cancelled:
            records.uncancel()
        job = partial(job_of, fleet, build, workspace)
        _Driver(fleet, job, records, listing, runner, tell, driving, result).run(left)
    return result


def _cancelled(fleet: Fleet) -> FleetCancelled:
    return FleetCancelled(f"{fleet.fleet_id} was cancelled; `fleet resume` goes on with it")


class _Driver:
    def __init__(
        self,
        fleet: Fleet,
        job: Callable[[Cell, int, str], Job],
        records: Records,
        listing: Listing,
        runner: Runner,
        tell: Callable[[Event], None],
        driving: Driving,
        result: Result,
    ) -> None:
        self._fleet = fleet
        self._job = job
        self._records = records
        self._listing = listing
        self._runner = runner
        self._tell = tell
        self._driving = driving
        self._result = result
        self._running: dict[Handle, _Try] = {}
        self._pending: deque[_Try] = deque()
        self._next_look = 0.0
        self._told = 0

    def run(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            attempt = self._listing.cell(cell.name).next_attempt
            self._pending.append(_Try(cell, attempt, 1, ()))
        most = min(self._fleet.max_parallel or _MOST_IN_FLIGHT, _MOST_IN_FLIGHT)
        try:
            while self._pending or self._running:
                if self._driving.cancelled:
                    raise _cancelled(self._fleet)
                if self._driving.superseded:
                    raise FleetBusy(f"another driver has taken over {self._records.address}")
                self._submit_some(most - len(self._running))
                for ended in self._runner.wait(list(self._running), _TURN_S):
                    self._end(self._running.pop(ended.handle), ended)
                self._look_after()
        except BaseException:
            self._stop()
            raise

    def _submit_some(self, room: int) -> None:
        moment = time.monotonic()
        for _ in range(len(self._pending)):
            if room <= 0:
                return
            one = self._pending.popleft()
            if one.not_before > moment:
                self._pending.append(one)
            else:
                self._submit(one)
                room -= 1
        if not self._running:
            time.sleep(_TURN_S)

    def _submit(self, one: _Try) -> None:
        mark = secrets.token_hex(8)
        work = self._job(one.cell, one.attempt, mark)
        one.started = time.monotonic()
        self._running[self._runner.submit(work, one.cell.resources, one.avoid)] = one
        self._say(one, "waiting")

    def _end(self, one: _Try, ended: Ended) -> None:
        outcome = ended.outcome
        if outcome is None:
            outcome = self._without_outcome(one, ended)
        name = one.cell.name
        if outcome.state == "taken":
            self._again(one, one.tries, one.avoid)
        elif outcome.state in ("delivered", "superseded"):
            if outcome.state == "superseded":
                self._records.settle_one(one.cell)
            self._result.delivered[name] = outcome
            self._say(one, "delivered", outcome)
        elif outcome.state == "cancelled":
            self._driving.cancelled = True
        elif outcome.retry and one.tries < self._fleet.attempts:
            self._say(one, "failed, trying again", outcome)
            self._again(one, one.tries + 1, (*one.avoid, *filter(None, [outcome.node])))
        elif outcome.retry and self._records.is_decided(name):
            self._records.settle_one(one.cell)
            self._result.delivered[name] = outcome
            self._say(one, "delivered", outcome)
        else:
            self._result.failed[name] = outcome
            self._say(one, "failed", outcome)

    def _without_outcome(self, one: _Try, ended: Ended) -> Outcome:
        """A task that has not returned: its attempt's record is finished here."""
        seconds = round(time.monotonic() - one.started, 3)
        if ended.cancelled:
            known = self._finish(one, {"state": "cancelled"})
            return Outcome("cancelled", node=str(known.get("node", "")), seconds=seconds)
        kind, message = NODE_LOST if ended.lost else ended.kind, ended.lost or ended.message
        known = self._finish(one, {"state": "failed", "kind": kind, "message": message})
        node = str(known.get("node", ""))
        return Outcome("failed", kind, message, bool(ended.lost), seconds=seconds, node=node)

    def _finish(self, one: _Try, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ends an attempt's record where the attempt could not; what was known of it.

        One that is interrupted twice, by Ray and by its own look at the records, may not come to it.
        """
        known: dict[str, Any] = {}
        with suppress(DeliveryError):
            known = self._records.attempt(one.cell.name, one.attempt) or {}
            begun = bool(known) or fields["state"] != "cancelled"  # what has not begun still waits
            if begun and known.get("state", "running") == "running":
                ended = {"attempt": one.attempt, **known, **fields, "ended": now()}
                self._records.note(one.cell, one.attempt, ended)
        return known

    def _again(self, one: _Try, tries: int, avoid: tuple[str, ...]) -> None:
        pause = min(2.0 ** (tries - 1), _LONGEST_PAUSE_S) if tries > one.tries else 0.0
        again = _Try(one.cell, one.attempt + 1, tries, avoid, not_before=time.monotonic() + pause)
        self._pending.append(again)

    def _stop(self) -> None:
        """Interrupts every task; kills the process of one that does not end."""
        with suppress(DeliveryError):
            if not self._driving.superseded:
                self._records.cancel(f"process {os.getpid()} on {socket.gethostname()}")
        for force in (False, True):
            for handle in self._running:
                self._runner.cancel(handle, force=force)
            deadline = time.monotonic() + _ENDS_WITHIN_S
            while self._running and time.monotonic() < deadline:
                for ended in self._runner.wait(list(self._running), 0.1):
                    one = self._running.pop(ended.handle)
                    if ended.outcome is None:
                        self._finish(one, {"state": "cancelled"})
                    self._say(one, "cancelled")
            if not self._running:
                return

    def _say(self, one: _Try, state: str, outcome: Outcome | None = None) -> None:
        event: dict[str, Any] = {
            "event": "cell",
            "cell": one.cell.name,
            "attempt": one.attempt,
            "state": state,
        }
        if outcome is not None:
            event |= {"seconds": outcome.seconds, "node": outcome.node}
            event |= {"size": outcome.size} if outcome.size else {}
            event |= {"kind": outcome.kind, "message": outcome.message} if outcome.kind else {}
        self._tell(event)

    def _look_after(self) -> None:
        """Now and then: tells how far cells are, and gives up tries whose node is dead.

        Ray fails a task when its worker's connection breaks. A worker whose raylet was killed, or whose node
        is cut off from the head only, keeps that connection.
        """
        if time.monotonic() < self._next_look:
            return
        self._tell_stages()
        if any(one.node for one in self._running.values()):
            dead = self._runner.dead_nodes()
            for handle, one in list(self._running.items()):
                if one.node in dead:
                    del self._running[handle]
                    self._runner.cancel(handle, force=True)
                    self._end(one, Ended(handle, lost="the cluster has lost its node"))
        self._next_look = time.monotonic() + _LOOK_AFTER_EVERY_S

    def _tell_stages(self) -> None:
        """Reads how far running cells are; of a few at a time, so that the store is not kept busy."""
        tries = list(self._running.values())
        at = self._told % max(1, len(tries))
        tries = (tries[at:] + tries[:at])[:_MOST_TOLD]
        self._told += len(tries)
        by_name = {one.cell.name: one for one in tries}
        with suppress(DeliveryError):
            read = self._records.many(
                lambda name: self._records.attempt(name, by_name[name].attempt), list(by_name)
            )
            for name, known in read:
                if known is not None and known.get("state") == "running":
                    shown = {key: known.get(key) for key in ("node", "host", "stage", "share")}
                    one = by_name[name]
                    one.node = str(known.get("node", ""))
                    seconds = round(time.monotonic() - one.started, 1)
                    self._tell(
                        {
                            "event": "cell",
                            "cell": name,
                            "attempt": one.attempt,
                            "state": "running",
                            "seconds": seconds,
                            **shown,
                        }
                    )
