"""The directories below `builds/`: one a build, with its archive, its `build.json` and its logs."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trt_llm_pipeline.artifact import PARTIAL_SUFFIX
from trt_llm_pipeline.workspace import Workspace

RECORD_NAME = "build.json"
ARCHIVE_NAMES = {"gzip": "engine.tar.gz", "none": "engine.tar"}


class Builds:
    """The builds of one workspace, newest last by name. Used with the workspace locked."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def directories(self) -> list[Path]:
        """Every build's directory, the newest first."""
        if not self._workspace.builds.is_dir() or self._workspace.builds.is_symlink():
            return []
        there = [path for path in self._workspace.builds.iterdir() if path.is_dir() and not path.is_symlink()]
        return sorted(there, reverse=True)

    def find(self, key: str) -> tuple[Path, Mapping[str, Any]] | None:
        """The newest build with the key `key` whose archive is there: its archive and its record."""
        for directory in self.directories():
            record = _read(directory)
            if record.get("key") != key:
                continue
            archive = directory / str(record.get("archive", {}).get("name"))
            if archive.is_file() and not archive.is_symlink():
                return archive, record
        return None

    def publish(self, archive: Path) -> Path:
        """Puts an archive at the workspace's top, in one go, as a hard link; the path there."""
        newest = self._workspace.root / archive.name
        temporary = self._workspace.root / f".{archive.name}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(archive, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(archive, temporary)
        temporary.replace(newest)
        for other in set(ARCHIVE_NAMES.values()) - {archive.name}:
            self._unpublish(self._workspace.root / other)
        return newest

    def settle_failed(self, directory: Path) -> None:
        """Leaves of a failed build only its logs, for whoever wants to know why."""
        if not directory.is_dir() or directory.is_symlink():
            return  # a script has removed it
        for path in directory.iterdir():
            if path.is_file() or path.is_symlink():
                path.unlink()
        logs = directory / "logs"
        if not logs.is_dir() or not any(logs.iterdir()):
            shutil.rmtree(directory)

    def remove_unfinished(self) -> None:
        """Removes what a build that was killed left of its archive."""
        for path in self._workspace.builds.glob(f"*/.*{PARTIAL_SUFFIX}"):
            path.unlink(missing_ok=True)

    def keep_newest(self, count: int) -> None:
        """Removes the oldest directories; the newest with an archive always stays."""
        for path in self._expendable()[count - 1 :]:
            shutil.rmtree(path, ignore_errors=True)

    def give_way(self, wanted_bytes: int) -> int:
        """Removes old archives, the oldest first, until that many bytes are free; the bytes removed."""
        removed = 0
        for directory in reversed(self._expendable()):
            if removed >= wanted_bytes:
                break
            size = sum(path.stat().st_size for path in directory.glob("engine.tar*"))
            if size:  # without an archive it is the running build's, or a few lines of log
                removed += size
                shutil.rmtree(directory, ignore_errors=True)
        return removed

    def _expendable(self) -> list[Path]:
        directories = self.directories()
        good = next((path for path in directories if (path / RECORD_NAME).is_file()), None)
        return [path for path in directories if path != good]

    def _unpublish(self, path: Path) -> None:
        """Removes an older archive from the workspace's top, if a build has put it there."""
        try:
            identity = path.lstat().st_ino
        except FileNotFoundError:
            return
        if any(found.stat().st_ino == identity for found in self._workspace.builds.glob(f"*/{path.name}")):
            path.unlink()


def new_id() -> str:
    """A build's name: when it began, and a few digits that no other has. Later ones sort after."""
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    began = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
    return f"{began}.{microseconds:06d}Z-{secrets.token_hex(2)}"


def _read(directory: Path) -> Mapping[str, Any]:
    try:
        record = json.loads((directory / RECORD_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
