"""A record that is believed can be shown: whatever a value of `build.json` is replaced by."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trt_llm_pipeline.records import read_record
from trt_llm_pipeline.report import render
from trt_llm_pipeline.terminal.summary import facts
from trt_llm_pipeline.workspace.shapes import BUILD, KEPT

NAN, ENDLESS = float("nan"), float("inf")
WRONG = (None, 3, -1, 0.5, NAN, ENDLESS, 10**400, True, "text", [], [3], [[]], {}, {"package": NAN}, {"x": 3})
STEP = {
    "name": "build",
    "argv": ["python", "build.py"],
    "output_dir": "/src/engine",
    "output_bytes": 7_000_000,
    "cached": False,
    "start_s": 1.5,
    "wall_s": 4.0,
    "cpu_s": 3.2,
    "peak_memory_bytes": 91_000_000,
    "peak_gpu_memory_bytes": [5],
    "samples": [[0.1, 10, [1]], [1.1, 50, [2]], [2.1, 90, [5]]],
}
ANSWER = {"prompt": "Hello", "text": " world", "tokens": [1, 2]}
GPU = {"name": "NVIDIA H100", "compute_capability": "9.0"}
DEVICE = {
    "name": "H100",
    "answer": "yes",
    "memory_bytes": 80_000_000_000,
    "left_bytes": 7,
    "kv_cache_tokens": 7,
    "max_batch_size": 7,
    "max_length": None,
}
#: Every key that a reader of the record knows.
RECORD: dict[str, Any] = {
    "build_id": "20240102T030405.000006Z-abcd",
    "answered_from": "20240102T030405.000006Z-0000",
    "key": "k",
    "engine_key": "e",
    "started": "2024-01-02T03:04:05Z",
    "service_version": "1.2.3",
    "model_bytes": 14,
    "model_url": "https://hub.example/acme/tiny",
    "seconds": {"download": 2.5, "build": 61.0},
    "starts": {"download": 0.0, "build": 2.5},
    "steps": [STEP],
    "warnings": ["careful"],
    "readiness": [{"name": "layout", "status": "ok", "message": "flat", "settings": {"A": "1"}}],
    "check": {
        "status": "passed",
        "level": 3,
        "reason": "it writes",
        "answers": [ANSWER],
        "reference": {"by": "transformers", "prompts": [ANSWER]},
        "notes": ["a note"],
    },
    "manifest": {
        "model_id": "acme/tiny",
        "revision": "0123456789abcdef",
        "source": "hub",
        "toolchain": {"name": "tensorrt_llm", "version": "0.9.0", "follows": ["0.9.0"]},
        "gpus": [GPU],
        "repository_code": [{"path": "code.py", "what": "code", "sha256": "c3"}],
    },
    "names": {"build": "trtllm_build"},
    "config": "model_id: acme/tiny\n",
    "machine": {
        "cpu": "one",
        "cpus": 2,
        "memory_bytes": 7,
        "system": "Linux",
        "gpus": [{"name": "NVIDIA H100", "memory_bytes": 7}],
        "driver": None,
    },
    "logs": ["build.log"],
    "fit": {
        "weight_bytes": 7,
        "rank_weight_bytes": 7,
        "host": {"convert_bytes": 7, "build_bytes": 7},
        "devices": [DEVICE],
    },
    "previous": {"build_id": "earlier", "seconds": 7.0},
    "archive": {
        "name": "engine.tar.gz",
        "path": "/w/engine.tar.gz",
        "size": 5_400_000,
        "sha256": "a1",
        "content_sha256": "b2",
    },
    "files": {"rank0.engine": {"size": 6_900_000, "sha256": "b2"}},
}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value below `value`, outer ones first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*at, key)
        yield from places(below, (*at, key))


def replaced(at: tuple[Any, ...], by: Any) -> dict[str, Any]:
    made = copy.deepcopy(RECORD)
    inner: Any = made
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = by
    return made


def believed(path: Path, record: Any, warned: list[str]) -> dict[str, Any] | None:
    """The record as a later build reads it."""
    path.write_text(json.dumps(record))
    found = read_record(path, BUILD, warned.append)
    return None if found is None else {**found}


def test_a_record_as_it_is_written_is_believed(tmp_path: Path) -> None:
    found = believed(tmp_path / "build.json", RECORD, warned := [])
    assert warned == []
    assert json.loads(json.dumps(found)) == RECORD


@pytest.mark.parametrize("name", RECORD)
def test_one_with_a_wrong_value_is_shown_or_counts_as_absent(name: str, tmp_path: Path) -> None:
    """`facts` and `render` raise here where a shape lets through what they cannot use."""
    for at in [(name,), *places(RECORD[name], (name,))]:
        for wrong in WRONG:
            found = believed(tmp_path / "build.json", replaced(at, wrong), warned := [])
            assert (found is None) == bool(warned)
            if found is not None:
                assert facts(found, tmp_path, None)
                assert render(found)
                json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("at", "wrong"),
    [
        (("manifest", "toolchain"), 3),
        (("seconds",), {"package": NAN}),
        (("starts", "build"), ENDLESS),
        (("steps", 0, "wall_s"), "4.0"),
        (("steps", 0, "samples", 0, 0), NAN),
        (("nobody",), [{"knows": -ENDLESS}]),
    ],
    ids=lambda value: json.dumps(value),
)
def test_what_no_build_writes_counts_as_absent(at: tuple[Any, ...], wrong: Any, tmp_path: Path) -> None:
    assert believed(tmp_path / "build.json", replaced(at, wrong), warned := []) is None
    assert "is not as this service writes it" in warned[0]


def test_a_failed_build_whose_record_cannot_be_told_counts_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "build.json"
    for wrong in ({"error": 3}, {"failed": []}, {"seconds": {"build": NAN}}):
        path.write_text(json.dumps({"build_id": "b", "error": "it died", **wrong}))
        assert read_record(path, KEPT) is None
