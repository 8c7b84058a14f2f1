"""The one door for subprocesses: run one, follow what it prints, measure it, end its whole tree."""

from trt_llm_pipeline.process.environment import reduced
from trt_llm_pipeline.process.layers import UNCONFINED, Layers, Policy, find_layers
from trt_llm_pipeline.process.places import (
    Sandbox,
    hidden_places,
    program_places,
    readable,
    system_places,
    toolchain_places,
)
from trt_llm_pipeline.process.tree import Captured, ProcessResult, Usage, capture, run

__all__ = [
    "UNCONFINED",
    "Captured",
    "Layers",
    "Policy",
    "ProcessResult",
    "Sandbox",
    "Usage",
    "capture",
    "find_layers",
    "hidden_places",
    "program_places",
    "readable",
    "reduced",
    "run",
    "system_places",
    "toolchain_places",
]
