"""A model, from the Hub, a tar address or a local folder, into `<models_dir>/<model_id>`.

Names and revisions are the Hub client's business (`huggingface_hub`, imported when first needed). The bytes
are fetched by `transfer`: the client deletes a half-downloaded file when it is interrupted, and downloads of
a hundred gigabytes must be able to go on.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from trt_llm_pipeline.errors import (
    ModelAccessDenied,
    ModelNotFound,
    ModelSourceError,
    ModelUnavailable,
    WorkspaceError,
)
from trt_llm_pipeline.files import free_bytes, remove_unfinished
from trt_llm_pipeline.model_source.access import ask_for_access, is_free, not_asked, refused_though_here
from trt_llm_pipeline.model_source.choice import CACHE_FOLDER, choose_files
from trt_llm_pipeline.model_source.file_source import no_room, write_error
from trt_llm_pipeline.model_source.first_look import Looked, forget, look_first
from trt_llm_pipeline.model_source.hub import Hub, Listing, is_offline, offline_error
from trt_llm_pipeline.model_source.model_types import (
    CodeFile,
    DownloadPlan,
    ModelRequest,
    Progress,
    RemoteFile,
    Snapshot,
)
from trt_llm_pipeline.model_source.partial import recorded_bytes
from trt_llm_pipeline.model_source.peek import CONFIG_NAME
from trt_llm_pipeline.model_source.record import (
    Record,
    RecordedFile,
    all_match,
    check_no_links,
    completed,
    matches,
    partial_folder,
    partial_name,
    read_record,
    record_path,
    remove_files,
    remove_partial,
    write_record,
)
from trt_llm_pipeline.model_source.repository_code import (
    Permission,
    code_in,
    code_of,
    listed,
    refuse,
    with_digests,
)
from trt_llm_pipeline.model_source.transfer import Transfer, Wanted
from trt_llm_pipeline.net.connection_limit import most_connections
from trt_llm_pipeline.net.retrying import BRIEFLY, RetryLimits
from trt_llm_pipeline.records import Warn, silent
from trt_llm_pipeline.units import in_words

_NO_DATA = frozenset({".gitattributes"})
_RECORD_SECONDS = 1.0
_STOPPED = "The download was stopped."
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MODEL_ID = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)?[A-Za-z0-9_][A-Za-z0-9._-]*")


def _ignore(line: str) -> None:
    """A log for those who want none."""
    del line


def plan(
    request: ModelRequest,
    models_dir: Path,
    *,
    token: str | None,
    env: Mapping[str, str] = os.environ,
    limits: RetryLimits = RetryLimits(),  # noqa: B008  frozen
    log: Callable[[str], None] = _ignore,
    permission: Permission | None = None,
) -> DownloadPlan:
    """What `fetch` would download. Asks the source; writes nothing.

    Args, raises: as `fetch`. A source that is down does not matter where a complete model is there. Without
    a permission nobody looks for code.
    """
    most_connections(env)
    folder = _folder(request.model_id, models_dir)
    if _is_users_own(folder):
        _look_at_folder(request.model_id, folder, permission)
        return DownloadPlan(request.model_id, "", "local", (), 0, 0)
    if request.tar_url is not None:
        _refuse_models_inside(folder)
        from trt_llm_pipeline.model_source import tar

        return tar.plan_tar(request, folder, limits=limits, log=log, env=env)
    record = read_record(folder)
    if record is not None:
        _refuse_models_inside(folder)
    if (settled := _settled(folder, record, request, env)) is not None:
        ask_for_access(Hub.from_env(env, token, BRIEFLY, log, request.kind), settled, env)
        _look_at_folder(request.model_id, folder, permission, settled.revision)
        return DownloadPlan(request.model_id, settled.revision, "hub", (), _bytes(settled.files), 0)
    if is_offline(env):
        raise offline_error(request.model_id)
    usable = _complete(folder, record, request)
    hub = Hub.from_env(env, token, BRIEFLY if usable is not None else limits, log, request.kind)
    try:
        files, listing = _choose(hub, request)
    except (ModelAccessDenied, ModelNotFound) as error:
        raise (error if usable is None else refused_though_here(usable, error, env)) from None
    except ModelUnavailable as error:
        if usable is None:
            raise
        if not is_free(usable, env):
            raise not_asked(usable, error) from error
        log(f"warning: {_not_asked(hub, request, usable)} ({error})")
        _look_at_folder(request.model_id, folder, permission, usable.revision)
        return DownloadPlan(request.model_id, usable.revision, "hub", (), _bytes(usable.files), 0)
    _refuse_models_inside(folder)
    missing = [file for file in files if matches(folder, _known(record, file)) is None]
    if not missing:
        _look_at_folder(request.model_id, folder, permission, listing.commit)
    elif permission is not None and not permission.granted:
        with tempfile.TemporaryDirectory() as place:
            _look_first(hub, request, listing, files, Path(place), permission)
    return _to_come(request, folder, listing, files, missing)


def _to_come(
    request: ModelRequest,
    folder: Path,
    listing: Listing,
    files: Sequence[RecordedFile],
    missing: Sequence[RecordedFile],
) -> DownloadPlan:
    return DownloadPlan(
        request.model_id,
        listing.commit,
        "hub",
        tuple(RemoteFile(file.path, file.size) for file in missing),
        _bytes(files),
        _bytes(missing) - sum(_partial_bytes(folder, file) for file in missing),
    )


def fetch(
    request: ModelRequest,
    models_dir: Path,
    *,
    token: str | None,
    log: Callable[[str], None],
    progress: Progress | None = None,
    before: Callable[[DownloadPlan], None] | None = None,
    env: Mapping[str, str] = os.environ,
    limits: RetryLimits = RetryLimits(),  # noqa: B008  frozen
    permission: Permission = Permission(),  # noqa: B008  frozen
) -> Snapshot:
    """Brings the model to `<models_dir>/<model_id>`, or finds that it is there.

    What is complete at the wanted revision is used as it is; what is half there is resumed. A populated
    folder that this service did not download is used as it is, with a warning. For a model that needed a
    token, the Hub is asked each time whether this one may have it; see `access`. Code that comes with a model
    ends this as soon as it is seen, where nobody has allowed it; where somebody has, the snapshot lists it.

    Args:
        request: what to fetch.
        models_dir: made if need be.
        token: for gated and private repositories; None takes HF_TOKEN from `env`.
        log: gets one line at the start, one at the end, and one for each attempt that failed.
        progress: see Progress; an exception that it raises, or that is raised in the calling thread, stops
            the download within about two seconds and keeps what came.
        before: called once, before anything is downloaded, with what will be; it may raise.
        env: HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read from it.
        limits: how long a failing source is asked again.
        permission: whether code of the model's may be run.

    Raises:
        RepositoryCodeRefused: it has code, and nobody has allowed that to be run.
        ModelNotFound: no such repository, revision or address.
        ModelAccessDenied: gated or private, and the token is missing or refused.
        ModelUnavailable: the source failed, or went on failing; or HF_HUB_OFFLINE is set.
        ModelSourceError: no weights in the wanted format, or the source is not to be trusted.
        DiskFull: what was downloaded so far is kept.
        WorkspaceError: a symbolic link lies where files should be written.
    """
    folder = _folder(request.model_id, models_dir)
    snapshot = _fetch(request, folder, token, log, progress, before, env, limits, permission)
    found = _look_at_folder(request.model_id, folder, permission, snapshot.revision)
    if not found:
        return snapshot
    found = with_digests(folder, found, _digests(folder))
    warning = f"code of the model's is allowed by {permission.basis}, and scripts may run it: {listed(found)}"
    return replace(snapshot, code=found, warnings=(*snapshot.warnings, warning))


def _fetch(
    request: ModelRequest,
    folder: Path,
    token: str | None,
    log: Callable[[str], None],
    progress: Progress | None,
    before: Callable[[DownloadPlan], None] | None,
    env: Mapping[str, str],
    limits: RetryLimits,
    permission: Permission,
) -> Snapshot:
    connections = most_connections(env)
    if _is_users_own(folder, lambda text: log(f"warning: {text}")):
        return _local(request, folder)
    remove_unfinished(record_path(folder).parent)
    if request.tar_url is not None:
        _refuse_models_inside(folder)
        from trt_llm_pipeline.model_source import tar

        return tar.fetch_tar(
            request,
            folder,
            log=log,
            progress=progress,
            before=before,
            limits=limits,
            env=env,
            permission=permission,
        )
    record = read_record(folder)
    if record is not None:
        _refuse_models_inside(folder)
    if (settled := _settled(folder, record, request, env)) is not None:
        ask_for_access(Hub.from_env(env, token, BRIEFLY, log, request.kind), settled, env)
        log(f"{request.kind} {request.model_id}: complete at {settled.revision[:12]}; nothing to download")
        if settled != record:  # files were looked at anew
            write_record(folder, settled)
        return _snapshot(request, folder, settled, 0)
    if is_offline(env):
        raise offline_error(request.model_id)
    usable = _complete(folder, record, request)
    hub = Hub.from_env(env, token, BRIEFLY if usable is not None else limits, log, request.kind)
    try:
        files, listing = _choose(hub, request)
    except (ModelAccessDenied, ModelNotFound) as error:
        raise (error if usable is None else refused_though_here(usable, error, env)) from None
    except ModelUnavailable as error:
        if usable is None:
            raise
        if not is_free(usable, env):
            raise not_asked(usable, error) from error
        warning = _not_asked(hub, request, usable)
        log(f"warning: {warning} ({error})")
        return replace(_snapshot(request, folder, usable, 0), warnings=(warning,))
    _refuse_models_inside(folder)
    try:
        return _download(
            replace(hub, limits=limits),
            request,
            folder,
            record,
            files,
            listing,
            progress,
            before,
            connections,
            permission,
        )
    except OSError as error:
        raise write_error(error, folder, _bytes(files), request.model_id) from error


def _not_asked(hub: Hub, request: ModelRequest, usable: Record) -> str:
    return (
        f"{hub.endpoint} could not be asked whether {request.model_id} has changed; the snapshot "
        f"{usable.revision[:12]} that is here is used. HF_HUB_OFFLINE=1 uses it without asking"
    )


def _download(
    hub: Hub,
    request: ModelRequest,
    folder: Path,
    record: Record | None,
    files: tuple[RecordedFile, ...],
    listing: Listing,
    progress: Progress | None,
    before: Callable[[DownloadPlan], None] | None,
    connections: int,
    permission: Permission,
) -> Snapshot:
    check_no_links(folder, f"{partial_folder(folder).relative_to(folder)}/x")
    found = {file.path: matches(folder, _known(record, file)) for file in files}
    missing = [file for file in files if found[file.path] is None]
    earlier = () if record is None else (*(file.path for file in record.files), *record.stale)
    paths = {file.path for file in files}
    current = Record(
        source="hub",
        origin=hub.endpoint,
        model_id=request.model_id,
        requested_revision=request.revision,
        weight_format=request.weight_format,
        revision=listing.commit,
        complete=False,
        files=tuple(found[file.path] or file for file in files),
        stale=tuple(path for path in dict.fromkeys(earlier) if path not in paths),
        restricted=listing.restricted,
    )
    to_come = _to_come(request, folder, listing, files, missing)
    if before is not None:
        before(to_come)
    needed = to_come.missing_bytes
    if needed > free_bytes(folder):
        raise no_room(folder, needed, f"{request.model_id} ({len(missing)} files)")
    looked = _look_first(hub, request, listing, files, folder, permission) if missing else Looked()
    folder.mkdir(parents=True, exist_ok=True)
    if not missing and not current.stale:
        hub.log(f"{request.kind} {request.model_id}: complete at {listing.commit[:12]}; nothing to download")
    # Before the first file: from now on the folder is known to be ours, and to be incomplete.
    write_record(folder, current)
    received = looked.received
    if missing:
        hub.log(
            f"{request.kind} {request.model_id} at {listing.commit[:12]}: {len(missing)} of "
            f"{len(files)} files, {in_words(needed)} to download from {hub.endpoint}"
        )

        in_place = looked.put_in_place(folder)
        started = written = time.monotonic()

        def finished(file: RecordedFile) -> None:
            """Once a second is enough: a file that the record does not know yet is found by its hash."""
            nonlocal written
            in_place[file.path] = file
            if time.monotonic() - written >= _RECORD_SECONDS:
                written = time.monotonic()
                write_record(folder, current.with_files(in_place))
            if not permission.granted:
                found = code_in(folder, file.path)
                refuse(request.model_id, [found] if found else [], permission, _STOPPED, listing.commit)

        received += Transfer(
            folder=folder,
            partial=partial_folder(folder),
            headers=hub.headers(),
            refused=lambda failure, path: hub.refusal(request.model_id, failure, path),
            limits=hub.limits,
            log=hub.log,
            progress=looked.counted(progress),
            finished=finished,
            reach=hub.reach,
            connections=connections,
        ).run(
            [
                Wanted(hub.url_of(request.model_id, listing.commit, file.path), file)
                for file in missing
                if file.path not in in_place
            ]
        )
        current = current.with_files(in_place)
        seconds = max(time.monotonic() - started, 1e-3)
        hub.log(
            f"{request.kind} {request.model_id}: downloaded {in_words(received)} in {seconds:.1f} s "
            f"({in_words(received / seconds)}/s)"
        )
    remove_files(folder, current.stale)
    remove_partial(folder)
    current = completed(current)
    write_record(folder, current)
    return _snapshot(request, folder, current, received)


def _look_first(
    hub: Hub,
    request: ModelRequest,
    listing: Listing,
    files: Sequence[RecordedFile],
    folder: Path,
    permission: Permission,
) -> Looked:
    """Refuses what names and configs show, before weights are downloaded."""
    if permission.granted:
        return Looked()
    try:
        looked = look_first(hub, request.model_id, listing.commit, files, folder)
        refuse(request.model_id, looked.found, permission, "No weights were downloaded.", listing.commit)
    except ModelSourceError:
        forget(folder)
        raise
    return looked


def _look_at_folder(
    model_id: str, folder: Path, permission: Permission | None, revision: str = ""
) -> tuple[CodeFile, ...]:
    """Everything in the folder that runs code; refused where nobody has allowed it."""
    if permission is None:
        return ()
    found = code_of(folder)
    commit = revision if _COMMIT.fullmatch(revision) else ""
    refuse(model_id, found, permission, f"Nothing in {folder} was run.", commit)
    return found


def _digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of files, as recorded of those that have not changed since they were verified."""
    record = read_record(folder)
    files = () if record is None else record.files
    kind = "sha256:"
    return {
        file.path: file.digest.removeprefix(kind)
        for file in files
        if file.digest.startswith(kind) and matches(folder, file) is not None
    }


def _choose(hub: Hub, request: ModelRequest) -> tuple[tuple[RecordedFile, ...], Listing]:
    listing = hub.list_files(request.model_id, request.revision)
    known = {file.path: file for file in listing.files}
    if request.kind == "dataset":
        return tuple(file for file in listing.files if file.path not in _NO_DATA), listing
    chosen = choose_files(known, request.weight_format, request.model_id)
    return tuple(known[path] for path in chosen), listing


def _folder(model_id: str, models_dir: Path) -> Path:
    if not _MODEL_ID.fullmatch(model_id):
        raise ModelSourceError(f"model_id {model_id!r} is no repository's name; it is owner/name")
    folder = models_dir / model_id
    if folder.parent != models_dir and folder.parent.is_symlink():
        raise WorkspaceError(
            f"{folder.parent} is a symbolic link, and nothing is written through it; remove it"
        )
    if folder.parent != models_dir and _is_model(folder.parent):
        raise WorkspaceError(
            f"{folder.parent} is the folder of a model without an owner, and {folder.name} would be put into "
            "it; use another workspace, or move that model away"
        )
    return folder


def _refuse_models_inside(folder: Path) -> None:
    """Refuses a model whose folder is that of other models: who may have the one would have the others.

    Raises:
        WorkspaceError: it holds another model.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    inner = sorted(entry.name for entry in folder.iterdir() if _is_another_model(entry, folder))
    if inner:
        raise WorkspaceError(
            f"{folder} is the folder of an owner's models ({', '.join(inner[:3])}), so no model can be put "
            "there; write model_id like owner/name, or use another workspace"
        )


def _is_another_model(entry: Path, folder: Path) -> bool:
    """Whether something in a model's folder is a model by itself; some models have parts with a config."""
    if entry.name == CACHE_FOLDER or entry.is_symlink() or not entry.is_dir():
        return False
    if read_record(entry) is not None:
        return True
    return (entry / CONFIG_NAME).is_file() and not _is_model(folder)


def _is_users_own(folder: Path, warn: Warn = silent) -> bool:
    """Whether there is a model that this service did not put there; a link to a folder is the user's too.

    An owner's folder is none, where there are only models in it; where this service put some of them, only a
    config beside them makes it one.
    """
    if folder.is_symlink():
        return True
    if not folder.is_dir() or read_record(folder, warn) is not None:
        return False
    if (folder / CONFIG_NAME).is_file():
        return True
    if any(read_record(entry) is not None for entry in folder.iterdir() if entry.name != CACHE_FOLDER):
        return False
    return any(entry.name != CACHE_FOLDER and not _is_model(entry) for entry in folder.iterdir())


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file() or (folder.is_dir() and read_record(folder) is not None)


def _local(request: ModelRequest, folder: Path) -> Snapshot:
    if not folder.is_dir():
        raise ModelSourceError(f"{folder} is a symbolic link to a folder that is not there; remove it")
    warning = (
        f"{folder} holds a model that this service did not download; it is used as it is, whatever revision "
        "it has. Remove the folder to have it downloaded"
    )
    return Snapshot(request.model_id, "", folder, "local", 0, (warning,))


def _settled(
    folder: Path, record: Record | None, request: ModelRequest, env: Mapping[str, str]
) -> Record | None:
    """The record, when it answers the request without asking the Hub."""
    if record is None or not (is_offline(env) or record.revision == request.revision):
        return None
    return _complete(folder, record, request)


def _complete(folder: Path, record: Record | None, request: ModelRequest) -> Record | None:
    """The record, when all that it lists is there and it is what the request asks for by name."""
    if record is None or not record.complete or record.source != "hub":
        return None
    if _named(request.revision) not in (_named(record.requested_revision), record.revision):
        return None
    if request.weight_format != record.weight_format or record.model_id != request.model_id:
        return None
    return all_match(folder, record)


def _named(revision: str | None) -> str:
    return revision or "main"


def _known(record: Record | None, file: RecordedFile) -> RecordedFile:
    """The file as announced, with the time at which an earlier fetch found the same content right."""
    for entry in () if record is None else record.files:
        if (entry.path, entry.size, entry.digest) == (file.path, file.size, file.digest):
            return entry
    return file


def _snapshot(request: ModelRequest, folder: Path, record: Record, received: int) -> Snapshot:
    return Snapshot(request.model_id, record.revision, folder, "hub", received, ())


def _bytes(files: Sequence[RecordedFile]) -> int:
    return sum(file.size for file in files)


def _partial_bytes(folder: Path, file: RecordedFile) -> int:
    part = partial_folder(folder) / partial_name(file)
    return recorded_bytes(part, file.size)
