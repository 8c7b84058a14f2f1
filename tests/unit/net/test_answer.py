"""Answers whose head, chunks or trailers are broken, or have no end."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import ANYWHERE
from tests.unit.net.test_client import Answer, says, server
from trt_llm_pipeline.net.client import Client, fetch_bytes
from trt_llm_pipeline.net.failures import BrokenAnswer, HttpStatusError, transient_failure
from trt_llm_pipeline.net.stopping import StopSwitch

SILENCE = 0.4
#: Of what would go on for ever.
SOON_S = 20
CHUNKED = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(StopSwitch(), silence=SILENCE, reach=ANYWHERE) as one:
        yield one


@pytest.fixture
def over() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def goes_on(start: str, with_: str, over: threading.Event, pause: float = 0) -> Answer:
    """Says something, and then the same thing again and again."""

    def answer(connection: socket.socket, head: bytes) -> bool:
        with contextlib.suppress(OSError):
            connection.sendall(start.replace("\n", "\r\n").encode())
            while not over.wait(pause):
                connection.sendall(with_.replace("\n", "\r\n").encode())
        return False

    return answer


def body_at(url: str, client: Client) -> bytes:
    with client.open(url, {}) as response:
        return b"".join(iter(lambda: response.read(100_000), b""))


@pytest.mark.parametrize(
    "chunks",
    [
        "2\nab\n-5\n" + "z" * 9000,
        "-1\n",
        "2\nab\nx\n",
        "2\nab\n\n",
        "2\nabcd\n",
        "0x2\nab\n0\n\n",
        "1_0\nab\n0\n\n",
        f"{'f' * 16}\nab",
        f"2;{'x' * 9000}\nab\n0\n\n",
    ],
)
def test_chunks_that_are_none_are_a_broken_answer(client: Client, chunks: str) -> None:
    with (
        server(says(CHUNKED + chunks, keep=False)) as (url, _),
        pytest.raises(BrokenAnswer, match="the server's answer has a chunk") as caught,
    ):
        body_at(url, client)
    assert transient_failure(caught.value) is not None


@pytest.mark.parametrize("chunks", ["", "5\nab", "5\nabcde", "5\nabcde\n"])
def test_chunks_that_are_cut_off_are_an_error(client: Client, chunks: str) -> None:
    with (
        server(says(CHUNKED + chunks, keep=False)) as (url, _),
        pytest.raises(http.client.IncompleteRead),
    ):
        body_at(url, client)


def test_chunks_with_all_that_is_allowed_are_read_and_the_connection_is_kept(client: Client) -> None:
    accepted = []

    def answer(connection: socket.socket, head: bytes) -> bool:
        accepted.append(connection)
        return says(f'{CHUNKED}3;x="y"\nabc\n00A \n0123456789\n0\nTrailer: x\nOther: y\n\n')(connection, head)

    with server(answer) as (url, _):
        assert body_at(url, client) == body_at(url, client) == b"abc0123456789"
    assert accepted[0] is accepted[1]


def test_large_chunks_are_whole(client: Client) -> None:
    pieces = [bytes([number]) * (number * 40_000) for number in range(1, 9)]
    text = CHUNKED + "".join(f"{len(piece):X}\n{piece.decode('latin-1')}\n" for piece in pieces) + "0\n\n"
    with server(says(text)) as (url, _):
        assert body_at(url, client) == b"".join(pieces)


@pytest.mark.parametrize("pause", [0, SILENCE / 4], ids=["fast", "slow"])
@pytest.mark.parametrize(
    ("start", "more"),
    [
        ("", "HTTP/1.1 100 Continue\n\n"),
        ("HTTP/1.1 200 OK\nX: ", "x"),
        (f"{CHUNKED}2\nab\n0\n", "T: x\n"),
        (f"{CHUNKED}2\nab\n0\nT: ", "x"),
        (f"{CHUNKED}2\nab\n1;", "x"),
    ],
    ids=["interim answers", "a header", "trailers", "a trailer", "a chunk's size"],
)
def test_what_goes_around_a_body_comes_to_an_end(
    client: Client, over: threading.Event, start: str, more: str, pause: float
) -> None:
    started = time.monotonic()
    with server(goes_on(start, more, over, pause)) as (url, _):
        with pytest.raises((BrokenAnswer, TimeoutError, http.client.LineTooLong)) as caught:
            body_at(url, client)
        over.set()
    assert time.monotonic() - started < SOON_S
    assert transient_failure(caught.value) is not None


@pytest.mark.parametrize("length", ["Content-Length: 60000\n", "Transfer-Encoding: chunked\n", ""])
def test_a_refusal_is_told_however_slowly_its_words_come(
    client: Client, over: threading.Event, length: str
) -> None:
    started = time.monotonic()
    with server(goes_on(f"HTTP/1.1 503 Busy\n{length}\n", "x", over, SILENCE / 4)) as (url, _):
        with pytest.raises(HttpStatusError, match="503"):
            client.open(url, {})
        over.set()
    assert time.monotonic() - started < SOON_S


def test_a_refusal_that_is_short_leaves_the_connection_open(client: Client) -> None:
    ports = []

    def answer(connection: socket.socket, head: bytes) -> bool:
        ports.append(connection.getpeername()[1])
        return says("HTTP/1.1 503 Busy\nContent-Length: 5\n\nsorry")(connection, head)

    with server(answer) as (url, _):
        for _ in range(3):
            with pytest.raises(HttpStatusError):
                client.open(url, {})
    assert len(ports) == 3
    assert len(set(ports)) == 1


@pytest.mark.parametrize("length", ["9" * 30, "9" * 4000])
def test_a_length_that_nothing_has_is_a_broken_answer(client: Client, length: str) -> None:
    with (
        server(says(f"HTTP/1.1 200 OK\nContent-Length: {length}\n\nok")) as (url, _),
        pytest.raises(BrokenAnswer, match="more bytes than there can be"),
    ):
        client.open(url, {})


def test_a_small_thing_in_broken_chunks_is_a_broken_answer() -> None:
    with server(says(f"{CHUNKED}2\nab\n-5\n{'z' * 9000}")) as (url, _), pytest.raises(BrokenAnswer):
        fetch_bytes(url, most_bytes=1 << 20, silence=5, reach=ANYWHERE)
