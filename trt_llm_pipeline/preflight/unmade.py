"""What one step makes and what the next one reads, as their arguments have it: where the two miss each other.

All of it is notes and no mistakes, because a script may write to a place that no argument names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from trt_llm_pipeline.config import texts_of
from trt_llm_pipeline.config.references import UnresolvedReferenceError
from trt_llm_pipeline.plan import Plan, PlannedStep
from trt_llm_pipeline.preflight.argument_places import OUTPUT
from trt_llm_pipeline.workspace import Ledger

_INPUT = re.compile(r"(?:dir|path|file|folder)$", re.IGNORECASE)
_RESULTS = re.compile(r"^-*(?:out|output|save|export)[-_]?(?:dir|path)$", re.IGNORECASE)
_ANY = re.compile("")
#: Builds that read what a conversion has written, and never a model as it is downloaded: `build.py` of gpt up
#: to 0.7.1 looks for a `config.ini` there.
_CONVERTED = {"gpt/build.py": "hf_gpt_convert.py"}
#: What conversions write, and what builds read by which option: FasterTransformer's format up to 0.7.1, or
#: the unified checkpoint of later releases.
_WRITES = (
    (re.compile(r"hf_\w+_convert\.py"), "an FT checkpoint"),
    (re.compile(r"convert_checkpoint\.py"), "a unified checkpoint"),
)
_READS = {
    ("gpt/build.py", "model_dir"): ("an FT checkpoint", "build with trtllm-build"),
    ("trtllm-build", "checkpoint_dir"): ("a unified checkpoint", "convert with convert_checkpoint.py"),
}
# A cache is made where it is missing.
_MADE = re.compile(r"cache", re.IGNORECASE)


def unmade(plan: Plan, step: PlannedStep, *, confined: bool = True) -> list[str]:
    """Notes about paths in the workspace that a step is to read, each with its line and key.

    Nothing is there, and no step before names the place; or the results of a step before are further down; or
    it is where this step or a later one puts its own.

    Args:
        plan: of the config.
        step: one of its steps.
        confined: whether a step is shown nothing that other builds have made.
    """
    found = []
    for key, text, path in _paths(plan, step, _INPUT):
        if not OUTPUT.search(key) and not _MADE.search(key):
            said = _missing(plan, step, key, text, path, confined=confined)
            found += [] if said is None else [_note(plan, said, step.name, "args", key)]
    return found


def _missing(plan: Plan, step: PlannedStep, key: str, text: str, path: Path, *, confined: bool) -> str | None:
    """Why a path that a step is to read will not have what the step needs; None where nothing says so."""
    before = plan.steps[: plan.steps.index(step)]
    converter = _CONVERTED.get(_program(step))
    if converter is not None and key == "model_dir":
        if path.is_relative_to(plan.model_dir):
            said = f"{step.called} reads what {converter} has written, and this is the downloaded model"
            return f"{said}; convert it in a step before"
        if any(each.called == converter and _is_named(plan, each, path) for each in before):
            place = f"{text.rstrip('/')}/1-gpu"
            return f"{converter} writes into a directory below {text!r}, by its ranks; write {place} for one"
    if (other := _other_format(plan, step, key, path)) is not None:
        return other
    if (too_early := _too_early(plan, step, path)) is not None:
        return f"{text!r} is where {too_early}"
    known = [plan.model_dir, *plan.dataset_dirs.values()]
    known += [step.output_dir] if step.output_dir is not None else []
    for each in before:
        known += _made(plan, each)
    if any(map(_writes_anywhere, before)) or not path.is_relative_to(plan.workspace.root):
        return None
    if any(path.is_relative_to(place) for place in known):
        return None
    for each in before:
        declared = each.config.output_dir
        if each.output_dir is not None and path in each.output_dir.parents:
            return f"the results of step {each.shown} are not in {text!r} but in {declared!r}, below it"
        if _writes_around(plan, each, path):
            said = (
                f"step {each.shown} has its results in {declared!r}, by its output_dir, and not in {text!r}"
            )
            return f"{said}; one of the two is mistyped"
    if any(path in place.parents for place in known):
        return None
    if confined and _of_earlier_builds(plan, path):
        said = f"what is at {text!r} is an earlier build's, and a step sees what its own build makes"
        return f"{said}; add the step that makes it, or keep a copy under another name"
    if os.path.lexists(path):
        return None
    return f"nothing is at {text!r}, and no step before names that place; it may be mistyped"


def _program(step: PlannedStep) -> str:
    """A script with its example's folder, or the executable."""
    return "/".join(Path(step.program[-1]).parts[-2:]) if step.config.script else step.called


def _other_format(plan: Plan, step: PlannedStep, key: str, path: Path) -> str | None:
    """Which step before has written another format than the one that is read at a path."""
    if (known := _READS.get((_program(step), key.lstrip("-")))) is None:
        return None
    reads, remedy = known
    places = plan.expected_dirs()
    for each in plan.steps[: plan.steps.index(step)]:
        writes = next((written for name, written in _WRITES if name.fullmatch(each.called)), reads)
        if writes != reads and path.is_relative_to(places[each.name]):
            said = f"{step.called} reads {reads}, and {each.called} of step {each.shown} writes {writes}"
            return f"{said}; {remedy}"
    return None


def _is_named(plan: Plan, step: PlannedStep, path: Path) -> bool:
    """Whether one of a step's output options names a path."""
    return any(place == path for _, _, place in _paths(plan, step, OUTPUT))


def _writes_around(plan: Plan, step: PlannedStep, path: Path) -> bool:
    """Whether a step declares other results than a path that lies in what one of its options names."""
    if step.output_dir is None or path.is_relative_to(step.output_dir) or path in step.output_dir.parents:
        return False
    return any(place in path.parents for _, _, place in _paths(plan, step, OUTPUT))


def _of_earlier_builds(plan: Plan, path: Path) -> bool:
    """Whether there is something, and builds have made all of it."""
    files = plan.workspace.files_in(path) if os.path.lexists(path) else {}
    return bool(files) and len(Ledger(plan.workspace).ours(files)) == len(files)


def _too_early(plan: Plan, step: PlannedStep, path: Path) -> str | None:
    """Whose results will be at a path that a step reads, if not those of a step before."""
    for each in plan.steps[plan.steps.index(step) :]:
        if each.output_dir is None or not path.is_relative_to(each.output_dir):
            continue
        if each is not step:
            return f"step {each.shown}, which runs after this one, puts its results"
        if any(_related(path, place) for _, _, place in _paths(plan, step, OUTPUT)):
            return "this step itself puts its results; name what it reads"
    return None


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
        named = {path for each in later for _, _, path in _paths(plan, each)}
        places = _made(plan, step, OUTPUT)
        if any(_related(path, place) for path in named for place in places):
            continue
        said = (
            f"no step after this one names what it makes; write ${{{step.shown}.output_dir}} where it is read"
        )
        where = ("output_dir",) if step.config.output_dir is not None else ()
        found.append(_note(plan, said, step.name, *where))
    return found


def astray(plan: Plan, step: PlannedStep) -> list[str]:
    """A note where a step's declared output directory is not where its own option sends the results.

    Args:
        plan: of the config.
        step: one of its steps.
    """
    declared, named = step.output_dir, _paths(plan, step, _RESULTS)
    if declared is None or not named or any(_related(path, declared) for _, _, path in named):
        return []
    key, text, _ = named[0]
    said = f"{key} is {text!r}, which does not lead to it; the step fails where its files are elsewhere"
    return [_note(plan, said, step.name, "output_dir")]


def _made(plan: Plan, step: PlannedStep, options: re.Pattern[str] = _ANY) -> list[Path]:
    """Where a step may leave something: its output directory, and what those of its options name.

    An argument above the output directory is where the script puts that, and makes nothing else.
    """
    output = plan.expected_dirs()[step.name]
    paths = [path for _, _, path in _paths(plan, step, options)]
    return [output, *(path for path in paths if path not in output.parents)]


def _writes_anywhere(step: PlannedStep) -> bool:
    return step.output_dir is None and not any(OUTPUT.search(key) for key in step.config.args)


def _paths(plan: Plan, step: PlannedStep, options: re.Pattern[str] = _ANY) -> list[tuple[str, str, Path]]:
    """Key, value, and where that leads if it is read as a path, of the options that a pattern finds."""
    resolve = plan.resolver(plan.expected_dirs())
    found = []
    for key, value in step.config.args.items():
        for written in texts_of(value) if options.search(key) else ():
            try:
                text = resolve(written)
            except UnresolvedReferenceError:
                continue
            found.append((key, text, Path(os.path.normpath(plan.workspace.root / text))))
    return found


def _related(one: Path, other: Path) -> bool:
    """Whether they are the same, or one is below the other."""
    return one.is_relative_to(other) or other.is_relative_to(one)


def _note(plan: Plan, said: str, *key: str) -> str:
    return plan.config.mistake(said, *key).render(plan.config.source.name)
