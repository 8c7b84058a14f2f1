"""The build config: what it may say, read from YAML, with every mistake named by its line."""

from trt_llm_pipeline.config.model import (
    STEP_ALIASES,
    STEP_NAMES,
    ArgValue,
    BuildConfig,
    CheckConfig,
    DatasetConfig,
    StepConfig,
    check_model_id,
    texts_of,
)
from trt_llm_pipeline.config.reading import Loaded, examine, examine_node, load, loads

__all__ = [
    "STEP_ALIASES",
    "STEP_NAMES",
    "ArgValue",
    "BuildConfig",
    "CheckConfig",
    "DatasetConfig",
    "Loaded",
    "StepConfig",
    "check_model_id",
    "examine",
    "examine_node",
    "load",
    "loads",
    "texts_of",
]
