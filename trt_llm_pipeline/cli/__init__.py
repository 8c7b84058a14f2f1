"""The command line: the same functions as the prediction server's, at a terminal."""

from trt_llm_pipeline.cli.commands import app, main

__all__ = [
    "app",
    "main",
]
