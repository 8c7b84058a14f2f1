"""Answers, remedies and messages."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.unit.fit.known import known
from trt_llm_pipeline.fit import (
    Assessment,
    Device,
    EngineArguments,
    Host,
    assess,
    find_gpu,
    recorded_peaks,
    text_lines,
)
from trt_llm_pipeline.fit.recorded import Peaks

LARGE = Host(1 << 50)
ARGUMENTS = EngineArguments(max_batch_size=8, max_input_len=1024, max_output_len=1024)
SIXTEEN = replace(ARGUMENTS, max_batch_size=16)


def judged(name: str, gpu: str, arguments: EngineArguments = ARGUMENTS, host: Host = LARGE) -> Assessment:
    return assess(known(name).shape, arguments, [find_gpu(gpu)], host)


def changes(found: Assessment) -> list[str]:
    """What would be enough for the first device."""
    return [remedy.change for remedy in found.verdicts[0].remedies]


class TestAnswers:
    """Does it load."""

    @pytest.mark.parametrize(
        ("name", "gpu", "arguments", "answer"),
        [
            ("Llama 2 7B", "A10", ARGUMENTS, "yes"),
            ("Llama 2 13B", "A10", ARGUMENTS, "no"),
            ("Llama 2 13B", "A10", replace(ARGUMENTS, weights="int8"), "some"),
            ("Llama 2 13B", "A100-40GB", ARGUMENTS, "yes"),
            ("Llama 2 13B", "A100-40GB", SIXTEEN, "some"),
            ("Llama 2 13B", "A100-40GB", replace(SIXTEEN, kv="int8"), "yes"),
            ("Llama 2 70B", "A100-80GB", ARGUMENTS, "no"),
            ("Llama 2 70B", "A100-80GB", replace(ARGUMENTS, tp=2), "yes"),
            ("Llama 2 70B", "L40S", replace(ARGUMENTS, tp=4), "yes"),
            ("Llama 2 70B", "L4", replace(ARGUMENTS, tp=4), "no"),
            ("Llama 2 7B", "A10", replace(ARGUMENTS, max_seq_len=32768), "one"),
            ("Llama 2 7B", "A10", replace(ARGUMENTS, max_output_len=None), "unknown"),
            ("Llama 2 7B", "A10", replace(ARGUMENTS, max_batch_size=None), "unknown"),
            ("Llama 2 7B", "A10", EngineArguments(max_batch_size=10**9), "some"),
            ("Llama 2 7B", "A10", EngineArguments(max_batch_size=10**9, max_input_len=1024), "some"),
            ("Llama 2 7B", "A10", EngineArguments(max_batch_size=1, max_input_len=10**6), "one"),
        ],
    )
    def test_is(self, name: str, gpu: str, arguments: EngineArguments, answer: str) -> None:
        (verdict,) = judged(name, gpu, arguments).verdicts
        assert verdict.answer == answer

    def test_what_the_config_does_not_say_is_said(self) -> None:
        silent = replace(ARGUMENTS, max_output_len=None)
        (line,) = [
            line for line in text_lines(judged("Llama 2 7B", "A10", silent)) if "  the config " in line
        ]
        expected = (
            "does not say max_output_len or max_seq_len, so it is not known how many tokens it wants at once"
        )
        assert line == f"  the config {expected}"
        (warning,) = judged("Llama 2 7B", "A10", replace(silent, max_batch_size=10**9)).warnings
        assert "the config wants at least 1,025,000,000,000 tokens at once (1000000000 requests)" in warning
        _, warning = judged("Llama 2 7B", "A10", replace(silent, max_input_len=10**6)).warnings
        assert "the config wants one request of at least 1,000,001 tokens" in warning

    @pytest.mark.parametrize(
        ("changed", "asked", "options"),
        [
            ({"max_input_len": 4000, "max_output_len": 200}, "4,200", "max_input_len and max_output_len"),
            ({"max_input_len": 5000, "max_output_len": None}, "5,000", "max_input_len"),
            ({"max_input_len": None, "max_output_len": 4097}, "4,097", "max_output_len"),
            ({"max_seq_len": 4097}, "4,097", "max_seq_len"),
        ],
    )
    def test_requests_longer_than_the_model_was_made_for_are_told_of(
        self, changed: dict[str, int | None], asked: str, options: str
    ) -> None:
        one = replace(ARGUMENTS, max_batch_size=1)
        assert judged("Llama 2 7B", "A100-80GB", one).warnings == ()
        assert judged("Llama 2 7B", "A100-80GB", replace(one, max_seq_len=4096)).warnings == ()
        (warning,) = judged("Llama 2 7B", "A100-80GB", replace(one, **changed)).warnings
        assert f"requests of {asked} tokens, and the model was made for 4,096" in warning
        assert warning.endswith(f"; make {options} smaller")

    def test_only_weights_that_are_too_large_are_an_error(self) -> None:
        assert judged("Llama 2 13B", "A10").errors
        for name, arguments in (
            ("Llama 2 13B", replace(ARGUMENTS, weights="int8")),
            ("Llama 2 7B", replace(ARGUMENTS, max_seq_len=32768)),
        ):
            found = judged(name, "A10", arguments)  # type: ignore[arg-type]
            assert found.errors == ()
            assert "room for the KV cache" in found.warnings[-1]


class TestRemedies:
    """Each is the smallest of its kind, and is enough by the same sums."""

    def test_of_a_model_that_is_too_large(self) -> None:
        assert changes(judged("Llama 2 70B", "A100-80GB")) == [
            "tensor parallelism 2",
            "int8 weights",
            "a GPU of type H200",
        ]

    def test_are_enough_and_one_step_less_is_not(self) -> None:
        found = judged("Llama 2 70B", "A10")
        assert changes(found) == [
            "tensor parallelism 8",
            "a GPU of type H200",
        ]
        assert judged("Llama 2 70B", "A10", replace(ARGUMENTS, tp=4)).verdicts[0].answer == "no"
        assert judged("Llama 2 70B", "A10", replace(ARGUMENTS, tp=8)).verdicts[0].answer == "yes"
        assert judged("Llama 2 70B", "H100").verdicts[0].answer == "no"
        assert judged("Llama 2 70B", "H200").verdicts[0].answer != "no"

    def test_fp8_is_for_gpus_that_have_it(self) -> None:
        beams = replace(ARGUMENTS, max_beam_width=2, max_seq_len=4096)
        ampere = changes(judged("Llama 2 13B", "A10", beams))
        ada = changes(judged("Llama 2 13B", "L4", replace(beams, weights="int8", tp=1, max_seq_len=8192)))
        assert not any("fp8" in change for change in ampere)
        assert ampere == ["tensor parallelism 2", "int8 weights", "a GPU of type A100-40GB"]
        assert not any("fp8" in change for change in ada)  # no smaller than int8

    def test_for_requests_that_do_not_fit_at_once_make_them_fit(self) -> None:
        found = judged("Llama 2 13B", "A100-40GB", SIXTEEN)
        assert changes(found) == [
            "tensor parallelism 2",
            "int4 weights",
            "a KV cache in int8",
            "a GPU of type A100-80GB",
        ]
        assert f"enough would be: max_batch_size {found.verdicts[0].room.max_batch_size}" in found.warnings[0]
        lower = replace(SIXTEEN, max_batch_size=found.verdicts[0].room.max_batch_size)
        assert judged("Llama 2 13B", "A100-40GB", lower).verdicts[0].answer == "yes"

    def test_heads_that_cannot_be_divided_rule_out_tensor_parallelism(self) -> None:
        small = Device("small", 8_000_000_000, "8.6", "for a test")
        found = assess(known("Falcon 7B").shape, ARGUMENTS, [small], LARGE)
        assert changes(found) == ["int8 weights", "a GPU of type A10"]

    def test_none_is_said_to_be_none(self) -> None:
        tiny = Device("tiny", 100_000_000, "10.0", "for a test")
        huge = replace(known("Llama 2 70B").shape, layers=80 * 1000)
        found = assess(huge, ARGUMENTS, [tiny], LARGE)
        assert found.verdicts[0].remedies == ()
        assert "nothing that was tried would be enough" in found.errors[0]

    def test_a_machine_without_a_gpu_is_not_told_to_buy_one(self) -> None:
        machine = Device("this machine", 10_000_000_000, None, "for a test")
        found = assess(known("Llama 2 7B").shape, ARGUMENTS, [machine], LARGE)
        assert changes(found) == ["int8 weights"]


class TestMessages:
    """What a user reads."""

    def test_an_error_has_both_figures_and_what_would_be_enough(self) -> None:
        (text,) = judged("Llama 2 13B", "A10").errors
        assert text == (
            "the weights alone take 26.0 GB as float16, and A10 has 23.6 GB; enough would be: tensor "
            "parallelism 2 (13.2 GB of weights on each), or int8 weights (13.3 GB of weights on each), or a "
            "GPU of type A100-40GB (26.0 GB of weights on each)"
        )

    def test_a_warning_says_at_most(self) -> None:
        (text,) = judged("Llama 2 13B", "A100-40GB", SIXTEEN).warnings
        tokens = (42_298_834_944 - 2 * 13_015_864_320) * 9 // 10 // 819_200
        assert f"room for the KV cache of at most {tokens:,} tokens" in text
        assert "32,768 tokens at once (16 requests)" in text

    def test_ranks_that_the_machine_has_no_gpus_for(self) -> None:
        gpus = Device("NVIDIA L40S", find_gpu("L40S").memory_bytes, "8.9", "NVML", count=2)
        found = assess(known("Llama 2 70B").shape, replace(ARGUMENTS, tp=4), [gpus], LARGE)
        assert any(
            "has 4 ranks, and this machine has 2 GPUs of type NVIDIA L40S" in w for w in found.warnings
        )

    def test_heads_that_cannot_be_divided(self) -> None:
        found = judged("Falcon 7B", "A100-80GB", replace(ARGUMENTS, tp=2))
        assert any("71 attention heads" in text for text in found.warnings)


class TestHost:
    """The machine on which it is converted and built."""

    def test_an_engine_larger_than_the_machine_cannot_be_built(self) -> None:
        found = judged("Llama 2 7B", "A10", host=Host(8 << 30, gpu_bytes=1 << 40))
        assert len(found.errors) == 1
        assert "at least 13.5 GB of memory, and this machine has 8.6 GB" in found.errors[0]

    def test_where_there_is_nothing_to_load_it_on_it_is_a_warning(self) -> None:
        found = assess(known("Llama 2 7B").shape, ARGUMENTS, [], Host(8 << 30))
        assert found.errors == ()
        assert any("cannot be built here" in text for text in found.warnings)
        assert any("no GPU here to load it on; --gpu" in line for line in text_lines(found))

    def test_a_model_that_the_gpus_may_hold_is_a_warning(self) -> None:
        arguments = replace(ARGUMENTS, tp=8)
        found = judged("Llama 2 70B", "A100-80GB", arguments, Host(64 << 30, gpu_bytes=8 * (80 << 30)))
        assert found.errors == ()
        assert any("takes at least 138.0 GB of memory" in text for text in found.warnings)
        assert any("load_by_shard" in text for text in found.warnings)

    def test_a_model_larger_than_everything_cannot_be_converted(self) -> None:
        found = judged("Llama 2 70B", "A100-80GB", replace(ARGUMENTS, tp=8), Host(32 << 30))
        assert any("takes at least 138.0 GB" in text for text in found.errors)

    def test_reading_it_file_by_file_needs_only_the_engine(self) -> None:
        arguments = replace(ARGUMENTS, tp=8, by_shard=True)
        found = judged("Llama 2 70B", "A100-80GB", arguments, Host(32 << 30))
        assert (found.errors, found.warnings) == ((), ())

    def test_a_float32_model_is_converted_in_the_engine_s_type(self) -> None:
        found = judged("StarCoder", "A100-80GB", host=LARGE)
        assert found.host_need.convert == 2 * known("StarCoder").parameters


class TestRecordedPeaks:
    """Earlier builds of the same engine."""

    def record(self, **changes: object) -> dict[str, object]:
        facts = judged("Llama 2 7B", "A10").facts()
        step = {
            "name": "build",
            "peak_memory_bytes": 30_000_000_000,
            "peak_gpu_memory_bytes": [15_000_000_000],
        }
        convert = {"name": "convert_to_ft", "peak_memory_bytes": 9_000_000_000, "peak_gpu_memory_bytes": []}
        manifest = {"model_id": "a/b", "fit": facts}
        steps = [convert, {**step, "output_bytes": 13_600_000_000}]
        return {"build_id": "1", "manifest": manifest, "steps": steps, **changes}

    def peaks(self, record: dict[str, object]) -> tuple[Peaks, ...]:
        return recorded_peaks([record], "a/b", judged("Llama 2 7B", "A10").facts())

    def test_are_found(self) -> None:
        expected = Peaks("1", 30_000_000_000, "build", 15_000_000_000, "build", 13_600_000_000)
        assert self.peaks(self.record()) == (expected,)

    @pytest.mark.parametrize(
        "changes",
        [
            {"manifest": {"model_id": "c/d"}},
            {"manifest": {"model_id": "a/b"}},
            {"manifest": {"model_id": "a/b", "fit": judged("Llama 2 13B", "A10").facts()}},
            {"manifest": []},
            {"steps": None},
            {"steps": [{"name": "build", "cached": True, "peak_memory_bytes": 5}]},
            {"steps": [{"name": "build", "peak_memory_bytes": "much"}, 7]},
        ],
    )
    def test_of_another_engine_or_without_figures_are_left_out(self, changes: dict[str, object]) -> None:
        assert self.peaks(self.record(**changes)) == ()

    def test_above_the_machine_s_memory_are_a_warning(self) -> None:
        peaks = self.peaks(self.record())
        found = assess(known("Llama 2 7B").shape, ARGUMENTS, [find_gpu("A10")], Host(20 << 30), peaks)
        assert any("build 1 of this model used 30.0 GB of memory in step build" in w for w in found.warnings)
        assert any("recorded   build 1: 30.0 GB" in line for line in text_lines(found))


def test_each_step_writes_the_weights_once() -> None:
    shape = known("Llama 2 7B").shape
    found = assess(shape, ARGUMENTS, [], LARGE, steps=2)
    assert found.as_json()["disk_bytes"] == 2 * 2 * shape.parameters


def test_json_can_be_written_and_its_facts_are_the_same_on_every_machine() -> None:
    here, there = judged("Llama 2 70B", "A10"), judged("Llama 2 70B", "H200", host=Host(1 << 30))
    assert json.loads(json.dumps(here.as_json()))["parameters"] == 68_976_648_192
    assert here.facts() == there.facts()
    assert here.facts().items() <= here.as_json().items()
