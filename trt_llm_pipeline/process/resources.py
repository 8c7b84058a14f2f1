"""Memory of the machine, and of NVIDIA GPUs where there are any."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU: its name, its compute capability (`9.0`) and its memory in bytes."""

    index: int
    name: str
    compute_capability: str
    memory_bytes: int


class GpuMonitor:
    """Reads GPU memory through NVML. Where there is no driver it knows of no GPUs and reads nothing."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        self.gpus: tuple[Gpu, ...] = ()

    def __enter__(self) -> GpuMonitor:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import pynvml
            pynvml.nvmlInit()
        except Exception:  # noqa: BLE001  no library, no driver, no device: all mean no GPU here
            return self
        self._nvml = pynvml
        found = []
        with suppress(pynvml.NVMLError):
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
                name = pynvml.nvmlDeviceGetName(handle)
                text = name.decode() if isinstance(name, bytes) else str(name)
                total = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
                self._handles.append(handle)
                found.append(Gpu(index, text, f"{major}.{minor}", total))
        self.gpus = tuple(found)
        return self

    def __exit__(self, *_: object) -> None:
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def used_bytes(self) -> tuple[int, ...]:
        """Memory in use on each GPU, by everything that runs on it, in bytes."""
        used = []
        for handle in self._handles:
            with suppress(self._nvml.NVMLError):
                used.append(int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used))
        return tuple(used)


def machine_memory_bytes() -> int:
    """What a process tree can use at most: the machine's memory, or its control group's if that is less."""
    limits = [int(psutil.virtual_memory().total)]
    for group in _memory_groups():
        for name in ("memory.max", "memory.limit_in_bytes"):  # version 2, version 1
            with suppress(OSError, ValueError):
                limits.append(int((group / name).read_text()))
    return min(limits)


def oom_kills() -> int:
    """How many processes the kernel has killed for memory, in this control group or on the machine."""
    counters = [
        group / name for group in _memory_groups() for name in ("memory.events", "memory.oom_control")
    ]
    for path in (*counters, Path("/proc/vmstat")):
        with suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def _memory_groups() -> list[Path]:
    """This process's control group and those around it, the innermost first.

    cgroups(7): `/proc/self/cgroup` names it below the mount of version 2, or of version 1's memory
    controller. A container that sees no more than its own group has it at the mount itself.
    """
    groups: list[Path] = []
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            mount = _CGROUP / "memory" if controllers else _CGROUP
            own = mount / place.lstrip("/")
            groups.extend(path for path in (own, *own.parents) if path.is_relative_to(mount))
    return groups


def peak(values: Sequence[int], others: Sequence[int]) -> tuple[int, ...]:
    """The larger of two readings, device by device."""
    longest = max(len(values), len(others))
    pad = [*values, *[0] * longest][:longest], [*others, *[0] * longest][:longest]
    return tuple(max(a, b) for a, b in zip(*pad, strict=True))
