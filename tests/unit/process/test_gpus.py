"""Which GPUs a build uses, and what is read of them."""

from __future__ import annotations

import sys

import pytest

from trt_llm_pipeline.process.gpus import VARIABLE, GpuMonitor


def test_gpus_are_read_where_there_are_any_and_nothing_breaks_where_not() -> None:
    with GpuMonitor({}) as monitor:
        assert len(monitor.used_bytes()) == len(monitor.gpus)
        for gpu, used in zip(monitor.gpus, monitor.used_bytes(), strict=True):
            assert 0 <= used <= gpu.memory_bytes
            assert float(gpu.compute_capability) > 1


class FakeNvml:
    """A machine with three GPUs, as far as NVML's functions are used; the last is cut in two by MIG."""

    class NVMLError(Exception):
        pass

    class Memory:
        total = 80_000_000_000
        used = 123

    _UUIDS = (
        "GPU-1111aaaa-0000-0000-0000-000000000000",
        "GPU-1111bbbb-0000-0000-0000-000000000000",
        "GPU-2222cccc-0000-0000-0000-000000000000",
    )
    _NAMES = (b"NVIDIA H100", "NVIDIA L40S", "NVIDIA A100")
    _MIG = ("MIG-3333dddd-0000", "MIG-4444eeee-0000")

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.shut_down = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise self.NVMLError

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut_down += 1

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"580.95.05"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> tuple[int, int | None]:  # noqa: N802
        return index, None

    def nvmlDeviceGetUUID(self, handle: tuple[int, int | None]) -> str:  # noqa: N802
        return self._UUIDS[handle[0]] if handle[1] is None else self._MIG[handle[1]]

    def nvmlDeviceGetCudaComputeCapability(self, handle: tuple[int, int | None]) -> tuple[int, int]:  # noqa: N802
        if handle[1] is not None:
            raise self.NVMLError
        return ((9, 0), (8, 9), (8, 0))[handle[0]]

    def nvmlDeviceGetName(self, handle: tuple[int, int | None]) -> bytes | str:  # noqa: N802
        return self._NAMES[handle[0]] if handle[1] is None else "NVIDIA A100 MIG 3g.20gb"

    def nvmlDeviceGetMemoryInfo(self, handle: tuple[int, int | None]) -> FakeNvml.Memory:  # noqa: N802
        if self.broken:
            raise self.NVMLError
        return self.Memory()

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: tuple[int, int | None]) -> int:  # noqa: N802
        if handle[0] == 1:  # does not know MIG
            raise self.NVMLError
        return 7 if handle[0] == 2 else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: N802
        self, handle: tuple[int, int | None], index: int
    ) -> tuple[int, int | None]:
        if index >= len(self._MIG):
            raise self.NVMLError
        return handle[0], index

    def nvmlDeviceGetGpuInstanceId(self, handle: tuple[int, int | None]) -> int:  # noqa: N802
        return 1 + (handle[1] or 0)

    def nvmlDeviceGetComputeInstanceId(self, handle: tuple[int, int | None]) -> int:  # noqa: N802
        return 0


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


H100, L40S, A100, MIG = "NVIDIA H100 9.0", "NVIDIA L40S 8.9", "NVIDIA A100 8.0", "NVIDIA A100 MIG 3g.20gb 8.0"


@pytest.mark.parametrize(
    ("visible", "used"),
    [
        (None, [H100, L40S, A100]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", [L40S]),
        ("2,0", [A100, H100]),
        (" 0 , 2 ", [H100, A100]),
        ("0,-1,2", [H100]),
        ("0,7,2", [H100]),
        ("1,1", []),
        ("1,0,1", []),
        ("+1", [L40S]),
        ("1abc,0", [L40S, H100]),
        ("0x1", [H100]),
        ("0;1", [H100]),
        ("-0,1", [H100, L40S]),
        (",0", []),
        ("0,,1", [H100]),
        ("0,1,", [H100, L40S]),
        ("99999999999999999999", []),
        ("GPU-1111aaaa-0000-0000-0000-000000000000", [H100]),
        ("gpu-1111", []),
        ("GPU-1111", []),
        ("GPU-2222,GPU-1111b", [A100, L40S]),
        ("0,GPU-2222", [H100]),
        ("GPU-2222,0", [A100]),
        (" GPU-2222", []),
        ("GPU-2222 ,0", []),
        ("GPU-2222,GPU-2222c", []),
        ("GPU-2222CCCC", [A100]),
        ("GPU-", []),
        ("GPU-1111aaaa-0000-0000-0000-000000000000 ,GPU-2222", [H100, A100]),
        ("MIG-3333dddd-0000", [MIG]),
        ("MIG-4444,MIG-3333", [MIG, MIG]),
        ("MIG-GPU-2222cccc-0000-0000-0000-000000000000/2/0", [MIG]),
        ("MIG-GPU-2222cccc-0000-0000-0000-000000000000/9/0", []),
        ("MIG-GPU-1111aaaa-0000-0000-0000-000000000000/1/0", []),
    ],
)
def test_cuda_visible_devices_decides(nvml: FakeNvml, visible: str | None, used: list[str]) -> None:
    env = {} if visible is None else {VARIABLE: visible}
    with GpuMonitor(env) as monitor:
        assert [f"{gpu.name} {gpu.compute_capability}" for gpu in monitor.gpus] == used
        assert [gpu.index for gpu in monitor.gpus] == list(range(len(used)))
        assert monitor.used_bytes() == (123,) * len(used)
    assert nvml.shut_down == 1


def test_gpu_that_stops_answering_is_left_out(nvml: FakeNvml) -> None:
    with GpuMonitor({}) as monitor:
        nvml.broken = True
        assert monitor.used_bytes() == ()


def test_without_a_driver_there_are_no_gpus(nvml: FakeNvml) -> None:
    nvml.broken = True
    with GpuMonitor({}) as monitor:
        assert (monitor.gpus, monitor.used_bytes()) == ((), ())
    assert nvml.shut_down == 0
