"""GPUs by name, and how many bytes of their memory a program can have.

The figures are what CUDA gives a program (`cuDeviceTotalMem`), which is what `nvidia-smi` calls the total
without what the driver reserves, and less than what the name says. Each has its source.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

_GIB = 1 << 30
_FP8_SINCE = (8, 9)


@dataclass(frozen=True)
class Device:
    """What an engine's rank is loaded on: a GPU, or the machine itself for a CPU engine.

    Attributes:
        name: `A100-80GB`, or as the driver calls it.
        memory_bytes: what a program can have of its memory.
        compute_capability: `9.0`; None for a machine.
        source: where the figure comes from.
        count: how many of them there are; None where nobody knows.
    """

    name: str
    memory_bytes: int
    compute_capability: str | None
    source: str
    count: int | None = None

    @property
    def has_fp8(self) -> bool:
        """Whether it computes in FP8: from compute capability 8.9 on."""
        if self.compute_capability is None:
            return False
        major, _, minor = self.compute_capability.partition(".")
        return (int(major), int(minor)) >= _FP8_SINCE


#: From the smallest to the largest.
GPUS = (
    Device("A10", 23_604_690_944, "8.6", "free on an idle one, github.com/mayooot/detect-gpu/issues/3"),
    Device("L4", int(22.03 * _GIB), "8.9", "22.03 GiB in PyTorch's messages on L4; nvidia-smi: 23,034 MiB"),
    Device("A100-40GB", 42_298_834_944, "8.0", "github.com/bottlerocket-os/bottlerocket/pull/3873"),
    Device("L40S", int(44.42 * _GIB), "8.9", "44.42 GiB, github.com/stepfun-ai/Step-Video-T2V/issues/8"),
    Device("A100-80GB", int(79.15 * _GIB), "8.0", "79.15 GiB in PyTorch's messages on A100 80GB"),
    Device("H100-80GB", 85_017_493_504, "9.0", "cuDeviceTotalMem, seen on an H100 80GB HBM3"),
    Device("H200", 150_109_880_320, "9.0", "cuDeviceTotalMem, seen on an H200"),
    Device("B200", int(178.35 * _GIB), "10.0", "178.35 GiB, github.com/pytorch/ao/pull/4002"),
)


def find_gpu(name: str) -> Device:
    """The GPU of that name: `A100-80GB`, `a100 80gb`, `NVIDIA L40S`; `H100` where there is one size only.

    Raises:
        ValueError: there is none, or more than one; the text names those that there are.
    """
    begun, wanted = _named(name), _letters(name)
    if len(begun) == 1:
        return begun[0]
    if begun:
        sizes = " or ".join(gpu.name for gpu in begun)
        raise ValueError(f"{name!r} comes in several sizes; write {sizes}")
    known = {_letters(text): gpu.name for gpu in GPUS for text in (gpu.name.partition("-")[0], gpu.name)}
    close = difflib.get_close_matches(wanted, known, 1, 0.6)
    hint = f"; did you mean {known[close[0]]}?" if close else ""
    raise ValueError(f"{name!r} is no GPU known here ({', '.join(gpu.name for gpu in GPUS)}){hint}")


def capability_of(name: str) -> str | None:
    """The compute capability of the GPUs of that name, of whatever size; None where there are none."""
    return next((gpu.compute_capability for gpu in _named(name)), None)


def _named(name: str) -> list[Device]:
    """The GPU of that name, or those that come in several sizes under it."""
    wanted = _letters(name)
    exact = [gpu for gpu in GPUS if _letters(gpu.name) == wanted]
    return exact or [gpu for gpu in GPUS if _letters(gpu.name.partition("-")[0]) == wanted]


def _letters(name: str) -> str:
    return re.sub(r"nvidia|tesla|[^a-z0-9]", "", name.lower())
