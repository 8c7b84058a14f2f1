"""A look at a repository on the Hub before its weights are downloaded: at names, and at the small configs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trt_llm_pipeline.model_source import config_code, repository_code
from trt_llm_pipeline.model_source.choice import CACHE_FOLDER
from trt_llm_pipeline.model_source.hub import Hub
from trt_llm_pipeline.model_source.model_types import CodeFile, Progress
from trt_llm_pipeline.model_source.record import (
    RecordedFile,
    books_of,
    check_no_links,
    matches,
    read_record,
)
from trt_llm_pipeline.model_source.transfer import Transfer, Wanted

_MOST_CONFIGS = 1000
_PLACE = "looked-at"


@dataclass(frozen=True)
class Looked:
    """What a look has found and brought.

    Attributes:
        found: the code that can be seen without a byte of the weights.
        received: bytes that came over the network.
        files: the configs that were downloaded for it.
        place: where they are.
    """

    found: tuple[CodeFile, ...] = ()
    received: int = 0
    files: tuple[RecordedFile, ...] = ()
    place: Path | None = None

    def counted(self, progress: Progress | None) -> Progress | None:
        """The same progress of a download that these files were a part of."""
        here = sum(file.size for file in self.files)
        if progress is None or not here:
            return progress
        return lambda done, total: progress(done + here, None if total is None else total + here)

    def put_in_place(self, folder: Path) -> dict[str, RecordedFile]:
        """Moves them to where they belong in the model's folder; each by its path."""
        if self.place is None:
            return {}
        for file in self.files:
            check_no_links(folder, file.path)
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.place / file.path).replace(target)
        shutil.rmtree(self.place, ignore_errors=True)
        return {file.path: file for file in self.files}


def look_first(hub: Hub, model_id: str, commit: str, files: Sequence[RecordedFile], folder: Path) -> Looked:
    """Looks at the names of files and at the configs.

    Args:
        hub: the Hub.
        model_id, commit: the repository.
        files: those that a build would download.
        folder: the model's; what is in it already is read there.

    Raises:
        ModelSourceError, OSError: as `source.fetch`.
    """
    named = [repository_code.code_by_name(file.path) for file in files]
    found = [code for code in named if code is not None]
    configs = [file for file in files if config_code.is_config(file.path)]
    found += [repository_code.too_large(file.path) for file in configs if file.size > config_code.MOST_BYTES]
    configs = [file for file in configs if file.size <= config_code.MOST_BYTES]
    if len(configs) > _MOST_CONFIGS:
        found.append(CodeFile(configs[0].path, f"one of {len(configs)} configs, too many to be looked at"))
        return Looked(tuple(found))
    missing = [file for file in configs if matches(folder, file) is None]
    place = books_of(folder) / _PLACE
    shutil.rmtree(place, ignore_errors=True)
    fetched: list[RecordedFile] = []
    received = _fetch(hub, model_id, commit, missing, place, fetched)
    for file in configs:
        where = place if file in missing else folder
        what = config_code.asked_for(file.path, (where / file.path).read_bytes())
        if what is not None:
            found.append(CodeFile(file.path, what))
    return Looked(tuple(sorted(found, key=lambda code: code.path)), received, tuple(fetched), place)


def forget(folder: Path) -> None:
    """Removes what a look brought, and the folder where there was nothing before: no record, and no file."""
    shutil.rmtree(books_of(folder) / _PLACE, ignore_errors=True)
    if not folder.is_dir() or read_record(folder) is not None:
        return
    if all(entry.name == CACHE_FOLDER for entry in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def _fetch(
    hub: Hub,
    model_id: str,
    commit: str,
    missing: Sequence[RecordedFile],
    place: Path,
    fetched: list[RecordedFile],
) -> int:
    if not missing:
        return 0
    return Transfer(
        folder=place,
        partial=place / CACHE_FOLDER,
        headers=hub.headers(),
        refused=lambda failure, path: hub.refusal(model_id, failure, path),
        limits=hub.limits,
        log=hub.log,
        progress=None,
        finished=fetched.append,
        reach=hub.reach,
    ).run([Wanted(hub.url_of(model_id, commit, file.path), file) for file in missing])
