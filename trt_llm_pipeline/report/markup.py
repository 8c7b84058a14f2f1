"""HTML elements from plain values: text is escaped by the serializer, whatever it holds."""

from __future__ import annotations

from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

Node: TypeAlias = "Element | str"

_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"


def el(tag: str, /, *children: Node | None, css: str = "", **attributes: str | float) -> Element:
    """An element. `css` is its class; `_` in an attribute's name stands for `-`; None is no child."""
    element = Element(tag, {"class": css} if css else {})
    for key, value in attributes.items():
        element.set(key.replace("_", "-"), clean(str(value)))
    for child in children:
        if isinstance(child, str):
            text = clean(child)
            if len(element):
                element[-1].tail = (element[-1].tail or "") + text
            else:
                element.text = (element.text or "") + text
        elif child is not None:
            element.append(child)
    return element


def document(root: Element) -> str:
    """The text of a page."""
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def clean(text: str) -> str:
    """Text without what HTML cannot hold: control characters, and halves of characters."""
    kept = "".join(each if each.isprintable() or each in "\n\t" else _NO_CHARACTER for each in text)
    return kept.encode("utf-8", "replace").decode()
