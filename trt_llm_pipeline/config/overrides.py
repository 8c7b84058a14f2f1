"""Values that the command line gives in place of those in a config's text: `build.args.max_batch_size=16`."""

from __future__ import annotations

from collections.abc import Iterable

from trt_llm_pipeline.config.model import STEP_ALIASES
from trt_llm_pipeline.config.yaml_reader import MappingNode, Node, Scalar, Sequence, parse
from trt_llm_pipeline.errors import GIVEN, ConfigError, Mistake

_OPTION = "--set"


def override(root: MappingNode, assignments: Iterable[str]) -> tuple[MappingNode, list[Mistake]]:
    """Puts values into a config.

    Args:
        root: the config. It stays as it is.
        assignments: `KEY=VALUE` each. The key is a dotted path; below `args` all the rest is one option's
            name. The value is read as YAML: one scalar or a list of them; nothing makes a bare flag.

    Returns:
        The config with them, and what is wrong with the assignments.
    """
    found: list[Mistake] = []
    for text in assignments:
        key, equals, value = text.partition("=")
        path = _path(key.strip())
        if not equals or not all(path):
            message = f"{text!r} is not KEY=VALUE; write it like build.args.max_batch_size=16"
            found.append(Mistake(message, GIVEN))
            continue
        try:
            root = _with(root, path, _value(value))
        except ConfigError as error:
            found.extend(Mistake(each.message, GIVEN, key.strip()) for each in error.mistakes)
    return root, found


def _path(key: str) -> list[str]:
    parts = key.split(".", 1)
    if len(parts) == 2:
        parts[1:] = parts[1].split(".", 1) if parts[1].startswith("args.") else parts[1].split(".")
    return parts


def _value(text: str) -> Node:
    value = parse(f"value: {text}\n", _OPTION).items
    if list(value) != ["value"]:
        raise ConfigError([Mistake(f"{text!r} is more than one value")], _OPTION)
    return _moved(value["value"])


def _moved(node: Node) -> Node:
    """The same value, said to be from the command line."""
    if isinstance(node, Scalar):
        return Scalar(node.text, node.plain, GIVEN)
    if isinstance(node, Sequence):
        return Sequence(tuple(map(_moved, node.items)), GIVEN)
    items = {key: _moved(value) for key, value in node.items.items()}
    return MappingNode(items, dict.fromkeys(items, GIVEN), GIVEN)


def _with(node: Node, path: list[str], value: Node) -> MappingNode:
    first, *rest = path
    if isinstance(node, Scalar) and not node.text:
        node = MappingNode({}, {}, GIVEN)
    if not isinstance(node, MappingNode):
        raise ConfigError([Mistake("leads below a value that is no mapping")], _OPTION)
    key = _written(node, first)
    if rest:
        value = _with(node.items.get(key, MappingNode({}, {}, GIVEN)), rest, value)
    line = node.key_lines.get(key, GIVEN) if rest else GIVEN
    return MappingNode({**node.items, key: value}, {**node.key_lines, key: line}, node.line)


def _written(node: MappingNode, key: str) -> str:
    """The key as the config writes it: a step may have another name."""
    if key in node.items:
        return key
    same = {STEP_ALIASES.get(key, key), *(name for name, step in STEP_ALIASES.items() if step == key)}
    return next((name for name in node.items if name in same), key)
