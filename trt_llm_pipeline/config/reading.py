"""YAML text in, a `BuildConfig` out, and every mistake named with its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trt_llm_pipeline.config.model import (
    STEP_ALIASES,
    STEP_NAMES,
    ArgValue,
    BuildConfig,
    CheckConfig,
    DatasetConfig,
    StepConfig,
)
from trt_llm_pipeline.config.overrides import override
from trt_llm_pipeline.config.yaml_reader import (
    Key,
    MappingNode,
    Node,
    Scalar,
    Sequence,
    SourceMap,
    parse,
    read_text,
)
from trt_llm_pipeline.errors import ConfigError, Mistake

_OPTION = re.compile(r"-{0,2}[A-Za-z0-9][A-Za-z0-9_.-]*")

# Where something that must be there is missing or wrong, these let the rest be checked.
_STAND_INS: Mapping[str, Any] = {
    "model_id": "model",
    "example_name": "example",
    "build": {"executable": "trtllm-build"},
}


@dataclass(frozen=True)
class Loaded:
    """What could be made of a config's text.

    `config` leaves out what is wrong, or has a stand-in where something must be, so that the rest can be
    checked too; `config.wrong` says what. None where too little is left.
    """

    config: BuildConfig | None
    mistakes: tuple[Mistake, ...]

    def without_lines(self) -> Loaded:
        """The same, of a text that was made and that nobody has before them: its lines say nothing."""
        config = self.config
        if config is not None:
            config = config.model_copy()
            config._source = replace(config.source, lines={})
        return Loaded(config, tuple(replace(mistake, line=None) for mistake in self.mistakes))


def load(path: Path, name: str | None = None) -> BuildConfig:
    """Reads a config file.

    Args:
        path: the file.
        name: what to call it in messages, where the path is a temporary one.

    Raises:
        ConfigError: with every mistake that was found.
    """
    return loads(read_text(path), name or path.name)


def loads(text: str, name: str = "config") -> BuildConfig:
    """Reads a config's text. Raises `ConfigError` with every mistake that was found."""
    loaded = examine(text, name)
    if loaded.config is None or loaded.mistakes:
        raise ConfigError(loaded.mistakes, name)
    return loaded.config


def examine(text: str, name: str = "config", overrides: Iterable[str] = ()) -> Loaded:
    """Reads as much of a config's text as can be read, and names every mistake in the order of the file.

    Args:
        text: the YAML text.
        name: what to call it in messages.
        overrides: values given in place of the text's; see `overrides.override`.

    Raises:
        ConfigError: the text is no YAML mapping, or a fleet's.
    """
    found: list[Mistake] = []
    parsed = parse(text, name, found)
    if "matrix" in parsed.items and "config" in parsed.items:
        raise ConfigError([Mistake("is a fleet's matrix file; use `fleet` for it", parsed.line)], name)
    root, wrong = override(parsed, overrides)
    return examine_node(root, name, [*wrong, *found])


def examine_node(root: MappingNode, name: str, duplicates: Iterable[Mistake] = ()) -> Loaded:
    """As `examine`, of a mapping that has been read already; `duplicates` are mistakes found in that."""
    found = list(duplicates)
    lines: dict[tuple[Key, ...], int] = {}
    root = _indented(root, found)
    data = _plain(root, (), lines, found)
    names = {STEP_ALIASES[key]: key for key in root.items if key in STEP_ALIASES}
    source = SourceMap(name, lines, {step: key for step, key in names.items() if step not in root.items})
    config, errors = _validated(data)
    found.extend(_mistake(error, source) for error in errors)
    if config is not None:
        config._source = source
        config._wrong = frozenset(mistake.key for mistake in found if mistake.key)
    named = [replace(each, key=source.dotted(*each.key.split("."))) if each.key else each for each in found]
    return Loaded(config, tuple(sorted(named, key=lambda mistake: mistake.line or 0)))


def _indented(root: MappingNode, found: list[Mistake]) -> MappingNode:
    """The config with a step's keys that stand beside the steps put where they belong; each is a mistake.

    Without that, what is missing in the step would be one mistake more, and hide this one.
    """
    steps = [key for key in root.items if STEP_ALIASES.get(key, key) in STEP_NAMES]
    items, own = dict(root.items), set(StepConfig.model_fields) - set(BuildConfig.model_fields)
    for key, line in sorted(root.key_lines.items(), key=lambda each: each[1]):
        above = [step for step in steps if root.key_lines[step] < line]
        if key not in own or not above:
            continue
        name = max(above, key=lambda step: root.key_lines[step])
        step = items[name]
        if _is_null(step):
            step = MappingNode({}, {}, step.line)
        if not isinstance(step, MappingNode) or key in step.items:
            continue
        found.append(Mistake(f"belongs to a step: indent it below {name}", line, key))
        value = items.pop(key)
        items[name] = MappingNode({**step.items, key: value}, {**step.key_lines, key: line}, step.line)
    return MappingNode(items, root.key_lines, root.line)


def _validated(data: dict[str, Any]) -> tuple[BuildConfig | None, list[ErrorDetails]]:
    """The config that remains when what is wrong is left out, if any does, and everything that is wrong.

    Leaving something out may make what holds it wrong too. Each round leaves out or replaces at least one
    thing, so the rounds end.
    """
    errors: list[ErrorDetails] = []
    repaired: list[tuple[Key, ...]] = []
    stand_ins = dict(_STAND_INS)
    while True:
        try:
            return BuildConfig.model_validate(data), errors
        except ValidationError as error:
            wrong = error.errors(include_url=False)
        known = {(details["loc"], details["type"]) for details in errors}
        wrong = [details for details in wrong if (details["loc"], details["type"]) not in known]
        paths = [details["loc"] for details in wrong]
        # Where something was repaired in an earlier round, what holds it is wrong only for that reason.
        errors.extend(
            details
            for details, path in zip(wrong, paths, strict=True)
            if not any(earlier[: len(path)] == path for earlier in repaired)
        )
        fresh = [path for path in paths if _drop(data, path) or _fill(data, path, stand_ins)]
        if not fresh:
            return None, errors
        repaired.extend(fresh)


def _fill(data: dict[str, Any], path: tuple[Key, ...], stand_ins: dict[str, Any]) -> bool:
    """Puts a stand-in where a required key of the config is missing; False where there is none to put."""
    if len(path) != 1 or path[0] in data or path[0] not in stand_ins:
        return False
    key = str(path[0])
    data[key] = stand_ins.pop(key)
    return True


def _drop(data: dict[str, Any], path: tuple[Key, ...]) -> bool:
    *parents, last = path
    inner: Any = data
    for key in parents:
        inner = inner.get(key) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or last not in inner:
        return False
    del inner[last]
    return True


def _plain(node: Node, path: tuple[Key, ...], lines: dict[tuple[Key, ...], int], found: list[Mistake]) -> Any:
    """Plain values for pydantic: text, None, lists and dicts; under `args` what the flag stands for."""
    if path and path not in lines:
        lines[path] = node.line
    if len(path) == 2 and path[1] == "args" and path[0] in STEP_NAMES and not _is_null(node):
        return _args(node, path, lines, found)
    if isinstance(node, MappingNode):
        result = {}
        for written, value in node.items.items():
            key = STEP_ALIASES.get(written, written) if not path else written
            if key in result:
                other = next(each for each in node.items if STEP_ALIASES.get(each, each) == key)
                message = f"is another name for {other}, which is already there; keep one of the two"
                found.append(Mistake(message, node.key_lines[written], written))
                continue
            child = (*path, key)
            lines[child] = node.key_lines[written]
            result[key] = _plain(value, child, lines, found)
        return result
    if isinstance(node, Sequence):
        return [_plain(item, (*path, at), lines, found) for at, item in enumerate(node.items)]
    return None if _is_null(node) else node.text


def _args(
    node: Node, path: tuple[Key, ...], lines: dict[tuple[Key, ...], int], found: list[Mistake]
) -> dict[str, ArgValue]:
    if not isinstance(node, MappingNode):
        found.append(Mistake("must be a mapping of options to values", node.line, ".".join(map(str, path))))
        return {}
    result: dict[str, ArgValue] = {}
    for key, value in node.items.items():
        line = node.key_lines[key]
        child = (*path, key)
        lines[child] = line
        dotted = ".".join(map(str, child))
        if not _OPTION.fullmatch(key):
            message = f"{key!r} is not a valid option name; write letters, digits, '-' and '_'"
            found.append(Mistake(message, line, ".".join(map(str, path))))
        elif isinstance(value, Scalar):
            result[key] = _arg_value(value)
        elif isinstance(value, Sequence) and all(isinstance(item, Scalar) for item in value.items):
            texts = [item.text for item in value.items if isinstance(item, Scalar)]
            if len(texts) > 1 and any(_looks_like_option(text) for text in texts):
                message = "a list item that begins with '-' would be read as another option"
                found.append(Mistake(message, line, dotted))
            result[key] = texts
        else:
            found.append(Mistake("must be a single value or a list of single values", line, dotted))
    return result


def _arg_value(value: Scalar) -> bool | str:
    if _is_null(value):
        return True
    if value.plain and value.text in ("true", "True", "TRUE"):
        return True
    if value.plain and value.text in ("false", "False", "FALSE"):
        return False
    return value.text


def _looks_like_option(text: str) -> bool:
    return text.startswith("-") and not re.fullmatch(r"-\d+|-\d*\.\d+", text)


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.text in ("", "~", "null", "Null", "NULL")


def _mistake(details: Any, source: SourceMap) -> Mistake:
    """One of pydantic's findings in this project's words."""
    path: tuple[Key, ...] = tuple(details["loc"])
    kind: str = details["type"]
    key = ".".join(map(str, path))
    parent = path[:-1]
    if kind == "missing":
        return Mistake(f"is missing; {_hint(str(path[-1]))}", source.line(*parent), key)
    if kind == "extra_forbidden":
        holder = _holder(parent)
        known = list(holder.model_fields)
        close = difflib.get_close_matches(str(path[-1]), [*known, *([] if parent else STEP_ALIASES)], 1, 0.5)
        advice = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
        if holder is StepConfig and not close:
            advice += "; options of the script go under args"
        return Mistake(f"is not a known key; {advice}", source.line(*path), key)
    if kind == "value_error":
        message = str(details["ctx"]["error"])
    elif kind in ("model_type", "model_attributes_type") or path == ("datasets",):
        keys = "id and revision" if "datasets" in path[:1] else "script, output_dir and args"
        message = f"must be a mapping with {keys}"
        if path == ("datasets",):
            message = "must be a mapping of names to datasets, such as cnn: {id: abisee/cnn_dailymail}"
    elif kind == "literal_error":
        message = f"{details['input']!r} is not allowed; choose one of {details['ctx']['expected']}"
    elif details["input"] in (None, ""):
        message = f"is empty; {_hint(str(path[-1]))}"
    elif kind == "string_type":
        message = "must be a single value, not a list or a mapping"
    elif kind.startswith("bool"):
        message = f"{details['input']!r} must be true or false"
    else:
        message = details["msg"]
    return Mistake(message, source.line(*path), key or None)


def _holder(parent: tuple[Key, ...]) -> type[BuildConfig | CheckConfig | DatasetConfig | StepConfig]:
    """What has the keys at a place."""
    if not parent:
        return BuildConfig
    if parent[0] == "datasets":
        return DatasetConfig
    return CheckConfig if parent == ("check",) else StepConfig


def _hint(field: str) -> str:
    return {
        "id": "name the dataset as on the Hub: owner/name",
        "model_id": "name the model as on the Hub: owner/name",
        "example_name": "name the example whose scripts to run, such as gpt",
        "build": "add a build step with script and args",
    }.get(field, "give it a value or leave the key out")
