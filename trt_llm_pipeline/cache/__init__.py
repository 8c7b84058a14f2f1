"""Results of unchanged steps: under which key, and the files themselves."""

from trt_llm_pipeline.cache.fingerprint import FileHashes
from trt_llm_pipeline.cache.keys import StepKeys, model_identity
from trt_llm_pipeline.cache.store import StepCache

__all__ = [
    "FileHashes",
    "StepCache",
    "StepKeys",
    "model_identity",
]
