"""Memory of the machine, and of NVIDIA GPUs where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


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
