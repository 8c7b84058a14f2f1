"""The build report: one HTML page that works from disk."""

from trt_llm_pipeline.report.compared import figures
from trt_llm_pipeline.report.page import REPORT_NAME, render, style
from trt_llm_pipeline.report.stages import names_of
from trt_llm_pipeline.report.verdict import serving_settings, verdict

__all__ = [
    "REPORT_NAME",
    "figures",
    "names_of",
    "render",
    "serving_settings",
    "style",
    "verdict",
]
