"""The JSON Schema of the config, so that an editor completes and checks it."""

from __future__ import annotations

from typing import Any

from trt_llm_pipeline.config.model import BuildConfig


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a build config."""
    schema = BuildConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Build config"
    properties = schema["properties"]
    properties["convert_checkpoint"] = {
        **properties["convert_to_ft"],
        "description": "Another name for convert_to_ft.",
    }
    return schema
