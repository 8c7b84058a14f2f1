"""GPUs by the names that people write."""

from __future__ import annotations

import pytest

from trt_llm_pipeline.fit import GPUS, capability_of, find_gpu


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_every_gpu_is_found_by_its_name_and_has_a_source(gpu: object) -> None:
    name = gpu.name  # type: ignore[attr-defined]
    assert find_gpu(name) == gpu == find_gpu(f"NVIDIA {name.lower().replace('-', ' ')}")
    assert gpu.source  # type: ignore[attr-defined]


def test_they_are_in_the_order_of_their_memory() -> None:
    assert list(GPUS) == sorted(GPUS, key=lambda gpu: gpu.memory_bytes)


@pytest.mark.parametrize(
    ("name", "gib"),
    [("A10", 24), ("L4", 24), ("A100-40GB", 40), ("L40S", 48), ("A100-80GB", 80), ("H100-80GB", 80)],
)
def test_a_program_gets_less_than_the_name_says_and_not_much_less(name: str, gib: int) -> None:
    assert 0.9 * gib < find_gpu(name).memory_bytes / (1 << 30) < gib


def test_a_name_of_one_size_needs_no_size() -> None:
    assert find_gpu("H100").name == "H100-80GB"


def test_a_name_of_several_sizes_needs_one() -> None:
    with pytest.raises(ValueError, match="write A100-40GB or A100-80GB"):
        find_gpu("A100")


@pytest.mark.parametrize(
    ("name", "capability"), [("h100", "9.0"), ("A100", "8.0"), ("NVIDIA L40S", "8.9"), ("sm90", None)]
)
def test_a_name_has_one_compute_capability_whatever_the_size(name: str, capability: str | None) -> None:
    assert capability_of(name) == capability


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("L40", "did you mean L40S"),
        ("H100X", "mean H100-80GB"),
        ("H10", "mean H100-80GB"),
        ("TPU", "A10, L4"),
    ],
)
def test_an_unknown_name_is_answered_with_those_that_there_are(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        find_gpu(name)


def test_fp8_needs_compute_capability_8_9() -> None:
    assert [gpu.name for gpu in GPUS if gpu.has_fp8] == ["L4", "L40S", "H100-80GB", "H200", "B200"]
