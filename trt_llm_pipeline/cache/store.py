"""What an unchanged step already produced: files kept under the key of what they depend on.

An entry is a directory `<state>/cache/<key>` with `files/` and, written before the directory gets its name,
`entry.json` with the SHA-256 of each file. Files are hard links where the file system has them, so an entry
costs no room as long as the step's output directory has them too. Every use reads the files and compares them
with their SHA-256: an entry that was damaged is removed, never used.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trt_llm_pipeline.files import hash_file
from trt_llm_pipeline.workspace import Workspace

_PARTIAL = ".partial"


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
    """The cache of one workspace. Used with the workspace locked, but for `entries` and `has`."""

    def __init__(self, workspace: Workspace, limit_bytes: int) -> None:
        self._workspace = workspace
        self._folder = workspace.state / "cache"
        self._limit = limit_bytes

    def has(self, key: str) -> Path | None:
        """The output directory that the entry `key` was made in, or None without such an entry."""
        record = self._record(self._folder / key)
        return self._workspace.root / record["output_dir"] if record else None

    def restore(self, key: str, output_dir: Path) -> bool:
        """Puts an entry's files into `output_dir`, checking each.

        Returns:
            False where there is no such entry, or it was damaged: then it is gone, and `output_dir` holds
            nothing of it.
        """
        entry = self._folder / key
        record = self._record(entry)
        if record is None:
            return False
        made: list[Path] = []
        try:
            for name, sha256 in record["files"].items():
                source, target = entry / "files" / name, output_dir / name
                if hash_file(source) != sha256:
                    raise ValueError(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                made.append(target)
                _link(source, target)
        except (FileNotFoundError, ValueError):
            _unlink(made)
            shutil.rmtree(entry, ignore_errors=True)
            return False
        except OSError:  # no fault of the entry's: the disk is full, say
            _unlink(made)
            raise
        os.utime(entry)
        return True

    def store(self, key: str, step: str, model_id: str, output_dir: Path) -> None:
        """Keeps the files of `output_dir` under `key`; older entries give way, too large ones stay out."""
        entry = self._folder / key
        names = [str(path.relative_to(output_dir)) for path in output_dir.rglob("*") if path.is_file()]
        size = sum((output_dir / name).stat().st_size for name in names)
        if size > self._limit or any((output_dir / name).is_symlink() for name in names):
            return
        self.evict(self._limit - size)
        partial = self._folder / f"{key}{_PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            files = {}
            for name in names:
                target = partial / "files" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(output_dir / name, target)
                files[name] = hash_file(target)
            relative = str(output_dir.relative_to(self._workspace.root))
            record = {
                "step": step,
                "model_id": model_id,
                "output_dir": relative,
                "size": size,
                "files": files,
            }
            (partial / "entry.json").write_text(json.dumps(record))
            shutil.rmtree(entry, ignore_errors=True)
            partial.rename(entry)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def entries(self) -> list[CacheEntry]:
        """Every entry, the one that was used longest ago first."""
        found = []
        for path in self._paths():
            record = self._record(path)
            if record is None:
                continue
            used = path.stat().st_mtime
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
        (folder / key).write_text(f"{time.time():.0f}\n")

    def _paths(self) -> Iterator[Path]:
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.is_dir() and path.name != "accepted" and not path.name.endswith(_PARTIAL):
                    yield path

    def _record(self, entry: Path) -> Mapping[str, Any] | None:
        """The entry's record, or None where it is not what `store` writes."""
        try:
            record = json.loads((entry / "entry.json").read_bytes())
            names = [PurePosixPath(name) for name in record["files"]]
            inside = PurePosixPath(record["output_dir"])
            sane = not any(name.is_absolute() or ".." in name.parts for name in [*names, inside])
            return record if sane and isinstance(record["size"], int) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # no hard links here, or too many of this file
        shutil.copy2(source, target, follow_symlinks=False)
