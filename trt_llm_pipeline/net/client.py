"""The HTTP client for everything that is fetched: model files, tars, configs and archives by address.

It is `http.client` with connections that are kept open, followed redirects and sockets that another thread
can shut down. CPU time of each client against the same loopback server, best of three on a busy machine:

| | 1 GB, written to a file | a request for a small file |
|---|---|---|
| this one | 0.6 s | 0.18 ms |
| urllib3 2.8, `readinto` | 0.5 s | 0.24 ms |
| httpx2 2.16, `iter_raw` | 1.5 s | 0.39 ms |

Large files decide nothing between the first two: both let the kernel write into memory that is used again and
again. Small ones do, and so does the socket: it is opened in one place (`connection.dial`), where its address
can be checked, and it is at hand to be shut down.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Mapping

from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.net.answer import HEAD_BUFFER, Answer, Chunks
from trt_llm_pipeline.net.connection import Connection, Dial, dial, origin_of, tls_context
from trt_llm_pipeline.net.failures import BrokenAnswer, EndedEarly, HttpStatusError
from trt_llm_pipeline.net.spelling import Address, Origin, checked, redirected
from trt_llm_pipeline.net.stopping import StopSwitch, run_interruptibly

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10
_SECRET_HEADERS = frozenset({"authorization", "cookie"})
# What is at hand is given on when nothing more came for this long, or after the longest time in all.
_LULL_SECONDS = 0.05
_GATHER_SECONDS = 0.25
_GATHER_TIMEVAL = struct.pack("ll", 0, int(_GATHER_SECONDS * 1e6))
# What is worth it to be read for a connection that is kept.
_REUSE_LEFTOVER = 1 << 16
_DRAIN_SECONDS = 1.0
# More than any file has; what says so would be calculated with all the same.
_LONGEST = 1 << 62
_PIECE_BYTES = 1 << 18


class Response:
    """An open answer's body.

    Attributes:
        status: the HTTP status.
        headers: names in lower case.
        url: where it came from, after all redirects.
        length: bytes that the body has, where it is said.
    """

    def __init__(self, client: Client, connection: Connection, response: Answer, url: str):
        self._client, self._connection, self._response = client, connection, response
        self._sock = connection.sock
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self.url = url
        self.length = response.length if response.length is not None and not response.chunked else None
        self._chunks = Chunks(response) if response.chunked else None
        self._left = self.length
        self._past_head = False
        self._silence = 0.0
        self._deadline: float | None = None

    def receive(self, into: memoryview) -> int:
        """Fills the memory as far as bytes flow, waiting for the first; returns how many, 0 at the end."""
        if self._chunks is not None:
            return self._chunks.receive(into)
        if self._left is None:
            piece = self._response.read1(len(into))
            into[: len(piece)] = piece
            return len(piece)
        into = into[: self._left]
        if not into:
            return 0
        if self._past_head:
            count = self._receive(into)
        else:
            self._past_head = len(into) > HEAD_BUFFER
            count = int(self._response.fp.readinto1(into))
            if self._past_head and 0 < count < len(into):
                with contextlib.suppress(OSError):  # it will show at the next call; these bytes are good
                    count += self._receive(into[count:])
        self._left -= count
        return count

    def read(self, most: int) -> bytes:
        """The same as bytes."""
        buffer = memoryview(bytearray(most))
        return bytes(buffer[: self.receive(buffer)])

    def finish(self, most: int, seconds: float) -> None:
        """Reads what is left, where that is little and the connection can be used again afterwards.

        Args:
            most: bytes; nothing is read where it is more, or not known.
            seconds: what is not read by then is left.
        """
        if self.length is None or self.length > most or self._response.will_close or self._sock is None:
            return
        self._sock.settimeout(seconds)
        deadline = time.monotonic() + seconds
        while self.read(most) and time.monotonic() < deadline:
            pass

    def _receive(self, into: memoryview) -> int:
        sock = self._sock
        if sock is None:
            raise RuntimeError("an answer without a connection")
        if isinstance(sock, ssl.SSLSocket):
            return _gather(sock, into)
        if self._deadline is None:
            # The kernel fills the memory by itself, which saves most of the calls and of the wake-ups.
            self._silence = sock.gettimeout() or 0.0
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _GATHER_TIMEVAL)
            sock.settimeout(None)
        self._deadline = time.monotonic() + self._silence
        while True:
            try:
                return sock.recv_into(into, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                if time.monotonic() >= self._deadline:
                    raise TimeoutError("nothing came any more") from None

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        """Keeps the connection where the body was read to its end, else closes it."""
        whole = self._left == 0 if self._chunks is None else self._chunks.ended
        reusable = whole and not self._response.will_close
        self._response.close()
        self._client.give_back(self._connection, reusable=reusable)


class Client:
    """Sends GETs. One for everything that is fetched together, in as many threads as one likes.

    Args:
        stop: shuts every connection down when thrown.
        silence: seconds without a byte after which a request fails, connecting included.
        reach: which addresses may be connected to, at each redirect anew.
        opener: opens sockets; see `connection.dial`.
    """

    def __init__(self, stop: StopSwitch, *, silence: float, reach: Reach, opener: Dial = dial) -> None:
        self._stop = stop
        self._reach = reach
        self.silence = silence
        self._opener = opener
        self._lock = threading.Lock()
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)
        self._closed = False
        self._context: ssl.SSLContext | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def open(self, url: str, headers: Mapping[str, str]) -> Response:
        """Sends a GET and returns the answer as soon as its head is there.

        Args:
            url: http or https; redirects are followed, to http and https only.
            headers: Authorization among them is not sent to another origin.

        Raises:
            HttpStatusError: the status is 400 or more.
            Stopped: the switch was thrown.
            OSError, http.client.HTTPException: the network failed, or the answer is none.
            BadAddress: the URL, or one that it redirects to, is not an http(s) address, or leads inside.
            PipelineError: the environment names a proxy that is none.
        """
        sent = dict(headers)
        address = checked(url)
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                response = self._ask(address, url, sent)
            except BaseException:
                self._stop.check()
                raise
            place = response.headers.get("location")
            if response.status in _REDIRECTS and place:
                _drain(response)
                before, address = address, redirected(address, place)
                url = address.url
                sent = headers_for(url, sent, meant_for=before.url)
                continue
            if response.status < 300:
                return response
            _drain(response)
            raise HttpStatusError(response.status, response.headers, without_query(url))
        raise HttpStatusError(response.status, response.headers, without_query(url))

    def give_back(self, connection: Connection, *, reusable: bool) -> None:
        """For `Response`: the connection is no longer needed."""
        if connection.sock is not None:
            self._stop.release(connection.sock)
        with self._lock:
            if reusable and not self._closed and not self._stop.thrown:
                self._idle[connection.origin].append(connection)
                return
        connection.close()

    def _ask(self, address: Address, url: str, headers: Mapping[str, str]) -> Response:
        while True:
            connection = self._connection(address.origin)
            try:
                connection.attach(self._stop.hold)
                connection.silence(self.silence)
                target = address.url if connection.absolute else address.target
                answer = connection.request(target, {**headers, **connection.extra_headers})
            except BaseException as error:
                self.give_back(connection, reusable=False)
                self._stop.check()
                # The server may close a connection that was idle just when it is used again.
                if connection.used and isinstance(error, ConnectionError | http.client.BadStatusLine):
                    continue
                raise
            if answer.length is not None and answer.length > _LONGEST:
                self.give_back(connection, reusable=False)
                raise BrokenAnswer("the server announces more bytes than there can be")
            connection.used = True
            return Response(self, connection, answer, url)

    def _connection(self, origin: Origin) -> Connection:
        with self._lock:
            if self._idle[origin]:
                return self._idle[origin].pop()
        return Connection(origin, self._tls, self._opener, self.silence, self._reach)

    def _tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = tls_context()
            return self._context


def _gather(sock: socket.socket, into: memoryview) -> int:
    """The same where the kernel cannot: with TLS each call brings one record, of at most 16 kB."""
    count = sock.recv_into(into)
    if not count or count == len(into):
        return count
    silence = sock.gettimeout()
    started = time.monotonic()
    sock.settimeout(_LULL_SECONDS)
    try:
        while count < len(into) and time.monotonic() - started < _GATHER_SECONDS:
            more = sock.recv_into(into[count:])
            if not more:
                break
            count += more
    except (OSError, ValueError):
        pass  # what it is will show at the next call; these bytes are good
    finally:
        sock.settimeout(silence)
    return count


def fetch_bytes(
    url: str, *, most_bytes: int, silence: float, reach: Reach, headers: Mapping[str, str] | None = None
) -> bytes:
    """Fetches something small.

    Args:
        url: http or https.
        most_bytes: what is longer is cut off there.
        silence, reach: as for Client.
        headers: sent besides; as for `Client.open`.

    Raises:
        HttpStatusError, BadAddress, OSError, http.client.HTTPException: as `Client.open`.
        EndedEarly: fewer bytes came than were announced.
    """

    def fetch() -> bytes:
        with client.open(url, {"Accept-Encoding": "identity", **(headers or {})}) as response:
            data = bytearray()
            while len(data) < most_bytes and (
                piece := response.read(min(_PIECE_BYTES, most_bytes - len(data)))
            ):
                data += piece
            if response.length is not None and len(data) < min(response.length, most_bytes):
                raise EndedEarly(f"only {len(data)} of {response.length} bytes came")
            return bytes(data)

    stop = StopSwitch()
    with Client(stop, silence=silence, reach=reach) as client:
        try:
            return run_interruptibly(fetch)
        finally:
            stop.throw()


def headers_for(url: str, headers: Mapping[str, str], *, meant_for: str) -> dict[str, str]:
    """What of the headers that are meant for one address may be sent to another."""
    if origin_of(url) == origin_of(meant_for):
        return dict(headers)
    return {name: value for name, value in headers.items() if name.lower() not in _SECRET_HEADERS}


def without_query(url: str) -> str:
    """The address as it may be shown: a signed address's query is a secret."""
    return url.partition("#")[0].partition("?")[0]


def _drain(response: Response) -> None:
    """Reads a short body to its end, so that the connection can be used again, if that takes no time."""
    with response, contextlib.suppress(OSError, http.client.HTTPException):
        response.finish(_REUSE_LEFTOVER, _DRAIN_SECONDS)
