"""What docs/ has from the code: the tables of keys in config.md, and config.schema.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from trt_llm_pipeline.config import BuildConfig, StepConfig, json_schema

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEAD = "| key | value | default | what it says |\n|---|---|---|---|\n"


def tables() -> dict[str, str]:
    """The Markdown table of keys below each heading of config.md."""
    schema = json_schema()
    return {
        "Keys": _table(BuildConfig.model_fields, schema["properties"]),
        "Keys of a step": _table(StepConfig.model_fields, schema["$defs"]["StepConfig"]["properties"]),
    }


def _table(fields: Any, properties: dict[str, Any]) -> str:
    lines = []
    for name, field in fields.items():
        default = "required" if field.is_required() else _default(field.get_default())
        lines.append(f"| `{name}` | {_type(properties[name])} | {default} | {field.description} |\n")
    return HEAD + "".join(lines)


def _default(value: Any) -> str:
    return "" if value in (None, {}) else f"`{yaml.safe_dump(value).splitlines()[0]}`"


def _type(schema: dict[str, Any]) -> str:
    """A JSON Schema's type in a word or two."""
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "$ref" in schema:
        return "step"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema["type"]
    if isinstance(kind, list):
        return " or ".join("text" if part == "string" else part for part in kind if part != "null")
    return {"string": "text", "object": "mapping", "boolean": "`true`, `false`"}.get(kind, kind)


def main() -> None:
    """Writes them."""
    page = DOCS / "config.md"
    text = page.read_text()
    for heading, table in tables().items():
        below = rf"(^## {heading}$.*?)^\| key .*?\n(?!\|)"
        text, count = re.subn(below, lambda m, t=table: m[1] + t, text, flags=re.DOTALL | re.MULTILINE)  # type: ignore[misc]
        if count != 1:
            raise SystemExit(f"{page} has no table below {heading!r}")
    page.write_text(text)
    (DOCS / "config.schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n")


if __name__ == "__main__":
    main()
