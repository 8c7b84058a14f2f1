"""The workspace as a step sees it: a directory of links in which everything that it writes lands.

The workspace may be somebody's checkout, and Landlock gives rights to whole hierarchies only, so a step that
may write anywhere in it may overwrite anything. Instead the step runs in `.trt-llm-pipeline/work`, where each
file of the user's is a link to the real one, which may be read and not written. What the step makes there is
moved to its place in the workspace when its processes are gone, and never over a file that no build made.
What earlier builds made is not there at all, nor are other models.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from trt_llm_pipeline.artifact.statement import STATEMENT_SUFFIX
from trt_llm_pipeline.errors import WorkspaceError
from trt_llm_pipeline.files import walk
from trt_llm_pipeline.workspace import ARCHIVE_NAMES, SERVICE_FOLDERS, FileMark, Workspace

#: The newest archive, and the statement beside it.
_NEWEST_ARCHIVES = frozenset(
    name + suffix for name in ARCHIVE_NAMES.values() for suffix in ("", STATEMENT_SUFFIX)
)
_PERMISSIONS = 0o777  # without set-user-id and its kin


@dataclass(frozen=True)
class Seen:
    """What of the workspace a step is shown.

    Attributes:
        before: every file of the workspace, by relative path.
        ours: those of them that builds have made.
        kept: the output directories of this build's earlier steps.
        named: the paths in the workspace that the step's arguments name, and its output directory.
        model_dir: the model's directory.
        datasets: the directory of each dataset, by its name in the config.
    """

    before: Mapping[str, FileMark]
    ours: Iterable[str]
    kept: Sequence[Path]
    named: Sequence[Path]
    model_dir: Path
    datasets: Mapping[str, Path] = field(default_factory=dict)


@dataclass
class View:
    """A step's view of its workspace, on disk.

    Attributes:
        root: its directory, which is the step's working directory.
        readable: what of the workspace itself the step may read.
        refused: what `settle` has not put in its place, by relative path.
    """

    root: Path
    workspace: Workspace
    readable: list[Path] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _hidden: Mapping[str, FileMark] = field(default_factory=dict)
    _links: dict[str, str] = field(default_factory=dict)
    _folders: set[str] = field(default_factory=set)

    def arguments(self, argv: Sequence[str]) -> list[str]:
        """A step's arguments, with what leads into the workspace leading into the view instead."""
        return [self._argument(text) for text in argv]

    def _argument(self, text: str) -> str:
        option, equals, value = text.partition("=")
        if equals and option.startswith("-"):
            return f"{option}={self._path(value)}"
        return self._path(text)

    def _path(self, text: str) -> str:
        root = str(self.workspace.root)
        if text == root:
            return str(self.root)
        if text.startswith(f"{root}/"):
            inner = os.path.normpath(text[len(root) + 1 :])
            if inner.split("/", 1)[0] not in (*SERVICE_FOLDERS, ".."):
                return f"{self.root}{text[len(root) :]}"
        elif text.startswith("../") and os.path.lexists(self.workspace.root / text):
            return os.path.normpath(self.workspace.root / text)
        return text

    def as_shown(self, text: str) -> str:
        """A text of the step's with the workspace's path for the view's."""
        return text.replace(str(self.root), str(self.workspace.root))

    def folders(self) -> list[Path]:
        """Its directories, in which the step may make files."""
        return [self.root / name for name in ("", *sorted(self._folders))]

    def made(self) -> dict[str, FileMark]:
        """The files that the step has made so far, by relative path."""
        found = {}
        for name, path in self._new(""):
            for file in _files(path):
                status = file.lstat()
                inside = str(PurePosixPath(name, file.relative_to(path)))
                found[inside] = FileMark(status.st_size, status.st_mtime_ns)
        return found

    def placed(self, made: Iterable[str]) -> list[str]:
        """Those of the files in `made` that `settle` has not refused."""
        refused = set(self.refused)
        return [name for name in made if not refused.intersection(_and_above(name))]

    def settle(self) -> None:
        """Moves what the step has made to its place. Called when all its processes have ended.

        Raises:
            WorkspaceError: some of it would replace files that are not just as a build made them, or is in
                the service's own directories; that part is removed and everything else is in its place.
        """
        for name, path in list(self._new("")):
            self._move(name, path)
        self.remove()
        refused = self.refused
        if refused:
            shown = ", ".join(refused[:3]) + (f" and {len(refused) - 3} more" if len(refused) > 3 else "")
            raise WorkspaceError(
                f"the script wrote where no step may write ({shown}): what is there was not made by a build, "
                "or was changed since, or is the service's own, and is as it was. Have the script write to "
                "another directory"
            )

    def remove(self) -> None:
        """Removes the view; what has not been moved goes with it."""
        remove_view(self.workspace)

    def _new(self, folder: str) -> Iterator[tuple[str, Path]]:
        """What the step has put below a folder of the view: relative path, and where it is."""
        for entry in sorted(os.scandir(self.root / folder), key=lambda entry: entry.name):
            name = str(PurePosixPath(folder, entry.name))
            if name in self._folders and entry.is_dir(follow_symlinks=False):
                yield from self._new(name)
            elif not (entry.is_symlink() and str(Path(entry.path).readlink()) == self._links.get(name)):
                yield name, Path(entry.path)

    def _move(self, name: str, path: Path) -> None:
        target = self.workspace.root / name
        if name.split("/", 1)[0] in SERVICE_FOLDERS or name in _NEWEST_ARCHIVES:
            self.refused.append(name)
            return
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder:
            path.chmod(path.stat().st_mode | 0o700)
        if is_folder and target.is_dir() and not target.is_symlink():
            for child in sorted(path.iterdir()):
                self._move(f"{name}/{child.name}", child)
            return
        if os.path.lexists(target):
            # Looked at again: somebody may have written to it while the step ran.
            if name not in self._hidden or self.workspace.files_in(target) != {name: self._hidden[name]}:
                self.refused.append(name)
                return
            target.unlink()
        self._clean(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.rename(target)
        except OSError:  # another file system is mounted there
            shutil.move(path, target)

    def _clean(self, top: Path) -> None:
        """Makes what the step has made the service's own, without any privilege in it."""
        me, group = os.geteuid(), os.getegid()
        for path in (top, *_below(top)):
            status = path.lstat()
            if (status.st_uid, status.st_gid) != (me, group):
                with suppress(PermissionError):
                    os.chown(path, me, group, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                leads_to = str(path.readlink())
                if leads_to.startswith(f"{self.root}/"):
                    path.unlink()
                    path.symlink_to(self.as_shown(leads_to))
            elif stat.S_IMODE(status.st_mode) & ~_PERMISSIONS:
                path.chmod(stat.S_IMODE(status.st_mode) & _PERMISSIONS)


def lay_out(workspace: Workspace, seen: Seen) -> View:
    """Makes a step's view of the workspace, in place of an earlier one."""
    remove_view(workspace)
    view = View(workspace.work, workspace)
    view.root.mkdir()
    kept = [_inside(workspace, path) for path in seen.kept]
    hidden = {name for name in seen.ours if not any(PurePosixPath(name).is_relative_to(k) for k in kept)}
    view._hidden = {name: seen.before[name] for name in hidden}
    shown = set(seen.before) - hidden
    named = [_inside(workspace, path) for path in seen.named if path.is_relative_to(workspace.root)]
    layer = _Layer(
        view=view,
        mixed=_folders_above(hidden),
        with_users=_folders_above(shown),
        opened={name for path in named for name in _and_above(path)},
        named=set(named),
    )
    layer.lay("")
    _show_model(view, seen.model_dir)
    _show_datasets(view, seen.datasets)
    return view


def remove_view(workspace: Workspace) -> None:
    """Removes what a step, perhaps of a build that was killed, has left of its view. No link is followed."""
    work = workspace.work
    if work.is_symlink() or work.is_file():
        work.unlink()
    elif work.is_dir():
        shutil.rmtree(work, onerror=_make_removable)


@dataclass(frozen=True)
class _Layer:
    """How directories are shown: `mixed` hold what builds made, `with_users` what nobody but the user did,
    `opened` may have new files put into them. What is `named` is shown with all its folders as folders:
    whoever walks a tree follows no links."""

    view: View
    mixed: set[str]
    with_users: set[str]
    opened: set[str]
    named: set[str]

    def lay(self, folder: str, *, inside: bool = False, readable: bool = False) -> None:
        """Shows what is in a folder of the workspace.

        Args:
            folder: its path there.
            inside: whether it is, or is below, what an argument names.
            readable: whether all of it may be read already.
        """
        view = self.view
        inside = inside or (folder or ".") in self.named
        for entry in os.scandir(view.workspace.root / folder):
            name = str(PurePosixPath(folder, entry.name))
            if not folder and (entry.name in SERVICE_FOLDERS or entry.name in _NEWEST_ARCHIVES):
                continue
            if entry.is_symlink():
                self._link(name, entry.path)
            elif not entry.is_dir(follow_symlinks=False):
                if name not in view._hidden:
                    self._link(name, entry.path)
                    if not readable:
                        view.readable.append(Path(entry.path))
            elif name in self.mixed or name in self.opened or inside:
                if name in self.with_users or name in self.opened or name not in self.mixed:
                    whole = readable or name not in self.mixed
                    if whole and not readable:
                        view.readable.append(Path(entry.path))
                    (view.root / name).mkdir()
                    view._folders.add(name)
                    self.lay(name, inside=inside, readable=whole)
            else:
                self._link(name, entry.path)
                view.readable.append(Path(entry.path))

    def _link(self, name: str, target: str) -> None:
        (self.view.root / name).symlink_to(target)
        self.view._links[name] = target


def _show_model(view: View, model_dir: Path) -> None:
    name = str(model_dir.relative_to(view.workspace.root))
    link = view.root / name
    link.parent.mkdir(parents=True)
    view._folders.update(set(_and_above(str(PurePosixPath(name).parent))))
    link.symlink_to(model_dir)
    view._links[name] = str(model_dir)


def _show_datasets(view: View, datasets: Mapping[str, Path]) -> None:
    """By their names in the step's directory, for scripts that have a name of their own for a dataset."""
    for name, place in datasets.items():
        link = view.root / name
        above = link.parent
        if os.path.lexists(link) or above.is_symlink() or above.is_file():
            continue  # the user has something there
        above.mkdir(exist_ok=True)
        view._folders.update(_and_above(str(PurePosixPath(name).parent)))
        link.symlink_to(place)
        view._links[name] = str(place)


def _inside(workspace: Workspace, path: Path) -> str:
    return str(path.relative_to(workspace.root))


def _folders_above(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        parent = name.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def _and_above(name: str) -> Iterator[str]:
    while name and name != ".":
        yield name
        name = name.rpartition("/")[0]


def _below(top: Path) -> Iterator[Path]:
    """Everything below a directory; no link is followed."""
    if top.is_symlink() or not top.is_dir():
        return
    for folder, folders, files in walk(top):
        for name in (*folders, *files):
            yield Path(folder, name)


def _files(top: Path) -> Iterator[Path]:
    if top.is_symlink() or not top.is_dir():
        yield top
        return
    for folder, folders, files in walk(top):
        for name in files:
            yield Path(folder, name)
        for name in folders:
            if (path := Path(folder, name)).is_symlink():
                yield path


def _make_removable(_: object, path: str, __: object) -> None:
    """A step may have taken its own directories' permissions away."""
    with suppress(OSError):
        Path(path).parent.chmod(0o700)
        Path(path).chmod(0o700)
    if Path(path).is_dir() and not Path(path).is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        Path(path).unlink(missing_ok=True)
