"""Lines that are shown at a terminal: names, statements and what scripts print are anyone's text."""

from __future__ import annotations

import unicodedata
from pathlib import Path

# Besides what Python calls printable; some scripts and pictures are written with the joiners.
_HARMLESS = frozenset("\n\t\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")


def printable(line: str) -> str:
    """A line that cannot move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def printable_lines(text: str) -> str:
    """A text of several lines that can do nothing to a terminal but fill it; what is a letter stays one."""
    return "".join(letter if _is_harmless(letter) else ascii(letter)[1:-1] for letter in text)


def _is_harmless(letter: str) -> bool:
    return (
        letter.isprintable()
        or letter in _HARMLESS
        or unicodedata.category(letter) == "Zs"  # other spaces than ASCII's
    )


def near(path: str) -> str:
    """A path as a person can use it from here: relative to the current directory where it is below."""
    return path.removeprefix(f"{Path.cwd()}/")
