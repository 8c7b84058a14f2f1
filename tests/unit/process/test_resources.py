"""Memory of the machine, and of GPUs where there are any."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from trt_llm_pipeline.process import resources


@pytest.mark.parametrize(
    ("first", "second", "larger"),
    [((), (), ()), ((1, 5), (3, 2), (3, 5)), ((1,), (0, 7), (1, 7)), ((4, 4), (), (4, 4))],
)
def test_the_larger_of_two_readings(
    first: tuple[int, ...], second: tuple[int, ...], larger: tuple[int, ...]
) -> None:
    assert resources.peak(first, second) == larger


def test_a_control_groups_limit_counts_where_it_is_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    machine = psutil.virtual_memory().total
    assert resources.machine_memory_bytes() == machine
    for text, limit in (("max\n", machine), ("1000000\n", 1_000_000), (f"{machine * 2}\n", machine)):
        (tmp_path / "memory.max").write_text(text)
        assert resources.machine_memory_bytes() == limit


def test_kills_are_those_of_the_control_group_or_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    of_the_machine = resources.oom_kills()
    assert of_the_machine >= 0
    (tmp_path / "memory.events").write_text("low 0\noom 9\noom_kill 123456\noom_group_kill 1\n")
    assert resources.oom_kills() == 123456
    (tmp_path / "memory.events").write_text("low 0\n")
    assert resources.oom_kills() == of_the_machine
