"""What `yaml_reader` has read, as YAML text again: scalars stay plain or quoted as they were."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from trt_llm_pipeline.config.yaml_reader import MappingNode, Node, Scalar

_WIDTH = 1_000_000  # no scalar is folded over lines


def as_text(node: Node) -> str:
    """The YAML text of one document. Comments, anchors and merges of the original are not in it."""
    events: list[yaml.Event] = [yaml.StreamStartEvent(), yaml.DocumentStartEvent(explicit=False)]
    events += [*_events(node), yaml.DocumentEndEvent(explicit=False), yaml.StreamEndEvent()]
    text: str = yaml.emit(events, width=_WIDTH, allow_unicode=True)
    return text


def _events(node: Node) -> Iterator[yaml.Event]:
    if isinstance(node, Scalar):
        style = None if node.plain else '"'
        yield yaml.ScalarEvent(None, None, (True, True), node.text, style=style)
    elif isinstance(node, MappingNode):
        yield yaml.MappingStartEvent(None, None, True, flow_style=False)
        for key, value in node.items.items():
            yield yaml.ScalarEvent(None, None, (True, True), key)
            yield from _events(value)
        yield yaml.MappingEndEvent()
    else:
        yield yaml.SequenceStartEvent(None, None, True, flow_style=False)
        for item in node.items:
            yield from _events(item)
        yield yaml.SequenceEndEvent()
