"""Downloads several files at once into their places: resumed, verified, stoppable."""

from __future__ import annotations

import hashlib
import os
import queue
import ssl
import threading
import time
import urllib.error
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trt_llm_pipeline.errors import DiskFull, ModelUnavailable, TrtLlmPipelineError, WorkspaceError
from trt_llm_pipeline.files import disk_full, is_disk_full
from trt_llm_pipeline.model_source.model_types import Progress
from trt_llm_pipeline.model_source.record import (
    RecordedFile,
    check_no_links,
    check_path,
    new_hash,
    partial_name,
)
from trt_llm_pipeline.net.retrying import Patience, RetryLimits
from trt_llm_pipeline.net.stream import (
    HttpStatusError,
    ResponseStream,
    Stopped,
    StopSwitch,
    Transient,
    open_stream,
    transient_failure,
)
from trt_llm_pipeline.units import in_words

_CHUNK = 1 << 20
_WORKERS = 8
_TICK = 0.1
_JOIN_SECONDS = 2.0


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: where it is, and what it must turn out to be."""

    url: str
    file: RecordedFile


@dataclass
class _Account:
    """What the workers did so far; guarded by its lock."""

    received: int = 0
    on_disk: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, path: str, count: int) -> None:
        with self.lock:
            self.received += count
            self.on_disk[path] = self.on_disk.get(path, 0) + count

    def start(self, path: str, count: int) -> None:
        with self.lock:
            self.on_disk[path] = count

    def done(self) -> int:
        with self.lock:
            return sum(self.on_disk.values())


@dataclass(frozen=True)
class Transfer:
    """How to download.

    Attributes:
        folder: the model's; files get to their places in it when they are whole and right.
        partial: where half of them lie until then, named by their digests.
        headers: sent with each request (Authorization); never to another origin than the first.
        refused: turns an answer that no retry can heal into this library's error.
        limits, log, progress, clock: see `model_source.fetch`.
        finished: called in the caller's thread for each file that is in its place.
    """

    folder: Path
    partial: Path
    headers: Mapping[str, str]
    refused: Callable[[HttpStatusError, str], TrtLlmPipelineError]
    limits: RetryLimits
    log: Callable[[str], None]
    progress: Progress | None
    finished: Callable[[RecordedFile], None]
    clock: Callable[[], float] = time.monotonic

    def run(self, wanted: Sequence[Wanted]) -> int:
        """Downloads them all; returns the bytes that came over the network.

        On an exception, the caller's own included, every thread has ended or is about to, and what was
        downloaded stays in `partial` for the next time.

        Raises:
            ModelSourceError: see `refused`; ModelUnavailable when retrying did not help.
            DiskFull: there was no room.
        """
        stop, account = StopSwitch(), _Account()
        tasks: queue.SimpleQueue[Wanted] = queue.SimpleQueue()
        events: queue.SimpleQueue[str | RecordedFile | BaseException] = queue.SimpleQueue()
        # Small files first: a refusal then shows before gigabytes have come.
        for each in sorted(wanted, key=lambda each: each.file.size):
            tasks.put(each)
        total = sum(each.file.size for each in wanted)
        workers = [
            threading.Thread(
                target=self._work, args=(tasks, events, account, stop), name="model-download", daemon=True
            )
            for _ in range(min(_WORKERS, len(wanted)))
        ]
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            for worker in workers:
                worker.start()
            left = len(wanted)
            shown = 0.0
            while left:
                try:
                    event = events.get(timeout=_TICK)
                except queue.Empty:
                    event = None
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, RecordedFile):
                    self.finished(event)
                    left -= 1
                elif event is not None:
                    self.log(event)
                if self.progress is not None and (not left or self.clock() - shown >= _TICK):
                    shown = self.clock()
                    self.progress(account.done(), total)
        finally:
            stop.throw()
            deadline = time.monotonic() + _JOIN_SECONDS
            for worker in workers:
                if worker.ident is not None:
                    worker.join(max(0.0, deadline - time.monotonic()))
        return account.received

    def _work(
        self,
        tasks: queue.SimpleQueue[Wanted],
        events: queue.SimpleQueue[str | RecordedFile | BaseException],
        account: _Account,
        stop: StopSwitch,
    ) -> None:
        try:
            while not stop.thrown:
                try:
                    wanted = tasks.get_nowait()
                except queue.Empty:
                    return
                events.put(_Download(self, wanted, account, stop, events.put).run())
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001  raised in the caller's thread
            events.put(error)


class _OtherContent(Exception):
    """What came is not the announced file, so that nothing of it can be used."""


@dataclass
class _Download:
    """One file, in a worker's thread. Content is hashed as it comes."""

    transfer: Transfer
    wanted: Wanted
    account: _Account
    stop: StopSwitch
    say: Callable[[str], None]
    hasher: hashlib._Hash | None = None
    hashed: int = 0
    furthest: int = 0

    def run(self) -> RecordedFile:
        file = self.wanted.file
        part = self.transfer.partial / partial_name(file)
        patience = Patience(self.transfer.limits, self.transfer.clock)
        mismatches = 0
        while True:
            try:
                problem = self._attempt(part, patience)
                if problem is None:
                    if file.digest and self._digest() != file.digest:
                        raise _OtherContent
                    return self._put_in_place(part)
            except _OtherContent as error:
                part.unlink(missing_ok=True)
                mismatches += 1
                if mismatches > self.transfer.limits.mismatches:
                    raise self._never_right(mismatches) from error
                self.say(f"{file.path}: not the content announced; fetched again from the start")
                continue
            except (Stopped, TrtLlmPipelineError):
                raise
            except Exception as error:  # noqa: BLE001  sorted out by the one table
                self.stop.check()
                problem = self._transient(error)
            wait = patience.next_wait(problem)
            have = part.stat().st_size if part.exists() else 0
            if wait is None:
                raise ModelUnavailable(
                    f"{file.path} could not be downloaded from {self._host()}: {patience.describe(problem)}. "
                    f"{in_words(have)} of {in_words(file.size)} are kept; run the build again to go on "
                    "from there."
                )
            self.say(
                f"{file.path}: {problem.reason} at {in_words(have)} of {in_words(file.size)}; "
                f"attempt {patience.failures + 1} of {self.transfer.limits.attempts} in {wait:.0f} s"
            )
            self.stop.wait(wait)

    def _never_right(self, times: int) -> ModelUnavailable:
        file = self.wanted.file
        return ModelUnavailable(
            f"{file.path} arrived {times} times with another content than announced ({file.size} bytes, "
            f"{file.digest}); nothing of it was kept. Something between here and {self._host()} changes "
            "files, or the repository is damaged; try again later"
        )

    def _attempt(self, part: Path, patience: Patience) -> Transient | None:
        """Asks once, for what is missing. None when the file has its size, else what went wrong."""
        file = self.wanted.file
        have = part.stat().st_size if part.exists() else 0
        if have > file.size:
            part.unlink()
            have = 0
        self.account.start(file.path, have)
        self._hash_prefix(part, have)
        if have == file.size:
            part.touch()
            return None
        headers = {**self.transfer.headers, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        silence = self.transfer.limits.silence
        try:
            stream = open_stream(self.wanted.url, headers, self.stop, silence=silence)
        except HttpStatusError as failure:
            if failure.status != 416:
                raise
            raise _OtherContent from None
        with stream:
            if have and not _continues(stream, have):
                have = 0
                self.account.start(file.path, 0)
                self._hash_prefix(part, 0)
            return self._receive(stream, part, have, patience)

    def _receive(self, stream: ResponseStream, part: Path, have: int, patience: Patience) -> Transient | None:
        file = self.wanted.file
        # A link that a step left in this place is not followed.
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_APPEND if have else os.O_TRUNC)
        with os.fdopen(os.open(part, flags, 0o644), "wb", buffering=0) as output:
            while have < file.size:
                chunk = stream.read(_CHUNK)
                self.stop.check()
                if not chunk:
                    return Transient("the server ended too early")
                if have + len(chunk) > file.size:
                    raise _OtherContent
                _write_all(output, chunk)
                have += len(chunk)
                self._hash(chunk)
                self.account.add(file.path, len(chunk))
                if have > self.furthest:
                    self.furthest = have
                    patience.progressed()
            if stream.read(1):
                raise _OtherContent
        return None

    def _hash_prefix(self, part: Path, have: int) -> None:
        """Brings the hash to where the file on the disk is, reading it only if need be."""
        if self.hasher is not None and self.hashed == have:
            return
        self.hasher, self.hashed = new_hash(self.wanted.file.digest, self.wanted.file.size), 0
        if have:
            with part.open("rb", buffering=0) as stream:
                while chunk := stream.read(_CHUNK):
                    self.stop.check()
                    self._hash(chunk)

    def _hash(self, chunk: bytes) -> None:
        if self.hasher is not None:
            self.hasher.update(chunk)
            self.hashed += len(chunk)

    def _digest(self) -> str:
        found = "" if self.hasher is None else self.hasher.hexdigest()
        return f"{self.wanted.file.digest.partition(':')[0]}:{found}"

    def _put_in_place(self, part: Path) -> RecordedFile:
        file = self.wanted.file
        folder = self.transfer.folder
        check_no_links(folder, check_path(file.path))
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        return file.seen(target.stat())

    def _transient(self, error: Exception) -> Transient:
        file = self.wanted.file
        problem = transient_failure(error)
        if problem is not None:
            return problem
        if isinstance(error, HttpStatusError):
            if error.url.split("/")[2] != self._host():
                # A signed address at the storage's host has run out; the next attempt gets a new one.
                return Transient(f"HTTP {error.status} from {error.url.split('/')[2]}")
            raise self.transfer.refused(error, file.path) from error
        if isinstance(error, urllib.error.URLError | ssl.SSLError):
            raise ModelUnavailable(
                f"{file.path} could not be downloaded from {self._host()}: {error}. Check the network, the "
                "proxy settings and HF_ENDPOINT"
            ) from error
        if isinstance(error, OSError):
            raise write_error(error, self.transfer.folder, file.size, file.path) from error
        raise error

    def _host(self) -> str:
        return self.wanted.url.split("/")[2]


def _continues(stream: ResponseStream, have: int) -> bool:
    """Whether the answer goes on where we stopped, and is not the whole file once more."""
    return stream.status == 206 and stream.headers.get("content-range", "").startswith(f"bytes {have}-")


def _write_all(output: object, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[output.write(view) :]  # type: ignore[attr-defined]


def write_error(error: OSError, folder: Path, needed: int, what: str) -> TrtLlmPipelineError:
    """What it means when the model's folder cannot be written."""
    if is_disk_full(error):
        return no_room(folder, needed, what)
    place = error.filename or folder
    reason = error.strerror or type(error).__name__
    return WorkspaceError(f"{place} cannot be written: {reason}; correct that and run the build again")


def no_room(folder: Path, needed: int, what: str) -> DiskFull:
    """Says what was needed, and that nothing was lost."""
    return disk_full(folder, f"{what} needs {in_words(needed)}; what has been downloaded is kept")
