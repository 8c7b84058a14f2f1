"""Will it fit: parameters, weights on each rank, KV cache, GPUs and the machine, before any download."""

from trt_llm_pipeline.fit.arguments import EngineArguments, read_arguments
from trt_llm_pipeline.fit.assess import Assessment, assess, facts
from trt_llm_pipeline.fit.families import UnknownShape, shape_of
from trt_llm_pipeline.fit.gpus import GPUS, Device, capability_of, find_gpu
from trt_llm_pipeline.fit.host import Host
from trt_llm_pipeline.fit.recorded import recorded_peaks
from trt_llm_pipeline.fit.shape import ModelShape
from trt_llm_pipeline.fit.table import text_lines

__all__ = [
    "GPUS",
    "Assessment",
    "Device",
    "EngineArguments",
    "Host",
    "ModelShape",
    "UnknownShape",
    "assess",
    "capability_of",
    "facts",
    "find_gpu",
    "read_arguments",
    "recorded_peaks",
    "shape_of",
    "text_lines",
]
