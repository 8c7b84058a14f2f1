"""What a node keeps for the fleet's cells: slots to build in, and models and step results that they share.

Below `<workspace>/.trt-llm-pipeline/fleet/`:

    slots/<n>/     a workspace of its own; `slots/<n>.lock` is held while a cell is built in it
    models/        each model once, in each revision that a cell wants; slots have hard links to the files
    datasets/      likewise
    cache/         results of steps, for all slots
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import filelock

from trt_llm_pipeline.errors import WorkspaceBusy, WorkspaceError
from trt_llm_pipeline.files import walk
from trt_llm_pipeline.model_source import ModelRequest, fetch
from trt_llm_pipeline.model_source import record as model_record
from trt_llm_pipeline.model_source.model_types import Progress
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.workspace import Workspace, disk
from trt_llm_pipeline.workspace.waiting import waited_for

_MOST_SLOTS = 256


class Node:
    """One machine's part of the fleet.

    Args:
        settings: the machine's own; its workspace holds everything.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.home = settings.workspace.state / "fleet"

    def planning(self) -> Settings:
        """Settings to check configs with: of a slot that nobody has built in."""
        return self._of_slot("planning")

    @contextmanager
    def slot(self) -> Iterator[Settings]:
        """Holds a workspace that no other cell is built in; yields the settings to build with.

        Raises:
            WorkspaceError, DiskFull: there is none, or it cannot be made.
        """
        with disk.translated(self.home):
            (self.home / "slots").mkdir(parents=True, exist_ok=True)
            (self.home / "cache").mkdir(exist_ok=True)
        for number in range(_MOST_SLOTS):
            lock = filelock.FileLock(str(self.home / "slots" / f"{number}.lock"), timeout=0)
            try:
                lock.acquire()
            except filelock.Timeout:
                continue
            except OSError as error:
                raise WorkspaceError(
                    f"{lock.lock_file} cannot be locked: {error.strerror or error}"
                ) from None
            try:
                yield self._of_slot(str(number))
            finally:
                lock.release()
            return
        raise WorkspaceBusy(f"{self.home} has no free slot: {_MOST_SLOTS} cells are being built there")

    def share(
        self,
        request: ModelRequest,
        slot: Settings,
        *,
        token: str | None,
        log: Callable[[str], None],
        progress: Progress,
    ) -> None:
        """Brings a model or a dataset to the node, once for all cells, and into a slot as hard links.

        A folder of the user's own in the node's workspace is used as it is.

        Raises:
            ModelSourceError, DiskFull, WorkspaceError: as `model_source.fetch`.
        """
        own = self._settings.workspace.downloads(request.kind) / request.model_id
        target = slot.workspace.downloads(request.kind) / request.model_id
        if own.is_dir() and any(own.iterdir()) and model_record.read_record(own) is None:
            with disk.translated(self.home):
                _link_tree(own, target)
            return
        shared = self.shared(request)
        with disk.translated(self.home):
            shared.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(request.model_id.encode()).hexdigest()[:12]
        with waited_for(shared / f"{name}.lock", f"another cell to download {request.model_id}", log):
            snapshot = fetch(request, shared, token=token, log=log, progress=progress, env=slot.env)
            with disk.translated(self.home):
                _link_tree(snapshot.path, target)

    def shared(self, request: ModelRequest) -> Path:
        """Where the node keeps what is asked for: other revisions and formats of it are elsewhere."""
        wanted = f"{request.revision}\n{request.weight_format}\n{request.tar_url}"
        kept = self.home / ("models" if request.kind == "model" else "datasets")
        return kept / hashlib.sha256(wanted.encode()).hexdigest()[:12]

    def _of_slot(self, name: str) -> Settings:
        place = Workspace.at(self.home / "slots" / name)
        return replace(self._settings, workspace=place, cache_folder=self.home / "cache", keep_builds=1)


def _link_tree(source: Path, target: Path) -> None:
    """Makes `target` hold what `source` holds, as hard links where the file system has them."""
    shutil.rmtree(target, ignore_errors=True)
    for folder, _, names in walk(source):
        inside = target / Path(folder).relative_to(source)
        inside.mkdir(parents=True, exist_ok=True)
        for name in names:
            place = Path(folder) / name
            if place.is_symlink():
                (inside / name).symlink_to(place.readlink())
                continue
            try:
                os.link(place, inside / name)
            except OSError:
                shutil.copy2(place, inside / name)
