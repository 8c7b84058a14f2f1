"""What was computed before a build, beside what the build used, on its page."""

from __future__ import annotations

from typing import Any

from tests.unit.fit.known import known
from tests.unit.report.test_page import Page, record, step
from trt_llm_pipeline.fit import EngineArguments, Host, assess, find_gpu
from trt_llm_pipeline.report import render
from trt_llm_pipeline.units import in_words

ARGUMENTS = EngineArguments(max_batch_size=8, max_input_len=1024, max_output_len=1024)


def fit(*gpus: str) -> dict[str, Any]:
    devices = [find_gpu(gpu) for gpu in gpus]
    return assess(known("Llama 2 13B").shape, ARGUMENTS, devices, Host(1 << 40)).as_json()


def words(**more: Any) -> str:
    return " ".join(Page(render(record(**more))).words)


def test_each_device_has_a_column_with_its_answer() -> None:
    shown = words(fit=fit("A10", "A100-40GB", "H100"))
    for row in (
        "A10 A100-40GB H100-80GB",
        "loads no yes yes",
        "memory 23.6 GB 42.3 GB 85.0 GB",
        "weights of a rank 26.0 GB 26.0 GB 26.0 GB",
    ):
        assert row in shown


def test_what_was_measured_stands_beside_what_was_computed() -> None:
    build = step("build", peak_memory_bytes=31_000_000_000, peak_gpu_memory_bytes=[28_500_000_000])
    build["output_bytes"] = 26_100_000_000
    convert = step("convert_to_ft", peak_memory_bytes=27_000_000_000)
    shown = words(fit=fit("H100"), steps=[convert, build])
    assert "engine 26.0 GB 26.1 GB" in shown
    assert f"memory while converting {in_words(2 * known('Llama 2 13B').parameters)} 27.0 GB" in shown
    assert "memory while building 26.0 GB 31.0 GB" in shown
    assert "one GPU while building 26.0 GB 28.5 GB" in shown


def test_without_figures_there_is_no_section() -> None:
    assert "Does it fit?" not in words()
    assert "Does it fit?" in words(fit=fit("A10"))


def test_a_step_that_was_not_run_measured_nothing() -> None:
    build = step("build", cached=True, peak_memory_bytes=1, peak_gpu_memory_bytes=[1])
    assert "memory while building" not in words(fit=fit("A10"), steps=[build])
