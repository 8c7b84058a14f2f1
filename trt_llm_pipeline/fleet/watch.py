"""Beside a running attempt: what it says goes to the records, and a wish to end it comes from there."""

from __future__ import annotations

import _thread
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from trt_llm_pipeline.errors import DeliveryError
from trt_llm_pipeline.fleet.cells import Cell
from trt_llm_pipeline.fleet.records import Records
from trt_llm_pipeline.observer import Heartbeat, StageState

_LOOK_EVERY_S = 1.0
_TELL_EVERY_S = 4.0
_HEAD_BYTES = 1 << 20
_TAIL_BYTES = 1 << 20
Reason = Literal["cancelled", "superseded", "node lost"]


class AttemptVoice:
    """Keeps what a build says: its log, at most two megabytes of it, and `at`, the stage it is in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._head: list[str] = []
        self._head_bytes = 0
        self._tail: list[str] = []
        self._tail_bytes = 0
        self._dropped = 0
        self.usage = Heartbeat(self.log).usage
        self.at = "start"
        self.share: float | None = None
        self.changes = 0

    def enter(self, stage: str) -> None:
        """A new part of the work begins."""
        if stage != self.at:
            self.at, self.share = stage, None
            self.changes += 1

    def stage(self, name: str, state: StageState) -> None:
        """Notes which stage the build is in."""
        if state == "running":
            self.enter(name)

    def output(self, line: str) -> None:
        """Keeps a line of a script."""
        self.log(line)

    def kept(self, what: str, path: Path) -> None:
        """The node's own files are of no use elsewhere."""

    def log(self, line: str) -> None:
        """Keeps a line."""
        with self._lock:
            self.changes += 1
            text = f"{time.strftime('%H:%M:%S', time.gmtime())} {line}\n"
            size = len(text.encode(errors="replace"))
            if self._head_bytes < _HEAD_BYTES:
                self._head.append(text)
                self._head_bytes += size
                return
            self._tail.append(text)
            self._tail_bytes += size
            while self._tail_bytes > _TAIL_BYTES and len(self._tail) > 1:
                self._tail_bytes -= len(self._tail.pop(0).encode(errors="replace"))
                self._dropped += 1

    def progress(self, stage: str, done_bytes: int, total_bytes: int | None) -> None:
        """Keeps how far a stage is."""
        self.enter(stage)
        self.share = round(done_bytes / total_bytes, 3) if total_bytes else None
        self.changes += 1

    def metric(self, name: str, value: float) -> None:
        """Measurements are in the build's record."""

    def text(self) -> bytes:
        """The log so far."""
        with self._lock:
            dropped = [f"[{self._dropped} lines are not kept]\n"] if self._dropped else []
            return "".join([*self._head, *dropped, *self._tail]).encode(errors="replace")


class Watch:
    """Interrupts the main thread when the attempt is to end, and keeps its record up to date meanwhile.

    A context manager, to be used in the main thread: `KeyboardInterrupt` is raised there, as Ctrl-C would.

    Attributes:
        reason: why it was interrupted; None where it was not, or by somebody else.
    """

    def __init__(
        self, records: Records, cell: Cell, attempt: int, voice: AttemptVoice, fields: Mapping[str, Any]
    ) -> None:
        self._records = records
        self._cell = cell
        self._attempt = attempt
        self._voice = voice
        self._fields = fields
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look, name="attempt-watch", daemon=True)
        # A worker of Ray is its raylet's child, and outlives it while it is busy; then nobody waits for it.
        self._parent = os.getppid()
        self.reason: Reason | None = None

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._done.set()
        time.sleep(0)  # an interruption that is on its way arrives here, inside of whoever expects it
        self._thread.join()

    def _look(self) -> None:
        told = -1
        next_tell = time.monotonic()
        while not self._done.wait(_LOOK_EVERY_S):
            if os.getppid() != self._parent:
                self._interrupt("node lost")
                return
            with suppress(DeliveryError):  # the store will be asked again
                if self._records.is_cancelled():
                    self._interrupt("cancelled")
                elif self._records.is_decided(self._cell.name):
                    self._interrupt("superseded")
            if self.reason is not None:
                return
            if time.monotonic() >= next_tell and told != self._voice.changes:
                told = self._voice.changes
                with suppress(DeliveryError):
                    self._tell()
                next_tell = time.monotonic() + _TELL_EVERY_S

    def _tell(self) -> None:
        state = {"stage": self._voice.at, "share": self._voice.share}
        self._records.note(self._cell, self._attempt, {**self._fields, **state})
        self._records.write_log(self._cell, self._attempt, self._voice.text())

    def _interrupt(self, reason: Reason) -> None:
        with self._lock:
            if not self._done.is_set():
                self.reason = reason
                _thread.interrupt_main()
