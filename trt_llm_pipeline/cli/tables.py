"""Rows with heads, on lines that fit the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from trt_llm_pipeline.cli.edge import say
from trt_llm_pipeline.printable import printable

_LONGEST_LINE = 200
_NARROWEST = 8  # with less room for the last column a line is too long anyway
_WRAPPED = 20


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, nothing: str) -> None:
    """Prints rows below their heads; the last column is cut where a line would be longer than the terminal.

    Args:
        heads: a word for each column.
        rows: a cell for each column; anyone's text.
        nothing: what is said on stderr where there are no rows.
    """
    if not rows:
        say(nothing, err=True)
        return
    lines = [[printable(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    longest = shutil.get_terminal_size().columns if sys.stdout.isatty() else _LONGEST_LINE
    for *cells, last in lines:
        begun = "".join(f"{cell:{width}}  " for cell, width in zip(cells, widths, strict=True))
        room = longest - len(begun)
        say(begun + _cut(last, room if room >= _NARROWEST else _WRAPPED))


def _cut(text: str, width: int) -> str:
    """A text without the words that do not fit."""
    if len(text) <= width:
        return text
    kept = text[: width - 3]
    whole = kept if text[width - 3] == " " else kept.rpartition(" ")[0]
    return f"{(whole or kept).rstrip(' ,:;')}..."
