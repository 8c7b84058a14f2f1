"""The tree of errors is what its module's picture says, and a message says what, where and what next."""

from __future__ import annotations

import inspect
import re

import pytest

from trt_llm_pipeline import errors
from trt_llm_pipeline.errors import ConfigError, Mistake, StepFailed, StepTimeout


def test_the_picture_shows_the_tree() -> None:
    drawn = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"((?:[│ ]   )*(?:[├└]── )?)(\w+)  ", line):
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            drawn[match[2]] = path[-2] if depth else "Exception"
    real = {
        name: kind.__bases__[0].__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception)
    }
    assert drawn == real
    assert len(real) > 10


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (Mistake("is wrong"), "c.yaml: is wrong"),
        (Mistake("is wrong", 3), "c.yaml:3: is wrong"),
        (Mistake("is wrong", 3, "build.args.x"), "c.yaml:3: build.args.x: is wrong"),
        (Mistake("is wrong", key="build"), "c.yaml: build: is wrong"),
        (Mistake("x" * 3000), f"c.yaml: {'x' * 2000}..."),
    ],
)
def test_a_mistake_says_where(mistake: Mistake, text: str) -> None:
    assert mistake.render("c.yaml") == text


def test_several_mistakes_are_counted_and_listed() -> None:
    one, two = Mistake("is wrong", 1), Mistake("is odd", 2)
    assert str(ConfigError([one], "c.yaml")) == "c.yaml:1: is wrong"
    assert str(ConfigError([one, two], "c.yaml")) == (
        "2 mistakes in c.yaml:\nc.yaml:1: is wrong\nc.yaml:2: is odd"
    )


def test_a_failed_step_quotes_its_last_lines() -> None:
    error = StepFailed("build", "exited with code 3", exit_code=3, tail=["one", "two"])
    assert str(error) == "step build: exited with code 3\n  | one\n  | two"
    assert (error.step, error.exit_code, error.tail) == ("build", 3, ("one", "two"))
    assert issubclass(StepTimeout, StepFailed)
