"""The build report: one HTML page that works from disk."""

from trt_llm_pipeline.report.page import REPORT_NAME, render

__all__ = [
    "REPORT_NAME",
    "render",
]
