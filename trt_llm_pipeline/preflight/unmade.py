"""Paths that a step is to read and that nothing makes: a mistyped one shows before the download."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from trt_llm_pipeline.config.references import UnresolvedReferenceError
from trt_llm_pipeline.plan import Plan, PlannedStep
from trt_llm_pipeline.preflight.argument_places import OUTPUT, texts_of

_INPUT = re.compile(r"(?:dir|path|file|folder)$", re.IGNORECASE)
# A cache is made where it is missing.
_MADE = re.compile(r"cache", re.IGNORECASE)


def unmade(plan: Plan, step: PlannedStep) -> list[str]:
    """Notes, with line and key: nothing is at a path in the workspace, and no step before names the place.

    It is no mistake, because a script may write to a place that no argument names.

    Args:
        plan: of the config.
        step: one of its steps.
    """
    before = plan.steps[: plan.steps.index(step)]
    if any(_writes_anywhere(each) for each in before):
        return []
    given = [plan.model_dir, *plan.dataset_dirs.values()]
    for each in before:
        given += [path for key in each.config.args for _, path in _paths(plan, each, key)]
        given.append(plan.expected_dirs()[each.name])
    given += [step.output_dir] if step.output_dir is not None else []
    found = []
    for key in step.config.args:
        if not _INPUT.search(key) or OUTPUT.search(key) or _MADE.search(key):
            continue
        for text, path in _paths(plan, step, key):
            inside = path.is_relative_to(plan.workspace.root)
            known = any(path.is_relative_to(place) or place.is_relative_to(path) for place in given)
            if inside and not known and not os.path.lexists(path):
                said = f"nothing is at {text!r}, and no step before names that place; it may be mistyped"
                note = plan.config.mistake(said, step.name, "args", key)
                found.append(note.render(plan.config.source.name))
    return found


def _writes_anywhere(step: PlannedStep) -> bool:
    return step.output_dir is None and not any(OUTPUT.search(key) for key in step.config.args)


def _paths(plan: Plan, step: PlannedStep, key: str) -> Iterator[tuple[str, Path]]:
    """An argument's values, and where they lead if they are read as paths."""
    resolve = plan.resolver(plan.expected_dirs())
    for written in texts_of(step.config.args[key]):
        try:
            text = resolve(written)
        except UnresolvedReferenceError:
            continue
        yield text, Path(os.path.normpath(plan.workspace.root / text))
