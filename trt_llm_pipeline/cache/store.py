"""What an unchanged step already produced: files kept under the key of what they depend on.

An entry is a directory `<state>/cache/<key>` with `files/` (the step's results), `beside/` (what it wrote
elsewhere in the workspace, such as a timing cache) and, written before the directory gets its name,
`entry.json` with the SHA-256 of each file. The results are hard links where the file system has them, so an
entry costs no room as long as the step's output directory has them too. Every use reads the files and
compares them with their SHA-256: an entry that was damaged is removed, never used.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import NotRequired, TypedDict

from trt_llm_pipeline.cache.hashes import FileHashes
from trt_llm_pipeline.cache.remote import RemoteCache
from trt_llm_pipeline.files import copy_verified, hash_file, write_json
from trt_llm_pipeline.records import Count, Inside, Text, Warn, clear_place, read_record, silent
from trt_llm_pipeline.workspace import Workspace
from trt_llm_pipeline.workspace.waiting import held_if_free, waited_for

_PARTIAL = ".partial"
_NO_ENTRIES = ("accepted", "locks")
_ENGINE_STEP = "build"
_FIELDS = ("step", "model_id", "output_dir", "size", "files", "folders", "beside")

Place = Literal["here", "shared"]


@with_config(ConfigDict(defer_build=True))
class _Entry(TypedDict):
    """`entry.json`: SHA-256 by path, the size of all files in bytes."""

    step: Text
    model_id: Text
    output_dir: Inside
    size: Count
    files: dict[Inside, Text]
    folders: list[Inside]
    beside: dict[Inside, Text]
    parts: NotRequired[dict[Text, Text]]


_ENTRY = TypeAdapter(_Entry)


@dataclass(frozen=True)
class CacheEntry:
    """An entry as it is listed: sizes in bytes, times in seconds since 1970."""

    key: str
    step: str
    model_id: str
    output_dir: str
    size: int
    last_used: float


class StepCache:
    """The cache of one workspace, or of several. Used with the workspace locked, but for `entries` and `has`.

    Args:
        workspace: where steps run.
        limit_bytes: how much all entries may take.
        folder: where the entries lie, for workspaces that share them; None for the workspace's own.
        remote: the cache that a team shares: what is not here is looked for there, and what is made here is
            published there.
        warn: is told of an entry whose record is none; it counts as absent.
    """

    def __init__(
        self,
        workspace: Workspace,
        limit_bytes: int,
        folder: Path | None = None,
        remote: RemoteCache | None = None,
        warn: Warn = silent,
    ) -> None:
        self._warn = warn
        self._workspace = workspace
        self._remote = remote
        self._unpublished: list[str] = []
        self._folder = folder or workspace.state / "cache"
        self._limit = limit_bytes

    @contextmanager
    def making(self, key: str, step: str, log: Callable[[str], None]) -> Iterator[None]:
        """Held while the entry `key` is looked for and made, so that nobody makes the same meanwhile.

        Args:
            key: the entry's.
            step: the step's name, for whoever has to wait.
            log: is told where another workspace is making it.
        """
        lock = self._lock(key)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with waited_for(lock, f"another build that does the same {step}", log):
            yield

    def has(self, key: str) -> Path | None:
        """The output directory that the entry `key` was made in, or None without such an entry."""
        record = self._known(key)
        return self._workspace.root / record["output_dir"] if record else None

    def place(self, key: str) -> Place | None:
        """Where the entry `key` is, `here` or `shared`; None without one."""
        if self._record(self._folder / key) is not None:
            return "here"
        return "shared" if self._known(key) is not None else None

    def beside(self, key: str) -> tuple[str, ...]:
        """What the step wrote beside its results, by path in the workspace; `restore` puts it back."""
        record = self._known(key)
        return tuple(record["beside"]) if record else ()

    def holds(self, key: str, output_dir: Path, hashes: FileHashes) -> bool:
        """True where the workspace already has just the files that `restore` would put there."""
        record = self._record(self._folder / key)
        if record is None or self._workspace.root / record["output_dir"] != output_dir:
            return False
        try:
            files, folders = _listed(output_dir)
            if set(files) != set(record["files"]) or set(folders) != set(record["folders"]):
                return False
            if any(hashes.of(output_dir / name) != sha256 for name, sha256 in record["files"].items()):
                return False
            root = self._workspace.root
            if any(hashes.of(root / name) != sha256 for name, sha256 in record["beside"].items()):
                return False
        except (OSError, ValueError):
            return False
        os.utime(self._folder / key)
        return True

    def hashes(self, key: str) -> Mapping[str, str]:
        """The SHA-256 of each file of the entry's results, by path below the output directory."""
        record = self._record(self._folder / key)
        return dict(record["files"]) if record else {}

    def restore(self, key: str, output_dir: Path) -> bool:
        """Puts an entry's files into `output_dir`, and those beside it where they were, checking each.

        Returns:
            False where there is no such entry, or it was damaged: then it is gone, and nothing of it is left
            in the workspace.
        """
        entry = self._folder / key
        record = self._record(entry) or self._pulled(key)
        if record is None:
            return False
        made: list[Path] = []
        try:
            for name, sha256 in record["files"].items():
                source, target = entry / "files" / name, output_dir / name
                if _hash_of(source) != sha256:
                    raise ValueError(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                made.append(target)
                _link(source, target)
            for name in record["folders"]:
                (output_dir / name).mkdir(parents=True, exist_ok=True)
            for name, sha256 in record["beside"].items():
                source, target = entry / "beside" / name, self._workspace.root / name
                if _hash_of(source) != sha256:
                    raise ValueError(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                made.append(target)
                # A copy: a script that goes on writing to its timing cache must not write to the entry.
                if _copy(source, target) != sha256:
                    raise ValueError(name)
        except (FileNotFoundError, ValueError):
            _unlink(made)
            shutil.rmtree(entry, ignore_errors=True)
            return False
        except OSError:  # no fault of the entry's: the disk is full, say
            _unlink(made)
            raise
        os.utime(entry)
        return True

    def changed(self, step: str, model_id: str, parts: Mapping[str, str]) -> list[str]:
        """What is not as it was for the results of that step of that model that are the most similar.

        Args:
            step, model_id: whose.
            parts: the digests of what a key is made of; see `StepKey`.

        Returns:
            Names of `parts`; nothing where no results are kept that say the same parts. Of results that are
            equally similar those count that were used last.
        """
        found: list[tuple[int, float, list[str]]] = []
        for path in self._paths():
            record = self._record(path)
            if record is None or (record["step"], record["model_id"]) != (step, model_id):
                continue
            kept = record.get("parts", {})
            used = _used(path)
            if kept.keys() == parts.keys() and used is not None:
                other = [name for name, digest in parts.items() if kept[name] != digest]
                found.append((len(other), -used, other))
        return min(found)[2] if found else []

    def store(
        self,
        key: str,
        step: str,
        model_id: str,
        output_dir: Path,
        beside: Sequence[str] = (),
        parts: Mapping[str, str] | None = None,
    ) -> None:
        """Keeps the files of `output_dir` under `key`; older entries give way, too large ones stay out.

        So do results that are not just regular files, which could not be given back as they were.

        Args:
            key: what the results depend on.
            step, model_id: for the list of entries.
            output_dir: where the results are.
            beside: what else the step wrote, by path relative to the workspace.
            parts: the digests of what the key is made of, so that a later miss can say why.
        """
        entry, root = self._folder / key, self._workspace.root
        partial = self._folder / f"{key}{_PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            names, folders = _listed(output_dir)
            size = sum(
                path.lstat().st_size
                for path in (*(output_dir / n for n in names), *(root / n for n in beside))
            )
            if size > self._limit:
                return
            self.evict(self._limit - size)
            record = {
                "step": step,
                "model_id": model_id,
                "output_dir": str(output_dir.relative_to(root)),
                "size": size,
                "files": {name: _keep(output_dir / name, partial / "files" / name) for name in names},
                "folders": folders,
                "beside": {name: _copy(root / name, partial / "beside" / name) for name in beside},
                "parts": dict(parts or {}),
            }
            partial.mkdir(parents=True, exist_ok=True)
            write_json(partial / "entry.json", record)
            shutil.rmtree(entry, ignore_errors=True)
            partial.rename(entry)
        except (OSError, ValueError):
            shutil.rmtree(partial, ignore_errors=True)
            return
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self._unpublished.append(key)
        if step != _ENGINE_STEP:
            self.publish()

    def publish(self) -> None:
        """Publishes what was made here and is not in the shared cache yet.

        A conversion is published as soon as it is made. An engine waits for this call, which whoever has
        checked it makes.
        """
        while self._unpublished:
            key = self._unpublished.pop()
            record = self._record(self._folder / key)
            if self._remote is not None and record is not None:
                self._remote.publish(key, record, self._folder / key)

    def entries(self) -> list[CacheEntry]:
        """Every entry, the one that was used longest ago first."""
        found = []
        for path in self._paths():
            record, used = self._record(path), _used(path)
            if record is None or used is None:
                continue
            found.append(
                CacheEntry(
                    path.name, record["step"], record["model_id"], record["output_dir"], record["size"], used
                )
            )
        return sorted(found, key=lambda entry: entry.last_used)

    def evict(self, keep_bytes: int) -> int:
        """Removes what was used longest ago until at most `keep_bytes` are left; the bytes removed."""
        entries = self.entries()
        total = sum(entry.size for entry in entries)
        removed = 0
        for entry in entries:
            if total - removed <= keep_bytes:
                break
            with self._free(entry.key) as free:
                if free:
                    shutil.rmtree(self._folder / entry.key, ignore_errors=True)
                    removed += entry.size
        return removed

    def give_way(self, wanted_bytes: int) -> int:
        """Removes what was used longest ago until that many bytes are removed; the bytes removed."""
        total = sum(entry.size for entry in self.entries())
        return self.evict(max(0, total - wanted_bytes))

    def clear(self) -> int:
        """Removes everything; the bytes that the entries' files had."""
        total = sum(entry.size for entry in self.entries())
        shutil.rmtree(self._folder, ignore_errors=True)
        return total

    def clean(self) -> None:
        """Removes what a build that was killed left half-written."""
        for path in self._folder.glob(f"*{_PARTIAL}"):
            with self._free(path.name.partition(".")[0]) as free:
                if free:
                    shutil.rmtree(path, ignore_errors=True)

    def knows_accepted(self) -> bool:
        """True where `accepted` knows anything at all."""
        return (self._folder / "accepted").is_dir()

    def accepted(self, key: str) -> bool:
        """True where a script is known to accept the arguments that `key` stands for."""
        return (self._folder / "accepted" / key).is_file()

    def accept(self, key: str) -> None:
        """Notes that a script has accepted its arguments: it has run with them and succeeded."""
        folder = self._folder / "accepted"
        folder.mkdir(parents=True, exist_ok=True)
        clear_place(folder / key)
        write_json(folder / key, round(time.time()))

    def _known(self, key: str) -> Mapping[str, Any] | None:
        """What is known of the entry `key`, here or in the shared cache."""
        record = self._record(self._folder / key)
        if record is None and self._remote is not None:
            record = self._remote.entry(key)
        return record

    def _pulled(self, key: str) -> Mapping[str, Any] | None:
        """The entry's record once it has been brought here from the shared cache; None where it cannot be."""
        shared = self._remote.entry(key) if self._remote is not None else None
        if self._remote is None or shared is None:
            return None
        self.evict(max(0, self._limit - shared["size"]))
        entry, partial = self._folder / key, self._folder / f"{key}.{os.getpid()}{_PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        if not self._remote.fetch(key, partial, self._limit):
            return None
        try:
            write_json(partial / "entry.json", {name: shared[name] for name in _FIELDS})
            shutil.rmtree(entry, ignore_errors=True)
            partial.rename(entry)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return self._record(entry)

    def _lock(self, key: str) -> Path:
        return self._folder / "locks" / f"{key}.lock"

    @contextmanager
    def _free(self, key: str) -> Iterator[bool]:
        """Whether nobody is making or using the entry `key`; so it stays within the context."""
        if not self._lock(key).exists():
            yield True
            return
        with held_if_free(self._lock(key)) as free:
            yield free

    def _paths(self) -> Iterator[Path]:
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.is_dir() and path.name not in _NO_ENTRIES and not path.name.endswith(_PARTIAL):
                    yield path

    def _record(self, entry: Path) -> Mapping[str, Any] | None:
        """The entry's record, or None where it is not what `store` writes, or cannot be read."""
        try:
            return read_record(entry / "entry.json", _ENTRY, self._warn)
        except OSError as error:
            self._warn(f"{error.filename} cannot be read ({error.strerror}), so that step runs again")
            return None


def _listed(directory: Path) -> tuple[list[str], list[str]]:
    """The regular files and the empty directories below `directory`.

    Raises:
        ValueError: it holds something else.
    """
    files, folders = [], []
    for path in sorted(directory.rglob("*")):
        mode = path.lstat().st_mode
        name = str(path.relative_to(directory))
        if stat.S_ISREG(mode):
            files.append(name)
        elif not stat.S_ISDIR(mode):
            raise ValueError(name)
        elif not any(path.iterdir()):
            folders.append(name)
    return files, folders


def _used(entry: Path) -> float | None:
    """When an entry was used last, in seconds since 1970; None where another build has just removed it."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return None


def _hash_of(kept: Path) -> str:
    """The SHA-256 of a file of an entry.

    Raises:
        ValueError: something else is in its place.
        OSError: there is nothing, or the machine cannot read it.
    """
    if not stat.S_ISREG(kept.lstat().st_mode):
        raise ValueError(kept.name)
    return hash_file(kept)


def _keep(source: Path, target: Path) -> str:
    """Puts a result into an entry; its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _link(source, target)
    return hash_file(target)


def _copy(source: Path, target: Path) -> str:
    """Likewise for a file that may be written to again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return copy_verified(source, target, lambda *_: None)[1]


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # no hard links here, or too many of this file
        shutil.copy2(source, target, follow_symlinks=False)
