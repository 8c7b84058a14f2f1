"""When to ask a failing source again, and when to give up."""

from __future__ import annotations

from collections.abc import Callable

from trt_llm_pipeline.model_source.model_types import RetryLimits
from trt_llm_pipeline.net.stream import Transient


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
