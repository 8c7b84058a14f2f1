"""Memory of the machine, and of GPUs where there are any."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from trt_llm_pipeline.process import resources
from trt_llm_pipeline.process.resources import GpuMonitor


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


def test_gpus_are_read_where_there_are_any_and_nothing_breaks_where_not() -> None:
    with GpuMonitor() as monitor:
        assert len(monitor.used_bytes()) == len(monitor.gpus)
        for gpu, used in zip(monitor.gpus, monitor.used_bytes(), strict=True):
            assert 0 <= used <= gpu.memory_bytes
            assert float(gpu.compute_capability) > 1


class FakeNvml:
    """The part of NVML that is used, with one device that stops answering."""

    class NVMLError(Exception):
        pass

    class Memory:
        total = 80_000_000_000
        used = 123

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.shut_down = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise self.NVMLError

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut_down += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return 9, 0

    def nvmlDeviceGetName(self, handle: int) -> bytes | str:  # noqa: N802
        return b"NVIDIA H100" if handle == 0 else "NVIDIA H100"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> FakeNvml.Memory:  # noqa: N802
        if self.broken:
            raise self.NVMLError
        return self.Memory()


def test_a_gpu_has_a_name_a_capability_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
    with GpuMonitor() as monitor:
        assert [(gpu.index, gpu.name, gpu.compute_capability) for gpu in monitor.gpus] == [
            (0, "NVIDIA H100", "9.0"),
            (1, "NVIDIA H100", "9.0"),
        ]
        assert monitor.used_bytes() == (123, 123)
        nvml.broken = True
        assert monitor.used_bytes() == ()
    assert nvml.shut_down == 1


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(broken=True)
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
    with GpuMonitor() as monitor:
        assert (monitor.gpus, monitor.used_bytes()) == ((), ())
    assert nvml.shut_down == 0
