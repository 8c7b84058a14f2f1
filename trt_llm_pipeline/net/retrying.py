"""When to ask a failing source again, when to give up, and how to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from trt_llm_pipeline.net.stream import Transient

_NAP_S = 0.1


@dataclass(frozen=True)
class RetryLimits:
    """How long a source that fails is asked again; all times in seconds.

    Attributes:
        attempts: failures in a row, without one new byte, after which it is given up.
        first_wait: before the second attempt; doubled for each further one.
        longest_wait: what the doubling stops at.
        patience: time without one new byte after which it is given up, and the longest Retry-After obeyed.
        silence: a connection on which nothing comes for this long counts as failed.
        mismatches: how often one file may arrive with another content than announced.
    """

    attempts: int = 8
    first_wait: float = 1.0
    longest_wait: float = 30.0
    patience: float = 300.0
    silence: float = 20.0
    mismatches: int = 2


# With a complete snapshot at hand, a source that is down is not waited for.
BRIEFLY = RetryLimits(attempts=2, patience=10.0)


def nap(seconds: float) -> None:
    """Sleeps in short turns: an exception meant for this thread arrives only between them."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _NAP_S))


class Patience:
    """Counts failures in a row; new bytes make it forget them.

    Args:
        limits: see RetryLimits.
        clock: seconds, monotonic.
    """

    def __init__(self, limits: RetryLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self.failures = 0
        self._since: float | None = None

    def progressed(self) -> None:
        self.failures = 0
        self._since = None

    def next_wait(self, failure: Transient) -> float | None:
        """Seconds to wait before asking again; None to give up."""
        now = self._clock()
        if self._since is None:
            self._since = now
        self.failures += 1
        if self.failures >= self._limits.attempts:
            return None
        wait = min(self._limits.first_wait * 2 ** (self.failures - 1), self._limits.longest_wait)
        if failure.retry_after is not None:
            wait = max(wait, failure.retry_after)
        return wait if now + wait - self._since <= self._limits.patience else None

    def describe(self, failure: Transient) -> str:
        """What to say on giving up."""
        asked = "" if failure.retry_after is None else f" and asks to wait {failure.retry_after:.0f} s"
        return f"{failure.reason}{asked}, after {self.failures} attempts in a row"
