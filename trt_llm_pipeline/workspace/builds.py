"""The directories below `builds/`: one a build, with its archive, its `build.json` and its logs."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trt_llm_pipeline.files import remove_unfinished, replacing
from trt_llm_pipeline.records import Warn, read_record, silent, write_record
from trt_llm_pipeline.workspace.build import RECORD_NAME, Build
from trt_llm_pipeline.workspace.shapes import BUILD, KEPT, PUBLISHED
from trt_llm_pipeline.workspace.workspace import ARCHIVE_NAMES, Workspace

_BUILD_ID = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{4}")


class Builds:
    """The builds of one workspace, and nothing else in `builds/`. Used with the workspace locked.

    Args:
        workspace: whose builds.
        warn: is told of records that are none; their builds count as having written nothing.
    """

    def __init__(self, workspace: Workspace, warn: Warn = silent) -> None:
        self._workspace = workspace
        self._warn = warn

    def directories(self) -> list[Path]:
        """Every build's directory, the newest first."""
        if not self._workspace.builds.is_dir() or self._workspace.builds.is_symlink():
            return []
        there = [path for path in self._workspace.builds.iterdir() if _BUILD_ID.fullmatch(path.name)]
        return sorted((path for path in there if path.is_dir() and not path.is_symlink()), reverse=True)

    def find(self, key: str) -> tuple[Path, Mapping[str, Any]] | None:
        """The newest build with the key `key` whose archive is there: its archive and its record."""
        for directory in self.directories():
            record = self._read(directory)
            if record.get("key") != key:
                continue
            whole = read_record(directory / RECORD_NAME, BUILD, self._warn)
            if whole is not None and (archive := Build(directory, {**whole}).archive) is not None:
                return archive, dict(whole)
        return None

    def records(self) -> Iterator[Mapping[str, Any]]:
        """What each successful build has written of itself, the newest first."""
        for directory in self.directories():
            if "archive" in (record := self._read(directory)):
                yield record

    def listed(self) -> list[Build]:
        """Every build, the newest first."""
        return [
            Build(directory, record) if (record := self._read(directory)) else self._without_record(directory)
            for directory in self.directories()
        ]

    def earlier(self, config: str) -> Mapping[str, Any] | None:
        """What the newest successful build of the same config has written, if it has run its steps itself."""
        own = (each for each in self.records() if not each.get("answered_from"))
        return next((record for record in own if record.get("config") == config), None)

    def find_check(self, engine_key: str) -> tuple[str, Mapping[str, Any]] | None:
        """The newest build of an engine that has passed its check: the build's name, and its `check`."""
        for record in self.records():
            told = record.get("check")
            if not isinstance(told, dict) or record.get("engine_key") != engine_key:
                continue
            if told.get("status") == "passed":
                return str(record.get("build_id")), told
        return None

    def publish(self, archive: Path, *beside: Path) -> Path | None:
        """Puts an archive at the workspace's top, in one go, as a hard link, and then what belongs to it.

        Args:
            archive: of a build.
            beside: files named like the archive with more at the end.

        Returns:
            The archive's path there; None where something is in its place that no build has put there.
        """
        newest = self._workspace.root / archive.name
        if os.path.lexists(newest) and not self._published(newest):
            return None
        noted = {name for name in self._noted() if _at_the_top(name)}
        earlier = {*noted, *ARCHIVE_NAMES.values()} - {archive.name}
        old = [path for name in sorted(earlier) if self._published(path := self._workspace.root / name)]
        for path in [path for path in old if path.name.startswith(f"{archive.name}.")]:
            path.unlink()  # before the archive that it belongs to is replaced
            old.remove(path)
        self._link(archive)
        free = [path for path in beside if not os.path.lexists(self._workspace.root / path.name)]
        for path in free:
            self._link(path)
        for path in old:
            path.unlink()
        self._remember([newest, *(self._workspace.root / path.name for path in free)])
        return newest

    def _without_record(self, directory: Path) -> Build:
        """A build that has written nothing of itself: it runs, or was killed."""
        found = self._workspace.last_holder()
        if found is None or found[0].get("build_id") != directory.name:
            return Build(directory, {})
        holder, is_there = found
        return Build(directory, {}, holder.get("model_id"), holder["pid"] if is_there else None)

    def _link(self, file: Path) -> None:
        with replacing(self._workspace.root / file.name) as partial:
            try:
                os.link(file, partial)
            except OSError:  # a file system without hard links
                shutil.copyfile(file, partial)

    def forget(self) -> None:
        """Makes every build's archive one that no later build is answered with; the archives stay."""
        for directory in self.directories():
            if record := self._read(directory):
                write_record(directory / RECORD_NAME, {**record, "key": None, "engine_key": None})

    def settle_failed(self, directory: Path) -> None:
        """Leaves of a failed build only its logs, for whoever wants to know why."""
        if not directory.is_dir() or directory.is_symlink():
            return  # a script has removed it
        for path in directory.iterdir():
            if path.is_file() or path.is_symlink():
                path.unlink()

    def remove_unfinished(self) -> None:
        """Removes what a build that was killed left half-written: archives, and this service's records."""
        for folder in (*self.directories(), self._workspace.state):
            remove_unfinished(folder)
        for name in ARCHIVE_NAMES.values():
            remove_unfinished(self._workspace.root, f"{name}*")

    def keep_newest(self, count: int) -> None:
        """Removes the oldest builds: so many successful ones stay, and as many that have failed.

        Those that ended before a program had run count apart: a mistyped address evicts no step's logs. The
        last build and the newest with an archive always stay.
        """
        directories = self.directories()
        always = {*directories[:1], *filter(None, [self._newest_archive(directories)])}
        good = [path for path in directories if "archive" in self._read(path)]
        failed = [path for path in directories if path not in good]
        ran = [path for path in failed if Build(path, {}).logs()]
        for alike in (good, ran, [path for path in failed if path not in ran]):
            kept = always.intersection(alike)
            others = [path for path in alike if path not in kept]
            for path in others[max(0, count - len(kept)) :]:
                shutil.rmtree(path, ignore_errors=True)

    def give_way(self, wanted_bytes: int) -> int:
        """Removes old archives, the oldest first, until that many bytes are free; the bytes removed.

        The newest archive stays.
        """
        removed = 0
        directories = self.directories()
        newest = self._newest_archive(directories)
        for directory in reversed([path for path in directories if path != newest]):
            if removed >= wanted_bytes:
                break
            size = sum(path.stat().st_size for path in directory.glob("engine.tar*"))
            if size:  # without an archive it is the running build's, or a few lines of log
                removed += size
                shutil.rmtree(directory, ignore_errors=True)
        return removed

    def _newest_archive(self, directories: list[Path]) -> Path | None:
        """The newest build whose archive is there. A build that was sent elsewhere has none here."""
        return next((path for path in directories if Build(path, self._read(path)).archive is not None), None)

    def _published(self, path: Path) -> bool:
        """True where a build has put the archive at the workspace's top that is there now."""
        try:
            there = path.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(there.st_mode):
            return False
        if self._noted().get(path.name) == [there.st_ino, there.st_size, there.st_mtime_ns]:
            return True
        kept = [directory / path.name for directory in self.directories()]
        return any(archive.is_file() and archive.stat().st_ino == there.st_ino for archive in kept)

    def _remember(self, paths: Iterable[Path]) -> None:
        """Notes what was put at the top: its build's directory may be gone when the next one comes."""
        noted = {name: mark for name, mark in self._noted().items() if _at_the_top(name)}
        for path in paths:
            there = path.lstat()
            noted[path.name] = [there.st_ino, there.st_size, there.st_mtime_ns]
        write_record(self._note, noted)

    def _noted(self) -> Mapping[str, list[int]]:
        return read_record(self._note, PUBLISHED, self._warn) or {}

    def _read(self, directory: Path) -> Mapping[str, Any]:
        record = read_record(directory / RECORD_NAME, KEPT, self._warn)
        return {} if record is None else {**record}

    @property
    def _note(self) -> Path:
        return self._workspace.state / "published.json"


def new_build_id() -> str:
    """A build's name: when it began, and a few digits that no other has. Later ones sort after."""
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    start = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
    return f"{start}.{microseconds:06d}Z-{secrets.token_hex(2)}"


def began(build_id: str) -> str:
    """When the build of that name began: RFC 3339, UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.strptime(build_id.partition(".")[0], "%Y%m%dT%H%M%S"))


def _at_the_top(name: str) -> bool:
    """True for the name of an archive, or of something that lies beside one."""
    return "/" not in name and any(name.startswith(archive) for archive in ARCHIVE_NAMES.values())
