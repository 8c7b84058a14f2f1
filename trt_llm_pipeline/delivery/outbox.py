"""Where a finished engine goes: an archive in the build's directory, or one sent to a destination."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trt_llm_pipeline.artifact import pack as artifact
from trt_llm_pipeline.artifact import verified_copy
from trt_llm_pipeline.artifact.writer import Compression
from trt_llm_pipeline.cache.fingerprint import hash_file
from trt_llm_pipeline.delivery import send as delivery
from trt_llm_pipeline.delivery.destination import Destination
from trt_llm_pipeline.errors import DeliveryError
from trt_llm_pipeline.provenance import Archive
from trt_llm_pipeline.workspace.builds import ARCHIVE_NAMES
from trt_llm_pipeline.workspace.ledger import Ledger
from trt_llm_pipeline.workspace.workspace import Workspace

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
        self._destination = destination
        self._workspace = workspace
        self._progress = progress

    def refuse_foreign(self, ledger: Ledger) -> None:
        """Raises `DeliveryError` where the destination is a file that no build has sent there."""
        path = self._destination.path if self._destination else None
        if path is None or not path.exists():
            return
        marks = self._workspace.files_in(path)
        if ledger.made_by(_DELIVERY, marks) != set(marks):
            raise DeliveryError(f"{path} is there already, and no build made it; choose another name")

    def note(self, ledger: Ledger) -> None:
        """Notes a file that was sent to the workspace as a build's own, so that the next may replace it."""
        if self._destination is not None and self._destination.path is not None:
            ledger.finish(_DELIVERY, self._workspace.files_in(self._destination.path))

    def pack(
        self,
        engine_dir: Path,
        extra: Mapping[str, Path | bytes],
        manifest: Mapping[str, Any],
        compression: Compression,
    ) -> Archive:
        """Packs an engine directory; arguments and errors as for `artifact.pack` and `delivery.deliver`."""
        name = ARCHIVE_NAMES[compression]
        how: dict[str, Any] = {
            "extra": extra,
            "manifest": manifest,
            "compression": compression,
            "progress": self._progress,
        }
        if self._destination is not None:
            sent = delivery.deliver(engine_dir, self._destination, **how)
            return Archive(name, {"address": sent.address}, sent.size, sent.sha256, sent.files)
        packed = artifact.pack(engine_dir, self._directory / name, **how)
        return Archive(name, {"path": str(packed.path)}, packed.size, packed.sha256, packed.files)

    def again(self, source: Path, sha256: str) -> dict[str, Any] | None:
        """Copies or sends an earlier build's archive.

        Args:
            source: the archive.
            sha256: what it was when it was made.

        Returns:
            What `build.json` says of the archive; None where it is damaged: then nothing was sent.
        """
        if self._destination is None:
            target = self._directory / source.name
            size, found = verified_copy.copy(source, target, self._progress)
            if found != sha256:
                target.unlink()
                return None
            return {"name": source.name, "path": str(target), "size": size, "sha256": found}
        if hash_file(source) != sha256:
            return None
        sent = delivery.deliver_file(source, self._destination, progress=self._progress)
        return {"name": source.name, "address": sent.address, "size": sent.size, "sha256": sent.sha256}
