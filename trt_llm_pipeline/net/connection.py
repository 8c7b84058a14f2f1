"""Opening connections: the one place where a socket is made, with TLS and proxies on top."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import socket
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import SplitResult, unquote, urlsplit

from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.net.answer import Answer
from trt_llm_pipeline.net.failures import BadAddress
from trt_llm_pipeline.net.spelling import Origin, checked
from trt_llm_pipeline.printable import printable


class Dial(Protocol):
    """Opens a TCP connection to a host; see `dial`."""

    def __call__(
        self, host: str, port: int, timeout: float, hold: Callable[[socket.socket], None], reach: Reach
    ) -> socket.socket: ...


def dial(
    host: str,
    port: int,
    timeout: float,
    hold: Callable[[socket.socket], None],
    reach: Reach,
    *,
    resolve: Callable[..., list[Any]] = socket.getaddrinfo,
) -> socket.socket:
    """Looks the name up, once, and connects to the first of its addresses that answers.

    Every connection of the service that fetches or sends something by HTTP is opened here. All the name's
    addresses must be allowed: one that has public and inner ones is refused as a whole.

    Args:
        host: a name or an address.
        port: TCP.
        timeout: seconds for each address; stays the socket's.
        hold: is given each socket before it connects, so that another thread can shut it down.
        reach: which addresses are allowed.
        resolve: looks names up.

    Raises:
        BadAddress: the name leads to an address that is not allowed, or can be none.
        OSError: the name cannot be looked up, or none of the addresses can be connected to.
    """
    problem: OSError = OSError(f"{host} has no address")
    try:
        found = resolve(host, port, type=socket.SOCK_STREAM)
    except ValueError:  # Python's own, before anybody was asked
        raise BadAddress(f"{printable(host)!r} is no name of a host; check the address") from None
    for *_, address in found:
        reach.check(host, str(address[0]))
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout)
            hold(connection)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except OSError as error:
            connection.close()
            problem = error
        except BaseException:
            connection.close()
            raise
    raise problem


def origin_of(url: str) -> Origin:
    """Scheme, host and port; two addresses with the same ones may see each other's credentials.

    Raises:
        BadAddress: it is no http(s) address, or not a valid one.
    """
    return checked(url).origin


@dataclass(frozen=True)
class Proxy:
    """The proxy that the environment names for an origin.

    Attributes:
        headers: what it wants to see, where its address has a user name.
    """

    host: str
    port: int
    headers: Mapping[str, str]


def proxy_for(origin: Origin) -> Proxy | None:
    """The proxy that the environment names for an origin (http_proxy, https_proxy, no_proxy), if any.

    Raises:
        PipelineError: what it names is no proxy's address.
    """
    scheme, host, port = origin
    value = urllib.request.getproxies().get(scheme)
    if not value or urllib.request.proxy_bypass(f"{host}:{port}") or urllib.request.proxy_bypass(host):
        return None
    address = value if "://" in value else f"http://{value}"
    try:
        _, near, _ = checked(address).origin
        parts = urlsplit(address.strip())
        return Proxy(near, parts.port or 80, _authorization(parts))
    except (BadAddress, ValueError):
        # Its value may hold a password.
        raise PipelineError(
            f"{_proxy_variable(scheme, value)} does not hold the address of a proxy; set it to "
            "http://HOST:PORT, or unset it"
        ) from None


def _proxy_variable(scheme: str, value: str) -> str:
    """Which variable `getproxies` has read."""
    wanted = f"{scheme}_proxy"
    found = (name for name in sorted(os.environ) if name.lower() == wanted and os.environ[name] == value)
    return next(found, wanted)


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


def tls_context() -> ssl.SSLContext:
    """The system's certificates, or certifi's in a slim image without any."""
    context = ssl.create_default_context()
    if not context.get_ca_certs() and not context.cert_store_stats()["x509_ca"]:
        import certifi

        context.load_verify_locations(certifi.where())
    return context


class Connection:
    """A connection to an origin, kept open between requests.

    Args:
        origin: what to connect to.
        context: gives the TLS settings when they are needed.
        opener: see `dial`.
        silence: seconds without a byte after which reading fails, and the limit for connecting.
        reach: which addresses are allowed. A proxy is the operator's, wherever it is; it looks names up
            itself, so only what a name's spelling shows is refused then.

    Raises:
        BadAddress: the origin leads inside by its spelling, and a proxy would be asked to go there.
        PipelineError: as `proxy_for`.
    """

    def __init__(
        self,
        origin: Origin,
        context: Callable[[], ssl.SSLContext],
        opener: Dial,
        silence: float,
        reach: Reach,
    ) -> None:
        scheme, host, port = origin
        self.origin = origin
        self.used = False
        self.sock: socket.socket | None = None
        self._hold: Callable[[socket.socket], None] = lambda _: None
        self._opener = opener
        proxy = proxy_for(origin)
        if proxy is not None:
            reach.check_spelling(host)
            reach = Reach(inside=True)
        self._reach = reach
        # A proxy for http is given the whole address; through one for https a tunnel is laid.
        self.absolute = proxy is not None and scheme == "http"
        self.extra_headers = proxy.headers if proxy is not None and self.absolute else {}
        near = (host, port) if proxy is None else (proxy.host, proxy.port)
        self.http: http.client.HTTPConnection
        if scheme == "https":
            self.http = http.client.HTTPSConnection(*near, timeout=silence, context=context())
        else:
            self.http = http.client.HTTPConnection(*near, timeout=silence)
        if proxy is not None and scheme == "https":
            self.http.set_tunnel(host, port, proxy.headers)
        self.http.response_class = Answer
        connection: Any = self.http
        connection._create_connection = self._open

    def attach(self, hold: Callable[[socket.socket], None]) -> None:
        """From now on `hold` is given the connection's socket."""
        self._hold = hold
        if self.sock is not None:
            hold(self.sock)

    def silence(self, seconds: float) -> None:
        """Sets the time without a byte after which reading fails."""
        self.http.timeout = seconds
        if self.http.sock is not None:
            self.http.sock.settimeout(seconds)

    def request(self, target: str, headers: dict[str, str]) -> Answer:
        """Sends a GET and reads the answer's head."""
        if self.http.sock is None:
            self.http.connect()
            if self.http.sock is not None:  # with TLS it is another one now
                # Kept here, because http.client forgets it when the server says that it will close.
                self.sock = self.http.sock
                self._hold(self.sock)
        self.http.request("GET", target, headers=headers)
        return cast(Answer, self.http.getresponse())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.http.close()

    def _open(self, address: tuple[str, int], timeout: float, _source: object = None) -> socket.socket:
        self.sock = self._opener(address[0], address[1], timeout, self._hold, self._reach)
        return self.sock
