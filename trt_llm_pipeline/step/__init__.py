"""One step of a build: its directory emptied, its script run, its results found and checked."""

from trt_llm_pipeline.step.cached import CachedSteps
from trt_llm_pipeline.step.run import (
    StepContext,
    StepReport,
    environment,
    prepare_imports,
    run_step,
)

__all__ = [
    "CachedSteps",
    "StepContext",
    "StepReport",
    "environment",
    "prepare_imports",
    "run_step",
]
