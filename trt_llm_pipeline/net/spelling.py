"""How an address is spelled: the one place that judges what was given, before anything is done with it.

People and servers write more than RFC 3986 allows: letters of every alphabet, spaces, hosts that are none.
What can be sent is spelled as browsers do it; the rest is refused in words.
"""

from __future__ import annotations

import ipaddress
import re
import string
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from trt_llm_pipeline.net.failures import BadAddress
from trt_llm_pipeline.printable import printable

Origin = tuple[str, str, int]
_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB = re.compile(r"\s*https?:", re.IGNORECASE)
# What no name of a host holds: https://url.spec.whatwg.org/#forbidden-domain-code-point
_NOT_IN_HOSTS = re.compile(r"[\x00-\x20\x7f\"#%/:<>?@\[\\\]^`{|}]")
# A host and its port, as far as a slash can be told from a password's.
_PLACE = re.compile(r"(\[[^\]]*\]?|[^:]*)(:\d*)?")
_LONGEST_HOST = 253  # RFC 1035; Python takes very long for very long ones


@dataclass(frozen=True)
class Address:
    """An http(s) address that can be asked for.

    Attributes:
        origin: scheme, host and port; the host in ASCII and lower case, as connections are made to it.
        target: path and query, in ASCII.
    """

    origin: Origin
    target: str

    @property
    def url(self) -> str:
        """The address without user name, password and fragment."""
        scheme, host, port = self.origin
        near = f"[{host}]" if ":" in host else host
        return f"{scheme}://{near}{'' if port == _DEFAULT_PORTS[scheme] else f':{port}'}{self.target}"


def is_web(text: str) -> bool:
    """Whether a text is meant as an http:// or https:// address, valid or not."""
    return _WEB.match(text) is not None


def checked(url: str) -> Address:
    """Judges an address and spells it as it is sent.

    Args:
        url: as a person or a server has written it.

    Raises:
        BadAddress: it is not http or https, or cannot be asked for.
    """
    try:
        parts = urlsplit(url.strip())
        if parts.scheme not in _DEFAULT_PORTS:
            raise BadAddress(f"{shown(url)} is not an http:// or https:// address; use one")
        return Address((parts.scheme, _host(parts), _port(parts)), _target(parts))
    except ValueError as error:
        reason = "it is no text" if isinstance(error, UnicodeError) else error
        raise BadAddress(f"{shown(url)} is not a valid address: {reason}; check it") from None


def redirected(address: Address, location: str) -> Address:
    """Where an answer sends on to.

    Args:
        address: what was asked for.
        location: the answer's Location header, as `http.client` gives it, a byte a character.

    Raises:
        BadAddress: as `checked`.
    """
    data = location.encode("latin-1", "replace")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = quote(data, safe=string.punctuation)
    try:
        joined = urljoin(address.url, text)
    except ValueError:
        joined = text  # what is wrong with it is said below
    try:
        return checked(joined)
    except BadAddress as error:
        raise BadAddress(f"{shown(address.url)} redirects to where nothing can be fetched: {error}") from None


def shown(url: str) -> str:
    """An address as it may be shown, valid or not: without its query, which may be a signature, and without
    user name and password."""
    bare = url.partition("#")[0].partition("?")[0]
    scheme, mark, rest = bare.partition("://")
    if not _PLACE.fullmatch(rest.partition("/")[0].rpartition("@")[2]):
        rest = rest.rpartition("@")[2]  # a password may have a slash in it, where nobody has escaped it
    host, slash, path = rest.partition("/")
    return printable(f"{scheme.lower()}{mark}{host.rpartition('@')[2]}{slash}{path}" if mark else bare)


def _host(parts: SplitResult) -> str:
    host = parts.hostname
    if not host:
        raise ValueError("there is no host in it")
    if ":" in host or "[" in parts.netloc.rpartition("@")[2]:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("its host is no IPv6 address") from None
        name, mark, zone = host.partition("%")
        if _NOT_IN_HOSTS.search(zone) or not zone.isascii():
            raise ValueError("its host is no IPv6 address")
        return name.lower() + mark + zone
    try:
        name = host.encode("idna").decode() if len(host) <= _LONGEST_HOST else ""
    except UnicodeError:
        name = ""
    if not name or _NOT_IN_HOSTS.search(name):
        raise ValueError("its host is no name of one")
    return name.lower()


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("its port is no number from 1 to 65535")
    return port or _DEFAULT_PORTS[parts.scheme]


def _target(parts: SplitResult) -> str:
    path = quote(parts.path or "/", safe=string.punctuation)
    return f"{path}?{quote(parts.query, safe=string.punctuation)}" if parts.query else path
