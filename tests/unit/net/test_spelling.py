"""How addresses are judged and spelled, given or redirected to."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.conftest import ANYWHERE
from tests.unit.net.test_client import says, server
from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.net.client import Client, fetch_bytes
from trt_llm_pipeline.net.connection import dial, proxy_for
from trt_llm_pipeline.net.failures import BadAddress
from trt_llm_pipeline.net.spelling import checked, is_web, redirected, shown
from trt_llm_pipeline.net.stopping import StopSwitch

BAD = [
    "http://[",
    "http://[::1/x.tar",
    "http://[12345::]/x",
    "http://[v1.x]/x",
    "http://a..b/x.tar",
    "http://.a/x",
    f"http://{'a' * 64}.b/x",
    f"http://{'a.' * 50_000}b/x",
    "http://\u2100.com/x.tar",
    "http://a b/x",
    "http://a%2fb/x",
    "http://a\x00b/x",
    "http://host:0/x",
    "http://host:99999/x",
    "http://host:port/x",
    "http://user:s3cret@host:port/x?s3cret",
    "http:///x",
    "http:x",
    "http://host/\ud800.tar",
    "ftp://host/x",
    "",
]


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(StopSwitch(), silence=5, reach=ANYWHERE) as one:
        yield one


@pytest.mark.parametrize("url", BAD, ids=lambda url: ascii(url)[:40])
class TestRefused:
    def test_in_words_that_can_be_shown(self, client: Client, url: str) -> None:
        with pytest.raises(BadAddress, match=r"not (a valid|an http:// or https://) address") as caught:
            client.open(url, {})
        assert str(caught.value).isprintable()
        assert "s3cret" not in str(caught.value)

    def test_nothing_is_trusted_for_it(self, url: str) -> None:
        assert Reach().trusting(url) == Reach()


@pytest.mark.parametrize(
    "place",
    ["http://[", "http://[::1/x.tar", "http://a..b/x", "http://a\xfc..b/x", "http://host:x/", "ftp://h/"],
)
def test_a_redirect_to_an_address_that_is_none_is_refused_in_words(client: Client, place: str) -> None:
    with (
        server(says(f"HTTP/1.1 302 Found\nLocation: {place}\nContent-Length: 0\n\n")) as (url, heads),
        pytest.raises(BadAddress, match=r"/x redirects to where nothing can be fetched: .* address"),
    ):
        client.open(f"{url}/x?s3cret", {})
    assert len(heads) == 1


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://host", "http://host/"),
        ("https://HOST:443/a#part", "https://host/a"),
        ("http://user:pw@host:8080/a?b=c#d", "http://host:8080/a?b=c"),
        (" http://host/a b.tar ", "http://host/a%20b.tar"),
        ("http://host/\xfc.tar?q=\xfc", "http://host/%C3%BC.tar?q=%C3%BC"),
        ("http://host/a%20b%2Fc.tar?x=%3D&y='(;+", "http://host/a%20b%2Fc.tar?x=%3D&y='(;+"),
        ("http://b\xfccher.example/", "http://xn--bcher-kva.example/"),
        ("http://[::1]:80/a", "http://[::1]/a"),
        ("http://[FE80::1%25lo]/a", "http://[fe80::1%25lo]/a"),
        ("http://my_host.:8/a", "http://my_host.:8/a"),
        ("http://host/\x1b[31m", "http://host/%1B[31m"),
    ],
)
def test_what_can_be_sent_is_spelled_as_browsers_do(url: str, sent: str) -> None:
    assert checked(url).url == sent


@pytest.mark.parametrize(
    ("place", "there"),
    [
        ("b c", "http://host/b%20c"),
        ("/\xfc".encode().decode("latin-1"), "http://host/%C3%BC"),
        ("/\xfc", "http://host/%FC"),
        ("//b\xfccher.example/x".encode().decode("latin-1"), "http://xn--bcher-kva.example/x"),
        ("?a=b", "http://host/a?a=b"),
    ],
)
def test_where_a_redirect_leads(place: str, there: str) -> None:
    assert redirected(checked("http://host/a"), place).url == there


@pytest.mark.parametrize("path", ["/\xfc.tar", "/a b.tar"])
def test_a_path_of_any_letters_is_asked_for(path: str) -> None:
    with server(says("HTTP/1.1 200 OK\nContent-Length: 2\n\nok")) as (url, heads):
        assert fetch_bytes(url + path, most_bytes=9, silence=5, reach=ANYWHERE) == b"ok"
        assert heads[0].split()[1] in (b"/%C3%BC.tar", b"/a%20b.tar")


def test_an_answer_comes_from_what_was_given_unless_it_was_redirected(client: Client) -> None:
    with (
        server(says("HTTP/1.1 200 OK\nContent-Length: 0\n\n")) as (url, _),
        client.open(f"{url}/\xfc", {}) as response,
    ):
        assert response.url == f"{url}/\xfc"


def test_a_host_that_is_trusted_is_so_in_every_spelling() -> None:
    assert Reach().trusting("http://B\xfccher.example/").allows_all("xn--bcher-kva.example")


def test_whoever_connects_to_a_name_that_is_none_is_told_so() -> None:
    with pytest.raises(BadAddress, match=r"'a\.\.b' is no name of a host"):
        dial("a..b", 80, 5, lambda _: None, ANYWHERE)


@pytest.mark.parametrize(
    ("text", "expected"), [("http://[", True), ("HTTPS://h", True), ("http.tar", False), ("s3://b/k", False)]
)
def test_what_is_meant_as_an_address_of_the_web(text: str, expected: bool) -> None:
    assert is_web(text) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://u:p@[", "http://["),
        ("http://h/\x1b[m?q", "http://h/\\x1b[m"),
        ("http://u:s3/cret@h/x@y", "http://y"),
        ("http://h:x/y", "http://h:x/y"),
        ("http://u@[::1]:80/x@y", "http://[::1]:80/x@y"),
        ("http://h:80/x@y", "http://h:80/x@y"),
    ],
)
def test_an_address_that_is_none_can_be_shown(url: str, expected: str) -> None:
    assert shown(url) == expected


@pytest.fixture(params=["http_proxy", "HTTP_PROXY"])
def variable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    name: str = request.param
    return name


@pytest.mark.parametrize(
    "value",
    [
        "http://u:s3cret@h:notaport",
        "http://u:s3cret@[::1",
        "u:s3cret@a..b:80",
        "socks5://u:s3cret@h:80",
        "http://",
        "http://u\udcff:s3cret@h:80",
    ],
)
def test_a_proxy_that_is_none_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(
        PipelineError, match=f"^{variable} does not hold the address of a proxy; set it"
    ) as caught:
        fetch_bytes("http://hub.example/", most_bytes=9, silence=5, reach=ANYWHERE)
    assert "s3cret" not in str(caught.value)


def test_a_proxy_without_a_scheme_or_a_port(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "proxy.example")
    found = proxy_for(("http", "hub.example", 80))
    assert found is not None
    assert (found.host, found.port, found.headers) == ("proxy.example", 80, {})
