"""Which addresses are taken for a cluster's. What Ray does there is in integration/fleet/test_faults.py."""

from __future__ import annotations

import socket

import pytest

from trt_llm_pipeline.errors import BadArgument, FleetError
from trt_llm_pipeline.fleet import ray_runner


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        (
            "http://localhost:8265",
            BadArgument,
            "is the address of a cluster's dashboard, which --detach takes; ",
        ),
        ("head", BadArgument, "--address: head is no address of a cluster; use ray://HOST:10001"),
        (
            "ftp://head:1",
            BadArgument,
            "--address: ftp://head:1 is no address of a cluster; use ray://HOST:10001",
        ),
        ("ray://head:99999", BadArgument, "is no address of a cluster; use ray://HOST:10001"),
        (
            "127.0.0.1:{port}",
            FleetError,
            "nothing answers there (Connection refused); check --address, which is",
        ),
        (
            "ray://127.0.0.1:{port}",
            FleetError,
            "nothing answers there (Connection refused); check --address, ",
        ),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(
    address: str, error: type[Exception], words: str
) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        there = address.format(port=taken.getsockname()[1])
        with pytest.raises(error) as caught, ray_runner.connected(there):
            pass
    assert words in str(caught.value)


def test_an_address_of_the_environment_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(BadArgument, match=r"^RAY_ADDRESS: http://head:8265 is"), ray_runner.connected(None):
        pass
