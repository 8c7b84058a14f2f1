"""Downloads the files of a model into their places: in ranges, resumed, verified, stoppable."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trt_llm_pipeline.errors import TrtLlmPipelineError
from trt_llm_pipeline.model_source.file_source import FileSource, Surroundings, write_error
from trt_llm_pipeline.model_source.model_types import Progress
from trt_llm_pipeline.model_source.partial import PartialFile
from trt_llm_pipeline.model_source.record import RecordedFile, check_no_links, check_path, partial_name
from trt_llm_pipeline.model_source.verifier import Verifier
from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.net.client import Client
from trt_llm_pipeline.net.connection_limit import MOST_CONNECTIONS
from trt_llm_pipeline.net.failures import HttpStatusError
from trt_llm_pipeline.net.pool import Pool
from trt_llm_pipeline.net.retrying import RetryLimits
from trt_llm_pipeline.net.stopping import StopSwitch

_TICK = 0.1
_BYTES_PER_CONNECTION = 2 << 20


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: where it is, and what it must turn out to be."""

    url: str
    file: RecordedFile


@dataclass(frozen=True)
class Transfer:
    """How to download.

    Attributes:
        folder: the model's; files get to their places in it when they are whole and right.
        partial: where they lie until then, named by their digests.
        headers: sent with each request (Authorization); never to another origin than the first.
        refused: turns an answer that no retry can heal into this library's error.
        limits, log, progress: see `model_source.fetch`.
        finished: called in the caller's thread for each file that is in its place.
        reach: which addresses may be connected to.
        connections: at most so many at once.
    """

    folder: Path
    partial: Path
    headers: Mapping[str, str]
    refused: Callable[[HttpStatusError, str], TrtLlmPipelineError]
    limits: RetryLimits
    log: Callable[[str], None]
    progress: Progress | None
    finished: Callable[[RecordedFile], None]
    reach: Reach
    connections: int = MOST_CONNECTIONS
    clock: Callable[[], float] = time.monotonic

    def run(self, wanted: Sequence[Wanted]) -> int:
        """Downloads them all; returns the bytes that came over the network.

        On an exception, the caller's own included, every thread has ended or is about to, and what was
        downloaded stays in `partial` for the next time.

        Raises:
            ModelSourceError: see `refused`; ModelUnavailable when retrying did not help.
            DiskFull: there was no room.
        """
        events: queue.SimpleQueue[str | RecordedFile | BaseException] = queue.SimpleQueue()
        self.partial.mkdir(parents=True, exist_ok=True)
        stop = StopSwitch()
        client = Client(stop, silence=self.limits.silence, reach=self.reach)
        pool = Pool(
            client, stop, self.limits, connections=self.connections, failed=events.put, clock=self.clock
        )

        def settle(source: FileSource, part: PartialFile) -> None:
            events.put(self._put_in_place(source.file, part))

        verifier = Verifier(pool, stop, settle=settle, failed=events.put)
        around = Surroundings(
            self.folder, self.partial, self.headers, self.refused, self.limits, events.put, verifier.hash_more
        )
        # Small files first: a refusal then shows before gigabytes have come.
        ordered = sorted(wanted, key=lambda each: each.file.size)
        sources = [FileSource(each.url, each.file, around) for each in ordered]
        with client, pool, verifier:
            try:
                self._add(sources, pool, verifier)
            except OSError as error:
                raise write_error(error, self.folder, 0, "the download") from error
            pool.start(sum(1 + each.file.size // _BYTES_PER_CONNECTION for each in wanted))
            self._watch(sources, pool, events)
        return pool.received

    def _add(self, sources: Sequence[FileSource], pool: Pool, verifier: Verifier) -> None:
        left = {path.name for path in self.partial.iterdir()}
        for source in sources:
            if partial_name(source.file) in left:
                source.restore()
            pool.add(source)
            if source.restored or not source.file.size:
                with pool.lock:
                    verifier.hash_more(source)

    def _watch(
        self,
        sources: Sequence[FileSource],
        pool: Pool,
        events: queue.SimpleQueue[str | RecordedFile | BaseException],
    ) -> None:
        total = sum(source.file.size for source in sources)
        left, shown = len(sources), 0.0
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
                with pool.lock:
                    done = sum(source.ranges.done for source in sources)
                self.progress(done, total)

    def _put_in_place(self, file: RecordedFile, part: PartialFile) -> RecordedFile:
        target = self.folder / file.path
        check_no_links(self.folder, check_path(file.path))
        try:
            part.move_to(target)
            return file.seen(target.stat())
        except OSError as error:
            raise write_error(error, self.folder, file.size, file.path) from error
