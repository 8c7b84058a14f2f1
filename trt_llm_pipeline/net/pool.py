"""The connections that fetch: one pool for everything that is downloaded together."""

from __future__ import annotations

import mmap
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from trt_llm_pipeline.net.client import Client, Response
from trt_llm_pipeline.net.connection_limit import ConnectionLimit
from trt_llm_pipeline.net.failures import EndedEarly, Transient
from trt_llm_pipeline.net.ranged import Changed, RangedSource
from trt_llm_pipeline.net.ranges import Claim
from trt_llm_pipeline.net.retrying import Patience, RetryLimits, retry
from trt_llm_pipeline.net.stopping import Stopped, StopSwitch

_BUFFER = 4 << 20  # the kernel fills it: the fewer wake-ups, the less they cost
_MEASURED_BYTES = 1 << 20
_SMALLEST_PIECE = 4 << 20
_LARGEST_PIECE = 64 << 20
# A piece should take this long, and many times as long as the server needs to answer.
_PIECE_SECONDS = 0.1
_PIECE_LATENCIES = 10
_WAIT_SECONDS = 0.2
_JOIN_SECONDS = 2.0
_SMOOTHING = 0.3


@dataclass
class _Task:
    """What a connection fetches. `furthest` is where it was at best: what comes again is no progress."""

    source: RangedSource
    claim: Claim | None
    furthest: int = 0


class Pool:
    """Threads with a connection each. Use as a context manager; on leaving, all have ended or are about to.

    Args:
        client: sends the requests.
        stop: ends the threads.
        limits: see RetryLimits; they hold for each range by itself.
        connections: at most so many at once.
        failed: is given the error that ends it all, in the thread that met it.
        clock: seconds, monotonic.

    Attributes:
        lock: guards all that the sources hold.
        ready: notified when bytes are there, in the lock.
        received: bytes that came over the network.
    """

    def __init__(
        self,
        client: Client,
        stop: StopSwitch,
        limits: RetryLimits,
        *,
        connections: int,
        failed: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.RLock()
        self.ready = threading.Condition(self.lock)
        self.received = 0
        self._idle = threading.Condition(self.lock)
        self._client, self._stop, self._limits = client, stop, limits
        self._failed, self._clock = failed, clock
        self._limit = ConnectionLimit(connections, time.monotonic())
        self._sources: deque[RangedSource] = deque()
        self._active: list[RangedSource] = []
        self._unclaimed = 0
        self._busy = 0
        self._returning = 0
        self._rate = 0.0
        self._latency = 0.0
        self._threads: list[threading.Thread] = []
        self._most = 0

    def start(self, connections: int | None = None) -> None:
        """Starts the threads; at most so many where fewer are enough."""
        with self.lock:
            self._most = self._limit.most if connections is None else min(self._limit.most, connections)
            self._start_more()

    def _start_more(self) -> None:
        """As many threads as connections are in use: those that only wait would be woken for nothing."""
        while len(self._threads) < min(self._most, self._limit.level) and not self._stop.thrown:
            thread = threading.Thread(target=self._work, name="model-download", daemon=True)
            self._threads.append(thread)
            try:
                thread.start()
            except RuntimeError:
                self._threads.pop()
                if not self._threads:
                    raise
                self._most = len(self._threads)  # no more threads are allowed: these have to do

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.throw()
        with self.lock:
            self._idle.notify_all()
            self.ready.notify_all()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def stopped(self) -> bool:
        """Whether the stop switch was thrown."""
        return self._stop.thrown

    def add(self, source: RangedSource) -> None:
        """Fetches this too; the first to be added is fetched first."""
        with self.lock:
            self._sources.append(source)
            self._unclaimed += min(source.ranges.unclaimed, _LARGEST_PIECE * 1000)
            self._idle.notify()

    def reopen(self, source: RangedSource) -> None:
        """There is something to be claimed again of a source that was fetched. In the lock."""
        if source not in self._sources:
            self._sources.appendleft(source)
        self._idle.notify_all()

    def wake(self) -> None:
        """A source has something to claim that had nothing before. In the lock."""
        self._idle.notify_all()

    # Who fetches what.

    def _work(self) -> None:
        own = memoryview(mmap.mmap(-1, _BUFFER, flags=mmap.MAP_PRIVATE))  # takes memory only as bytes come
        try:
            while True:
                task = self._next_task()
                try:
                    self._fetch(task, own)
                finally:
                    with self.lock:
                        self._busy -= 1
                        if task.claim is not None:
                            task.source.closed(task.claim)
                            if not task.claim.void and task.claim.left:
                                self.reopen(task.source)
                        if not task.source.ranges.claims and task.source in self._active:
                            self._active.remove(task.source)
                        self._idle.notify()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001  raised in the caller's thread
            if not self._stop.thrown:
                self._failed(error)

    def _next_task(self) -> _Task:
        with self.lock:
            while True:
                self._stop.check()
                if self._busy < self._limit.level and not self._returning:
                    task = self._find()
                    if task is not None:
                        self._busy += 1
                        if task.source not in self._active:
                            self._active.append(task.source)
                        return task
                self._idle.wait(_WAIT_SECONDS)

    def _find(self) -> _Task | None:
        piece = self._piece()
        while self._sources and not self._sources[0].ranges.unclaimed:
            self._sources.popleft()
        # Connections that write to different files do not get in each other's way.
        near = islice(self._sources, 2 * self._limit.most)
        for source in sorted(near, key=lambda source: len(source.ranges.claims)):
            claim = source.claim(piece)
            if claim is not None:
                self._unclaimed = max(0, self._unclaimed - claim.left)
                return _Task(source, claim)
        for source in self._active:
            if source.splits and source.confirmed and not source.single:
                claim = source.split(_SMALLEST_PIECE)
                if claim is not None:
                    return _Task(source, claim)
        return None

    def _piece(self) -> int:
        """How many bytes to ask for at once."""
        seconds = max(_PIECE_SECONDS, self._latency * _PIECE_LATENCIES)
        piece = min(_LARGEST_PIECE, max(_SMALLEST_PIECE, int(self._rate * seconds)))
        share = self._unclaimed // (2 * self._limit.level)
        return max(_SMALLEST_PIECE, min(piece, share))

    # Fetching it.

    def _fetch(self, task: _Task, own: memoryview) -> None:
        patience = Patience(self._limits, self._clock, reached=self.received > 0)

        def judge(error: Exception) -> Transient:
            if isinstance(error, Stopped | Changed):
                raise error
            self._stop.check()
            with self.lock:
                problem = task.source.judge(error)
                task.source.forget_location()
                if problem.overloaded:
                    self._limit.refused(time.monotonic())
            return problem

        try:
            retry(
                lambda: self._attempt(task, own, patience),
                patience,
                judge=judge,
                given_up=task.source.given_up,
                say=task.source.say,
                wait=self._pause,
            )
        except Changed as error:
            with self.lock:
                if task.claim is not None and not task.claim.void:
                    before = task.source.ranges.unclaimed
                    task.source.changed(str(error))
                    self._unclaimed += task.source.ranges.unclaimed - before
                    self.reopen(task.source)

    def _pause(self, seconds: float) -> None:
        """Waits without counting as busy; those that come back go before new ranges."""
        with self.lock:
            self._busy -= 1
            self._idle.notify()
        try:
            self._stop.wait(seconds)
        finally:
            with self.lock:
                self._returning += 1
                while self._busy >= self._limit.level and not self._stop.thrown:
                    self._idle.wait(_WAIT_SECONDS)
                self._returning -= 1
                self._busy += 1
                self._idle.notify()
        self._stop.check()

    def _attempt(self, task: _Task, own: memoryview, patience: Patience) -> None:
        source, claim = task.source, task.claim
        if claim is None or claim.void or not claim.left:
            return
        with self.lock:
            response = source.take_opened(claim)
            address, headers = source.request(claim)
        asked_at = time.monotonic()
        if response is None:
            response = self._client.open(address, headers)
        with response:
            with self.lock:
                before = source.confirmed
                task.claim = claim = source.accept(claim, response)
                if source.confirmed and not before:
                    self._idle.notify_all()
            if claim is None:
                return
            first_at = time.monotonic()
            begun = claim.position
            self._receive(task, response, own, patience)
            if claim is task.claim:
                self._measure(first_at - asked_at, claim.position - begun, time.monotonic() - first_at)

    def _receive(self, task: _Task, response: Response, own: memoryview, patience: Patience) -> None:
        source = task.source
        claim = task.claim
        while claim is not None:
            while claim.left and not claim.void:
                room = source.room(claim, own)[: claim.left]
                count = response.receive(room)
                self._stop.check()
                if claim.void:
                    return
                if not count:
                    with self.lock:
                        if source.ended(claim):
                            break
                    raise EndedEarly
                source.store(claim, room[:count])
                with self.lock:
                    if claim.void:
                        return
                    source.ranges.advance(claim, count)
                    self.received += count
                    if self._limit.came(count, time.monotonic()):
                        self._start_more()
                        self._idle.notify_all()
                    source.stored(claim)
                if claim.position > task.furthest:
                    task.furthest = claim.position
                    patience.progressed()
            with self.lock:
                following = self._follow(source, claim)
            if following is not None:
                task.claim = following
            elif response.status == 200 and not claim.void and claim.end == source.ranges.size:
                _expect_end(response, own)
            claim = following

    def _follow(self, source: RangedSource, claim: Claim) -> Claim | None:
        """What the same answer goes on with, where it has no end. In the lock."""
        while not claim.void:
            following = source.follow(claim)
            if following is not claim:
                if following is not None:
                    source.closed(claim)
                return following
            self._stop.check()
            self._idle.wait(_WAIT_SECONDS)
        return None

    def _measure(self, latency: float, count: int, seconds: float) -> None:
        if count < _MEASURED_BYTES or seconds <= 0:
            return
        with self.lock:
            weight = _SMOOTHING if self._rate else 1.0
            self._rate += weight * (count / seconds - self._rate)
            self._latency += weight * (latency - self._latency)


def _expect_end(response: Response, own: memoryview) -> None:
    if response.receive(own[:1]):
        raise Changed("the server sent more than it announced")
