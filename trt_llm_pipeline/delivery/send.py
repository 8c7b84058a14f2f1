"""The archive to where the user wants it: made and sent as one stream, with no second copy on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from trt_llm_pipeline.artifact import FinishedArchive
from trt_llm_pipeline.artifact.entries import Compression, Progress, Sink
from trt_llm_pipeline.artifact.pack import write_artifact
from trt_llm_pipeline.delivery.destination import Destination
from trt_llm_pipeline.delivery.http_put import HttpPut, PutFailed
from trt_llm_pipeline.delivery.hub_upload import upload
from trt_llm_pipeline.delivery.store_upload import StoreUpload
from trt_llm_pipeline.errors import ArtifactError, DeliveryError
from trt_llm_pipeline.files import appearing, hash_file
from trt_llm_pipeline.net.retrying import nap

_ATTEMPTS = 4
_CHUNK = 1 << 20


class _Produce(Protocol):
    """Writes the whole archive to a sink, always the same bytes."""

    def __call__(self, sink: Sink, progress: Progress | None) -> FinishedArchive: ...


def deliver(
    engine_dir: Path,
    destination: Destination,
    *,
    extra: Mapping[str, Path | bytes],
    manifest: Mapping[str, Any],
    compression: Compression = "gzip",
    progress: Progress | None = None,
    expected: Mapping[str, str] | None = None,
) -> FinishedArchive:
    """Pack an engine directory straight to `destination`. Arguments as for `artifact.pack_engine`.

    Raises:
        DeliveryError: it could not be sent; nothing incomplete is visible at the destination.
        ArtifactError, DiskFull: as for `artifact.pack_engine`.
    """

    def produce(sink: Sink, progress: Progress | None) -> FinishedArchive:
        return write_artifact(
            engine_dir,
            sink,
            extra=extra,
            manifest=manifest,
            compression=compression,
            progress=progress,
            expected=expected,
        )

    return _send(produce, destination, _files_bytes(engine_dir), None, progress)


def deliver_file(
    archive: Path, destination: Destination, *, progress: Progress | None = None
) -> FinishedArchive:
    """Send an archive that is already there, hashing it on the way.

    Raises:
        DeliveryError: as for `deliver`.
        ArtifactError: the archive cannot be read.
    """
    try:
        size = archive.stat().st_size
        if destination.kind == "hub":
            return _to_hub(archive, destination, size, progress)
    except OSError as problem:
        raise ArtifactError(f"cannot read {archive}: {problem.strerror}") from problem

    def produce(sink: Sink, progress: Progress | None) -> FinishedArchive:
        sha256, done = hashlib.sha256(), 0
        try:
            with archive.open("rb", buffering=0) as file:
                while data := file.read(_CHUNK):
                    sha256.update(data)
                    sink.write(data)
                    done += len(data)
                    if progress is not None:
                        progress(done, size)
        except BaseException:
            abort = getattr(sink, "abort", None)
            if abort is not None:
                abort()
            raise
        if done != size:
            raise ArtifactError(f"{archive} changed its size while it was being sent")
        return FinishedArchive(done, sha256.hexdigest(), ())

    return _send(produce, destination, size, size, progress)


def _send(
    produce: _Produce,
    destination: Destination,
    expected_bytes: int,
    exact_bytes: int | None,
    progress: Progress | None,
) -> FinishedArchive:
    if destination.kind == "object store":
        written = _to_store(produce, destination, expected_bytes, progress)
    elif destination.kind == "hub":
        raise AssertionError("the Hub takes files that are there; see `deliver_file`")
    elif destination.kind == "http":
        written = _by_put(produce, destination, exact_bytes, progress)
    else:
        written = _to_file(produce, destination, progress)
    return replace(written, address=destination.address)


def _to_hub(archive: Path, destination: Destination, size: int, progress: Progress | None) -> FinishedArchive:
    sha256 = hash_file(archive)
    upload(archive, destination)
    if progress is not None:
        progress(size, size)
    return FinishedArchive(size, sha256, (), address=destination.address)


def _to_store(
    produce: _Produce, destination: Destination, expected_bytes: int, progress: Progress | None
) -> FinishedArchive:
    upload = StoreUpload(destination, expected_bytes)
    upload.start()
    try:
        written = produce(upload, progress)
        upload.finish()
    except BaseException:
        upload.abort()
        raise
    return written


def _to_file(produce: _Produce, destination: Destination, progress: Progress | None) -> FinishedArchive:
    path = destination.path
    if path is None:
        raise AssertionError("a file destination has a path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise DeliveryError(
            f"cannot make the folder of {destination.address}: {problem.strerror}"
        ) from problem
    with appearing(path) as sink:
        return produce(sink, progress)


def _by_put(
    produce: _Produce, destination: Destination, exact_bytes: int | None, progress: Progress | None
) -> FinishedArchive:
    """Send with the length first. A PUT cannot be resumed, so a failed one starts again from the first
    byte."""
    passes = 1 if exact_bytes is not None else 2
    size, expected = exact_bytes, None
    if size is None:
        measured = produce(_Nowhere(), _share(progress, 0, passes))
        size, expected = measured.size, measured.sha256
    for attempt in range(1, _ATTEMPTS + 1):
        put = HttpPut(destination, size)
        try:
            put.start()
            written = produce(put, _share(progress, passes - 1, passes))
            if written.size != size or expected not in (None, written.sha256):
                raise ArtifactError("the engine's files changed while they were being sent; build again")
            put.finish()
            return written
        except PutFailed as failure:
            if not failure.passing or attempt == _ATTEMPTS:
                tries = f" after {attempt} attempts" if attempt > 1 else ""
                raise DeliveryError(
                    f"the archive could not be sent to {destination.address}: {failure}{tries}; check that "
                    f"the address takes a PUT of this size and, if it is signed, that it is still valid"
                ) from None
            nap(2.0 ** (attempt - 2))
        finally:
            put.close()
    raise AssertionError("the last attempt returns or raises")


class _Nowhere:
    def write(self, data: bytes | memoryview, /) -> None:
        pass


def _share(progress: Progress | None, index: int, passes: int) -> Callable[[int, int], None] | None:
    """Progress of one of several passes over the same data, as a part of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress((index * total + done) // passes, total)


def _files_bytes(directory: Path) -> int:
    """About how large the archive can become; only the size of the upload's parts depends on it."""
    total = 64 << 20
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total
