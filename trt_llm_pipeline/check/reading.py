"""Reading what `run.py` has written: token ids as CSV or NumPy's format, or texts among its lines."""

from __future__ import annotations

import ast
import csv
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from trt_llm_pipeline.files import read_regular

_LARGEST = 16 << 20
_NPY = b"\x93NUMPY"
_TEXT = re.compile(r"^(Input|Output)(?: \[Text (\d+)(?: Beam (\d+))?\])?: \"(.*)$")


class UnreadableError(Exception):
    """A file is not what `run.py` should have written; the text says what is wrong."""


def read_csv(path: Path) -> list[list[int]]:
    """Rows of token ids.

    Raises:
        UnreadableError: it is missing, or has something else in it.
    """
    try:
        rows = list(csv.reader(_bytes(path).decode("ascii").splitlines()))
        return [[int(float(field)) for field in row] for row in rows if row]
    except (ValueError, OverflowError, csv.Error):
        raise UnreadableError(f"{path.name} holds something else than rows of token ids") from None


def read_npy(path: Path) -> list[list[int]]:
    """Rows of token ids: a two-dimensional array of integers.

    The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

    Raises:
        UnreadableError: it is missing, cut off, or another kind of array.
    """
    data = _bytes(path)
    try:
        if data[:6] != _NPY:
            raise ValueError("no NumPy file")
        long = data[6] >= 2
        (length,) = struct.unpack_from("<I" if long else "<H", data, 8)
        start = 8 + (4 if long else 2)
        header = ast.literal_eval(data[start : start + length].decode("latin-1"))
        order, kind = header["descr"][0], header["descr"][1:]
        code = {"i4": "i", "i8": "q", "u4": "I", "u2": "H", "i2": "h"}[kind]
        rows, columns = header["shape"]
        if header["fortran_order"] and min(rows, columns) > 1:
            raise ValueError("in Fortran's order")
        values = struct.unpack_from(
            f"{'<' if order in '<|=' else '>'}{rows * columns}{code}", data, start + length
        )
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        SyntaxError,
        struct.error,
        MemoryError,
        RecursionError,
    ):
        raise UnreadableError(f"{path.name} is no NumPy file with rows of token ids") from None
    return [list(values[row * columns : (row + 1) * columns]) for row in range(rows)]


def read_texts(lines: Iterable[str]) -> list[str]:
    """The texts of `Output [Text N Beam 0]: "..."` (0.5: `Output: "..."`), which may span lines, in order."""
    texts: list[str] = []
    open_text: list[str] | None = None
    for line in lines:
        found = _TEXT.match(line)
        if found:
            if open_text is not None:
                texts.append(_closed(open_text))
            wanted = found[1] == "Output" and found[3] in (None, "0")
            open_text = [found[4]] if wanted else None
        elif open_text is not None:
            if open_text[-1].endswith('"') and line.startswith("["):  # a line of a logger
                texts.append(_closed(open_text))
                open_text = None
            else:
                open_text.append(line)
    if open_text is not None:
        texts.append(_closed(open_text))
    return texts


def _closed(parts: list[str]) -> str:
    text = "\n".join(parts)
    end = text.rfind('"')
    return text if end < 0 else text[:end]


def _bytes(path: Path) -> bytes:
    try:
        return read_regular(path, _LARGEST)
    except OSError as problem:
        raise UnreadableError(f"{path.name} cannot be read: {problem.strerror}") from None
