"""Which directory a step's results are in, and whether they are whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from trt_llm_pipeline.config import texts_of
from trt_llm_pipeline.engine import layout
from trt_llm_pipeline.errors import GIVEN, Mistake, StepOutputError
from trt_llm_pipeline.plan import Plan, PlannedStep
from trt_llm_pipeline.workspace import FileMark, Ledger, Workspace

_IGNORED_PARTS = {"__pycache__", ".cache"}


def changed(before: Mapping[str, FileMark], after: Mapping[str, FileMark]) -> dict[str, FileMark]:
    """The files that are new or different, by path relative to the workspace."""
    return {name: mark for name, mark in after.items() if before.get(name) != mark}


def top_directories(made: Iterable[str]) -> list[str]:
    """The workspace's directories that a step has made or changed files in."""
    return sorted({f"./{path.parts[0]}" for path in _results(made)})


def _results(made: Iterable[str]) -> list[PurePosixPath]:
    files = [PurePosixPath(name) for name in made]
    return [path for path in files if len(path.parts) > 1 and not _IGNORED_PARTS & set(path.parts)]


def find(workspace: Workspace, made: Iterable[str], named: Sequence[Path]) -> Path | None:
    """The directory that holds a step's results.

    Files directly in the working directory (a timing cache, say) are strays. Of the others, those below a
    path that the step's arguments name win; the results are in the deepest directory that holds them all.

    Args:
        workspace: where the step ran.
        made: the files that the step has made or changed, relative to the workspace.
        named: paths that the step's arguments name.

    Returns:
        An absolute path below the workspace, or None where the step has made nothing, or has made files
        in directories that have nothing in common.
    """
    files = _results(made)
    below_named = [path for path in files if any((workspace.root / path).is_relative_to(n) for n in named)]
    parents = [str(path.parent) for path in below_named or files]
    if not parents:
        return None
    common = os.path.commonpath(parents)
    return workspace.root / common if common else None


def checked(
    plan: Plan,
    ledger: Ledger,
    log: Callable[[str], None],
    step: PlannedStep,
    made: Mapping[str, FileMark],
    named: Sequence[Path],
) -> Path:
    """The directory with a step's results, whole as far as its files tell.

    Args:
        plan: the build's.
        ledger: is told which files of an earlier build are stale.
        log: is told where the results are, and what looks odd about them.
        step: which.
        made, named: see `find`.

    Raises:
        StepOutputError: they are not where the config says, or not all there.
    """
    found = find(plan.workspace, made, named)
    if step.output_dir is None:
        if found is None:
            message = f"{Path(step.program[-1]).name} exited 0, but {_nowhere(plan, made)}"
            raise StepOutputError(step.shown, message, exit_code=0)
        log(f"step {step.shown}: its new files are in {found}")
        ledger.drop_stale(step.name, found, made)
        output_dir = found
    else:
        output_dir = step.output_dir
        _check_declared(plan, step, output_dir, found, made)
    facts = None
    try:
        if step.name == "build":
            facts = layout.check_engine(output_dir)
        else:
            layout.check_checkpoint(output_dir)
    except layout.LayoutError as error:
        raise StepOutputError(step.shown, f"exited 0, but {error}", exit_code=0) from None
    for warning in getattr(facts, "warnings", ()):
        log(f"warning: {warning}")
    return output_dir


def _nowhere(plan: Plan, made: Mapping[str, FileMark]) -> str:
    """Why no directory was found, and what to do about it."""
    several = top_directories(made)
    if several:
        return f"its files went to several directories ({', '.join(several)}); name one of them as output_dir"
    root = plan.workspace.root
    return f"it wrote no files below {root}; check which of its options names the output directory"


def _check_declared(
    plan: Plan, step: PlannedStep, output_dir: Path, found: Path | None, made: Mapping[str, FileMark]
) -> None:
    real = Path(os.path.realpath(output_dir))
    written = step.config.output_dir
    line = plan.config.source.line(step.name, "output_dir")
    place = Mistake("", line).render(plan.config.source.name)
    where = f"{place}: {step.shown}.output_dir {written!r}"
    if real != output_dir or not real.is_relative_to(plan.workspace.root):
        message = f"exited 0, but made a link of its output directory that leads to {real} ({where})"
        raise StepOutputError(step.shown, message, exit_code=0)
    if output_dir.is_dir() and any(path.is_file() for path in output_dir.rglob("*")):
        return
    state = "is empty" if output_dir.is_dir() else "does not exist"
    if found is None:
        advice = _nowhere(plan, made)
    else:
        right = f"./{found.relative_to(plan.workspace.root)}"
        change = f"change that line to output_dir: {right}"
        if line == GIVEN:
            change = f"give {place} {step.shown}.output_dir={right}"
        elif line is None:
            change = f"give {place} output_dir: {right}"
        advice = f"its files went to {right}; {change}, or leave it out"
        readers = [
            f"{later.shown}.args.{key}"
            for later in plan.steps[plan.steps.index(step) + 1 :]
            for key, value in later.config.args.items()
            if written in texts_of(value)
        ]
        if readers:
            advice += f"; {' and '.join(readers)} must name the same"
    raise StepOutputError(step.shown, f"exited 0, but {where} {state}: {advice}", exit_code=0)
