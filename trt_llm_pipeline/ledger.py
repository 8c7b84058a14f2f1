"""Which files of a workspace builds have made, so that nothing else is ever removed.

The workspace may be somebody's checkout. A file counts as ours only while it is just as a build left it. What
a step is about to do is noted before it starts, so that a build that was killed leaves no files of unknown
origin.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trt_llm_pipeline.errors import StepOutputError, WorkspaceError
from trt_llm_pipeline.workspace import FileMark, Workspace, write_json

_HEARTBEAT_SLACK_S = 5.0


class Ledger:
    """Which files of a workspace builds have made. Kept in the workspace's state directory."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._path = workspace.state / "made.json"
        self._heartbeat = workspace.state / "running"

    def begin(self, step: str, baseline: Iterable[str]) -> None:
        """Notes, before a step starts, which files were there: whatever else appears is the step's."""
        record = self._read()
        record["running"] = {"step": step, "baseline": sorted(baseline)}
        write_json(self._path, record)
        self.heartbeat()

    def heartbeat(self) -> None:
        """Says that the step is still running; to be called every second or so."""
        self._heartbeat.touch()

    def finish(self, step: str, made: Mapping[str, FileMark]) -> None:
        """Notes which files a step has made or changed."""
        record = self._read()
        record.pop("running", None)
        files = record.setdefault("files", {})
        for name, mark in made.items():
            files[name] = [mark.size, mark.mtime_ns, step]
        write_json(self._path, record)

    def recover(self) -> tuple[str, ...]:
        """Takes in what a build that was killed has left; returns those files.

        A file counts as that build's if it was not there when the step began and has not been touched since
        the last sign of life.
        """
        running = self._read().get("running")
        if not isinstance(running, dict):
            return ()
        try:
            last_sign_of_life = self._heartbeat.stat().st_mtime
        except FileNotFoundError:
            last_sign_of_life = 0.0
        known = set(running.get("baseline", ()))
        left = {}
        for name, mark in self._workspace.files().items():
            if name in known:
                continue
            with suppress(FileNotFoundError):
                changed = (self._workspace.root / name).lstat().st_ctime
                if changed <= last_sign_of_life + _HEARTBEAT_SLACK_S:
                    left[name] = mark
        self.finish(str(running.get("step")), left)
        return tuple(sorted(left))

    def ours(self, files: Mapping[str, FileMark]) -> dict[str, FileMark]:
        """Those of `files` that a build left just as they are now."""
        made = self._files()
        return {name: mark for name, mark in files.items() if _is_mark(made.get(name), mark)}

    def made_by(self, step: str, files: Mapping[str, FileMark]) -> set[str]:
        """Those of `files` that the step `step` of some build left just as they are now."""
        made = self._files()
        return {name for name in self.ours(files) if made[name][2:] == [step]}

    def remove(self, names: Iterable[str]) -> None:
        """Removes files that builds have made, and the directories that are empty then."""
        record = self._read()
        files = record.get("files", {})
        parents: set[Path] = set()
        for name in names:
            path = self._workspace.root / name
            path.unlink(missing_ok=True)
            files.pop(name, None)
            parents.update(parent for parent in path.parents if parent.is_relative_to(self._workspace.root))
        for parent in sorted(parents - {self._workspace.root}, key=lambda path: -len(path.parts)):
            if parent.is_dir() and not parent.is_symlink() and not any(parent.iterdir()):
                parent.rmdir()
        write_json(self._path, record)

    def empty(self, directory: Path, shown: str) -> None:
        """Empties a step's output directory of what earlier builds left there.

        Args:
            directory: as returned by `Workspace.output_dir`.
            shown: how the user wrote it.

        Raises:
            WorkspaceError: it holds files that no build made; nothing has been removed.
        """
        if not directory.exists():
            return
        there = self._workspace.files_in(directory)
        ours = self.ours(there)
        foreign = sorted(set(there) - set(ours))
        if foreign:
            raise WorkspaceError(
                f"{shown!r} holds files that no build made ({_named(foreign)}), so it is not emptied; "
                "choose another directory or move them away"
            )
        self.remove(list(ours))
        # What is left are directories without files, ours or somebody's: nothing is lost with them.
        if directory.exists():
            shutil.rmtree(directory)

    def found(self, step: str, directory: Path) -> None:
        """Notes where a step's results were, for the next build to clear."""
        record = self._read()
        record.setdefault("found", {})[step] = str(directory.relative_to(self._workspace.root))
        write_json(self._path, record)

    def empty_found(self, step: str, named: Iterable[Path], keep: Iterable[Path]) -> None:
        """Removes what the same step of an earlier build left, where this one is going to write again.

        Args:
            step: the step's name.
            named: the paths that its arguments name; only below these anything is removed.
            keep: directories with the results of this build's earlier steps.
        """
        earlier = self._read().get("found", {}).get(step)
        if not isinstance(earlier, str):
            return
        directory = self._workspace.root / earlier
        again = any(directory.is_relative_to(path) for path in named)
        needed = any(directory.is_relative_to(kept) or kept.is_relative_to(directory) for kept in keep)
        if again and not needed:
            self.remove(self.ours(self._workspace.files_in(directory)))

    def drop_stale(self, step: str, directory: Path, made: Mapping[str, FileMark]) -> None:
        """Leaves only what a step has just made in the directory that was found to hold its results.

        Raises:
            StepOutputError: it also holds older files that no build made.
        """
        older = {k: v for k, v in self._workspace.files_in(directory).items() if k not in made}
        ours = self.ours(older)
        foreign = sorted(set(older) - set(ours))
        if foreign:
            relative = directory.relative_to(self._workspace.root)
            raise StepOutputError(
                step,
                f"wrote to ./{relative}, which also holds older files that no build made "
                f"({_named(foreign)}), so what belongs to the result cannot be told; "
                "move them away or choose another directory",
                exit_code=0,
            )
        self.remove(ours)

    def _files(self) -> dict[str, Any]:
        files = self._read().get("files", {})
        return files if isinstance(files, dict) else {}

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


def _is_mark(recorded: object, mark: FileMark) -> bool:
    return isinstance(recorded, list) and recorded[:2] == [mark.size, mark.mtime_ns]


def _named(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
