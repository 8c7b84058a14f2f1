"""Everything that is checked before the first byte is downloaded, and what a build would do."""

from trt_llm_pipeline.preflight.validation import Validated, validate, validate_loaded

__all__ = [
    "Validated",
    "validate",
    "validate_loaded",
]
