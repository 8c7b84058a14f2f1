"""What a build says to whoever started it: one live region, lines where nobody watches, or JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from trt_llm_pipeline.observer import Observer
from trt_llm_pipeline.terminal.json_lines import JsonLines
from trt_llm_pipeline.terminal.live import LiveTerminal
from trt_llm_pipeline.terminal.plain import PlainTerminal

__all__ = ["JsonLines", "LiveTerminal", "PlainTerminal", "Show", "show"]


class Show(Observer, Protocol):
    """An observer that is told the result, too."""

    def finished(self, record: Mapping[str, Any], directory: Path, archive: Path | None) -> None:
        """The build has succeeded: its `build.json`, its directory, and its archive where one is kept."""


def show(as_json: bool, root: Path, *, verbose: bool = False) -> AbstractContextManager[Show]:
    """What fits the place that stderr leads to.

    Args:
        as_json: JSON lines, wherever it leads.
        root: the workspace; paths in it are shown relative to it where people watch.
        verbose: every line of the log, also where a live region would show the last one only.
    """
    if as_json:
        return JsonLines(sys.stderr)
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveTerminal(console, root, verbose=verbose)
    return PlainTerminal(sys.stderr)
