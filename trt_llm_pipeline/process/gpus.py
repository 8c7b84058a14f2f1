"""The NVIDIA GPUs that a build uses, and their memory, read through NVML.

`CUDA_VISIBLE_DEVICES` decides which these are, as for the scripts themselves (CUDA C++ Programming Guide,
"CUDA Environment Variables"): a list of indices, of UUIDs or of MIG devices. What the guide leaves open is as
libcuda does it, observed with driver 580 on two GPUs: an entry that names nothing, or is of another kind than
the first, ends the list; what follows a number or a whole UUID within an entry is ignored; a device that is
named twice leaves none.

NVML counts devices in the order of their PCI addresses, as CUDA does with `CUDA_DEVICE_ORDER=PCI_BUS_ID`; on
a machine with GPUs of several kinds use that, or UUIDs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

VARIABLE = "CUDA_VISIBLE_DEVICES"
_INDEX = re.compile(r"\s*[+-]?\d+")
_UUID_CHARS = len("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")
#: The names of MIG devices in drivers before R470: `MIG-GPU-<UUID>/<GPU instance>/<compute instance>`.
_OLD_MIG = re.compile(r"MIG-(GPU-[0-9a-f-]+)/(\d+)/(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU or MIG device: its name, its compute capability (`9.0`) and its memory in bytes.

    The index is its place among those that are used, as in CUDA.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int


class GpuMonitor:
    """Reads GPU memory through NVML. Where there is no driver it knows of no GPUs and reads nothing.

    Args:
        env: the environment of the scripts; without `CUDA_VISIBLE_DEVICES` every GPU is used.

    Attributes:
        gpus: those that are used.
        driver: its version; None without a driver.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._visible = env.get(VARIABLE)
        self._nvml: Any = None
        self._handles: list[Any] = []
        self.gpus: tuple[Gpu, ...] = ()
        self.driver: str | None = None

    def __enter__(self) -> GpuMonitor:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import pynvml
            pynvml.nvmlInit()
        except Exception:  # noqa: BLE001  no library, no driver, no device: all mean no GPU here
            return self
        self._nvml = pynvml
        found: list[Gpu] = []
        with suppress(pynvml.NVMLError):
            for handle, parent in _used(pynvml, self._visible):
                major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(parent)
                name = _text(pynvml.nvmlDeviceGetName(handle))
                total = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
                self._handles.append(handle)
                found.append(Gpu(len(found), name, f"{major}.{minor}", total))
            self.driver = _text(pynvml.nvmlSystemGetDriverVersion())
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


def _used(nvml: Any, visible: str | None) -> list[tuple[Any, Any]]:
    """NVML's handles of the devices that are used, each with that of the GPU that it is (a part of)."""
    devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if visible is None:
        return [(device, device) for device in devices]
    found: dict[str, tuple[Any, Any]] = {}
    entries = visible.split(",")
    for entry in entries:
        if _kind(entry) != _kind(entries[0]) or (chosen := _chosen(nvml, devices, entry)) is None:
            break
        uuid = _text(nvml.nvmlDeviceGetUUID(chosen[0]))
        if uuid in found:
            return []
        found[uuid] = chosen
    return list(found.values())


def _kind(entry: str) -> str:
    return entry[:4] if entry.startswith(("GPU-", "MIG-")) else ""


def _chosen(nvml: Any, devices: list[Any], entry: str) -> tuple[Any, Any] | None:
    """What one entry of the list names; None where that is nothing, or not just one device."""
    parts = [(device, device) for device in devices]
    if not _kind(entry):
        number = _INDEX.match(entry)
        index = int(number[0]) if number and len(number[0]) < _UUID_CHARS else -1
        return parts[index] if 0 <= index < len(parts) else None
    old = _OLD_MIG.match(entry)
    if entry.startswith("MIG-"):
        parts = [(part, device) for device in devices for part in _mig_devices(nvml, device)]
    matching = []
    for part, device in parts:
        with suppress(nvml.NVMLError):
            if old is not None:
                same = _text(nvml.nvmlDeviceGetUUID(device)).lower() == old[1].lower() and (
                    nvml.nvmlDeviceGetGpuInstanceId(part),
                    nvml.nvmlDeviceGetComputeInstanceId(part),
                ) == (int(old[2]), int(old[3]))
            else:  # as many characters as tell it from the others will do
                same = _text(nvml.nvmlDeviceGetUUID(part)).lower().startswith(entry[:_UUID_CHARS].lower())
            if same:
                matching.append((part, device))
    return matching[0] if len(matching) == 1 else None


def _mig_devices(nvml: Any, device: Any) -> Iterator[Any]:
    try:
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(device)
    except nvml.NVMLError:
        return
    for index in range(count):
        with suppress(nvml.NVMLError):
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
