"""The one directory that a build may write: the `/src` mapping, what is ours in it, and its lock.

The workspace may be somebody's checkout, so nothing in it is removed unless a build's own record says that a
build made it. The record is written before a step starts, so that a build that was killed leaves no files of
unknown origin.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from trt_llm_pipeline.errors import WorkspaceError

STATE_DIR = ".trt-llm-pipeline"
IMAGE_WORKSPACE = "/src"
_OURS = ("models", "builds", STATE_DIR)
_HEARTBEAT_SLACK_S = 5.0


@dataclass(frozen=True)
class FileMark:
    """What a file looked like when a build left it: size in bytes, time in nanoseconds."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Workspace:
    """A workspace directory, absolute and resolved. Making one touches nothing; `prepare` does."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> Workspace:
        """The workspace at `path`, which need not exist yet."""
        return cls(path.expanduser().resolve())

    @property
    def models(self) -> Path:
        """Where models are downloaded to, one directory a model id."""
        return self.root / "models"

    @property
    def builds(self) -> Path:
        """Where each build has a directory of its own."""
        return self.root / "builds"

    @property
    def state(self) -> Path:
        """Records and the lock."""
        return self.root / STATE_DIR

    def prepare(self) -> None:
        """Makes the workspace's own directories. Raises `WorkspaceError` where that is impossible."""
        for path in (self.root, self.models, self.builds, self.state):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                message = f"{path} cannot be made: {error.strerror}; choose another TRT_LLM_WORKSPACE"
                raise WorkspaceError(message) from None
            if path != self.root and path.is_symlink():
                raise WorkspaceError(f"{path} is a link; the workspace needs a directory there")

    def map(self, text: str) -> str:
        """`text` with `/src` at its beginning replaced by this workspace."""
        if text == IMAGE_WORKSPACE:
            return str(self.root)
        if text.startswith(f"{IMAGE_WORKSPACE}/"):
            return str(self.root) + text[len(IMAGE_WORKSPACE) :]
        return text

    def output_dir(self, text: str) -> Path:
        """The directory that a step's `output_dir` names, with every link in it followed.

        Raises:
            WorkspaceError: outside the workspace, the workspace itself, or one of the service's own.
        """
        path = Path(os.path.realpath(self.root / self.map(text)))
        if not path.is_relative_to(self.root):
            raise WorkspaceError(
                f"{text!r} is outside the workspace {self.root}; choose a directory inside it"
            )
        relative = path.relative_to(self.root)
        if not relative.parts:
            raise WorkspaceError(f"{text!r} is the workspace itself; choose a directory inside it")
        if relative.parts[0] in _OURS:
            raise WorkspaceError(
                f"{text!r} is in {relative.parts[0]}/, which the service keeps for itself; choose another"
            )
        if path.exists() and not path.is_dir():
            raise WorkspaceError(f"{text!r} is a file; choose a directory")
        return path

    def files(self) -> dict[str, FileMark]:
        """Every file of the workspace that is not in the service's own directories, by relative path."""
        skip = {self.root / name for name in _OURS}
        return {str(path.relative_to(self.root)): mark for path, mark in _walk(self.root, skip)}

    def files_in(self, directory: Path) -> dict[str, FileMark]:
        """Every file below `directory`, by path relative to the workspace."""
        return {str(path.relative_to(self.root)): mark for path, mark in _walk(directory, set())}

    @contextmanager
    def lock(self, holder: str) -> Iterator[None]:
        """Holds the workspace for one build. The lock dies with the process that holds it.

        Args:
            holder: what holds it, in words, for whoever is refused.

        Raises:
            WorkspaceError: another build holds it; says which.
        """
        lock = filelock.FileLock(str(self.state / "lock"), timeout=0)
        note = self.state / "lock-holder.json"
        try:
            lock.acquire()
        except filelock.Timeout:
            raise WorkspaceError(f"the workspace {self.root} is in use by {_holder(note)}") from None
        try:
            _write_json(note, {"holder": holder, "pid": os.getpid(), "since": time.time()})
            yield
        finally:
            note.unlink(missing_ok=True)
            lock.release()


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
        _write_json(self._path, record)
        self.heartbeat()

    def heartbeat(self) -> None:
        """Says that the step is still running; to be called every second or so."""
        self._heartbeat.touch()

    def finish(self, made: Mapping[str, FileMark]) -> None:
        """Notes which files a step has made or changed."""
        record = self._read()
        record.pop("running", None)
        files = record.setdefault("files", {})
        for name, mark in made.items():
            files[name] = [mark.size, mark.mtime_ns]
        _write_json(self._path, record)

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
        self.finish(left)
        return tuple(sorted(left))

    def ours(self, files: Mapping[str, FileMark]) -> dict[str, FileMark]:
        """Those of `files` that a build left just as they are now."""
        made = self._files()
        return {name: mark for name, mark in files.items() if made.get(name) == [mark.size, mark.mtime_ns]}

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
        _write_json(self._path, record)

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
            named = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
            raise WorkspaceError(
                f"{shown!r} holds files that no build made ({named}), so it is not emptied; "
                "choose another directory or move them away"
            )
        self.remove(list(ours))
        # What is left are directories without files, ours or somebody's: nothing is lost with them.
        if directory.exists():
            shutil.rmtree(directory)

    def _files(self) -> dict[str, Any]:
        files = self._read().get("files", {})
        return files if isinstance(files, dict) else {}

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


def _walk(top: Path, skip: set[Path]) -> Iterator[tuple[Path, FileMark]]:
    """Files below `top`, links as themselves, never followed."""
    pending = [top]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        for entry in entries:
            path = Path(entry.path)
            if path in skip:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield path, FileMark(status.st_size, status.st_mtime_ns)


def _holder(note: Path) -> str:
    try:
        known = json.loads(note.read_bytes())
        since = time.strftime("%H:%M:%S", time.localtime(known["since"]))
        return f"{known['holder']} (process {known['pid']}, since {since}); wait for it or end it"
    except (OSError, ValueError, KeyError, TypeError):
        return "another build; wait for it or end it"


def _write_json(path: Path, value: object) -> None:
    """Replaces `path` in one go: a reader sees the old text or the new, never a half."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
