"""The measurements of a step, by the names that Cog takes."""

from __future__ import annotations

import re
from pathlib import Path

from trt_llm_pipeline.pipeline.stepping import costs
from trt_llm_pipeline.step import StepReport

#: Cog's rule (`record_metric` in cog/predictor.py): parts between dots that begin with a letter and have
#: letters, digits and single underscores inside; at most four of them.
_PART = r"[A-Za-z](?:_?[A-Za-z0-9])*"
NAME = re.compile(rf"{_PART}(?:\.{_PART}){{0,3}}")


def test_each_has_a_name_that_cog_takes() -> None:
    for step in ("convert_to_ft", "quantize", "build"):
        done = StepReport(step, (), Path("x"), 2.0, 1.23456, 100, peak_gpu_memory_bytes=tuple(range(8)))
        found = costs(done)
        assert all(NAME.fullmatch(name) for name in found), found
        assert found[f"peak_gpu_memory.{step}.gpu7"] == 7
        assert found[f"cpu.{step}"] == 1.235
        assert len(found) == 10
        again = StepReport(step, (), Path("x"), 0.0, 0.0, 0, cached=True)
        assert costs(again) == {f"cached.{step}": 1}


def test_the_rule_is_one() -> None:
    assert NAME.fullmatch("timing.convert_to_ft")
    for wrong in ("peak.build.0", "a__b", "_a", "a_", "a.b.c.d.e", "a..b"):
        assert not NAME.fullmatch(wrong), wrong
