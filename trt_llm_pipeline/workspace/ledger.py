"""Which files of a workspace builds have made, so that nothing else is ever removed.

The workspace may be somebody's checkout. A file counts as ours only while it is just as a build left it, and
never if it was somebody's before; a directory only if a step made it. What is there is noted before a step
starts, so that a build that was killed leaves nothing of unknown origin.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any

from trt_llm_pipeline.errors import StepOutputError, WorkspaceError
from trt_llm_pipeline.records import Warn, clear_place, read_record, silent, write_record
from trt_llm_pipeline.workspace.shapes import MADE
from trt_llm_pipeline.workspace.workspace import FileMark, Workspace

_HEARTBEAT_SLACK_S = 5.0


class Ledger:
    """Which files of a workspace builds have made. Kept in the workspace's state directory.

    Args:
        workspace: whose files.
        warn: is told where the record is not one; then every file counts as the user's.
    """

    def __init__(self, workspace: Workspace, warn: Warn = silent) -> None:
        self._workspace = workspace
        self._warn = warn
        self._path = workspace.state / "made.json"
        self._heartbeat = workspace.state / "running"

    def begin(self, step: str, before: Mapping[str, FileMark], *, lands: bool = False) -> None:
        """Notes what is there before a step starts: whatever else appears is the step's.

        Args:
            step: the step's name.
            before: every file of the workspace.
            lands: the step writes elsewhere, and what is to be put in its place is said by `land`; whatever
                else appears is the user's.
        """
        record = self._read()
        record["running"] = {
            "step": step,
            "foreign": sorted(set(before) - set(self.ours(before))),
            "directories": sorted(self._workspace.directories()),
            **({"landing": []} if lands else {}),
        }
        write_record(self._path, record)
        clear_place(self._heartbeat)
        self._heartbeat.unlink(missing_ok=True)
        self.heartbeat()

    def land(self, names: Iterable[str]) -> None:
        """Notes which files of a step are now put in their place."""
        record = self._read()
        running = record.get("running")
        if isinstance(running, dict):
            record["running"] = {**running, "landing": sorted(names)}
            write_record(self._path, record)

    def heartbeat(self) -> None:
        """Says that the step is still running; to be called every second or so."""
        with suppress(OSError):  # without it less is taken for a killed build's, and nothing worse
            descriptor = os.open(
                self._heartbeat, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644
            )
            try:
                os.utime(descriptor)
            finally:
                os.close(descriptor)

    def finish(self, step: str, made: Mapping[str, FileMark]) -> None:
        """Notes which files a step has made or changed. Those that were somebody's before stay theirs."""
        record = self._read()
        running = record.pop("running", None)
        known = running if isinstance(running, dict) else {}
        foreign = set(known.get("foreign", ()))
        files = record.setdefault("files", {})
        for name, mark in made.items():
            if name not in foreign:
                files[name] = [mark.size, mark.mtime_ns, step]
        if known:
            self._note_directories(record, set(self._workspace.directories()) - set(known["directories"]))
        write_record(self._path, record)

    def discard(self, names: Iterable[str]) -> None:
        """Removes files that a step has just made. Writes nothing, because the disk may be full."""
        for name in names:
            path = self._workspace.root / name
            if not self._leads_elsewhere(path.parent):
                path.unlink(missing_ok=True)

    def recover(self) -> tuple[str, ...]:
        """Takes in what a build that was killed has left; returns those files.

        A file counts as that build's if it was not somebody's when the step began and has not been touched
        since the last sign of life: the build's heartbeat, or the end of the step's last process. None is
        left here: `Workspace.lock` waits for them.
        """
        record = self._read()
        running = record.pop("running", None)
        if not isinstance(running, dict):
            return ()
        before = self._workspace.files()
        left = self._left(running, set(before) - set(self.ours(before)))
        for name in left:
            record.setdefault("files", {})[name] = [before[name].size, before[name].mtime_ns, running["step"]]
        appeared = set(self._workspace.directories()) - set(running.get("directories", ()))
        self._note_directories(record, self._left({}, appeared))
        write_record(self._path, record)
        return tuple(sorted(left))

    def _left(self, running: Mapping[str, Any], names: Iterable[str]) -> set[str]:
        """Those of `names` that a killed build has left; `running` is its note of what was there before."""
        signs = []
        for path in (self._heartbeat, self._workspace.step_lock_path):
            with suppress(FileNotFoundError):
                signs.append(path.lstat().st_mtime)
        if not signs:
            return set()
        last_sign_of_life = max(signs)
        left = set()
        candidates = set(names) - set(running.get("foreign", ()))
        if "landing" in running:
            candidates &= set(running["landing"])
        for name in candidates:
            with suppress(FileNotFoundError):
                changed = (self._workspace.root / name).lstat().st_ctime
                if changed <= last_sign_of_life + _HEARTBEAT_SLACK_S:
                    left.add(name)
        return left

    def _note_directories(self, record: dict[str, Any], made: Iterable[str]) -> None:
        record["directories"] = sorted({*record.get("directories", ()), *made})

    def ours(self, files: Mapping[str, FileMark]) -> dict[str, FileMark]:
        """Those of `files` that a build left just as they are now."""
        made = self._files()
        return {name: mark for name, mark in files.items() if _is_mark(made.get(name), mark)}

    def may_replace(self, name: str) -> bool:
        """True where nothing is at that path of the workspace, or a file just as a build left it."""
        path = self._workspace.root / name
        if self._leads_elsewhere(path.parent):
            return False
        there = {} if path.is_dir() else self._workspace.files_in(path)
        return not os.path.lexists(path) or set(self.ours(there)) == {name}

    def made_by(self, step: str, files: Mapping[str, FileMark]) -> set[str]:
        """Those of `files` that the step `step` of some build left just as they are now."""
        made = self._files()
        return {name for name in self.ours(files) if made[name][2:] == [step]}

    def remove(self, names: Iterable[str]) -> None:
        """Removes files that builds have made, and those directories that builds have made and are empty."""
        record = self._read()
        files = record.get("files", {})
        above: set[str] = set()
        root = str(self._workspace.root)
        for folder, there in groupby(sorted(names), key=os.path.dirname):
            if self._leads_elsewhere(Path(root, folder)):
                continue
            for name in there:
                with suppress(FileNotFoundError):
                    os.unlink(f"{root}/{name}")  # noqa: PTH108  there may be very many of them
                files.pop(name, None)
            above.update(map(str, (PurePath(folder), *PurePath(folder).parents)))
        self._remove_directories(record, above)
        write_record(self._path, record)

    def _remove_directories(self, record: dict[str, Any], names: Iterable[str]) -> None:
        made = set(record.get("directories", ()))
        for name in sorted(made.intersection(names), reverse=True):  # what is deeper first
            path = self._workspace.root / name
            with suppress(OSError):  # not empty, not there, a link
                if not self._leads_elsewhere(path):
                    path.rmdir()
                    made.discard(name)
        record["directories"] = sorted(made)

    def _leads_elsewhere(self, directory: Path) -> bool:
        """True where a link has been put in the way since the directory was resolved."""
        return os.path.realpath(directory) != str(directory)

    def empty(self, directory: Path, shown: str) -> None:
        """Empties a step's output directory of what earlier builds left there.

        Args:
            directory: as returned by `Workspace.output_dir`.
            shown: how the user wrote it.

        Raises:
            WorkspaceError: it holds files that no build made; nothing has been removed.
        """
        self.refuse_foreign(directory, shown)
        self.remove(self._workspace.files_in(directory))
        record = self._read()
        inside = str(directory.relative_to(self._workspace.root))
        made = record.get("directories", ())
        self._remove_directories(record, [n for n in made if PurePath(n).is_relative_to(inside)])
        write_record(self._path, record)

    def refuse_foreign(self, directory: Path, shown: str) -> None:
        """Checks that a step's output directory can be emptied; `directory` and `shown` as for `empty`.

        Raises:
            WorkspaceError: it holds files that no build made, or has become a link to another place.
        """
        if self._leads_elsewhere(directory):
            raise WorkspaceError(f"{shown!r} now leads to {os.path.realpath(directory)}; remove that link")
        there = self._workspace.files_in(directory)
        foreign = set(there) - set(self.ours(there))
        absent: list[str] = []
        running = (read_record(self._path, MADE, absent.append) or {}).get("running")
        if isinstance(running, dict):
            foreign -= self._left(running, foreign)
        if foreign:
            named = _named(sorted(foreign))
            if absent:
                problem = f"files ({named}), and what builds made is not known: {absent[0]}"
            else:
                problem = f"files that no build made ({named}), so it is not emptied"
            raise WorkspaceError(f"{shown!r} holds {problem}; choose another directory or move them away")

    def found(self, step: str, directory: Path) -> None:
        """Notes where a step's results were, for the next build to clear."""
        record = self._read()
        record.setdefault("found", {})[step] = str(directory.relative_to(self._workspace.root))
        write_record(self._path, record)

    def empty_found(self, step: str, named: Iterable[Path], keep: Iterable[Path]) -> None:
        """Removes what the same step of an earlier build left, where this one is going to write again.

        Args:
            step: the step's name.
            named: the paths that its arguments name; only below these anything is removed.
            keep: directories with the results of this build's earlier steps.
        """
        if names := self.to_be_emptied(step, named, keep):
            self.remove(names)

    def to_be_emptied(self, step: str, named: Iterable[Path], keep: Iterable[Path]) -> list[str]:
        """The files that `empty_found` would remove, by path relative to the workspace."""
        earlier = self._read().get("found", {}).get(step)
        if not isinstance(earlier, str):
            return []
        directory = self._workspace.root / earlier
        if self._leads_elsewhere(directory) or not directory.is_relative_to(self._workspace.root):
            return []
        again = any(directory.is_relative_to(path) for path in named)
        needed = any(directory.is_relative_to(kept) or kept.is_relative_to(directory) for kept in keep)
        return list(self.ours(self._workspace.files_in(directory))) if again and not needed else []

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
        record = read_record(self._path, MADE, self._warn)
        return {} if record is None else {**record}


def _is_mark(recorded: object, mark: FileMark) -> bool:
    return isinstance(recorded, list) and recorded[:2] == [mark.size, mark.mtime_ns]


def _named(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
