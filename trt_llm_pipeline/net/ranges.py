"""Which bytes of a file are there, which are on their way, and which are still to be asked for."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(?:(\d{1,19})|\*)", re.ASCII)


@dataclass(eq=False)
class Claim:
    """Bytes that one connection fetches: `position` to `end`, not included.

    Attributes:
        start: where it began.
        position: the next byte.
        end: may move towards `position` when another connection takes over the rest.
        asked: the range that was asked for; None for all of it.
        void: the file is fetched anew; nothing may be written for this claim any more.
    """

    start: int
    end: int
    position: int = field(init=False)
    asked: tuple[int, int | None] | None = None
    void: bool = False

    def __post_init__(self) -> None:
        self.position = self.start

    @property
    def left(self) -> int:
        return self.end - self.position


class Ranges:
    """The state of a file of known size. Not safe to use from several threads at once.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.claims: list[Claim] = []

    @property
    def done(self) -> int:
        """How many bytes are there."""
        return sum(self._ends) - sum(self._starts)

    @property
    def unclaimed(self) -> int:
        """How many bytes are neither there nor on their way."""
        return self.size - self.done - sum(claim.left for claim in self.claims)

    def intervals(self) -> list[tuple[int, int]]:
        """What is there: start and end of each stretch, in order."""
        return list(zip(self._starts, self._ends, strict=True))

    def prefix(self, start: int = 0) -> int:
        """The end of what is there without a gap from `start` on."""
        place = bisect.bisect_right(self._starts, start) - 1
        return max(start, self._ends[place]) if place >= 0 else start

    def add(self, start: int, end: int) -> None:
        """These bytes are there."""
        if start >= end:
            return
        first = bisect.bisect_left(self._ends, start)
        last = bisect.bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        """These bytes turned out to be wrong."""
        if start >= end:
            return
        kept = []
        for left, right in self.intervals():
            kept += [(left, min(right, start)), (max(left, end), right)]
        kept = [(left, right) for left, right in kept if left < right]
        self._starts, self._ends = [left for left, _ in kept], [right for _, right in kept]

    def claim(self, most: int, end: int | None = None) -> Claim | None:
        """Takes the first bytes that nobody fetches, at most so many, and none from `end` on."""
        place, limit = 0, self.size if end is None else min(end, self.size)
        taken = sorted([*self.intervals(), *((claim.position, claim.end) for claim in self.claims)])
        for left, right in [*taken, (limit, limit)]:
            if place < min(left, limit):
                claim = Claim(place, min(left, limit, place + most))
                self.claims.append(claim)
                return claim
            place = max(place, right)
        return None

    def advance(self, claim: Claim, count: int) -> None:
        """The claim's next bytes are there."""
        self.add(claim.position, claim.position + count)
        claim.position += count

    def drop(self, claim: Claim) -> None:
        """The claim is finished or given up; what is left of it can be claimed again."""
        if claim in self.claims:
            self.claims.remove(claim)

    def split(self, least: int) -> Claim | None:
        """Takes the second half of the claim that has most left, where each half has at least so much."""
        longest = max(self.claims, key=lambda claim: claim.left, default=None)
        if longest is None or longest.left < 2 * least:
            return None
        middle = longest.end - longest.left // 2
        claim = Claim(middle, longest.end)
        longest.end = middle
        self.claims.append(claim)
        return claim

    def reset(self) -> None:
        """Nothing of it is there, and what is on its way counts for nothing."""
        for claim in self.claims:
            claim.void = True
        self.claims.clear()
        self._starts.clear()
        self._ends.clear()


def parse_content_range(value: str) -> tuple[int, int, int | None] | None:
    """Start, end (not included) and total of a Content-Range (RFC 9110, 14.4); None where it makes no sense.

    The total is None where the server does not know it.
    """
    match = _CONTENT_RANGE.fullmatch(value.strip())
    if match is None:
        return None
    start, end = int(match[1]), int(match[2]) + 1
    total = None if match[3] is None else int(match[3])
    if start >= end or (total is not None and end > total):
        return None
    return start, end, total


def strong_etag(headers: dict[str, str]) -> str | None:
    """The ETag, where equal ones mean equal bytes."""
    etag = headers.get("etag", "")
    return etag if len(etag) > 2 and etag.startswith('"') and etag.endswith('"') else None
