"""The fenced blocks of a Markdown file, and which of them a machine without Docker or a GPU can run."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_NEEDS = re.compile(r"\A# Needs ([^\n]+)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, text, first line and file, and what it needs beyond Python."""

    language: str
    text: str
    line: int
    needs: str | None
    file: str = ""

    @property
    def where(self) -> str:
        """The file's name and the line it begins on."""
        return f"{self.file}:{self.line}"

    @property
    def first(self) -> str:
        """Its first command."""
        return self.text.split("\n", 1)[0]


def blocks(path: Path) -> list[Block]:
    """Every fenced block of the file."""
    source = path.read_text()
    found = []
    for match in _FENCE.finditer(source):
        text = textwrap.dedent(match["body"])
        needs = _NEEDS.match(text)
        line = source.count("\n", 0, match.start()) + 1
        found.append(Block(match["language"], text, line, needs[1] if needs else None, path.name))
    return found
