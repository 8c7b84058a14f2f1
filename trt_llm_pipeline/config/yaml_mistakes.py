"""What is wrong with a text that is no YAML, where a person would look for it.

PyYAML names the place where it cannot go on, which is often a line or two below the mistake.
"""

from __future__ import annotations

import re

import yaml

from trt_llm_pipeline.errors import Mistake

_PAIR = re.compile(r"\s*(?:- )?[^\s#:][^:]*:\s+[^\s#]")


def syntax_mistake(text: str, error: yaml.YAMLError) -> Mistake:
    """A parser's error in words, with the line that has to be changed."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    line = None if mark is None else mark.line + 1
    begun = getattr(error, "context_mark", None)
    if problem == "could not find expected ':'" and begun is not None:
        return Mistake("is not valid YAML: there is no colon; write key: value", begun.line + 1)
    if problem.startswith("mapping values are not allowed") and line is not None:
        lines = text.splitlines()
        above = _above(lines, line)
        if above is not None:
            message = "has a value of its own, so the lines below it must not be indented more than it is"
            return Mistake(f"is not valid YAML: {message}; correct the indentation", above)
    return Mistake(f"is not valid YAML: {problem}", line)


def _above(lines: list[str], line: int) -> int | None:
    """The line above, where it is a key with a value and less indented than `line`; both count from 1."""
    for number in range(line - 1, 0, -1):
        written = lines[number - 1]
        if not written.strip() or written.lstrip().startswith("#"):
            continue
        less = _indentation(written) < _indentation(lines[line - 1])
        return number if less and _PAIR.match(written) else None
    return None


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
