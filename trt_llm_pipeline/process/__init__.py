"""The one door for subprocesses: run one, follow what it prints, measure it, end its whole tree."""

from trt_llm_pipeline.process.tree import Captured, ProcessResult, Usage, capture, run

__all__ = [
    "Captured",
    "ProcessResult",
    "Usage",
    "capture",
    "run",
]
