"""One step of a build: its directory emptied, its script run, its results found and checked."""

from trt_llm_pipeline.step.cached import CachedSteps
from trt_llm_pipeline.step.confine import environment
from trt_llm_pipeline.step.failure import last_lines
from trt_llm_pipeline.step.run import (
    StepContext,
    StepReport,
    prepare_imports,
    run_step,
)
from trt_llm_pipeline.step.timing import TimingCache
from trt_llm_pipeline.step.view import remove_view

__all__ = [
    "CachedSteps",
    "StepContext",
    "StepReport",
    "TimingCache",
    "environment",
    "last_lines",
    "prepare_imports",
    "remove_view",
    "run_step",
]
