"""What the network can do to a request, and whether asking again may help."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_OVERLOADED = frozenset({429, 503})
_LONGEST_WAIT_DIGITS = 10  # three centuries


@dataclass(frozen=True)
class Transient:
    """A failure that may pass.

    Attributes:
        reason: in words, for the log.
        retry_after: seconds that the server asks to wait.
        unreachable: nobody answered at all, so that a source never reached before is given up sooner.
        overloaded: the server asks for fewer requests.
    """

    reason: str
    retry_after: float | None = None
    unreachable: bool = False
    overloaded: bool = False


class HttpStatusError(Exception):
    """An answer with a status of 400 or more, or one redirect too many.

    Attributes:
        status: the HTTP status.
        headers: names in lower case.
        url: without its query, which may be a signature.
    """

    def __init__(self, status: int, headers: Mapping[str, str], url: str) -> None:
        super().__init__(f"HTTP {status} from {url}")
        self.status, self.headers, self.url = status, headers, url

    @property
    def error_code(self) -> str:
        """What the Hub says in its X-Error-Code header."""
        return self.headers.get("x-error-code", "")


class BadAddress(Exception):
    """An address that is not http or https, or not valid; its text says which and what to do."""


class EndedEarly(Exception):
    """The server closed the connection, properly, before the last byte."""


class BrokenAnswer(http.client.HTTPException):
    """An answer that does not fit the question; its text says how."""


def transient_failure(error: BaseException) -> Transient | None:
    """Whether asking again may help; the one table for what the network can do to a request."""
    if isinstance(error, HttpStatusError):
        return transient_status(error.status, error.headers.get("retry-after"))
    if isinstance(error, EndedEarly):
        return Transient("the server ended too early")
    if isinstance(error, BrokenAnswer):
        return Transient(str(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        return None
    if isinstance(error, TimeoutError):
        return Transient("nothing came any more")
    if isinstance(error, http.client.RemoteDisconnected):
        return Transient("connection closed without an answer", overloaded=True)
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return Transient("connection reset")
    if isinstance(error, ConnectionRefusedError):
        return Transient("connection refused", unreachable=True)
    if isinstance(error, socket.gaierror):
        return Transient("its name could not be looked up", unreachable=True)
    if isinstance(error, http.client.HTTPException | ssl.SSLError):
        return Transient(f"broken answer ({type(error).__name__})")
    if isinstance(error, ConnectionError) or (
        isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
    ):
        return Transient("network unreachable", unreachable=True)
    return None


def transient_status(status: int, retry_after: str | None) -> Transient | None:
    """The same for an HTTP status; Retry-After is understood as seconds or as a date (RFC 9110, 10.2.3)."""
    if status not in _TRANSIENT_STATUSES:
        return None
    reason = "too many requests (HTTP 429)" if status == 429 else f"HTTP {status}"
    return Transient(reason, parse_retry_after(retry_after), overloaded=status in _OVERLOADED)


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait; None where the header is missing or cannot be read."""
    if value is None or not value.strip():
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) <= _LONGEST_WAIT_DIGITS else None
    import datetime
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.timezone.utc)
        wait = (moment - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, wait)
