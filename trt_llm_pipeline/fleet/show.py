"""A fleet at a terminal: one table that moves, lines where nobody watches, or JSON lines for machines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trt_llm_pipeline.fleet.overview import CellView, Overview, detail_of, in_a_line
from trt_llm_pipeline.units import counted, in_words

_ROWS = 30
_SHARE_EVERY_S = 10.0
_COLORS = {"delivered": "green", "failed": "red", "running": "cyan", "cancelled": "yellow"}
_ENDED = ("delivered", "failed", "cancelled")


class Show(Protocol):
    """Who is told what a fleet does. Used as a context manager."""

    def __enter__(self) -> Show: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def tell(self, event: Mapping[str, Any]) -> None:
        """An event of `drive.run`."""


def table(cells: Iterable[CellView], title: str) -> Table:
    """Cell, state, node, stage, time and size of each."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("cell", "state", "node", "stage"):
        made.add_column(heading, overflow="fold")
    made.add_column("time", justify="right")
    made.add_column("size", justify="right")
    for cell in cells:
        state = Text(cell.state, style=_COLORS.get(cell.state, ""))
        if cell.attempt > 1:
            state.append(f" (try {cell.attempt})")
        made.add_row(
            Text(cell.name),
            state,
            Text(cell.node),
            Text(cell.stage),
            in_time(cell.seconds),
            in_words(cell.size) if cell.size else "",
        )
        if cell.state == "failed" and cell.detail:
            made.add_row("", Text(in_a_line(cell.detail), style="red"))
    return made


def print_overview(found: Overview) -> None:
    """The whole fleet, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{found.fleet_id}: {found.summary}", markup=False)
    console.print(f"records: {found.address}\ndriver: {found.driver}", markup=False)
    if found.cancelled:
        console.print("cancelled; `trt-llm-pipeline fleet resume` goes on", markup=False)
    console.print()
    Console(highlight=False).print(table(found.cells, ""))


def in_time(seconds: float | None) -> str:
    """Seconds for people: `5.2 s`, `3:07`, `2:03:07`."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@dataclass
class _Counts:
    cells: int = 0
    already: int = 0


class TableShow:
    """One table on stderr that is drawn anew; finished cells make room for running ones."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4)
        self._views: dict[str, CellView] = {}
        self._counts = _Counts()

    def __enter__(self) -> TableShow:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Draws what has changed."""
        if event["event"] == "log":
            self._live.console.print(event["line"], markup=False)
        elif event["event"] == "fleet":
            self._counts = _Counts(event["cells"], event["already"])
            self._live.console.print(f"{event['id']}: {event['records']}", markup=False)
            for name in event["waiting"]:
                self._views[name] = CellView(name, "waiting")
        else:
            view = view_of(event)
            self._views.pop(view.name, None)
            self._views[view.name] = view
        self._live.update(self._drawn())

    def _drawn(self) -> Table:
        views = list(self._views.values())
        done = sum(view.state == "delivered" for view in views) + self._counts.already
        waiting = [view for view in views if view.state == "waiting"]
        ended = [view for view in views if view.state in _ENDED]
        busy = [view for view in views if view.state not in ("waiting", *_ENDED)][-_ROWS:]
        room = _ROWS - len(busy)
        next_ones = waiting[: max(room // 2, room - len(ended))]
        last_ones = ended[max(0, len(ended) - (room - len(next_ones))) :]
        return table([*last_ones, *busy, *next_ones], f"{done} of {self._counts.cells} delivered")


class LineShow:
    """A line on stderr for each thing that happens."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._last: dict[str, tuple[str, str]] = {}
        self._next: dict[str, float] = {}

    def __enter__(self) -> LineShow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def tell(self, event: Mapping[str, Any]) -> None:
        """Prints it, unless nothing has changed; of a share of the work that grows, now and then."""
        if event["event"] == "log":
            self._console.print(event["line"], markup=False)
            return
        if event["event"] == "fleet":
            already = f", {event['already']} delivered already" if event["already"] else ""
            line = f"{event['id']}: {counted(event['cells'], 'cell')}{already}; records: {event['records']}"
            self._console.print(line, markup=False)
            return
        view = view_of(event)
        share = event.get("share")
        same = self._last.get(view.name) == (view.state, view.stage)
        if same and (share is None or time.monotonic() < self._next[view.name]):
            return
        self._last[view.name] = (view.state, view.stage)
        self._next[view.name] = time.monotonic() + _SHARE_EVERY_S
        stage = f"{view.stage} {share:.0%}" if share is not None else view.stage
        parts = [stage, in_time(view.seconds) if view.state in _ENDED else "", view.node]
        parts += [in_words(view.size) if view.size else "", view.detail]
        line = f"{view.name}: {view.state}"
        self._console.print(", ".join([line, *filter(None, parts)]), markup=False)


class JsonShow:
    """Each event as a line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> JsonShow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Writes it."""
        self._stream.write(json.dumps(dict(event)) + "\n")
        self._stream.flush()


def view_of(event: Mapping[str, Any]) -> CellView:
    """A cell as an event tells of it."""
    detail = detail_of(event["kind"], event.get("message", "")) if event.get("kind") else ""
    return CellView(
        event["cell"],
        event["state"],
        event["attempt"],
        str(event.get("host") or ""),
        str(event.get("stage") or ""),
        event.get("seconds"),
        event.get("size"),
        detail,
    )
