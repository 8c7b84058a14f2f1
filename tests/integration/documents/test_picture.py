"""The README's picture of the report: small, and what script/picture makes."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readme import ROOT

PICTURE = ROOT / "docs" / "report.png"
SCRIPT = ROOT / "script" / "picture.py"
LARGEST_BYTES = 150_000


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height, from the PNG's header (https://www.w3.org/TR/png-3/#11IHDR)."""
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[12:16] == b"IHDR"
    width, height = struct.unpack(">II", data[16:24])
    return int(width), int(height)


def intended() -> tuple[int, int]:
    found = re.search(r"^WIDTH, HEIGHT = (\d+), (\d+)$", SCRIPT.read_text(), re.MULTILINE)
    assert found
    return int(found[1]), int(found[2])


def test_it_is_small_and_as_large_as_the_script_makes_it() -> None:
    assert size_of(PICTURE) == intended()
    assert PICTURE.stat().st_size < LARGEST_BYTES


@pytest.mark.slow
def test_the_script_makes_it_from_a_build(tmp_path: Path) -> None:
    made = tmp_path / "report.png"
    told = subprocess.run([sys.executable, SCRIPT, made], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert size_of(made) == intended()
    assert 20_000 < made.stat().st_size < LARGEST_BYTES  # an empty page has a tenth of that
    assert "check: passed" in told.stderr
