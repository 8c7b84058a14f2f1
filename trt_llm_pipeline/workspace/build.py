"""What one build has left in its directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_pipeline.records import read_record
from trt_llm_pipeline.report import REPORT_NAME
from trt_llm_pipeline.workspace.shapes import BUILD
from trt_llm_pipeline.workspace.workspace import ARCHIVE_NAMES

RECORD_NAME = "build.json"


@dataclass(frozen=True)
class Build:
    """A build as it is found on the disk.

    Attributes:
        directory: below `builds/`.
        record: its `build.json`, of which only the shape that every build has is checked; empty without one.
        begun_for: the model that a build without a record was begun for, where that is known.
        process: the process that is running it; None where it has ended.
    """

    directory: Path
    record: Mapping[str, Any]
    begun_for: str | None = None
    process: int | None = None

    @property
    def build_id(self) -> str:
        """Its name."""
        return self.directory.name

    @property
    def state(self) -> str:
        """`succeeded`, `failed`, `interrupted` or `running`; `unfinished` where it was killed."""
        if "archive" in self.record:
            return "succeeded"
        if not self.record:
            return "unfinished" if self.process is None else "running"
        return "interrupted" if self.record.get("kind") == "interrupted" else "failed"

    @property
    def archive(self) -> Path | None:
        """The archive that its record names, where it is a file in its directory."""
        named = self.record.get("archive")
        name = named.get("name") if isinstance(named, dict) else None
        return self._file(str(name)) if name in ARCHIVE_NAMES.values() else None

    def whole(self) -> Mapping[str, Any] | None:
        """The record of a successful build, checked; None where there is none."""
        found = read_record(self.directory / RECORD_NAME, BUILD)
        return None if found is None else {**found}

    def logs(self) -> dict[str, Path]:
        """What was printed, by step, in the order in which the steps ran."""
        folder = self.directory / "logs"
        if folder.is_symlink() or not folder.is_dir():
            return {}
        found = [path for path in folder.glob("*.log") if path.is_file() and not path.is_symlink()]
        return {path.stem: path for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)}

    def files(self) -> dict[str, Path]:
        """Where its archive, report and logs are, as far as there are any."""
        logs = self.directory / "logs"
        found = {
            "archive": self.archive,
            "report": self._file(REPORT_NAME),
            "logs": logs if self.logs() else None,
        }
        return {name: path for name, path in found.items() if path is not None}

    def _file(self, name: str) -> Path | None:
        path = self.directory / name
        return path if path.is_file() and not path.is_symlink() else None
