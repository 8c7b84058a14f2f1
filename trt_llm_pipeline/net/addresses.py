"""Which addresses a connection may lead to: a stranger's must not make the service talk to its own house.

The judgement is on the numbers that a connection is made to, after the name was looked up, and no name is
looked up twice. So neither the spelling (`0x7f.1`, `localhost.`), nor a name server that answers otherwise
the second time, nor a redirect makes a difference.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.net.failures import BadAddress
from trt_llm_pipeline.net.spelling import checked
from trt_llm_pipeline.net.spelling import shown as shown  # who shows addresses asks here

ALLOW_PRIVATE = "TRT_LLM_ALLOW_PRIVATE_ADDRESSES"

# https://www.iana.org/assignments/ipv6-address-space: what is not in it is nobody's on the internet.
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
# Public by its number, and yet the metadata service of the machine that asks:
# https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
_AZURE_HOST = ipaddress.ip_address("168.63.129.16")
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")  # RFC 6890; older releases of Python know a part of it
_OWN_NAMES = ("localhost", ".localhost")  # RFC 6761


@dataclass(frozen=True)
class Reach:
    """Whom connections may be made to: public addresses always, inner ones where somebody has said so.

    Attributes:
        inside: every address is allowed.
        trusted: hosts that the operator has named, in lower case, wherever they are.
    """

    inside: bool = False
    trusted: frozenset[str] = frozenset()

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Reach:
        """What $TRT_LLM_ALLOW_PRIVATE_ADDRESSES says: `1` allows all, `0` or nothing the public ones.

        Raises:
            PipelineError: it says something else.
        """
        text = env.get(ALLOW_PRIVATE) or "0"
        if text not in ("0", "1"):
            raise PipelineError(f"{ALLOW_PRIVATE} is {text!r}; set it to 1 or 0, or unset it")
        return cls(inside=text == "1")

    def trusting(self, url: str) -> Reach:
        """The same, and the host of an address that the operator has named."""
        try:
            _, host, _ = checked(url).origin
        except BadAddress:
            return self  # nothing is ever connected to it
        return replace(self, trusted=self.trusted | {host})

    def allows_all(self, host: str) -> bool:
        """Whether it does not matter where the name leads."""
        return self.inside or host.lower() in self.trusted

    def check(self, host: str, address: str) -> None:
        """Refuses an address that a name was resolved to.

        Args:
            host: the name, for the message.
            address: IPv4 or IPv6 in numbers, as the system's resolver writes it.

        Raises:
            BadAddress: it leads inside, and nobody has allowed that.
        """
        if not self.allows_all(host) and (kind := inner_kind(address)) is not None:
            raise BadAddress(refusal(host, kind))

    def check_spelling(self, host: str) -> None:
        """Refuses what can be seen without asking a name server: numbers in any spelling, and `localhost`.

        For connections that somebody else makes (a proxy), and for saying so early.

        Raises:
            BadAddress: it leads inside, and nobody has allowed that.
        """
        if self.allows_all(host):
            return
        name = host.lower().rstrip(".")
        if name == _OWN_NAMES[0] or name.endswith(_OWN_NAMES[1]):
            raise BadAddress(refusal(host, "loopback"))
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            return
        for *_, address in found:
            self.check(host, str(address[0]))


def refusal(host: str, kind: str) -> str:
    """The message; which address it was is not told, because it says how the network inside looks."""
    return (
        f"{host} leads to a {kind} address, and the service connects to public ones only; use an address "
        f"that everybody can reach, or, if this service is for a network of its own, set {ALLOW_PRIVATE}=1 "
        "for it"
    )


def inner_kind(address: str) -> str | None:
    """What keeps an address from being a public one, in a word; None where nothing does."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return "unknown kind of"
    embedded = _embedded(number) if isinstance(number, ipaddress.IPv6Address) else None
    if embedded is not None:
        return inner_kind(str(embedded))
    if number.is_loopback:
        return "loopback"
    if number.is_unspecified:
        return "unspecified"
    if number.is_link_local:
        return "link-local"
    if number.is_multicast:
        return "multicast"
    if number == _AZURE_HOST:
        return "metadata service's"
    if not number.is_global or number in _PROTOCOLS:
        return "private"
    if number.is_reserved or (number.version == 6 and number not in _GLOBAL_V6):
        return "reserved"
    return None


def _embedded(number: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one is delivered to: mapped, 6to4 or NAT64."""
    if number in _NAT64:
        return ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
    return number.ipv4_mapped or number.sixtofour
