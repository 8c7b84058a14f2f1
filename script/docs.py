"""What docs/ has from the code: the tables of keys, the JSON Schema, the map of modules and the layers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from trt_llm_pipeline.config import BuildConfig, CheckConfig, DatasetConfig, StepConfig
from trt_llm_pipeline.config.schema import json_schema
from trt_llm_pipeline.fleet import matrix

DOCS = Path(__file__).resolve().parent.parent / "docs"
LIBRARY = DOCS.parent / "trt_llm_pipeline"
HEAD = "| key | value | default | what it says |\n|---|---|---|---|\n"


def tables() -> dict[str, str]:
    """The Markdown table of keys below each heading of config.md."""
    schema = json_schema()
    return {
        "Keys": _table(BuildConfig.model_fields, schema["properties"]),
        "Keys of check": _table(CheckConfig.model_fields, schema["$defs"]["CheckConfig"]["properties"]),
        "Keys of a dataset": _table(
            DatasetConfig.model_fields, schema["$defs"]["DatasetConfig"]["properties"]
        ),
        "Keys of a step": _table(StepConfig.model_fields, schema["$defs"]["StepConfig"]["properties"]),
    }


def _table(fields: Any, properties: dict[str, Any]) -> str:
    lines = []
    for name, field in fields.items():
        default = (
            "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        )
        lines.append(
            f"| `{name}` | {_type(properties[name])} | {default} | {properties[name]['description']} |\n"
        )
    return HEAD + "".join(lines)


def _default(value: Any) -> str:
    if isinstance(value, CheckConfig):
        return "`on`"
    return "" if value in (None, {}) else f"`{yaml.safe_dump(value).splitlines()[0]}`"


def _type(schema: dict[str, Any]) -> str:
    """A JSON Schema's type in a word or two."""
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "$ref" in schema:
        return "step" if schema["$ref"].endswith("/StepConfig") else "mapping"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema["type"]
    if isinstance(kind, list):
        return " or ".join("text" if part == "string" else part for part in kind if part != "null")
    return {"string": "text", "object": "mapping", "boolean": "`true`, `false`"}.get(kind, kind)


def architecture(text: str) -> str:
    """The architecture page with its map and its layers as they are; a new room still needs its sentence."""

    def listed(match: re.Match[str]) -> str:
        folder = LIBRARY / match[2]
        if match[2] == "testing" or not folder.is_dir():
            return match[0]
        modules = [path.stem for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
        known = [name for name in match[4].split(", ") if name in modules or name.endswith("/")]
        names = [*known, *(name for name in modules if name not in known)]
        return f"{match[1]}{match[3]}: {', '.join(names)}"

    text = re.sub(r"^(  (\w+)/ +)([^:\n]+): (.*)$", listed, text, flags=re.MULTILINE)
    held = (LIBRARY.parent / "pyproject.toml").read_text().partition("\nlayers = [")[2].partition("]")[0]
    layers = "\n".join(re.findall(r'^    "([^"]+)",$', held, re.MULTILINE))
    return re.sub(
        r"(^## The layers$.*?^```\n).*?(\n```)", rf"\1{layers}\2", text, flags=re.DOTALL | re.MULTILINE
    )


def main() -> None:
    """Writes them."""
    drawing = DOCS / "architecture.md"
    drawing.write_text(architecture(drawing.read_text()))
    page = DOCS / "config.md"
    text = page.read_text()
    for heading, table in tables().items():
        below = rf"(^## {heading}$.*?)^\| key .*?\n(?!\|)"
        text, count = re.subn(below, lambda m, t=table: m[1] + t, text, flags=re.DOTALL | re.MULTILINE)  # type: ignore[misc]
        if count != 1:
            raise SystemExit(f"{page} has no table below {heading!r}")
    page.write_text(text)
    (DOCS / "config.schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n")
    (DOCS / "fleet.schema.json").write_text(json.dumps(matrix.json_schema(), indent=2) + "\n")


if __name__ == "__main__":
    main()
