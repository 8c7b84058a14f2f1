"""Lines that are shown at a terminal: names, statements and what scripts print are anyone's text."""

from __future__ import annotations

from pathlib import Path


def printable(line: str) -> str:
    """A line that cannot move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def near(path: str) -> str:
    """A path as a person can use it from here: relative to the current directory where it is below."""
    return path.removeprefix(f"{Path.cwd()}/")
