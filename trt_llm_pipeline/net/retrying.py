"""When to ask a failing source again, when to give up, how to wait, and the one loop that does it all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from trt_llm_pipeline.net.failures import Transient

T = TypeVar("T")

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
        unreachable_attempts: the same as `attempts` for a source that was never reached: its name cannot be
            looked up, or it refuses connections.
    """

    attempts: int = 8
    first_wait: float = 1.0
    longest_wait: float = 30.0
    patience: float = 300.0
    silence: float = 20.0
    mismatches: int = 2
    unreachable_attempts: int = 4


# With a complete model at hand, a source that is down is not waited for.
BRIEFLY = RetryLimits(attempts=2, patience=5.0, silence=5.0, unreachable_attempts=2)


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
        reached: whether the source has answered before.
    """

    def __init__(self, limits: RetryLimits, clock: Callable[[], float], *, reached: bool = False) -> None:
        self.limits = limits
        self._clock = clock
        self._reached = reached
        self._since: float | None = None
        self.failures = 0
        self.attempts = limits.attempts

    def progressed(self) -> None:
        self.failures = 0
        self._since = None
        self._reached = True

    def next_wait(self, failure: Transient) -> float | None:
        """Seconds to wait before asking again; None to give up."""
        now = self._clock()
        if self._since is None:
            self._since = now
        if not failure.unreachable:
            self._reached = True
        self.failures += 1
        limits = self.limits
        self.attempts = (
            limits.attempts if self._reached else min(limits.attempts, limits.unreachable_attempts)
        )
        if self.failures >= self.attempts:
            return None
        wait = min(limits.first_wait * 2 ** (self.failures - 1), limits.longest_wait)
        if failure.retry_after is not None:
            wait = max(wait, failure.retry_after)
        return wait if now + wait - self._since <= limits.patience else None

    def describe(self, failure: Transient) -> str:
        """What to say on giving up."""
        asked = "" if failure.retry_after is None else f" and asks to wait {failure.retry_after:.0f} s"
        tries = f", after {self.failures} attempts in a row" if self.failures > 1 else ""
        return f"{failure.reason}{asked}{tries}"

    def announce(self, wait: float) -> str:
        """What to say before the next attempt."""
        return f"attempt {self.failures + 1} of {self.attempts} in {wait:.0f} s"


def retry(
    attempt: Callable[[], T],
    patience: Patience,
    *,
    judge: Callable[[Exception], Transient],
    given_up: Callable[[str], Exception],
    say: Callable[[Transient, str], None],
    wait: Callable[[float], None],
) -> T:
    """Tries until it succeeds.

    Args:
        attempt: raises what went wrong.
        patience: how long.
        judge: what a failure means; raises where trying again cannot help.
        given_up: the error to raise at the end of all patience, from its reason in words.
        say: is told each failure and when the next attempt will be.
        wait: sleeps; may raise.
    """
    while True:
        try:
            return attempt()
        except Exception as error:
            problem = judge(error)
            seconds = patience.next_wait(problem)
            if seconds is None:
                raise given_up(patience.describe(problem)) from error
        say(problem, patience.announce(seconds))
        wait(seconds)
