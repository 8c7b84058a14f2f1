"""HTTP downloads that can be stopped at once.

Reading goes through `http.client` below `urllib.request`: it hands over what the kernel has with one call,
which on a fast link is several times faster than clients that parse the body in Python, and its socket can be
shut down from another thread, so that a reader which waits for a stalled server is woken.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from trt_llm_pipeline.errors import ModelSourceError

T = TypeVar("T")

_POLL_SECONDS = 0.1
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class Stopped(Exception):
    """The stop switch was thrown."""


class StopSwitch:
    """Tells threads to stop and wakes those that wait on a socket."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    def throw(self) -> None:
        self._event.set()
        with self._lock:
            for connection in self._sockets:
                # The plain socket's shutdown: an SSL socket's own would first take its layer apart.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    @property
    def thrown(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Stopped once the switch was thrown."""
        if self._event.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Sleeps unless and until the switch is thrown; then raises Stopped."""
        if self._event.wait(seconds):
            raise Stopped

    def hold(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)
        self.check()

    def release(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)


@dataclass(frozen=True)
class Transient:
    """A failure that may heal: why, in words for the log, and how long the server asks to wait."""

    reason: str
    retry_after: float | None = None


class HttpStatusError(Exception):
    """An answer with a status of 400 or more. `headers` are looked up without regard to case."""

    def __init__(self, status: int, headers: Mapping[str, str], url: str) -> None:
        super().__init__(f"HTTP {status} from {url}")
        self.status, self.headers, self.url = status, headers, url

    @property
    def error_code(self) -> str:
        """What the Hub says in its X-Error-Code header."""
        return self.headers.get("x-error-code", "")


def transient_failure(error: BaseException) -> Transient | None:
    """Whether asking again may help; the one table for what the network can do to a download."""
    if isinstance(error, HttpStatusError):
        return transient_status(error.status, error.headers.get("retry-after"))
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return transient_failure(error.reason)
    if isinstance(error, ssl.SSLCertVerificationError):
        return None
    if isinstance(error, TimeoutError):
        return Transient("nothing came any more")
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return Transient("connection reset")
    if isinstance(error, ConnectionRefusedError):
        return Transient("connection refused")
    if isinstance(error, socket.gaierror):
        return Transient("its name could not be looked up")
    if isinstance(error, http.client.HTTPException | ssl.SSLError):
        return Transient(f"broken answer ({type(error).__name__})")
    if isinstance(error, ConnectionError) or (
        isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
    ):
        return Transient("network unreachable")
    return None


def transient_status(status: int, retry_after: str | None) -> Transient | None:
    """The same for an HTTP status; Retry-After is understood as seconds or as a date (RFC 9110, 10.2.3)."""
    if status not in _TRANSIENT_STATUSES:
        return None
    reason = "too many requests (HTTP 429)" if status == 429 else f"HTTP {status}"
    return Transient(reason, parse_retry_after(retry_after))


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait; None where the header is missing or cannot be read."""
    if value is None or not value.strip():
        return None
    text = value.strip()
    if text.isdigit():
        return float(text)
    import datetime
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return max(0.0, (moment - datetime.datetime.now(datetime.timezone.utc)).total_seconds())


class ResponseStream:
    """An open answer's body."""

    def __init__(self, response: http.client.HTTPResponse, release: Callable[[], None]) -> None:
        self._response = response
        self._release = release
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def read(self, most: int) -> bytes:
        """What has arrived so far, at most so many bytes, waiting for the first; empty at the end."""
        return self._response.read1(most)

    @property
    def length(self) -> int | None:
        """Bytes that the answer's body has, where it is said."""
        value = self.headers.get("content-length", "")
        return int(value) if value.isdigit() else None

    def __enter__(self) -> ResponseStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._release()
        self._response.close()


def open_stream(url: str, headers: Mapping[str, str], stop: StopSwitch, *, silence: float) -> ResponseStream:
    """Sends a GET and returns the answer as soon as its headers are there.

    Args:
        url: http or https; redirects are followed, to http and https only.
        headers: Authorization among them is not sent to another origin.
        stop: shuts the connection down when thrown.
        silence: seconds without a byte after which it fails, connecting included.

    Raises:
        HttpStatusError: the status is 400 or more.
        Stopped: the switch was thrown.
        OSError, http.client.HTTPException: the network failed.
        ModelSourceError: the URL's scheme is another.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ModelSourceError(f"{url} is no http:// or https:// address; use one")
    held: list[socket.socket] = []

    def release() -> None:
        for connection in held:
            stop.release(connection)

    def hold(connection: socket.socket) -> None:
        held.append(connection)
        stop.hold(connection)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Handler(hold),
        _SecureHandler(hold),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _RedirectHandler(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310  the scheme was checked
    try:
        return ResponseStream(opener.open(request, timeout=silence), release)
    except urllib.error.HTTPError as error:
        release()
        error.close()
        failed = {name.lower(): value for name, value in error.headers.items()}
        raise HttpStatusError(error.code, failed, _without_query(error.url)) from None
    except BaseException:
        release()
        stop.check()
        raise


def _without_query(url: str) -> str:
    """A signed address's query is a secret."""
    return url.partition("?")[0]


class _Handler(urllib.request.HTTPHandler):
    def __init__(self, hold: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._hold = hold

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        hold = self._hold

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                hold(self.sock)

        return self.do_open(Connection, request)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self, hold: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._hold = hold

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        hold = self._hold

        class Connection(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                hold(self.sock)

        import certifi

        context = ssl.create_default_context()
        if not context.get_ca_certs() and not context.cert_store_stats()["x509_ca"]:
            # A slim image without the system's certificates.
            context.load_verify_locations(certifi.where())
        return self.do_open(Connection, request, context=context)


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        # 308 is 307 that may be remembered; Python 3.10 does not know it.
        code = 307 if code == 308 else code
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and _origin(newurl) != _origin(req.full_url):
            following.remove_header("Authorization")
        return following


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def run_interruptibly(work: Callable[[], T]) -> T:
    """Runs a blocking call in a thread of its own and waits for it in short steps.

    An exception that another thread sets in this one (a cancelled prediction) arrives between byte codes
    only: without this, it would wait for the call. The abandoned call ends at its own time limit.
    """
    outcome: list[tuple[T | None, BaseException | None]] = []
    done = threading.Event()

    def call() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:  # noqa: BLE001  handed to the caller
            outcome.append((None, error))
        done.set()

    threading.Thread(target=call, name="model-source-request", daemon=True).start()
    while not done.wait(_POLL_SECONDS):
        pass
    value, error = outcome[0]
    if error is not None:
        raise error
    result: Any = value
    return result  # type: ignore[no-any-return]


def wait_interruptibly(seconds: float, clock: Callable[[], float]) -> None:
    """Sleeps in short steps, for the same reason."""
    end = clock() + seconds
    pause = threading.Event()
    while (left := end - clock()) > 0:
        pause.wait(min(_POLL_SECONDS, left))
