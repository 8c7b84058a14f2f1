"""The one directory that a build may write: the `/src` mapping, what lies where, and its lock."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock

from trt_llm_pipeline.errors import WorkspaceBusy, WorkspaceError
from trt_llm_pipeline.files import is_the_machines
from trt_llm_pipeline.records import clear_place, read_record, write_record
from trt_llm_pipeline.workspace.shapes import HOLDER, Holder

STATE_DIR = ".trt-llm-pipeline"
IMAGE_WORKSPACE = "/src"
_CHOOSE_ANOTHER = "choose another with --workspace or TRT_LLM_WORKSPACE"
#: An archive's name, by how it is compressed; the newest one lies at the workspace's top.
ARCHIVE_NAMES = {"gzip": "engine.tar.gz", "none": "engine.tar"}
_STEP_ENDS_WITHIN_S = 5.0
_INNER = ("import", "datasets", "cache", "cache/accepted")
_NAME_MAX = 255  # bytes, on every common file system
SERVICE_FOLDERS = ("models", "builds", STATE_DIR)


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
        try:
            return cls(path.expanduser().resolve())
        except (OSError, RuntimeError) as error:
            raise WorkspaceError(f"the workspace {path} cannot be found: {error}; name another") from None

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

    @property
    def datasets(self) -> Path:
        """Where datasets are downloaded to, one directory an id."""
        return self.state / "datasets"

    def downloads(self, kind: Literal["model", "dataset"]) -> Path:
        """Where what is of that kind is downloaded to."""
        return self.models if kind == "model" else self.datasets

    @property
    def work(self) -> Path:
        """Where a step in a sandbox runs, and where all that it writes lands."""
        return self.state / "work"

    def check(self) -> None:
        """Refuses a place where no workspace can be. Writes nothing.

        Raises:
            WorkspaceError: it, or what is to be above it, is no directory.
        """
        there = next(path for path in (self.root, *self.root.parents) if os.path.lexists(path))
        if not there.is_dir():
            raise WorkspaceError(f"{self.root} cannot be made: {there} is no directory; {_CHOOSE_ANOTHER}")

    def prepare(self) -> None:
        """Makes the workspace's own directories. Raises `WorkspaceError` where that is impossible."""
        for path in (self.root, self.models, self.builds, self.state):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                message = f"{path} cannot be made: {error.strerror}; {_CHOOSE_ANOTHER}"
                raise WorkspaceError(message) from None
        for path in (self.models, self.builds, self.state, *(self.state / name for name in _INNER)):
            if path.is_symlink():
                raise WorkspaceError(f"{path} is a link; the workspace needs a directory there: remove it")

    def own_directories(self, *used: Path) -> dict[Path, tuple[str, bool]]:
        """Where the service's own directories lead, with `used` and what is above it, and if they exist.

        A directory comes after its parent.
        """
        inner = [self.models, self.builds, *(self.state / name for name in _INNER), *used]
        paths = {part for path in inner for part in (path, *path.parents)}
        below = sorted(path for path in paths if path != self.root and path.is_relative_to(self.root))
        return {path: (os.path.realpath(path), path.is_dir()) for path in below}

    def refuse_moved(self, before: Mapping[Path, tuple[str, bool]]) -> None:
        """Checks that a script has not put links in the place of the service's own directories.

        An empty directory takes such a link's place, so that nothing is ever read, written or removed
        through it.

        Args:
            before: what `own_directories` said before the script ran.

        Raises:
            WorkspaceError: it has, or it has removed one.
        """
        changed = []
        for path, (led_to, was_there) in before.items():
            leads_to = os.path.realpath(path)
            if leads_to == led_to and path.is_dir() >= was_there:
                continue
            changed.append(f"{path} now leads to {leads_to}" if path.is_symlink() else f"{path} is gone")
            path.unlink(missing_ok=True)
            path.mkdir()
        if changed:
            raise WorkspaceError(
                f"the script has changed the service's own directories ({'; '.join(changed)}); they are "
                "empty directories now. Have it keep to its output directory"
            )

    def map(self, text: str) -> str:
        """`text` with `/src` at its beginning replaced by this workspace."""
        if text == IMAGE_WORKSPACE:
            return str(self.root)
        if text.startswith(f"{IMAGE_WORKSPACE}/"):
            return str(self.root) + text[len(IMAGE_WORKSPACE) :]
        return text

    def portable(self, text: str) -> str:
        """The opposite of `map`: a path in this workspace as it would be in any other."""
        root = str(self.root)
        inside = text == root or text.startswith(f"{root}/")
        return IMAGE_WORKSPACE + text[len(root) :] if inside else text

    def output_dir(self, text: str) -> Path:
        """The directory that a step's `output_dir` names, with every link in it followed.

        Args:
            text: an absolute path, or one relative to the workspace; `/src` has been replaced.

        Raises:
            WorkspaceError: outside the workspace, the workspace itself, or one of the service's own.
        """
        try:
            path = Path(os.path.realpath(self.root / text))
            if any(len(os.fsencode(part)) > _NAME_MAX for part in path.parts):
                raise ValueError
            is_file = path.exists() and not path.is_dir()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no valid name"
            shown = text if len(text) < 80 else f"{text[:80]}..."
            message = f"{shown!r} cannot be an output directory: {reason}; choose another"
            raise WorkspaceError(message) from None
        if not path.is_relative_to(self.root):
            raise WorkspaceError(
                f"{text!r} is outside the workspace {self.root}; choose a directory inside it"
            )
        relative = path.relative_to(self.root)
        if not relative.parts:
            raise WorkspaceError(f"{text!r} is the workspace itself; choose a directory inside it")
        if relative.parts[0] in SERVICE_FOLDERS:
            raise WorkspaceError(
                f"{text!r} is in {relative.parts[0]}/, which the service keeps for itself; choose another"
            )
        if len(relative.parts) == 1 and relative.name in ARCHIVE_NAMES.values():
            raise WorkspaceError(f"{text!r} is where the newest archive is put; choose another directory")
        if is_file:
            raise WorkspaceError(f"{text!r} is a file; choose a directory")
        return path

    def files(self) -> dict[str, FileMark]:
        """Every file of the workspace that is not in the service's own directories, by relative path."""
        skip = {self.root / name for name in SERVICE_FOLDERS}
        return self._marks(_walk(self.root, skip))

    def files_in(self, directory: Path) -> dict[str, FileMark]:
        """Every file at or below `directory`, by path relative to the workspace."""
        if not directory.is_dir():
            return _mark_of(directory, self.root)
        return self._marks(_walk(directory, set()))

    def _marks(self, found: Iterator[tuple[str, FileMark | None]]) -> dict[str, FileMark]:
        return {self._name(path): mark for path, mark in found if mark is not None}

    def _name(self, path: str) -> str:
        """The path of something in the workspace, relative to it. There may be very many of them."""
        return path[len(str(self.root)) + 1 :]

    def directories(self) -> Iterator[str]:
        """Every directory of the workspace but the service's own, by relative path; links are none."""
        skip = {self.root / name for name in SERVICE_FOLDERS}
        for path, mark in _walk(self.root, skip):
            if mark is None:
                yield self._name(path)

    @contextmanager
    def lock(self, holder: str, **build: str) -> Iterator[None]:
        """Holds the workspace for one build. The lock dies with the process that holds it.

        Args:
            holder: what holds it, in words, for whoever is refused.
            build: `build_id` and `model_id`, of a build.

        Raises:
            WorkspaceBusy: another build holds it; says which.
        """
        lock = filelock.FileLock(str(self.state / "lock"), timeout=0)
        note = self._note
        try:
            lock.acquire()
        except filelock.Timeout:
            raise WorkspaceBusy(f"the workspace {self.root} is in use by {_holder(note)}") from None
        except OSError as error:
            message = f"the workspace {self.root} cannot be locked: {error.strerror or error}"
            raise WorkspaceError(f"{message}; {_CHOOSE_ANOTHER}") from None
        try:
            with self.step_lock():
                pass  # a build that was killed is over when its step's processes are
            write_record(note, {"holder": holder, "pid": os.getpid(), "since": time.time(), **build})
            yield
        finally:
            with suppress(OSError):
                clear_place(note)
                note.unlink(missing_ok=True)
            lock.release()

    def last_holder(self) -> tuple[Holder, bool] | None:
        """What holds the workspace, or held it and was killed; and whether its process is still there.

        The lock itself is not touched: whoever tries it could be in the way of a build that begins.
        """
        try:
            known = read_record(self._note, HOLDER)
        except OSError:
            return None
        return None if known is None else (known, _is_there(known["pid"], known["since"]))

    @property
    def _note(self) -> Path:
        return self.state / "lock-holder.json"

    @property
    def step_lock_path(self) -> Path:
        """What `step_lock` holds. Its mtime says when the last step's processes had ended."""
        return self.state / "step.lock"

    @contextmanager
    def step_lock(self) -> Iterator[int]:
        """Holds the workspace for the processes of one step.

        Yields:
            A descriptor for the step's supervisor to inherit. The workspace is held until nobody has it open
            any more, so that a build is not begun while the processes of a killed one still write.

        Raises:
            WorkspaceBusy: a step of a build that was killed is still ending.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        path = self.step_lock_path
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            if is_the_machines(error):
                raise
            raise WorkspaceError(f"{path} cannot be opened: {error.strerror or error}; remove it") from None
        try:
            deadline = time.monotonic() + _STEP_ENDS_WITHIN_S
            while not _locked(descriptor):
                if time.monotonic() > deadline:
                    message = f"a step of a build that was killed is still running in {self.root}"
                    raise WorkspaceBusy(f"{message}; end its processes, then build again")
                time.sleep(0.05)
            yield descriptor
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _walk(top: Path, left_out: Iterable[Path]) -> Iterator[tuple[str, FileMark | None]]:
    """What is below `top`: files and links with their mark, directories with none; no link is followed."""
    pending, skip = [str(top)], set(map(str, left_out))
    while pending:
        try:
            with os.scandir(pending.pop()) as scanned:
                entries = list(scanned)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        for entry in entries:
            if entry.path in skip:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
                yield entry.path, None
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield entry.path, FileMark(status.st_size, status.st_mtime_ns)


def _mark_of(path: Path, root: Path) -> dict[str, FileMark]:
    try:
        status = path.lstat()
    except OSError:
        return {}
    return {str(path.relative_to(root)): FileMark(status.st_size, status.st_mtime_ns)}


def _is_there(pid: int, since: float) -> bool:
    """Whether a process that had begun by then is still running."""
    import psutil

    try:
        process = psutil.Process(pid)
        begun_s, ended = process.create_time(), process.status() == psutil.STATUS_ZOMBIE
    except (psutil.Error, OverflowError, ValueError):
        return False
    return begun_s <= since and not ended


def _holder(note: Path) -> str:
    try:
        known = read_record(note, HOLDER)
        if known is None:
            return "another build; wait for it or end it"
        since = time.strftime("%H:%M:%S", time.localtime(known["since"]))
        return f"{known['holder']} (process {known['pid']}, since {since}); wait for it or end it"
    except (OSError, ValueError, OverflowError):  # no time that there is
        return "another build; wait for it or end it"
