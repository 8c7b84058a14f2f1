"""A model from `model_tar_url`: unpacked while it is downloaded."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from trt_llm_pipeline.errors import (
    ModelAccessDenied,
    ModelNotFound,
    ModelSourceError,
    ModelUnavailable,
    TrtLlmPipelineError,
)
from trt_llm_pipeline.files import disk_full, free_bytes, is_disk_full
from trt_llm_pipeline.model_source.choice import CACHE_FOLDER
from trt_llm_pipeline.model_source.hub import ALLOW_DOWNLOADS, is_offline
from trt_llm_pipeline.model_source.model_types import (
    DownloadPlan,
    ModelRequest,
    Progress,
    RemoteFile,
    Snapshot,
)
from trt_llm_pipeline.model_source.pickles import Budget
from trt_llm_pipeline.model_source.record import (
    Record,
    RecordedFile,
    all_match,
    check_no_links,
    completed,
    read_record,
    remove_files,
    remove_partial,
    unpacking_folder,
    write_record,
)
from trt_llm_pipeline.model_source.repository_code import Permission, code_by_name, code_in, refuse
from trt_llm_pipeline.model_source.tar_extract import Unpacked, unpack
from trt_llm_pipeline.model_source.tar_reader import uncompressed
from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.net.connection_limit import most_connections
from trt_llm_pipeline.net.failures import HttpStatusError
from trt_llm_pipeline.net.read_ahead import ReadAhead
from trt_llm_pipeline.net.retrying import BRIEFLY, RetryLimits
from trt_llm_pipeline.net.window import Wording
from trt_llm_pipeline.units import in_words

# Left free on the disk, whatever the archive says.
_SPARE_BYTES = 64 << 20
_TICK = 0.1


def plan_tar(
    request: ModelRequest,
    folder: Path,
    *,
    limits: RetryLimits,
    log: Callable[[str], None],
    env: Mapping[str, str],
) -> DownloadPlan:
    """What `fetch_tar` would download; reads the answer's head only, and writes nothing."""
    url, shown = _address(request)
    known = _complete(folder, shown)
    if known is not None and is_offline(env):
        return _nothing_to_come(request, known)
    reader = _reader(url, shown, known, limits, log, env)
    try:
        reader.open()
    except ModelUnavailable as error:
        if known is None:
            raise
        log(f"warning: {_not_asked(shown)} ({error})")
        return _nothing_to_come(request, known)
    with reader:
        if known is not None and _same(known, validators_of(reader.headers)):
            return _nothing_to_come(request, known)
        return _to_come(request, shown, reader)


def _reader(
    url: str,
    shown: str,
    known: Record | None,
    limits: RetryLimits,
    log: Callable[[str], None],
    env: Mapping[str, str],
) -> ReadAhead:
    if is_offline(env):
        raise ModelUnavailable(
            f"the model from {shown} is not on this machine, or not all of it, and may not be downloaded. "
            f"{ALLOW_DOWNLOADS}, or put the model into the workspace's models folder"
        )
    return ReadAhead(
        url,
        Wording(shown, _unavailable, _refusal(shown)),
        limits=limits,
        # With a complete model at hand, a server that is down is not waited for.
        opening=limits if known is None else BRIEFLY,
        log=log,
        reach=Reach.from_env(env),
        connections=most_connections(env),
    )


def _unavailable(sentence: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{sentence}. Check the address and the network, and run the build again later. With a complete "
        "model in the workspace, HF_HUB_OFFLINE=1 builds without asking"
    )


def _not_asked(shown: str) -> str:
    return (
        f"{shown} could not be asked whether it has changed; the model that is here is used. "
        "HF_HUB_OFFLINE=1 uses it without asking"
    )


def validators_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What tells one version of the file from another: ETag, Last-Modified, Content-Length."""
    return {name: headers[name] for name in ("etag", "last-modified", "content-length") if name in headers}


def _nothing_to_come(request: ModelRequest, known: Record) -> DownloadPlan:
    size = int((known.validators or {}).get("content-length", 0))
    return DownloadPlan(request.model_id, known.revision, "tar", (), size, 0)


def _to_come(request: ModelRequest, shown: str, reader: ReadAhead) -> DownloadPlan:
    size = reader.length or 0
    revision = reader.headers.get("etag", "").strip('"')
    file = RemoteFile(shown.rpartition("/")[2], size)
    return DownloadPlan(request.model_id, revision, "tar", (file,), size, size)


def fetch_tar(
    request: ModelRequest,
    folder: Path,
    *,
    log: Callable[[str], None],
    progress: Progress | None,
    before: Callable[[DownloadPlan], None] | None,
    limits: RetryLimits,
    env: Mapping[str, str],
    permission: Permission,
) -> Snapshot:
    """Downloads and unpacks; what was there before stays until the new model is whole.

    Nothing is downloaded when the same address, with the same ETag (or date and size), is complete.

    Raises:
        RepositoryCodeRefused: it has code that nobody has allowed to be run; said at the first such entry.
        ModelSourceError: the archive is refused (see `tar_extract`) or its address is.
        ModelNotFound, ModelAccessDenied, ModelUnavailable: as the server answers.
        DiskFull: there was no room. Nothing partial is left in any of these cases.
    """
    url, shown = _address(request)
    known = _complete(folder, shown)
    started = time.monotonic()

    def used_as_it_is(record: Record, *warnings: str) -> Snapshot:
        return Snapshot(request.model_id, record.revision, folder, "tar", 0, warnings)

    if known is not None and is_offline(env):
        log(f"model {request.model_id}: {shown} is complete here; nothing to download")
        return used_as_it_is(known)
    reader = _reader(url, shown, known, limits, log, env)
    try:
        reader.open()
    except ModelUnavailable as error:
        if known is None:
            raise
        log(f"warning: {_not_asked(shown)} ({error})")
        return used_as_it_is(known, _not_asked(shown))
    with reader:
        if known is not None and _same(known, validators_of(reader.headers)):
            log(f"model {request.model_id}: {shown} is complete here; nothing to download")
            return used_as_it_is(known)
        size = "of unknown size" if reader.length is None else in_words(reader.length)
        if before is not None:
            before(_to_come(request, shown, reader))
        log(f"model {request.model_id}: {size} to download and unpack from {shown}")
        staging = unpacking_folder(folder)
        check_no_links(folder, f"{staging.relative_to(folder)}/x")
        fresh = not folder.exists()
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir(parents=True)
            unpacked = _unpack(reader, staging, shown, progress, permission)
            revision = f"sha256:{reader.sha256}"
            _settle(request, folder, shown, validators_of(reader.headers), unpacked, revision)
        except OSError as error:
            raise _translated(error, folder, shown) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            if fresh and read_record(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(OSError):
                    folder.parent.rmdir()
        received = reader.received
    seconds = max(time.monotonic() - started, 1e-3)
    log(
        f"model {request.model_id}: downloaded {in_words(received)} and unpacked "
        f"{in_words(unpacked.bytes)} in {seconds:.1f} s ({in_words(received / seconds)}/s)"
    )
    return Snapshot(request.model_id, revision, folder, "tar", received, ())


def _unpack(
    reader: ReadAhead, staging: Path, shown: str, progress: Progress | None, permission: Permission
) -> Unpacked:
    told = 0.0

    def tick(final: bool = False) -> None:
        nonlocal told
        if progress is not None and (final or time.monotonic() - told >= _TICK):
            told = time.monotonic()
            progress(reader.done, reader.length)

    budget = Budget()

    def written(path: str) -> None:
        if permission.granted:
            return
        is_link = (staging / path).is_symlink()  # where it leads is checked when all is there
        found = code_by_name(path) if is_link else code_in(staging, path, budget)
        if found is not None:
            refuse(shown, [found], permission, "What was unpacked has been removed.")

    room = max(0, free_bytes(staging) - _SPARE_BYTES)
    chunks = uncompressed(reader.chunks(tick), shown)
    unpacked = unpack(chunks, staging, shown, most_bytes=room, tick=tick, written=written)
    tick(final=True)
    return unpacked


def _settle(
    request: ModelRequest,
    folder: Path,
    shown: str,
    validators: Mapping[str, str],
    unpacked: Unpacked,
    revision: str,
) -> None:
    """Moves the unpacked files to their places. The record says `complete` only after the last one."""
    before = read_record(folder)
    earlier = () if before is None else (*(file.path for file in before.files), *before.stale)
    paths = [path for path in (*unpacked.files, *unpacked.links) if path.partition("/")[0] != CACHE_FOLDER]
    record = Record(
        source="tar",
        origin=shown,
        model_id=request.model_id,
        requested_revision=None,
        weight_format=None,
        revision=revision,
        complete=False,
        files=tuple(_recorded(unpacked, path) for path in paths),
        stale=tuple(path for path in dict.fromkeys(earlier) if path not in paths),
        validators=validators,
        restricted=False,
    )
    write_record(folder, record)
    remove_files(folder, record.stale)
    for path in paths:
        check_no_links(folder, path)
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (unpacked.root / path).replace(target)
    remove_partial(folder)
    # Moving a file has changed its ctime, so the times are noted only now.
    placed = tuple(
        file if file.digest.startswith("link:") else file.seen((folder / file.path).lstat())
        for file in record.files
    )
    write_record(folder, completed(replace(record, files=placed)))


def _recorded(unpacked: Unpacked, path: str) -> RecordedFile:
    place = unpacked.root / path
    if place.is_symlink():
        return RecordedFile(path, 0, f"link:{place.readlink()}")
    return RecordedFile(path, place.stat().st_size, f"sha256:{unpacked.sha256[path]}")


def _complete(folder: Path, shown: str) -> Record | None:
    record = read_record(folder)
    if record is None or not record.complete or record.source != "tar" or record.origin != shown:
        return None
    return all_match(folder, record)


def _same(record: Record, validators: Mapping[str, str]) -> bool:
    """Whether the server still has what the record was made from; not sure is no."""
    if "etag" in validators:
        return dict(record.validators or {}) == validators
    return {"last-modified", "content-length"} <= set(validators) and record.validators == validators


def _address(request: ModelRequest) -> tuple[str, str]:
    """The URL, and what of it may be shown and kept: a signed address's query is a secret."""
    url = request.tar_url or ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ModelSourceError(f"model_tar_url {url!r} is no http:// or https:// address")
    if "@" in parts.netloc:
        raise ModelSourceError(
            "model_tar_url must not hold a user name or a password: they would be seen in logs. Use a signed "
            "address instead"
        )
    return url, f"{parts.scheme}://{parts.netloc}{parts.path}"


def _refusal(shown: str) -> Callable[[HttpStatusError], TrtLlmPipelineError]:
    def refused(error: HttpStatusError) -> TrtLlmPipelineError:
        if error.status in (404, 410):
            return ModelNotFound(
                f"there is nothing at {shown} (HTTP {error.status}); check model_tar_url", part="address"
            )
        if error.status in (401, 403):
            return ModelAccessDenied(
                f"access to {shown} is refused (HTTP {error.status}); model_tar_url must be readable by "
                "anyone who has the address: use a public or a signed one, and check that it has not expired"
            )
        return ModelSourceError(f"{shown} answers HTTP {error.status}; check model_tar_url")

    return refused


def _translated(error: OSError, folder: Path, shown: str) -> TrtLlmPipelineError:
    if is_disk_full(error):
        return disk_full(folder, f"{shown} was being unpacked, and what was unpacked is removed")
    return ModelSourceError(f"{shown} could not be unpacked: {error.strerror or type(error).__name__}")
