"""Results of unchanged steps: under which key, and the files themselves."""

from trt_llm_pipeline.cache.dependencies import resolved_dependencies
from trt_llm_pipeline.cache.hashes import FileHashes
from trt_llm_pipeline.cache.inputs import UnhashableError
from trt_llm_pipeline.cache.keys import StepKey, StepKeys
from trt_llm_pipeline.cache.remote import RemoteCache
from trt_llm_pipeline.cache.store import StepCache

__all__ = [
    "FileHashes",
    "RemoteCache",
    "StepCache",
    "StepKey",
    "StepKeys",
    "UnhashableError",
    "resolved_dependencies",
]
