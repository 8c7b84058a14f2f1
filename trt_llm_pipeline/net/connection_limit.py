"""How many connections to use at once: more while throughput grows, fewer when the server asks for it."""

from __future__ import annotations

from collections.abc import Mapping

from trt_llm_pipeline.errors import PipelineError

MOST_CONNECTIONS = 16
VARIABLE = "TRT_LLM_DOWNLOAD_CONNECTIONS"
_START = 4
_WINDOW_SECONDS = 0.15
_SHARE = 0.4
_SETTLE_SECONDS = 5.0
_MOMENT_SECONDS = 0.5
_HIGHEST = 64


def most_connections(env: Mapping[str, str]) -> int:
    """What $TRT_LLM_DOWNLOAD_CONNECTIONS says, or 16.

    Raises:
        PipelineError: it is not a number from 1 to 64.
    """
    text = env.get(VARIABLE)
    if not text:
        return MOST_CONNECTIONS
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _HIGHEST):
        raise PipelineError(f"{VARIABLE} is {text!r}; set it to a number from 1 to {_HIGHEST}, or unset it")
    return int(text)


class ConnectionLimit:
    """Watches the bytes that come and says how many connections may be busy. Not safe for several threads.

    It begins with up to 4 and doubles them, as long as each step brings at least 0.4 of what as many
    connections brought before. Where the connection is the limit a step brings all of that, and where the
    machine is, nothing; then it is taken back, and tried again after some seconds. A server that answers 429
    or 503 halves it, and it grows one by one from there.

    Args:
        most: never more than this.
        now: seconds, monotonic.
    """

    def __init__(self, most: int, now: float) -> None:
        self.most = most
        self.level = min(_START, most)
        self._before: tuple[int, float] | None = None  # the level and throughput before the last step up
        self._window_began = now
        self._bytes = 0
        self._hold_until = now
        self._refused_at: float | None = None

    def came(self, count: int, now: float) -> bool:
        """Counts bytes that came; tells whether the level rose."""
        self._bytes += count
        elapsed = now - self._window_began
        if elapsed < _WINDOW_SECONDS:
            return False
        rate = self._bytes / elapsed
        self._bytes, self._window_began = 0, now
        if self._before is not None:
            level, earlier = self._before
            self._before = None
            if rate < earlier * (1 + _SHARE * (self.level - level) / level):
                self.level = level
                self._hold_until = now + _SETTLE_SECONDS
                return False
        if now < self._hold_until or self.level >= self.most:
            return False
        self._before = (self.level, rate)
        self.level = min(self.most, self.level * 2 if self._refused_at is None else self.level + 1)
        return True

    def refused(self, now: float) -> None:
        """The server asked for fewer requests, or closed a connection without an answer.

        What comes within a moment counts once: all connections hear of the same overload.
        """
        if self._refused_at is not None and now - self._refused_at < _MOMENT_SECONDS:
            return
        self.level = max(1, self.level // 2)
        self._before = None
        self._refused_at = now
        self._hold_until = now + _SETTLE_SECONDS
