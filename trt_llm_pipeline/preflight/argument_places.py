"""Where the paths in a step's arguments lead: not out of the workspace, nor into what belongs to others.

A script's options are not known to be paths, and no more whether it reads or writes there. So every value is
read as a path, and refused only where no script could have any business there. The sandbox holds for what
cannot be seen here, such as a path within a longer text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from trt_llm_pipeline.config import texts_of
from trt_llm_pipeline.config.references import UnresolvedReferenceError
from trt_llm_pipeline.errors import Mistake
from trt_llm_pipeline.plan import Plan
from trt_llm_pipeline.process import system_places
from trt_llm_pipeline.workspace import SERVICE_FOLDERS

#: An option's name that is one of an output.
OUTPUT = re.compile(
    r"(?:^|[-_])(?:o|out|output|outputs|outdir|save|saved|export|dump|log)(?:[-_]|$)", re.IGNORECASE
)
# Of a process's own folder in /proc these lead anywhere.
_PROCESS = re.compile(r"/proc/(?:self|thread-self|\d+)(?:/task/\d+)?/(?:cwd|root|fd|map_files)(?:/|$)")
_LONGEST = 4096


def misplaced(plan: Plan, readable: Iterable[Path], *, confined: bool) -> list[Mistake]:
    """Every argument that leads where no step may reach, at its line and key.

    Args:
        plan: whose steps' `args` are looked at.
        readable: what a step may read outside of the workspace, beside the system's places.
        confined: whether a step can read nothing else there. Otherwise what exists outside is taken for an
            input, except where the option's name is that of an output.
    """
    judge = _Judge(plan, [*readable, *system_places()], confined=confined)
    known = plan.expected_dirs()
    found = []
    for step in plan.steps:
        resolve = plan.resolver(known)
        for key, value in step.config.args.items():
            for text in texts_of(value):
                try:
                    problem = judge.problem(key, resolve(text))
                except UnresolvedReferenceError:
                    continue  # reported with the other references
                if problem is not None:
                    found.append(plan.config.mistake(problem, step.name, "args", key))
                    break
    return found


class _Judge:
    def __init__(self, plan: Plan, readable: list[Path], *, confined: bool) -> None:
        self._root = plan.workspace.root
        self._model_id = plan.config.model_id
        self._own = (plan.model_dir, *plan.dataset_dirs.values())
        if "model_id" in plan.config.wrong:  # which folder is the model's own is not known then
            self._own = (plan.workspace.models, *self._own)
        self._readable = [Path(os.path.realpath(path)) for path in readable]
        self._confined = confined

    def problem(self, key: str, text: str) -> str | None:
        """What is wrong with an option's value, in a sentence; None where nothing is."""
        return next((said for part in _parts(text) if (said := self._place(key, part)) is not None), None)

    def _place(self, key: str, text: str) -> str | None:
        if "\0" in text or len(text) > _LONGEST:
            return None
        try:
            return self._judged(key, text)
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
            reason = getattr(error, "strerror", None) or str(error)
            return f"{text!r} cannot be looked at: {reason}; name another place"

    def _judged(self, key: str, text: str) -> str | None:
        named = Path(text).expanduser() if text.startswith("~/") else Path(text)
        path = Path(os.path.normpath(self._root / named))
        if any(path.is_relative_to(own) for own in self._own):
            return _downloaded(text) if self._confined and OUTPUT.search(key) else None
        if _PROCESS.match(str(path)):
            return f"{text!r} leads to wherever a process is; name the place itself"
        real = Path(os.path.realpath(path))
        for place in (path, real):
            if place.is_relative_to(self._root) and place != self._root:
                folder = place.relative_to(self._root).parts[0]
                if folder in SERVICE_FOLDERS:
                    output = folder == "models" and OUTPUT.search(key)
                    return _downloaded(text) if output else self._in_service_folder(text, folder)
        if path.is_relative_to(self._root):
            return None  # where a link of the user's leads is the user's business
        if OUTPUT.search(key):
            return (
                f"{text!r} is outside the workspace, and a step writes nowhere else; write it like ./engine"
            )
        if _PROCESS.match(str(path)):
            return f"{text!r} leads to wherever a process is; name the place itself"
        if real.exists() and (not self._confined or any(map(real.is_relative_to, self._readable))):
            return None
        return (
            f"{text!r} is outside the workspace, where a step finds only the toolchain and the system's "
            "files; put what it needs into the workspace and name it there, like ./data/x.json"
        )

    def _in_service_folder(self, text: str, folder: str) -> str:
        if folder == "models":
            said = f"{text!r} is in models/, and is not this build's own model"
            return f"{said}, {self._model_id}; correct model_id, or write ${{model_dir}} here"
        what = "the service keeps its records" if folder != "builds" else "the service keeps finished builds"
        return f"{text!r} is in {folder}/, where {what}, and no step may read or write; name another place"


def _downloaded(text: str) -> str:
    return f"{text!r} is where downloads are, and no step may write there; name another place, like ./engine"


def _parts(text: str) -> Iterator[str]:
    """What in a value may be a path: all of it, what is behind `=`, and each item of a list with commas."""
    parts = {text: None, text.partition("=")[2]: None}
    for part in text.split(","):
        parts |= {part: None, part.partition("=")[2]: None}
    yield from filter(None, parts)
