"""One address whose bytes are fetched in ranges, over several connections at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from trt_llm_pipeline.net.client import Response, headers_for
from trt_llm_pipeline.net.failures import BrokenAnswer, Transient
from trt_llm_pipeline.net.ranges import Claim, Ranges, parse_content_range, strong_etag

# More than any file has: an address that does not tell its size.
UNKNOWN_SIZE = 1 << 62


class Changed(Exception):
    """What came does not belong to the file that was announced, or that was begun with."""


class RangedSource(ABC):
    """What the pool fetches. Each answer is checked here before one byte of it is taken.

    Methods run with the pool's lock held, `room` and `store` aside.

    Attributes:
        url, headers: what is asked for.
        ranges: what is there and what is on its way.
        location: where the first answer came from in the end, until that stops working; ranges go there
            without being redirected each.
        validator: ETag or Last-Modified that all answers must agree with; sent as If-Range.
        confirmed: the server has answered a range with that range.
        single: the server does not do ranges; one connection takes it all.
        splits: whether a claim may be divided between two connections.
    """

    splits = False

    def __init__(self, url: str, headers: Mapping[str, str], size: int) -> None:
        self.url = url
        self.headers = headers
        self.ranges = Ranges(size)
        self.location: str | None = None
        self.validator: str | None = None
        self.confirmed = False
        self.single = False

    @abstractmethod
    def claim(self, most: int) -> Claim | None:
        """Bytes to fetch next, about so many; None where there are none for now."""

    def split(self, least: int) -> Claim | None:
        """The second half of what another connection still has to fetch; None where that is too little."""
        return self.ranges.split(least)

    @abstractmethod
    def asked(self, claim: Claim) -> tuple[int, int | None] | None:
        """The range to ask for, with an end (not included) or up to the file's; None for a plain GET."""

    def take_opened(self, claim: Claim) -> Response | None:
        """An answer that was opened before, if it fits the claim."""
        del claim
        return None

    @abstractmethod
    def room(self, claim: Claim, own: memoryview) -> memoryview:
        """Where the claim's next bytes go; `own` is the connection's memory."""

    @abstractmethod
    def store(self, claim: Claim, data: memoryview) -> None:
        """Keeps the claim's next bytes."""

    @abstractmethod
    def stored(self, claim: Claim) -> None:
        """More of the claim is there."""

    def follow(self, claim: Claim) -> Claim | None:
        """The claim that an answer without an end goes on with; the same one where that is not known yet."""
        del claim
        return None

    def ended(self, claim: Claim) -> bool:
        """The answer ended before the claim did; True where that is the end of a file of unknown size."""
        del claim
        return False

    def closed(self, claim: Claim) -> None:
        """The claim is finished or given up."""
        self.ranges.drop(claim)

    def is_whole_instead(self, claim: Claim) -> bool:
        """Whether an answer with the whole file is more than the claim asked for."""
        return claim.asked is not None or claim.position > 0

    @abstractmethod
    def restart(self, claim: Claim) -> Claim | None:
        """The whole file came instead of a range: the claim to go on with from its start, if any."""

    @abstractmethod
    def changed(self, reason: str) -> None:
        """Forgets what is there, or raises."""

    def forget_location(self) -> None:
        """Something failed; a signed address may have run out."""
        self.location = None

    @abstractmethod
    def judge(self, error: Exception) -> Transient:
        """What a failure means; raises where asking again cannot help."""

    @abstractmethod
    def given_up(self, reason: str) -> Exception:
        """The error at the end of all patience."""

    @abstractmethod
    def say(self, problem: Transient, announcement: str) -> None:
        """Tells the log of a failed attempt."""

    def request(self, claim: Claim) -> tuple[str, dict[str, str]]:
        """The address to ask for the claim, and the headers to send."""
        address = self.location or self.url
        return address, headers_for(address, self.request_headers(claim), meant_for=self.url)

    def request_headers(self, claim: Claim) -> dict[str, str]:
        """The headers that the claim needs at `url`."""
        headers = {**self.headers, "Accept-Encoding": "identity"}
        asked = claim.asked = self.asked(claim)
        if asked is not None:
            start, end = asked
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
            if self.validator is not None:
                headers["If-Range"] = self.validator
        return headers

    def accept(self, claim: Claim, response: Response) -> Claim | None:
        """Checks an answer's head; returns the claim that its body belongs to, or None where to none.

        Raises:
            Changed: it is of another file.
            BrokenAnswer: it does not fit the question.
        """
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise BrokenAnswer(f"the server sent it encoded as {encoding[:20]!r}, which was not asked for")
        self._check_validator(response)
        asked = claim.asked
        if response.status == 206:
            self._check_range(asked, response)
        elif response.status == 200:
            if response.length is not None and response.length > self.ranges.size:
                raise Changed(f"the server has {response.length} bytes instead of {self.ranges.size}")
            if self.is_whole_instead(claim):
                restarted = self.restart(claim)
                if restarted is None:
                    return None
                claim = restarted
        else:
            raise BrokenAnswer(f"the server answered HTTP {response.status}")
        if self.validator is None:
            self.validator = self.validator_of(response)
        if response.url != self.url:
            self.location = response.url
        return claim

    def validator_of(self, response: Response) -> str | None:
        """What tells this version of the file from others."""
        return strong_etag(response.headers)

    def _check_validator(self, response: Response) -> None:
        found = self.validator_of(response)
        if self.validator is not None and found is not None and found != self.validator:
            raise Changed("it changed on the server while it was downloaded")

    def _check_range(self, asked: tuple[int, int | None] | None, response: Response) -> None:
        if asked is None:
            raise BrokenAnswer("the server sent a part of it although all was asked for")
        found = parse_content_range(response.headers.get("content-range", ""))
        if found is not None and found[2] is not None and self.ranges.size not in (found[2], UNKNOWN_SIZE):
            raise Changed(f"the server has {found[2]} bytes instead of {self.ranges.size}")
        fits = found is not None and found[0] == asked[0]
        if fits and found is not None and response.length is not None:
            fits = response.length == found[1] - found[0]
        if not fits:
            # It does not do ranges as one should; better to have none of them.
            self.single = True
            raise BrokenAnswer("the server sent another range than it was asked for")
        self.confirmed = True
