"""Ports for servers that tests start."""

from __future__ import annotations

import errno
import socket

import pytest

from trt_llm_pipeline.testing.servers import free_port


def test_nobody_listens_on_it_and_a_server_that_names_it_can() -> None:
    port = free_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=20)
    with (
        socket.create_server(("127.0.0.1", port)) as server,
        socket.create_connection(("127.0.0.1", port), timeout=20) as client,
        server.accept()[0] as accepted,
    ):
        accepted.sendall(b"here")
        assert client.recv(4) == b"here"


def test_it_is_kept_from_whoever_only_wants_some_port() -> None:
    """As the kernel chooses one, which it does without SO_REUSEADDR's licence."""
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use") as refused:
        other.bind(("127.0.0.1", port))
    assert refused.value.errno == errno.EADDRINUSE
