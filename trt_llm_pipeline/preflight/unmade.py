"""What one step makes and what the next one reads, as their arguments have it: where the two miss each other.

All of it is notes and no mistakes, because a script may write to a place that no argument names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from trt_llm_pipeline.config.references import UnresolvedReferenceError
from trt_llm_pipeline.plan import Plan, PlannedStep
from trt_llm_pipeline.preflight.argument_places import OUTPUT, texts_of

_INPUT = re.compile(r"(?:dir|path|file|folder)$", re.IGNORECASE)
_RESULTS = re.compile(r"^-*(?:out|output|save|export)[-_]?(?:dir|path)$", re.IGNORECASE)
_ANY = re.compile("")
# A cache is made where it is missing.
_MADE = re.compile(r"cache", re.IGNORECASE)


def unmade(plan: Plan, step: PlannedStep) -> list[str]:
    """Notes about paths in the workspace that a step is to read, each with its line and key.

    Nothing is there, and no step before names the place; or the results of a step before are further down.

    Args:
        plan: of the config.
        step: one of its steps.
    """
    before = plan.steps[: plan.steps.index(step)]
    if any(_writes_anywhere(each) for each in before):
        return []
    known = [plan.model_dir, *plan.dataset_dirs.values()]
    known += [step.output_dir] if step.output_dir is not None else []
    for each in before:
        known += _made(plan, each)
    found = []
    for key in step.config.args:
        if not _INPUT.search(key) or OUTPUT.search(key) or _MADE.search(key):
            continue
        for text, path in _paths(plan, step, key):
            if not path.is_relative_to(plan.workspace.root) or any(map(path.is_relative_to, known)):
                continue
            below = next(
                (each for each in before if each.output_dir and path in each.output_dir.parents), None
            )
            if below is not None:
                declared = below.config.output_dir
                said = f"the results of step {below.shown} are not in {text!r} but in {declared!r}, below it"
            elif os.path.lexists(path) or any(path in place.parents for place in known):
                continue
            else:
                said = f"nothing is at {text!r}, and no step before names that place; it may be mistyped"
            note = plan.config.mistake(said, step.name, "args", key)
            found.append(note.render(plan.config.source.name))
    return found


def unread(plan: Plan) -> list[str]:
    """Notes about steps whose results no later step names, each with its line and key.

    Args:
        plan: of the config.
    """
    found = []
    for number, step in enumerate(plan.steps[:-1]):
        if _writes_anywhere(step):
            continue
        later = plan.steps[number + 1 :]
        named = {path for each in later for key in each.config.args for _, path in _paths(plan, each, key)}
        places = _made(plan, step, OUTPUT)
        if any(path.is_relative_to(place) or path in place.parents for path in named for place in places):
            continue
        said = (
            f"no step after this one names what it makes; write ${{{step.shown}.output_dir}} where it is read"
        )
        where = ("output_dir",) if step.config.output_dir is not None else ()
        found.append(plan.config.mistake(said, step.name, *where).render(plan.config.source.name))
    return found


def astray(plan: Plan, step: PlannedStep) -> list[str]:
    """A note where a step's declared output directory is not where its own option sends the results.

    Args:
        plan: of the config.
        step: one of its steps.
    """
    declared = step.output_dir
    named = [
        (key, text, path)
        for key in step.config.args
        if _RESULTS.search(key)
        for text, path in _paths(plan, step, key)
    ]
    if declared is None or not named:
        return []
    if any(path.is_relative_to(declared) or declared.is_relative_to(path) for _, _, path in named):
        return []
    key, text, _ = named[0]
    said = f"{key} is {text!r}, which does not lead there; the step fails where its files are elsewhere"
    return [plan.config.mistake(said, step.name, "output_dir").render(plan.config.source.name)]


def _made(plan: Plan, step: PlannedStep, options: re.Pattern[str] = _ANY) -> list[Path]:
    """Where a step may leave something: its output directory, and what those of its options name.

    An argument above the output directory is where the script puts that, and makes nothing else.
    """
    output = plan.expected_dirs()[step.name]
    paths = [path for key in step.config.args if options.search(key) for _, path in _paths(plan, step, key)]
    return [output, *(path for path in paths if path not in output.parents)]


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
