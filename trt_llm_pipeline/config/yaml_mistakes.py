"""What is wrong with a text that is no YAML, where a person would look for it.

PyYAML names the place where it cannot go on, which is often a line or two below the mistake.
"""

from __future__ import annotations

import re

import yaml

from trt_llm_pipeline.errors import Mistake

_UNREADABLE = re.compile(r"found (?:character .*that cannot start any token|a tab character)")
#: What has been begun and cannot be ended, by what the parser calls it.
_OPENED = {
    "while scanning a quoted scalar": "a quote is opened here and not closed",
    "while parsing a flow sequence": "a list is opened with [ here; by line {line} it lacks a comma or ]",
    "while parsing a flow mapping": "a mapping is opened with {{ here; by line {line} it lacks a comma or }}",
}
#: Problems that the parser finds a line below the mistake.
_BELOW = (
    "mapping values are not allowed",
    "did not find expected <document start>",
    "did not find expected key",
)
_NO_COLON = "is not valid YAML: there is no colon with a space behind it; write key: value"
_LONE = re.compile(r"\s*[A-Za-z_](?!.*:(?:\s|$)).*$")
_PAIR = re.compile(r"\s*(?:- )?[^\s#:][^:]*:\s+[^\s#]")


def syntax_mistake(text: str, error: yaml.YAMLError) -> Mistake:
    """A parser's error in words, with the line that has to be changed."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    line = None if mark is None else mark.line + 1
    begun = getattr(error, "context_mark", None)
    context = getattr(error, "context", None) or ""
    if begun is not None and (opened := _OPENED.get(context)) and not problem.startswith("found character"):
        return Mistake(f"is not valid YAML: {opened.format(line=line)}", begun.line + 1)
    if mark is not None and line is not None and _UNREADABLE.match(problem):
        rest = "".join(text.splitlines()[line - 1 : line])[mark.column :]
        message = f"a value cannot begin with {rest[:1]}; put it in quotes"
        if rest[:1] in ("", "\t") or "a tab" in problem:
            message = "there is a tab; indent with spaces"
        return Mistake(f"is not valid YAML: {message}", line)
    if context == "while scanning a block scalar" and begun is not None:
        rest = "".join(text.splitlines()[begun.line : begun.line + 1])[begun.column :].strip()
        return Mistake(
            f"is not valid YAML: a value that begins with {rest[:1]} must be in quotes", begun.line + 1
        )
    if problem == "could not find expected ':'" and begun is not None:
        return Mistake(_NO_COLON, begun.line + 1)
    above = _above(text.splitlines(), line) if line is not None and problem.startswith(_BELOW) else None
    if above is None and line is not None and mark is not None:
        begun_before = "".join(text.splitlines()[line - 1 : line])[: mark.column]
        if problem.startswith("mapping values are not allowed") and _PAIR.match(begun_before):
            return Mistake('is not valid YAML: a value with ": " in it must be in quotes', line)
    indented = problem == "did not find expected key"
    advice = "; compare its indentation with that of the lines above" if indented else ""
    return above or Mistake(f"is not valid YAML: {problem}{advice}", line)


def _above(lines: list[str], line: int) -> Mistake | None:
    """What is wrong with the line above `line`, comments left out; None where nothing can be seen there."""
    for number in range(line - 1, 0, -1):
        written = lines[number - 1]
        if not written.strip() or written.lstrip().startswith("#"):
            continue
        more = _indentation(lines[line - 1]) - _indentation(written)
        if more > 0 and _PAIR.match(written):
            message = "this line has a value of its own, so those below it must not be indented more than it"
            return Mistake(f"is not valid YAML: {message}; correct the indentation", number)
        return Mistake(_NO_COLON, number) if more == 0 and _LONE.match(written) else None
    return None


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
