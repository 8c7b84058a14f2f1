"""What machine a build ran on, for its record."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from trt_llm_pipeline.process.gpus import GpuMonitor
from trt_llm_pipeline.process.resources import machine_memory_bytes

_CPUINFO = Path("/proc/cpuinfo")


def describe_machine(gpus: GpuMonitor) -> dict[str, Any]:
    """The processor's name, how many of it this process may use, memory in bytes, the GPUs and their driver.

    Args:
        gpus: read already; without any the driver is None.
    """
    return {
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": machine_memory_bytes(),
        "system": f"{platform.system()} {platform.release()}",
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in gpus.gpus],
        "driver": gpus.driver,
    }


def _cpu_name() -> str:
    """As the kernel has it; ARM kernels name none."""
    with suppress(OSError):
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.machine()
