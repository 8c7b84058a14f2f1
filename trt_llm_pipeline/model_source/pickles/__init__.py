"""Whether a file makes an unpickler run anything, found out without running it."""

from trt_llm_pipeline.model_source.pickles.files import Budget, problem_in, problem_of

__all__ = ["Budget", "problem_in", "problem_of"]
