"""From a config to what would run: programs, arguments and directories. Nothing is run here."""

from trt_llm_pipeline.plan.plan import Plan, PlannedStep, make_plan
from trt_llm_pipeline.plan.resolved_config import resolved_yaml

__all__ = [
    "Plan",
    "PlannedStep",
    "make_plan",
    "resolved_yaml",
]
