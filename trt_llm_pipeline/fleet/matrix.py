"""The matrix file: what varies, and what one cell needs; every mistake named with its line.

    config: ./llama-2-7b-chat.yaml        # any build config, or a mapping: one written here
    matrix:
      dtype: [float16, int8]
      gpu: [A100, H100]
      include: [{dtype: fp8, gpu: H100}]
      exclude: [{dtype: int8, gpu: A100}]
    resources: {gpus: 1, gpu_type: "${matrix.gpu}", memory: 64GB}
    destination: s3://bucket/engines/${matrix.gpu}/${matrix.dtype}/engine.tar.gz
    max_parallel: 8

`include` and `exclude` mean what they mean in GitHub Actions: a combination that has every value of an
`exclude` entry is left out; an `include` entry is added to every combination whose values it does not change,
and is a combination of its own where there is none.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod

from trt_llm_pipeline.config.yaml_reader import MappingNode, Node, Scalar, Sequence, parse
from trt_llm_pipeline.errors import ConfigError, Mistake

MOST_CELLS = 20_000
ATTEMPTS = 3
RESOURCE_KEYS = ("gpus", "gpu_type", "memory", "cpus", "trt_llm")
_KEYS = ("config", "matrix", "resources", "destination", "max_parallel", "attempts")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_REFERENCE = re.compile(r"\$\$\{|\$\{\s*matrix\.([^{}]*?)\s*\}")
_MOST_ATTEMPTS = 20
_SPECIAL = ("include", "exclude")

Values = Mapping[str, Scalar]


@dataclass(frozen=True)
class Matrix:
    """A matrix file that can be read.

    Attributes:
        name: the file's, for messages.
        config: the build config: a scalar that names a file, or the config itself.
        cells: the values of each cell, in order.
        resources: what a cell needs, by key; may refer to values.
        destination: where a cell's archive goes; may refer to values.
        max_parallel: how many cells may run at once; None for as many as there is room for.
        attempts: how often a cell is tried where the machine is to blame.
        lines: the line of each top-level key.
    """

    name: str
    config: Scalar | MappingNode
    cells: tuple[Values, ...]
    resources: Mapping[str, Scalar]
    destination: Scalar
    max_parallel: int | None = None
    attempts: int = ATTEMPTS
    lines: Mapping[str, int] = field(default_factory=dict)


def read(text: str, name: str) -> Matrix:
    """Reads a matrix file's text.

    Raises:
        ConfigError: with every mistake, in the order of the file.
    """
    found: list[Mistake] = []
    needs = "config, matrix and destination"
    root = parse(text, name, found, kind="a matrix file", needs=needs)
    if "matrix" not in root.items and not {"model_id", "build"}.isdisjoint(root.items):
        message = "is a build config; use `build` for it, or name it as `config` in a matrix file"
        raise ConfigError([Mistake(message, root.line)], name)
    reader = _Reader(root, found)
    matrix = reader.matrix(name)
    if found or matrix is None:
        raise ConfigError(sorted(found, key=lambda mistake: mistake.line or 0), name)
    return matrix


def substituted(node: Scalar, values: Values, wrong: Callable[[str, int], None]) -> Scalar:
    """`node` with each `${matrix.NAME}` replaced; a scalar that is nothing else becomes that value as it is.

    Args:
        node: as written.
        values: the cell's.
        wrong: called with what is wrong with a reference, and its line.
    """

    def look_up(match: re.Match[str]) -> Scalar | None:
        if match[1] is None:  # $${ is the config's business
            return None
        if match[1] in values:
            return values[match[1]]
        close = difflib.get_close_matches(match[1], values, 1, 0.5)
        advice = f"did you mean ${{matrix.{close[0]}}}?" if close else f"it has {', '.join(values) or 'none'}"
        wrong(f"the matrix has no {match[1]!r} for this cell; {advice}", node.line)
        return None

    whole = _REFERENCE.fullmatch(node.text)
    if whole and whole[1] is not None and node.plain:
        value = look_up(whole)
        return node if value is None else replace(value, line=node.line)

    def text(match: re.Match[str]) -> str:
        found = look_up(match)
        return match[0] if found is None else found.text

    return replace(node, text=_REFERENCE.sub(text, node.text))


def references(node: Node) -> Iterator[str]:
    """The names that `${matrix.NAME}` refers to anywhere in `node`."""
    if isinstance(node, Scalar):
        yield from (match[1] for match in _REFERENCE.finditer(node.text) if match[1] is not None)
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from references(item)
    else:
        for value in node.items.values():
            yield from references(value)


def everywhere(node: Node, values: Values, wrong: Callable[[str, int], None]) -> Node:
    """`node` with the references of every scalar in it replaced; arguments as for `substituted`."""
    if isinstance(node, Scalar):
        return substituted(node, values, wrong)
    if isinstance(node, Sequence):
        return replace(node, items=tuple(everywhere(item, values, wrong) for item in node.items))
    items = {key: everywhere(value, values, wrong) for key, value in node.items.items()}
    return replace(node, items=items)


class _Reader:
    def __init__(self, root: MappingNode, found: list[Mistake]) -> None:
        self._root = root
        self._found = found

    def matrix(self, name: str) -> Matrix | None:
        for key in self._root.items:
            if key not in _KEYS:
                close = difflib.get_close_matches(key, _KEYS, 1, 0.5)
                advice = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(_KEYS)}"
                self._wrong(f"is not a known key; {advice}", key)
        config = self._root.items.get("config")
        if config is None:
            self._missing("config", "name a build config, or write one there")
        elif isinstance(config, Sequence) or (isinstance(config, Scalar) and not config.text):
            self._wrong("must be a file's name or a mapping: a build config", "config")
        destination = self._scalar("destination", needed="say where each cell's archive goes")
        if destination is not None and re.search(r"\$\{(?!\s*matrix\.)", destination.text):
            self._wrong("can refer to ${matrix.NAME} only", "destination")
        cells = self._cells()
        resources = self._resources()
        parallel = self._count("max_parallel", MOST_CELLS)
        attempts = self._count("attempts", _MOST_ATTEMPTS) or ATTEMPTS
        if config is None or isinstance(config, Sequence) or destination is None:
            return None
        lines = self._root.key_lines
        return Matrix(name, config, cells, resources, destination, parallel, attempts, lines)

    def _wrong(self, message: str, key: str, line: int | None = None) -> None:
        self._found.append(Mistake(message, line or self._root.key_lines.get(key.split(".")[0]), key))

    def _missing(self, key: str, hint: str) -> None:
        self._found.append(Mistake(f"is missing; {hint}", self._root.line, key))

    def _scalar(self, key: str, needed: str = "") -> Scalar | None:
        node = self._root.items.get(key)
        if node is None and needed:
            self._missing(key, needed)
        elif node is not None and (not isinstance(node, Scalar) or not node.text):
            self._wrong("must be a single value", key)
        elif isinstance(node, Scalar):
            return node
        return None

    def _count(self, key: str, most: int) -> int | None:
        node = self._scalar(key)
        if node is None:
            return None
        if not re.fullmatch(r"[1-9]\d{0,8}", node.text) or int(node.text) > most:
            self._wrong(f"{node.text!r} must be a whole number from 1 to {most:,}", key)
            return None
        return int(node.text)

    def _resources(self) -> dict[str, Scalar]:
        node = self._root.items.get("resources")
        if node is None:
            return {}
        if not isinstance(node, MappingNode):
            self._wrong(f"must be a mapping of {', '.join(RESOURCE_KEYS)}", "resources")
            return {}
        resources = {}
        for key, value in node.items.items():
            line = node.key_lines[key]
            if key not in RESOURCE_KEYS:
                close = difflib.get_close_matches(key, RESOURCE_KEYS, 1, 0.5)
                advice = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(RESOURCE_KEYS)}"
                self._wrong(f"is not a known key; {advice}", f"resources.{key}", line)
            elif not isinstance(value, Scalar) or not value.text:
                self._wrong("must be a single value", f"resources.{key}", line)
            else:
                resources[key] = value
        return resources

    def _cells(self) -> tuple[Values, ...]:
        node = self._root.items.get("matrix")
        if node is None:
            self._missing("matrix", "list the values that vary: dtype: [float16, int8]")
            return ()
        if not isinstance(node, MappingNode):
            self._wrong("must be a mapping of names to lists of values", "matrix")
            return ()
        axes = {key: self._axis(key, value, node) for key, value in node.items.items() if key not in _SPECIAL}
        count = prod(len(values) for values in axes.values()) if axes else 0
        if count > MOST_CELLS:
            self._wrong(f"stands for {count:,} cells; at most {MOST_CELLS:,} are planned at once", "matrix")
            return ()
        excluded = self._entries("exclude", node)
        cells: list[dict[str, Scalar]] = []
        if axes:
            for combination in product(*axes.values()):
                values = dict(zip(axes, combination, strict=True))
                if not any(_has(values, entry) for entry in excluded):
                    cells.append(values)
        for entry in excluded:
            for key in entry:
                if key not in axes:
                    close = difflib.get_close_matches(key, axes, 1, 0.5)
                    advice = f"; did you mean {close[0]}?" if close else ""
                    self._wrong(f"the matrix has no {key!r}{advice}", "matrix.exclude", entry[key].line)
                elif axes[key] and entry[key].text not in (known := [value.text for value in axes[key]]):
                    said = (
                        f"leaves nothing out: {key} is never {entry[key].text!r}; line {node.key_lines[key]}"
                    )
                    said += f" has {', '.join(known)}, and one of the two is mistyped"
                    self._wrong(said, "matrix.exclude", entry[key].line)
        self._include(cells, axes, self._entries("include", node))
        if not cells and not self._found:
            self._wrong("has no cell: everything is excluded, or it lists no values", "matrix")
        if len(cells) > MOST_CELLS:
            self._wrong(f"stands for more than {MOST_CELLS:,} cells", "matrix")
        return tuple(cells)

    def _include(
        self,
        cells: list[dict[str, Scalar]],
        axes: Mapping[str, list[Scalar]],
        entries: list[dict[str, Scalar]],
    ) -> None:
        combinations = list(cells)  # an entry adds to these, never to another entry's cell
        for entry in entries:
            fixed = {key: value for key, value in entry.items() if key in axes}
            matching = [values for values in combinations if _has(values, fixed)]
            for values in matching:
                values.update(entry)
            if not matching:
                cells.append(dict(entry))

    def _axis(self, key: str, value: Node, node: MappingNode) -> list[Scalar]:
        line = node.key_lines[key]
        if not _NAME.fullmatch(key):
            self._wrong(f"{key!r} is no name; write letters, digits, '-' and '_'", "matrix", line)
        if not isinstance(value, Sequence) or not value.items:
            self._wrong("must be a list of values: [float16, int8]", f"matrix.{key}", line)
            return []
        values: dict[str, Scalar] = {}
        for item in value.items:
            if not isinstance(item, Scalar):
                self._wrong("must be a list of single values", f"matrix.{key}", item.line)
            elif item.text in values:
                self._wrong(f"{item.text!r} is listed twice", f"matrix.{key}", item.line)
            else:
                values[item.text] = item
        return list(values.values())

    def _entries(self, key: str, node: MappingNode) -> list[dict[str, Scalar]]:
        value = node.items.get(key)
        if value is None:
            return []
        items = value.items if isinstance(value, Sequence) else ()
        if not isinstance(value, Sequence) or not all(isinstance(item, MappingNode) for item in items):
            message = "must be a list of mappings: [{dtype: fp8, gpu: H100}]"
            self._wrong(message, f"matrix.{key}", node.key_lines[key])
            return []
        entries = []
        for item in items:
            if not isinstance(item, MappingNode):
                continue
            entry = {}
            for name, inner in item.items.items():
                if not _NAME.fullmatch(name) or not isinstance(inner, Scalar):
                    self._wrong(f"{name!r} must be a name with a single value", f"matrix.{key}", inner.line)
                else:
                    entry[name] = inner
            entries.append(entry)
        return entries


def _has(values: Values, entry: Values) -> bool:
    return all(key in values and values[key].text == value.text for key, value in entry.items())


def json_schema() -> dict[str, object]:
    """JSON Schema (draft 2020-12) of a matrix file, for editors."""
    scalar = {"type": ["string", "number", "boolean"]}
    values = {"type": "array", "minItems": 1, "items": scalar}
    entries = {"type": "array", "items": {"type": "object", "additionalProperties": scalar}}
    text = {"type": ["string", "number"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Matrix of builds",
        "type": "object",
        "required": ["config", "matrix", "destination"],
        "additionalProperties": False,
        "properties": {
            "config": {
                "type": ["string", "object"],
                "description": "A build config: a file beside this one, or the config itself. Any of its "
                "values may say ${matrix.NAME}.",
            },
            "matrix": {
                "type": "object",
                "description": "What varies: names with lists of values. Every combination is a cell.",
                "properties": {
                    "include": {**entries, "description": "Cells to add, or values to add to cells."},
                    "exclude": {**entries, "description": "Combinations to leave out."},
                },
                "additionalProperties": values,
            },
            "resources": {
                "type": "object",
                "description": "What the node of a cell must have.",
                "additionalProperties": False,
                "properties": {
                    "gpus": {**text, "description": "How many GPUs the build uses; 0 by default."},
                    "gpu_type": {**text, "description": "Ray's name of the GPU: A100, H100, L40S."},
                    "memory": {**text, "description": "Host memory: 64GB."},
                    "cpus": {**text, "description": "CPU cores; 1 by default."},
                    "trt_llm": {**text, "description": "The TensorRT-LLM release, where nodes say theirs."},
                },
            },
            "destination": {
                "type": "string",
                "description": "Where a cell's archive goes: s3://, gs://, az:// or file:///. Each cell "
                "needs its own; what is before the first ${matrix.NAME} holds the fleet's records too.",
            },
            "max_parallel": {
                "type": ["integer", "string"],
                "minimum": 1,
                "description": "How many cells run at once; as many as there is room for when left out.",
            },
            "attempts": {
                "type": ["integer", "string"],
                "minimum": 1,
                "maximum": _MOST_ATTEMPTS,
                "description": f"How often a cell is tried when its machine fails; {ATTEMPTS} by default.",
            },
        },
    }
