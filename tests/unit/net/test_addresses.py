"""Addresses that lead inside: in every spelling, by every detour, and whatever the name server says next."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.conftest import ANYWHERE
from tests.unit.net.test_client import says, server
from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.net.addresses import ALLOW_PRIVATE, Reach, inner_kind, shown
from trt_llm_pipeline.net.client import Client, fetch_bytes
from trt_llm_pipeline.net.connection import dial
from trt_llm_pipeline.net.failures import BadAddress
from trt_llm_pipeline.net.stopping import StopSwitch

OUTSIDE = Reach()
OK = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"


def moved(to: str) -> str:
    return f"HTTP/1.1 302 Found\nLocation: {to}\nContent-Length: 0\n\n"


class NameServer:
    """Answers each question for a name with the next of its answers, and all others as the system does."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): iter(addresses) for name, addresses in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **how: Any) -> list[Any]:
        if host not in self.answers:
            return socket.getaddrinfo(host, port, **how)
        self.asked.append(host)
        found = next(self.answers[host])
        return [entry for address in found for entry in socket.getaddrinfo(address, port, **how)]


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "private"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("100.100.100.200", "private"),
        ("192.0.0.192", "private"),
        ("198.18.0.1", "private"),
        ("169.254.169.254", "link-local"),
        ("168.63.129.16", "metadata service's"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.250", "multicast"),
        ("240.0.0.1", "private"),
        ("255.255.255.255", "private"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("fe80::1%lo", "link-local"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "private"),
        ("fec0::1", "reserved"),
        ("ff02::1", "multicast"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:a9fe:a9fe", "link-local"),
        ("::127.0.0.1", "reserved"),
        ("64:ff9b::169.254.169.254", "link-local"),
        ("64:ff9b::10.0.0.1", "private"),
        ("2002:7f00:1::", "loopback"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "private"),
        ("2001:db8::1", "private"),
        ("4000::1", "reserved"),
        ("no address", "unknown kind of"),
    ],
)
def test_addresses_inside(address: str, kind: str) -> None:
    found = inner_kind(address)
    assert found is not None
    # What is reserved counts as private in some of Python's releases.
    assert found == kind or {found, kind} <= {"private", "reserved"}
    with pytest.raises(
        BadAddress, match=r"^hub\.example leads to a .* set TRT_LLM_ALLOW_PRIVATE_ADDRESSES=1"
    ):
        OUTSIDE.check("hub.example", address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "54.231.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"],
)
def test_public_addresses(address: str) -> None:
    assert inner_kind(address) is None
    OUTSIDE.check("hub.example", address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0", "localhost", "LOCALHOST",
        "::1", "::ffff:127.0.0.1", "0:0:0:0:0:ffff:7f00:1",
    ],
)  # fmt: skip
def test_loopback_is_refused_in_every_spelling(host: str) -> None:
    with server(says(OK)) as (url, heads):
        port = url.rpartition(":")[2]
        name = f"[{host}]" if ":" in host else host
        with pytest.raises(BadAddress, match="public ones only"):
            fetch_bytes(f"http://{name}:{port}/", most_bytes=10, silence=5, reach=OUTSIDE)
        with pytest.raises(BadAddress, match="public ones only"):
            OUTSIDE.check_spelling(host)
        assert heads == []


def test_it_can_be_allowed() -> None:
    with server(says(OK)) as (url, _):
        for reach in (ANYWHERE, Reach.from_env({ALLOW_PRIVATE: "1"}), OUTSIDE.trusting(url.upper())):
            assert fetch_bytes(url, most_bytes=10, silence=5, reach=reach) == b"ok"
            reach.check_spelling("127.0.0.1")
    for host in ("localhost.", "any.localhost"):  # whose look-up may fail, here and not elsewhere
        with pytest.raises(BadAddress, match="loopback"):
            OUTSIDE.check_spelling(host)
    assert Reach.from_env({}) == Reach.from_env({ALLOW_PRIVATE: "0"}) == OUTSIDE
    with pytest.raises(PipelineError, match=f"{ALLOW_PRIVATE} is 'yes'; set it to 1 or 0"):
        Reach.from_env({ALLOW_PRIVATE: "yes"})


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:{port}/", "http://169.254.169.254/latest/meta-data/", "//[::1]:{port}/"]
)
def test_a_chain_of_redirects_does_not_lead_inside(place: str) -> None:
    """The operator's own host may redirect to itself, and to nobody inside beside it."""
    names = NameServer(hub_example=[["127.0.0.1"]] * 3)
    with (
        server(says(OK)) as (inside, inside_heads),
        server(says(moved(place.format(port=inside.rpartition(":")[2])))) as (second, second_heads),
    ):
        port = second.rpartition(":")[2]
        with server(says(moved(f"http://hub.example:{port}/"))) as (first, _):
            start = f"http://hub.example:{first.rpartition(':')[2]}/"
            with (
                Client(
                    StopSwitch(),
                    silence=5,
                    reach=OUTSIDE.trusting("http://hub.example"),
                    opener=partial(dial, resolve=names),
                ) as client,
                pytest.raises(BadAddress, match="public ones only"),
            ):
                client.open(start, {})
        assert len(second_heads) == 1
        assert inside_heads == []


class _Sockets:
    """Sockets that note where they are connected to, and fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connected: list[str] = []

        def connect(_: socket.socket, address: tuple[str, int]) -> None:
            self.connected.append(address[0])
            raise ConnectionRefusedError

        monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> _Sockets:
    return _Sockets(monkeypatch)


def _dial(host: str, resolve: Callable[..., list[Any]]) -> None:
    dial(host, 80, 5, lambda _: None, OUTSIDE, resolve=resolve)


def test_what_was_checked_is_connected_to(sockets: _Sockets) -> None:
    """A name server that answers with loopback the second time is not asked a second time."""
    names = NameServer(rebound_example=[["8.8.8.8"], ["127.0.0.1"]])
    with pytest.raises(ConnectionRefusedError):
        _dial("rebound.example", names)
    assert sockets.connected == ["8.8.8.8"]
    assert names.asked == ["rebound.example"]
    with pytest.raises(BadAddress):  # each further connection is checked anew
        _dial("rebound.example", names)
    assert sockets.connected == ["8.8.8.8"]


def test_a_name_with_a_public_and_an_inner_address_is_refused_as_a_whole(sockets: _Sockets) -> None:
    names = NameServer(both_example=[["8.8.8.8", "10.0.0.1"]])
    with pytest.raises(BadAddress, match="private"):
        _dial("both.example", names)
    assert sockets.connected == []


def test_a_proxy_is_the_operators_and_is_sent_nowhere_inside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with server(says(OK)) as (proxy, heads):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
        fetch = partial(fetch_bytes, most_bytes=10, silence=5, reach=OUTSIDE)
        assert fetch("http://hub.example/model") == b"ok"
        for host in ("127.0.0.1", "0x7f.1", "localhost", "169.254.169.254", "[::ffff:10.0.0.1]"):
            with pytest.raises(BadAddress):
                fetch(f"http://{host}/model")
        with pytest.raises(BadAddress):
            fetch(proxy)
        assert len(heads) == 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://localhost:8003/a.tar.gz", "http://localhost:8003/a.tar.gz"),
        ("https://user:s3cret@host:8443/a?signature=s3cret#part", "https://host:8443/a"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("https://host", "https://host"),
    ],
)
def test_what_is_shown_has_the_port_and_no_secret(address: str, expected: str) -> None:
    assert shown(address) == expected
