"""Token ids in files, as TensorRT-LLM's run.py reads and writes them: a row for each prompt."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from trt_llm_cpu.console import BadInputError, UnsupportedError


def read_prompts(path: Path, encode: Callable[[str], list[int]]) -> list[list[int]]:
    """The prompts of an `--input_file`.

    Args:
        path: `.csv` or `.npy` with token ids, `.txt` with a text on each line.
        encode: text to token ids.

    Raises:
        BadInputError: it holds something else.
        UnsupportedError: another ending.
    """
    try:
        if path.suffix == ".csv":
            with path.open(encoding="ascii") as file:
                return [[int(field) for field in row] for row in csv.reader(file)]
        if path.suffix == ".npy":
            return [[int(token) for token in row] for row in np.load(path, allow_pickle=False)]
        if path.suffix == ".txt":
            return [encode(line) for line in path.read_text("utf-8", errors="replace").splitlines()]
    except (ValueError, TypeError, csv.Error) as error:
        raise BadInputError(f"{path} does not hold rows of token ids: {error}.") from None
    raise UnsupportedError(f"--input_file {path}: .csv, .npy and .txt are supported.")


def padded(
    prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]], most: int, end_id: int | None
) -> list[list[int]]:
    """Each prompt with what follows it, filled with the end-of-text token as TensorRT-LLM's buffers are.

    Args:
        prompts, outputs: token ids.
        most: how many tokens might have followed.
        end_id: the end-of-text token; without one -1 fills.
    """
    length = max(map(len, prompts)) + most
    rows = [[*prompt, *output] for prompt, output in zip(prompts, outputs, strict=True)]
    return [row + [-1 if end_id is None else end_id] * (length - len(row)) for row in rows]


def write_rows(rows: Sequence[Sequence[int]], csv_path: Path | None, npy_path: Path | None) -> None:
    """Writes rows of equal length to either file or both; folders are made."""
    for path in filter(None, (csv_path, npy_path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if csv_path is not None:
        with csv_path.open("w", encoding="ascii", newline="") as file:
            csv.writer(file).writerows(rows)
    if npy_path is not None:
        np.save(npy_path, np.array(rows, dtype=np.int32))
