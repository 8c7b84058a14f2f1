"""A build at a terminal: one region that moves, with a row for each stage, and the result at its end.

Nothing of the region is left standing when the build ends, but the stages with their times.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from trt_llm_pipeline.observer import Stage, StageState
from trt_llm_pipeline.printable import near
from trt_llm_pipeline.terminal.echo import unseen_controls
from trt_llm_pipeline.terminal.summary import facts
from trt_llm_pipeline.units import in_time, in_words

_WINDOW_S = 10.0
_TICK_S = 0.125
_BAR_CELLS = 16
_ECHO_CELLS = 3  # what the terminal shows of Ctrl-C must not begin a line of its own
_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[0-~])")
_MARKS: Mapping[StageState, tuple[str, str, str]] = {  # in Unicode, in ASCII, style
    "waiting": ("·", ".", "dim"),
    "done": ("✓", "+", "green"),
    "reused": ("✓", "+", "green"),
    "left out": ("-", "-", "dim"),
    "failed": ("✗", "x", "bold red"),
}
_REMARKS: Mapping[StageState, str] = {"reused": "unchanged, used again", "left out": "left out"}


@dataclass
class _Row:
    """A stage as it is shown: memory and sizes in bytes, moments of `time.monotonic`."""

    state: StageState = "waiting"
    began: float | None = None
    ended: float | None = None
    memory: int = 0
    most: int = 0
    gpus: tuple[int, ...] = ()
    said: str = ""
    moved: deque[tuple[float, int]] = field(default_factory=deque)
    total: int | None = None


class LiveTerminal:
    """Shows a build. Use as a context manager.

    Args:
        console: without markup, for lines are strangers' text.
        root: the workspace; its paths are shown relative to it, those of the result from the current
            directory.
        verbose: whether every line of the log stays on the screen.
        clock: the time in seconds.
    """

    def __init__(
        self,
        console: Console,
        root: Path,
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._root = f"{root}/"
        self._verbose = verbose
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._current: _Row | None = None
        self._spinner = Spinner("dots")
        self._left: list[tuple[str, str]] = []
        self._unseen = unseen_controls()
        # Drawn from here and not by Live's own thread: that one may draw between a line's being placed above
        # the region and its being written, and rows are left standing then.
        self._live = Live(self, console=console, auto_refresh=False, transient=True)
        self._drawing = threading.Lock()
        self._done = threading.Event()
        self._ticks = threading.Thread(target=self._tick, name="live-terminal", daemon=True)

    def __enter__(self) -> LiveTerminal:
        self._unseen.__enter__()
        self._live.start()
        try:
            self._ticks.start()
        except RuntimeError:  # no more threads are allowed
            self._live.stop()
            self._unseen.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._done.set()
            self._ticks.join()
            self._live.stop()
        finally:
            self._unseen.__exit__(None, None, None)
        if self._rows:
            self._console.print(self)
        if self._left:
            self._console.print()
            width = max(len(name) for name, _ in self._left)
            for name, value in self._left:  # not folded: a path that is copied must be whole
                self._console.print(Text.assemble((name.ljust(width), "dim"), f"  {value}"), soft_wrap=True)

    def log(self, line: str) -> None:
        """Keeps a line on the screen where it says something that no row does."""
        text = self._shown(line)
        if self._verbose or line.startswith(("warning: ", "note: ")):
            self._print(Text(text, style="yellow" if line.startswith("warning: ") else ""))
        elif self._current is None:  # what it is built with, and in: a line each
            self._print(Text(text, "dim"), whole=False)
        else:
            self._current.said = text

    def output(self, line: str) -> None:
        """Shows a script's line until the next one comes."""
        text = self._shown(line)
        if self._verbose:
            self._print(Text(text, style="dim"))
        if self._current is not None and text.strip():
            self._current.said = text

    def stage(self, name: str, state: StageState) -> None:
        """Moves a row on."""
        row = self._rows.setdefault(name, _Row())
        row.state = state
        if state == "running":
            row.began, self._current = self._clock(), row
        elif state != "waiting":
            row.ended = row.ended or self._clock()
        self._refresh()

    def progress(self, stage: Stage, done_bytes: int, total_bytes: int | None) -> None:
        """Moves the bar of a stage."""
        row = self._rows.setdefault(stage, _Row())
        row.total = total_bytes
        now = self._clock()
        row.moved.append((now, done_bytes))
        while len(row.moved) > 2 and row.moved[0][0] < now - _WINDOW_S:
            row.moved.popleft()

    def usage(self, stage: str, memory_bytes: int, peak_bytes: int, gpu_bytes: Sequence[int]) -> None:
        """Shows memory in a stage's row."""
        row = self._rows.setdefault(stage, _Row())
        row.memory, row.most, row.gpus = memory_bytes, peak_bytes, tuple(gpu_bytes)

    def metric(self, name: str, value: float) -> None:
        """Measurements are in the rows and in build.json."""

    def kept(self, what: str, path: Path) -> None:
        """Lists it once the region is gone."""
        self._left.append((what, _without_sequences(near(str(path)))))

    def finished(self, record: Mapping[str, Any], directory: Path, archive: Path | None) -> None:
        """Lists the result once the region is gone; the rows have the time of each stage."""
        for name, value in facts(record, directory, archive):
            text = _without_sequences(near(value))
            self._left.append((name, text.partition(":")[0] if name == "time" else text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The rows as they are now."""
        table = Table.grid(padding=(0, 1))
        table.width = max(20, options.max_width - _ECHO_CELLS)
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", no_wrap=True)
        for name, row in list(self._rows.items()):
            running = row.state == "running"
            began, ended = row.began, row.ended
            took = (
                ""
                if began is None
                else in_time(round(self._clock() - began) if running else (ended or began) - began)
            )
            style = "bold" if running else "dim" if row.state in ("waiting", "left out") else ""
            table.add_row(
                self._mark(row, options.ascii_only), Text(name, style), self._detail(row), Text(took, style)
            )
            if running and (below := self._below(row)):
                table.add_row("", "", Text(below, "dim", no_wrap=True, overflow="ellipsis"), "")
        yield table

    def _print(self, line: Text, whole: bool = True) -> None:
        """Writes a line above the region, folded or cut."""
        with self._drawing:
            self._console.print(line, no_wrap=not whole, overflow="fold" if whole else "ellipsis")

    def _refresh(self) -> None:
        with self._drawing:
            if self._live.is_started:
                self._live.refresh()

    def _tick(self) -> None:
        while not self._done.wait(_TICK_S):
            self._refresh()

    def _mark(self, row: _Row, ascii_only: bool) -> Text:
        if row.state == "running":
            frame = self._spinner.render(self._clock())
            return Text(">" if ascii_only else str(frame), "cyan")
        mark, plain, style = _MARKS[row.state]
        return Text(plain if ascii_only else mark, style)

    def _detail(self, row: _Row) -> Text | Table:
        if row.state != "running":
            return Text(_REMARKS.get(row.state, ""), "dim")
        if row.moved:
            done = row.moved[-1][1]
            words = f"{in_words(done)} of {in_words(row.total)}" if row.total else in_words(done)
            bar = ProgressBar(row.total, done, _BAR_CELLS, complete_style="cyan", finished_style="green")
            grid = Table.grid(padding=(0, 1))
            grid.add_row(*([bar] if row.total else []), Text(words, no_wrap=True))
            return grid
        gpus = f", GPU {_range(row.gpus)}" if row.gpus else ""
        most = f" (at most {in_words(row.most)})" if row.most > row.memory else ""
        return Text(f"memory {in_words(row.memory)}{most}{gpus}" if row.memory else "")

    def _below(self, row: _Row) -> str:
        if not row.moved:
            return row.said
        (first, before), (last, done) = row.moved[0], row.moved[-1]
        if last <= first or done <= before:
            return row.said
        rate = (done - before) / (last - first)
        left = f", {in_time(round((row.total - done) / rate))} left" if row.total and done < row.total else ""
        return f"{in_words(rate)}/s{left}"

    def _shown(self, line: str) -> str:
        """A stranger's line that cannot move the cursor, with the workspace's paths relative to it."""
        return _without_sequences(line.replace(self._root, ""))


def _without_sequences(line: str) -> str:
    """A line that cannot move the cursor."""
    text = _SEQUENCE.sub("", line).replace("\t", " ")
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _range(used: Sequence[int]) -> str:
    low, high = in_words(min(used)), in_words(max(used))
    return low if low == high else f"{low} to {high}"
