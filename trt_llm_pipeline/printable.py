"""Lines that are shown at a terminal: names, statements and what scripts print are anyone's text."""

from __future__ import annotations


def printable(line: str) -> str:
    """A line that cannot move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
