"""One file of a model as the pool fetches it: which ranges, where they go, and what failures mean."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trt_llm_pipeline.errors import ModelSourceError, ModelUnavailable, TrtLlmPipelineError, WorkspaceError
from trt_llm_pipeline.files import disk_full, is_disk_full
from trt_llm_pipeline.model_source.partial import PartialFile, Piece
from trt_llm_pipeline.model_source.record import RecordedFile, new_hash, partial_name
from trt_llm_pipeline.net.failures import BadAddress, HttpStatusError, Transient, transient_failure
from trt_llm_pipeline.net.ranged import Changed, RangedSource
from trt_llm_pipeline.net.ranges import Claim
from trt_llm_pipeline.net.retrying import RetryLimits
from trt_llm_pipeline.units import in_words


@dataclass(frozen=True)
class Surroundings:
    """What all files of one download share.

    Attributes:
        folder: the model's, for messages.
        partial: where files lie until they are whole and right.
        headers: sent with each request.
        refused: turns an answer that no retry can heal into this library's error.
        limits: see RetryLimits.
        log: safe to be called from any thread.
        hash_more: a file has bytes that can be hashed; called in the pool's lock.
    """

    folder: Path
    partial: Path
    headers: Mapping[str, str]
    refused: Callable[[HttpStatusError, str], TrtLlmPipelineError]
    limits: RetryLimits
    log: Callable[[str], None]
    hash_more: Callable[[FileSource], None]


class FileSource(RangedSource):
    """A file on its way into the `partial` folder. For threads see RangedSource.

    Attributes:
        file: what it must turn out to be.
        part: the partial file, once it is open.
        restored: pieces of an earlier download that are still to be checked, in order.
        hashed: how many bytes, from the first, `hasher` has seen.
        queued: for the verifier.
    """

    splits = True

    def __init__(self, url: str, file: RecordedFile, around: Surroundings) -> None:
        super().__init__(url, around.headers, file.size)
        self.file = file
        self.part: PartialFile | None = None
        self.restored: deque[Piece] = deque()
        self.queued = False
        self._around = around
        self._mismatches = 0
        self._parts: dict[Claim, PartialFile] = {}
        # Without a digest nothing but one stream, or its ETag, vouches for what comes.
        self.single = not file.digest
        self.hashed = 0
        self.hasher = new_hash(file.digest, file.size)

    def restore(self) -> None:
        """Takes over what an earlier download left."""
        part = self.open()
        if not self.file.digest:
            if part.validator is None:
                part.pieces = []
            self.validator = part.validator
        self.restored.extend(part.pieces)
        for start, end, _ in part.pieces:
            self.ranges.add(start, end)

    def claim(self, most: int) -> Claim | None:
        if self.ranges.claims and (self.single or not self.confirmed):
            return None
        return self._with_part(self.ranges.claim(self.ranges.size if self.single else most))

    def split(self, least: int) -> Claim | None:
        return self._with_part(self.ranges.split(least))

    def asked(self, claim: Claim) -> tuple[int, int | None] | None:
        whole = claim.start == claim.position == 0 and claim.end == self.ranges.size
        unsafe = not self.file.digest and self.validator is None
        if whole or unsafe or (self.single and claim.end != self.ranges.size):
            return None
        return claim.position, None if claim.end == self.ranges.size else claim.end

    def room(self, claim: Claim, own: memoryview) -> memoryview:  # noqa: ARG002
        return own

    def store(self, claim: Claim, data: memoryview) -> None:
        part = self._parts[claim]
        part.validator = self.validator
        part.write(data, claim.position)

    def stored(self, claim: Claim) -> None:  # noqa: ARG002
        if self.ranges.prefix(self.hashed) > self.hashed:
            self._around.hash_more(self)

    def closed(self, claim: Claim) -> None:
        super().closed(claim)
        if (part := self._parts.pop(claim, None)) is not None:
            part.release()

    def is_whole_instead(self, claim: Claim) -> bool:
        return super().is_whole_instead(claim) or claim.end != self.ranges.size

    def restart(self, claim: Claim) -> Claim | None:
        self.closed(claim)
        self._forget()
        self.single = True
        return self.claim(self.ranges.size)

    def changed(self, reason: str) -> None:
        """What came is not the announced file: nothing of it is kept.

        Raises:
            ModelUnavailable: it was so too often.
        """
        self._forget()
        self.validator = None
        self.location = None
        self._mismatches += 1
        file = self.file
        if self._mismatches > self._around.limits.mismatches:
            raise ModelUnavailable(
                f"{file.path} arrived {self._mismatches} times with another content than announced "
                f"({file.size} bytes, {file.digest or 'no digest'}): {reason}. Nothing of it was kept. "
                f"Something between here and {host_of(self.url)} changes files, or the repository is "
                "damaged; try again later"
            )
        self._around.log(f"{file.path}: not the content announced ({reason}); fetched again from the start")

    def damaged(self, piece: Piece) -> None:
        """A piece of an earlier download is not what was written then."""
        start, end, _ = piece
        self.ranges.remove(start, end)
        self._around.log(
            f"{self.file.path}: {in_words(end - start)} of what was downloaded before are damaged "
            "on the disk; fetched again"
        )

    def forget_location(self) -> None:
        if self.location is not None and self.file.digest:
            # Another server of the storage may have another ETag for the same bytes; the digest decides.
            self.validator = None
        self.location = None

    def judge(self, error: Exception) -> Transient:
        problem = transient_failure(error)
        if problem is not None:
            return problem
        file, host = self.file, host_of(self.url)
        if isinstance(error, BadAddress):
            raise ModelSourceError(str(error)) from error
        if isinstance(error, TrtLlmPipelineError):
            raise error
        if isinstance(error, HttpStatusError):
            if error.status == 416:
                raise Changed("the server says that it is shorter") from None
            if host_of(error.url) != host:
                # A signed address at the storage's host has run out; the next attempt gets a new one.
                return Transient(f"HTTP {error.status} from {host_of(error.url)}")
            raise self._around.refused(error, file.path) from error
        if isinstance(error, ssl.SSLError):
            raise ModelUnavailable(
                f"{file.path} could not be downloaded from {host}: {error}. Check the network, the proxy "
                "settings and HF_ENDPOINT"
            ) from error
        if isinstance(error, OSError):
            raise write_error(error, self._around.folder, file.size, file.path) from error
        raise error

    def given_up(self, reason: str) -> Exception:
        return ModelUnavailable(
            f"{self.file.path} could not be downloaded from {host_of(self.url)}: {reason}. "
            f"{self._progress()} are kept; run the build again to continue from there."
        )

    def say(self, problem: Transient, announcement: str) -> None:
        self._around.log(f"{self.file.path}: {problem.reason} at {self._progress()}; {announcement}")

    def _progress(self) -> str:
        return f"{in_words(self.ranges.done)} of {in_words(self.file.size)}"

    def _forget(self) -> None:
        if self.part is not None:
            self.part.discard()
            self.part = None
        self.ranges.reset()
        self.restored.clear()
        self.hashed = 0
        self.hasher = new_hash(self.file.digest, self.file.size)

    def _with_part(self, claim: Claim | None) -> Claim | None:
        if claim is not None:
            part = self.open()
            part.users += 1
            self._parts[claim] = part
        return claim

    def open(self) -> PartialFile:
        """The partial file; it is made if need be."""
        if self.part is None:
            self.part = PartialFile(self._around.partial / partial_name(self.file), self.file.size)
        return self.part


def host_of(url: str) -> str:
    """Host and port, as they stand in an address."""
    return url.split("/")[2]


def write_error(error: OSError, folder: Path, needed: int, what: str) -> TrtLlmPipelineError:
    """What it means when the model's folder cannot be written."""
    if is_disk_full(error):
        return no_room(folder, needed, what)
    place = error.filename or folder
    reason = error.strerror or type(error).__name__
    return WorkspaceError(f"{place} cannot be written: {reason}; correct that and run the build again")


def no_room(folder: Path, needed: int, what: str) -> TrtLlmPipelineError:
    """Says what was needed, and that nothing was lost."""
    return disk_full(folder, f"{what} needs {in_words(needed)}; what has been downloaded is kept")
