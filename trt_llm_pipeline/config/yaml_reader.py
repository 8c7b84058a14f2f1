"""YAML text into plain values that remember their lines, within stated limits.

The config comes from a stranger, so it is read event by event: nothing is constructed, an alias counts for
as much as it stands for, and every limit is checked while reading. Scalars stay the text that the author
wrote; what a scalar means is decided by the key it belongs to (`config.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from trt_llm_pipeline.config.yaml_mistakes import syntax_mistake
from trt_llm_pipeline.errors import ConfigError, Mistake

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_NODES = 20_000

Key: TypeAlias = "str | int"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS = {None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


@dataclass(frozen=True)
class Scalar:
    """A scalar as written. `plain` is false where it was quoted or a block."""

    text: str
    plain: bool
    line: int


@dataclass(frozen=True)
class Sequence:
    """A YAML list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True)
class MappingNode:
    """A YAML mapping; `key_lines` has the line of each key."""

    items: Mapping[str, Node]
    key_lines: Mapping[str, int]
    line: int


Node: TypeAlias = "Scalar | Sequence | MappingNode"


@dataclass(frozen=True)
class SourceMap:
    """Where in the config's text a key is.

    Attributes:
        name: what to call the text.
        lines: the line of each key, by its path.
        names: what the text calls a step, where it uses another name for it.
    """

    name: str = "config"
    lines: Mapping[tuple[Key, ...], int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def dotted(self, *path: Key) -> str:
        """A path as the author wrote it: a step may have another name there."""
        first, *rest = path or ("",)
        return ".".join(map(str, [self.names.get(str(first), first), *rest]))

    def line(self, *path: Key) -> int | None:
        """The 1-based line of the key at `path`, or of the closest one above it that the text has."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


class _RefusedError(Exception):
    def __init__(self, message: str, line: int | None) -> None:
        self.mistake = Mistake(message, line)
        super().__init__(message)


def read_text(path: Path, name: str | None = None) -> str:
    """The config file's text.

    Args:
        path: the file.
        name: what to call it where its content is no text, if not by its own name.

    Raises:
        ConfigError: the file cannot be read, is larger than `MAX_BYTES`, or is no UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ConfigError([Mistake("is a directory; name a config file in it")], str(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not a valid file name"
        raise ConfigError([Mistake(f"cannot be read: {reason}")], str(path)) from None
    return decode(data, name or path.name)


def decode(data: bytes, name: str) -> str:
    """A config's bytes as text.

    Raises:
        ConfigError: more than `MAX_BYTES`, or no UTF-8 text.
    """
    if len(data) > MAX_BYTES:
        message = f"is larger than {MAX_BYTES // 1024} KiB; a build config is a page of YAML"
        raise ConfigError([Mistake(message)], name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
        raise ConfigError([Mistake(message)], name) from None


def parse(
    text: str,
    name: str,
    found: list[Mistake] | None = None,
    *,
    kind: str = "a build config",
    needs: str = "model_id, example_name and build",
) -> MappingNode:
    """The mapping that `text` holds.

    Args:
        text: the YAML text.
        name: what to call it in messages.
        found: takes the duplicate keys, of which the first one counts; None to refuse them at once.
        kind, needs: what it should be, and which keys that has at least, for messages.

    Raises:
        ConfigError: no YAML, no single mapping, a duplicate key, a tag, or beyond the limits.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError([Mistake(f"is larger than {MAX_BYTES // 1024} KiB")], name)
    reader = _Reader(text)
    try:
        node = reader.document()
    except _RefusedError as refused:
        raise ConfigError([*reader.duplicates, refused.mistake], name) from None
    except UnicodeEncodeError:
        raise ConfigError(
            [Mistake("contains an unpaired surrogate, which is not a valid character")], name
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError([syntax_mistake(text, error)], name) from None
    if node is None:
        raise ConfigError([Mistake(f"is empty; it needs at least {needs}")], name)
    if not isinstance(node, MappingNode):
        shape = "a list" if isinstance(node, Sequence) else "a single value"
        message = f"is {shape}; {kind} is a mapping with {needs}"
        raise ConfigError([Mistake(message, node.line)], name)
    if found is not None:
        found.extend(reader.duplicates)
    elif reader.duplicates:
        raise ConfigError(reader.duplicates, name)
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_Loader)
        self._anchors: dict[str, Node] = {}
        self._sizes: dict[str, int] = {}
        self._heights: dict[str, int] = {}
        self._nodes = 0
        self._deepest = 0
        self.duplicates: list[Mistake] = []

    def document(self) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _RefusedError("a second document begins here; keep one config a file", _line(event))
                root = self._node(next(self._events), 0)
        if isinstance(root, Scalar) and root.plain and not root.text:
            return None
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = _line(event)
        self._reach(depth, line)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _RefusedError(f"the alias *{event.anchor} has no complete anchor before it", line)
            self._count(self._sizes[event.anchor], line)
            # Aliases of aliases would otherwise nest deeper than the text does.
            self._reach(depth + self._heights[event.anchor], line)
            return self._anchors[event.anchor]
        if not isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            raise _RefusedError("is not valid YAML here", line)
        tag: str | None = event.tag
        if tag not in _PLAIN_TAGS:
            shown = str(tag).replace("tag:yaml.org,2002:", "!!")
            raise _RefusedError(f"the tag {shown} is not allowed; write plain values", line)
        before, outer_deepest, self._deepest = self._nodes, self._deepest, depth
        self._count(1, line)
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            plain = not event.style and tag is None
            node = Scalar(_text(event.value, line), plain, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(line, depth)
        else:
            node = self._mapping(line, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
            self._sizes[event.anchor] = self._nodes - before
            self._heights[event.anchor] = self._deepest - depth
        self._deepest = max(outer_deepest, self._deepest)
        return node

    def _reach(self, depth: int, line: int) -> None:
        self._deepest = max(self._deepest, depth)
        if depth > MAX_DEPTH:
            raise _RefusedError(f"is nested more than {MAX_DEPTH} levels deep", line)

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _RefusedError(f"stands for more than {MAX_NODES:,} values", line)

    def _sequence(self, line: int, depth: int) -> Sequence:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Sequence(tuple(items), line)

    def _mapping(self, line: int, depth: int) -> MappingNode:
        items: dict[str, Node] = {}
        key_lines: dict[str, int] = {}
        merged: list[MappingNode] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise _RefusedError("a key must be a single word, not a list or a mapping", key.line)
            value = self._node(next(self._events), depth + 1)
            if key.plain and key.text == "<<":
                merged.extend(_merged(value))
            elif key.text in items:
                message = (
                    f"the key {key.text!r} is already on line {key_lines[key.text]}; keep one of the two"
                )
                self.duplicates.append(Mistake(message, key.line))
            else:
                items[key.text], key_lines[key.text] = value, key.line
        for other in merged:
            for name, value in other.items.items():
                if name not in items:
                    items[name], key_lines[name] = value, other.key_lines[name]
        return MappingNode(items, key_lines, line)


def _merged(value: Node) -> list[MappingNode]:
    parts = value.items if isinstance(value, Sequence) else (value,)
    for part in parts:
        if not isinstance(part, MappingNode):
            raise _RefusedError("'<<' merges mappings only", part.line)
    return [part for part in parts if isinstance(part, MappingNode)]


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def _text(value: str, line: int) -> str:
    if "\0" in value:
        raise _RefusedError("a value holds a NUL character, which no program can be given", line)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _RefusedError(
            "a value contains an unpaired surrogate, which is not a valid character", line
        ) from None
    return value
