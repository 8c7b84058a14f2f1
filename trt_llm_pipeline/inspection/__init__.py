"""What a server will find in an archive: checks, and what serving it needs."""

from trt_llm_pipeline.inspection.checks import Check
from trt_llm_pipeline.inspection.inspect_archive import Inspection, inspect, readiness_of_build
from trt_llm_pipeline.inspection.write_configs import write_configs

__all__ = [
    "Check",
    "Inspection",
    "inspect",
    "readiness_of_build",
    "write_configs",
]
