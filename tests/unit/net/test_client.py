"""The HTTP client, against real servers on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import ANYWHERE
from trt_llm_pipeline.net.client import Client, fetch_bytes, headers_for
from trt_llm_pipeline.net.connection import dial
from trt_llm_pipeline.net.failures import BadAddress, EndedEarly, HttpStatusError
from trt_llm_pipeline.net.stopping import Stopped, StopSwitch
from trt_llm_pipeline.testing.hub import HubServer

Answer = Callable[[socket.socket, bytes], bool]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[bytes]]]:
    """Answers each request's head as told, for as long as `answer` says to keep the connection."""
    heads: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    try:
                        data = connection.recv(65536)
                    except ConnectionError:  # the client has left something unread
                        return
                    if not data:
                        return
                    head += data
                heads.append(head)
                if not answer(connection, head):
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heads
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def says(text: str, *, keep: bool = True) -> Answer:
    def answer(connection: socket.socket, head: bytes) -> bool:
        connection.sendall(text.replace("\n", "\r\n").encode())
        return keep

    return answer


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(StopSwitch(), silence=5, reach=ANYWHERE) as one:
        yield one


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "http://", "http://host:x/"])
def test_only_http_is_opened(client: Client, url: str) -> None:
    with pytest.raises(BadAddress, match="address"):
        client.open(url, {})


def test_a_redirect_to_another_kind_of_address_is_refused(client: Client) -> None:
    with (
        server(says("HTTP/1.1 302 Found\nLocation: file:///etc/passwd\nContent-Length: 0\n\n")) as (url, _),
        pytest.raises(BadAddress),
    ):
        client.open(url, {})


def test_redirects_without_an_end_are_an_error(client: Client) -> None:
    with server(says("HTTP/1.1 302 Found\nLocation: /again\nContent-Length: 0\n\n")) as (url, heads):
        with pytest.raises(HttpStatusError) as caught:
            client.open(url + "/x?signature=s3cret", {})
        assert caught.value.status == 302
        assert "s3cret" not in str(caught.value)
        assert len(heads) == 11


def test_a_connection_is_used_again_when_its_answer_was_read(client: Client) -> None:
    opened = []

    def counting(*arguments: object) -> socket.socket:
        opened.append(arguments)
        return dial(*arguments)  # type: ignore[arg-type]

    with (
        server(says("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello")) as (url, heads),
        Client(StopSwitch(), silence=5, reach=ANYWHERE, opener=counting) as own,
    ):
        for _ in range(3):
            with own.open(url, {}) as response:
                assert response.read(100) == b"hello"
        with own.open(url, {}):
            pass  # not read: the next one needs another
        with own.open(url, {}) as response:
            response.read(100)
        assert len(heads) == 5
        assert len(opened) == 2


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(client: Client) -> None:
    with server(says("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", keep=False)) as (url, heads):
        for _ in range(3):
            with client.open(url, {}) as response:
                assert response.read(10) == b"ok"
        assert len(heads) == 3


@pytest.mark.parametrize(
    ("answer", "keep"),
    [
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nabc\n4\ndefg\n0\n\n", True),
        ("HTTP/1.1 200 OK\n\nabcdefg", False),
        ("HTTP/1.0 200 OK\nContent-Length: 7\n\nabcdefg", False),
    ],
    ids=["chunked", "until it closes", "1.0"],
)
def test_bodies_of_every_kind(client: Client, answer: str, keep: bool) -> None:
    with server(says(answer, keep=keep)) as (url, _), client.open(url, {}) as response:
        body = b""
        while piece := response.read(3):
            body += piece
        assert body == b"abcdefg"


def test_credentials_stay_with_their_origin() -> None:
    headers = {"Authorization": "Bearer x", "Cookie": "y", "Range": "bytes=0-"}
    own = "https://hub.example/a"
    for same in ("https://hub.example/b", "https://hub.example:443/a?x"):
        assert headers_for(same, headers, meant_for=own) == headers
    for other in ("http://hub.example/a", "https://hub.example:444/a", "https://cdn.hub.example/a"):
        assert headers_for(other, headers, meant_for=own) == {"Range": "bytes=0-"}


def test_a_redirect_takes_no_credentials_along_and_a_second_one_does_not_bring_them_back(
    client: Client,
) -> None:
    with (
        server(says("HTTP/1.1 200 OK\nContent-Length: 0\n\n")) as (last, last_heads),
        server(says(f"HTTP/1.1 302 Found\nLocation: {last}/\nContent-Length: 0\n\n")) as (first, heads),
    ):
        with client.open(first, {"Authorization": "Bearer s3cret"}):
            pass
        assert b"s3cret" in heads[0]
        assert b"s3cret" not in last_heads[0]


def test_the_switch_wakes_a_reader_that_waits(client: Client) -> None:
    stop = StopSwitch()
    with (
        server(says("HTTP/1.1 200 OK\nContent-Length: 5\n\n")) as (url, _),
        Client(stop, silence=60, reach=ANYWHERE) as own,
        own.open(url, {}) as response,
    ):
        threading.Timer(0.3, stop.throw).start()
        started = time.monotonic()
        response.read(5)  # returns early, or raises
        assert time.monotonic() - started < 30
        with pytest.raises(Stopped):
            own.open(url, {})


def test_silence_is_an_error() -> None:
    with (
        server(says("HTTP/1.1 200 OK\nContent-Length: 5\n\n")) as (url, _),
        Client(StopSwitch(), silence=0.2, reach=ANYWHERE) as own,
        own.open(url, {}) as response,
        pytest.raises(TimeoutError),
    ):
        response.read(5)


def test_something_small_is_fetched_whole() -> None:
    with HubServer() as hub:
        url = hub.add_file("x", b"0123456789")
        assert fetch_bytes(url, most_bytes=100, silence=5, reach=ANYWHERE) == b"0123456789"
        assert fetch_bytes(url, most_bytes=4, silence=5, reach=ANYWHERE) == b"0123"
        with pytest.raises(HttpStatusError, match="404"):
            fetch_bytes(url + "y", most_bytes=4, silence=5, reach=ANYWHERE)


def test_something_small_that_is_cut_off_is_an_error() -> None:
    with (
        server(says("HTTP/1.1 200 OK\nContent-Length: 50\n\nshort", keep=False)) as (url, _),
        pytest.raises(EndedEarly, match="only 5 of 50"),
    ):
        fetch_bytes(url, most_bytes=100, silence=5, reach=ANYWHERE)


def test_a_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(says("HTTP/1.1 200 OK\nContent-Length: 2\n\nok")) as (proxy, heads):
        monkeypatch.setenv("http_proxy", proxy.replace("http://", "http://user:p%40ss@"))
        monkeypatch.setenv("no_proxy", "")
        assert fetch_bytes("http://hub.example/model", most_bytes=10, silence=5, reach=ANYWHERE) == b"ok"
        assert heads[0].startswith(b"GET http://hub.example/model HTTP/1.1\r\n")
        assert b"Host: hub.example\r\n" in heads[0]
        assert b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in heads[0]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert fetch_bytes(proxy, most_bytes=10, silence=5, reach=ANYWHERE) == b"ok"
        assert heads[1].startswith(b"GET / HTTP/1.1\r\n")
