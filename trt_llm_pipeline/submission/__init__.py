"""Sending a build to a prediction server, following it, and bringing its archive home."""

from trt_llm_pipeline.submission.prediction import Submission, submit
from trt_llm_pipeline.submission.saving import Saved, save

__all__ = [
    "Saved",
    "Submission",
    "save",
    "submit",
]
