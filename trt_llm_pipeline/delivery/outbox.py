"""Where a finished engine goes: an archive in the build's directory, or one sent to a destination."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_llm_pipeline.artifact import FinishedArchive, pack_engine
from trt_llm_pipeline.artifact.entries import Compression
from trt_llm_pipeline.delivery.attesting import beside
from trt_llm_pipeline.delivery.destination import Destination
from trt_llm_pipeline.delivery.send import deliver, deliver_file
from trt_llm_pipeline.errors import DeliveryError
from trt_llm_pipeline.files import copy_verified, hash_file
from trt_llm_pipeline.workspace import ARCHIVE_NAMES, Ledger, Workspace

_DELIVERY = "delivery"


class Outbox:
    """The way out of one build.

    Args:
        directory: the build's, below `builds/`.
        destination: where to send the archive; None to keep it in `directory`.
        workspace: the build's.
        progress: called with the bytes that are done and all bytes.
    """

    def __init__(
        self,
        directory: Path,
        destination: Destination | None,
        workspace: Workspace,
        progress: Callable[[int, int], None],
    ) -> None:
        self._directory = directory
        self.destination = destination
        self._workspace = workspace
        self._progress = progress

    def refuse_foreign(self, ledger: Ledger) -> None:
        """Raises `DeliveryError` where the destination is a file that no build has sent there."""
        for path in self._sent():
            if not path.exists():
                continue
            marks = self._workspace.files_in(path)
            if ledger.made_by(_DELIVERY, marks) != set(marks):
                raise DeliveryError(f"{path} is there already, and no build made it; choose another name")

    def note(self, ledger: Ledger) -> None:
        """Notes a file that was sent to the workspace as a build's own, so that the next may replace it."""
        marks = {name: mark for path in self._sent() for name, mark in self._workspace.files_in(path).items()}
        if marks:
            ledger.finish(_DELIVERY, marks)

    def _sent(self) -> list[Path]:
        """The files in the workspace that are sent to: the archive, and the statement about it."""
        path = self.destination.path if self.destination else None
        return [] if path is None else [path, beside(path)]

    def pack(
        self,
        engine_dir: Path,
        extra: Mapping[str, Path | bytes],
        manifest: Mapping[str, Any],
        compression: Compression,
        expected: Mapping[str, str],
    ) -> FinishedArchive:
        """Packs an engine directory; arguments and errors as for `pack_engine` and `deliver`."""
        name = ARCHIVE_NAMES[compression]
        how: dict[str, Any] = {
            "extra": extra,
            "manifest": manifest,
            "compression": compression,
            "progress": self._progress,
            "expected": expected,
        }
        if self.destination is not None and self.destination.kind == "hub":
            packed = pack_engine(engine_dir, self._directory / name, **how)
            try:
                sent = deliver_file(self._directory / name, self.destination)
            finally:
                (self._directory / name).unlink(missing_ok=True)
            return replace(packed, path=None, address=sent.address)
        if self.destination is not None:
            return replace(deliver(engine_dir, self.destination, **how), name=name)
        return pack_engine(engine_dir, self._directory / name, **how)

    def again(self, source: Path, sha256: str) -> FinishedArchive | None:
        """Copies or sends an earlier build's archive.

        Args:
            source: the archive.
            sha256: what it was when it was made.

        Returns:
            The archive, without a list of its files; None where it is damaged: then nothing was sent.
        """
        if self.destination is None:
            target = self._directory / source.name
            size, found = copy_verified(source, target, self._progress)
            if found != sha256:
                target.unlink()
                return None
            return FinishedArchive(size, found, (), source.name, target)
        if hash_file(source) != sha256:
            return None
        sent = deliver_file(source, self.destination, progress=self._progress)
        return replace(sent, name=source.name)
