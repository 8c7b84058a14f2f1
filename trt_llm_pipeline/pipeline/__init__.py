"""A build, from a config that has been checked to an archive: its stages, and their order."""

from trt_llm_pipeline.pipeline.packaging import BuildResult
from trt_llm_pipeline.pipeline.stages import build

__all__ = ["BuildResult", "build"]
