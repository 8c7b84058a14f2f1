"""Which directory a step's results are in, and whether nothing older is among them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from trt_llm_pipeline.workspace.workspace import FileMark, Workspace

_IGNORED_PARTS = {"__pycache__", ".cache"}


def changed(before: Mapping[str, FileMark], after: Mapping[str, FileMark]) -> dict[str, FileMark]:
    """The files that are new or different, by path relative to the workspace."""
    return {name: mark for name, mark in after.items() if before.get(name) != mark}


def argument_paths(workspace: Workspace, argv: Sequence[str]) -> list[Path]:
    """What a step's arguments name if they are read as paths, links followed; most of it does not exist."""
    found = []
    for argument in argv:
        for text in (argument, argument.partition("=")[2]):
            if text and "\0" not in text and len(text) <= 4096:
                found.append(Path(os.path.realpath(workspace.root / text)))
    return [path for path in found if path != workspace.root and path not in workspace.root.parents]


def argument_dirs(workspace: Workspace, argv: Sequence[str]) -> list[Path]:
    """The paths inside the workspace that a step's arguments name, links followed."""
    return [path for path in argument_paths(workspace, argv) if path.is_relative_to(workspace.root)]


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
