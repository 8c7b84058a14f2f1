"""The OpenAPI 3.0.2 document of a Cog server for predict.py, as `cog build` would write it.

The server only serves and enforces a document that is there; without the `cog` command line somebody has to
write it. The document's shape: https://github.com/replicate/cog/blob/main/architecture/02-schema.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cog import __version__ as cog_version
from cog._adt import InputField, Repetition
from cog._inspector import create_predictor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def document() -> dict[str, Any]:
    """The whole document."""
    predictor = create_predictor("predict", "Predictor")
    inputs = sorted(predictor.inputs.values(), key=lambda field: field.order)
    schemas = {
        "Input": {
            "title": "Input",
            "type": "object",
            "properties": {field.name: _property(field) for field in inputs},
            "required": [field.name for field in inputs if not _optional(field)],
        },
        "Output": predictor.output.json_type(),
        "PredictionRequest": _object(
            "PredictionRequest",
            id=_STRING,
            input=_ref("Input"),
            webhook=_STRING,
            webhook_events_filter=_EVENTS,
        ),
        "PredictionResponse": _object(
            "PredictionResponse",
            input=_ref("Input"),
            output=_ref("Output"),
            id=_STRING,
            version=_STRING,
            created_at=_TIME,
            started_at=_TIME,
            completed_at=_TIME,
            status=_ref("Status"),
            error=_STRING,
            logs=_STRING,
            metrics={"type": "object"},
        ),
        "Status": {
            "title": "Status",
            "type": "string",
            "enum": ["starting", "processing", "succeeded", "canceled", "failed"],
        },
        "HTTPValidationError": _object(
            "HTTPValidationError", detail={"type": "array", "items": _ref("ValidationError")}
        ),
        "ValidationError": {
            **_object(
                "ValidationError",
                loc={"type": "array", "items": {"anyOf": [_STRING, {"type": "integer"}]}},
                msg=_STRING,
                type=_STRING,
            ),
            "required": ["loc", "msg", "type"],
        },
    }
    prediction_id = {"name": "prediction_id", "in": "path", "required": True, "schema": _STRING}
    paths = {
        "/": {"get": _operation("Root", "root__get")},
        "/health-check": {"get": _operation("Healthcheck", "healthcheck_health_check_get")},
        "/predictions": {
            "post": {
                **_operation("Predict", "predict_predictions_post", "PredictionResponse", invalid=True),
                "description": "Builds an engine and waits for it; 'Prefer: respond-async' returns at once.",
                "requestBody": {"content": _json(_ref("PredictionRequest"))},
            }
        },
        "/predictions/{prediction_id}/cancel": {
            "post": {
                **_operation("Cancel", "cancel_predictions__prediction_id__cancel_post", invalid=True),
                "parameters": [prediction_id],
            }
        },
    }
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": cog_version},
        "paths": paths,
        "components": {"schemas": schemas},
    }


_STRING = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
_EVENTS = {"type": "array", "items": {"type": "string", "enum": ["start", "output", "logs", "completed"]}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(title: str, **properties: Any) -> dict[str, Any]:
    return {"title": title, "type": "object", "properties": properties}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _operation(
    summary: str, name: str, returns: str | None = None, *, invalid: bool = False
) -> dict[str, Any]:
    ok = {"description": "Successful Response", "content": _json(_ref(returns) if returns else {})}
    refused = {"description": "Validation Error", "content": _json(_ref("HTTPValidationError"))}
    return {
        "summary": summary,
        "operationId": name,
        "responses": {"200": ok, **({"422": refused} if invalid else {})},
    }


def _optional(field: InputField) -> bool:
    return field.default is not None or field.type.repetition is Repetition.OPTIONAL


def _property(field: InputField) -> dict[str, Any]:
    prop = {
        "title": field.name.replace("_", " ").title(),
        "description": field.description,
        "x-order": field.order,
        **field.type.json_type(),
    }
    if field.choices is not None:
        prop["enum"] = list(field.choices)
    if _optional(field):
        prop["default"] = field.default
    if field.type.repetition is Repetition.OPTIONAL:
        prop["nullable"] = True
    return prop


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(document(), indent=2) + "\n")
