"""The JSON Schema of a build config, for editors and for the pages that list the keys."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import Any

from pydantic import BaseModel

from trt_llm_pipeline.config.model import BuildConfig, CheckConfig, DatasetConfig, StepConfig


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a build config."""
    schema = BuildConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Build config"
    _describe(BuildConfig, schema["properties"])
    for part in (StepConfig, CheckConfig, DatasetConfig):
        _describe(part, schema["$defs"][part.__name__]["properties"])
    properties = schema["properties"]
    properties["convert_checkpoint"] = {
        **properties["convert_to_ft"],
        "description": "Another name for convert_to_ft.",
    }
    return schema


def _describe(model: type[BaseModel], properties: dict[str, Any]) -> None:
    """Gives each key what the text below its field says.

    pydantic can do so itself (`use_attribute_docstrings`), but reads the source at each import.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(model)))
    body = [node for part in tree.body if isinstance(part, ast.ClassDef) for node in part.body]
    for field, text in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            properties[field.target.id]["description"] = inspect.cleandoc(str(text.value.value))
