"""Counts, bytes and seconds in words, and back."""

from __future__ import annotations

import re

_STEPS = ("bytes", "kB", "MB", "GB", "TB")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]{0,3})", re.ASCII)
_BYTES = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _BYTES |= {_letter: 1000**_power, f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*([smh]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def counted(count: int, noun: str) -> str:
    """A number of things: `1 cell`, `4 cells`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def in_words(size: float) -> str:
    """A number of bytes for people: `3.2 GB` (decimal units)."""
    if round(abs(size)) < 1000:
        return f"{size:.0f} bytes"
    for unit in _STEPS[1:-1]:
        size /= 1000
        if abs(round(size, 1)) < 1000:  # as it will be printed: 999.96 kB is 1.0 MB
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} {_STEPS[-1]}"


def in_time(seconds: float) -> str:
    """Seconds for people: `0.08 s`, `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        digits = 0 if seconds >= 10 or seconds == int(seconds) else 1 if seconds >= 1 else 2
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value)


def parse_size(text: str) -> int | None:
    """`268435456`, `256MB` (millions), `1.5 GiB` (powers of 1024) in bytes; None for anything else."""
    match = _SIZE.fullmatch(text.strip())
    unit = _BYTES.get(match[2].upper()) if match else None
    if match is None or unit is None:
        return None
    return int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit


def parse_duration(text: str) -> float | None:
    """`90`, `90s`, `1.5m` or `4h` in seconds; None for anything else."""
    match = _DURATION.fullmatch(text)
    return float(match[1]) * _SECONDS[match[2]] if match else None
