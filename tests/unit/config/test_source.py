"""Configs from addresses that are none, and from servers that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ANYWHERE
from trt_llm_pipeline.config.source import read
from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.testing.servers import free_port


@pytest.fixture
def answering() -> Iterator[list[bytes]]:
    """A server that answers once with the first item of the list; its address is the second."""
    answer: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer[0])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        answer.append(b"")
        answer.append(f"http://127.0.0.1:{listener.getsockname()[1]}/c.yaml".encode())
        yield answer
        thread.join(5)


@pytest.mark.parametrize(
    "address", ["http://[::1/x.yaml", "http://h:99999/x", "http://h:abc/x", "http://127.0.0.1:9/a b.yaml"]
)
def test_address_that_is_none_is_said_so(address: str) -> None:
    with pytest.raises(ConfigError, match="check"):
        read(address, ANYWHERE)


def test_a_scheme_that_is_not_read_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^ftp://host/c.yaml: ftp:// is not read; name a file, or an http"):
        read("ftp://host/c.yaml", ANYWHERE, typed=True)


def test_a_refusal_is_told_in_words_alone() -> None:
    port = free_port()
    with pytest.raises(ConfigError, match="cannot be fetched: Connection refused; check the address"):
        read(f"http://127.0.0.1:{port}/c.yaml", ANYWHERE)


def test_garbage_instead_of_http(answering: list[bytes]) -> None:
    answering[0] = b"garbage\r\n\r\n"
    with pytest.raises(ConfigError, match="cannot be fetched"):
        read(answering[1].decode(), ANYWHERE)


def test_config_that_is_cut_off_is_not_taken_for_a_whole_one(answering: list[bytes]) -> None:
    answering[0] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\na: 1"
    with pytest.raises(ConfigError, match="only 4 of 100 bytes came"):
        read(answering[1].decode(), ANYWHERE)


def test_whole_config_is_read(answering: list[bytes]) -> None:
    answering[0] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na: 1"
    assert read(answering[1].decode(), ANYWHERE) == ("a: 1", "c.yaml")


def test_a_path_that_was_typed_is_called_what_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.yaml").write_text("a: 1")
        (tmp_path / folder / "broken.yaml").write_bytes(b"\xff\xfe")
        assert read(f"{folder}/config.yaml", ANYWHERE, typed=True) == ("a: 1", f"{folder}/config.yaml")
        with pytest.raises(ConfigError, match=f"{folder}/broken.yaml"):
            read(f"{folder}/broken.yaml", ANYWHERE, typed=True)
    assert read("a/config.yaml", ANYWHERE) == ("a: 1", "config.yaml")


def test_an_address_with_any_letters_is_asked_for(answering: list[bytes]) -> None:
    answering[0] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na: 1"
    address = answering[1].decode().replace("c.yaml", "\xfc c.yaml")
    assert read(address, ANYWHERE) == ("a: 1", "\xfc c.yaml")


def test_a_redirect_to_an_address_that_is_none_is_an_error_in_words(answering: list[bytes]) -> None:
    answering[0] = b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(ConfigError, match=r"cannot be fetched: .*redirects to where nothing can be fetched"):
        read(answering[1].decode(), ANYWHERE)


@pytest.mark.parametrize("address", ["http://a..b/c.yaml", "http://h/\ud800", "http://[/x.yaml"])
def test_a_host_or_a_path_that_is_none_is_said_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match=r"the config: .* is not a valid address"):
        read(address, ANYWHERE)
