"""Which timings are kept for what, and which scripts take them. How steps use them is in test_run.py."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from trt_llm_pipeline.process.gpus import Gpu
from trt_llm_pipeline.step.timing import NAME, TimingCache
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

L4 = Gpu(0, "NVIDIA L4", "8.9", 24 << 30)
LEGACY = {"--timing_cache", "--model_dir"}
UNIFIED = {"--input_timing_cache", "--output_timing_cache", "--checkpoint_dir"}


@pytest.fixture
def timing(tmp_path: Path) -> TimingCache:
    return TimingCache(tmp_path / "timing" / "x.cache", "a GPU")


def test_one_for_each_kind_of_gpu_and_each_release(workspace: Workspace, miniature: Toolchain) -> None:
    def path(toolchain: Toolchain, *gpus: Gpu) -> Path:
        found = TimingCache.of(workspace, toolchain, gpus)
        assert found is not None
        return found.path

    first = path(miniature, L4)
    assert first == path(miniature, replace(L4, index=3), L4)
    assert first.is_relative_to(workspace.state)
    assert first != path(miniature, replace(L4, name="NVIDIA H100", compute_capability="9.0"))
    assert first != path(replace(miniature, version="2.0"), L4)
    assert TimingCache.of(workspace, miniature, ()) is None


@pytest.mark.parametrize("options", [LEGACY, UNIFIED])
def test_a_script_that_reads_timings_takes_part_unless_its_config_says_which(
    timing: TimingCache, options: set[str]
) -> None:
    assert timing.takes_part(options, ["--model_dir", "x"])
    assert not timing.takes_part({"--model_dir"}, ["--model_dir", "x"])
    for own in ("--timing_cache", "--input-timing-cache=x", "--output_timing_cache"):
        assert not timing.takes_part(options, [own, "y"])


def test_what_was_kept_is_given(timing: TimingCache, tmp_path: Path) -> None:
    folder = tmp_path / "cwd"
    folder.mkdir()
    assert timing.give(folder, LEGACY) is None
    assert not timing.keep(folder)
    (folder / NAME).write_bytes(b"measured")
    assert timing.keep(folder)
    assert timing.give(folder, LEGACY) is None  # there is one already
    (folder / NAME).unlink()
    assert timing.give(folder, LEGACY) == ()
    assert (folder / NAME).read_bytes() == b"measured"
    (folder / NAME).unlink()
    assert timing.give(folder, UNIFIED) == ("--input_timing_cache", NAME)


def test_only_a_regular_file_is_kept(timing: TimingCache, tmp_path: Path) -> None:
    folder = tmp_path / "cwd"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / NAME).symlink_to(tmp_path / "secret")
    assert not timing.keep(folder)
    (folder / NAME).unlink()
    os.mkfifo(folder / NAME)
    assert not timing.keep(folder)
