"""The HTTP client, against real servers on loopback."""

from __future__ import annotations

import pytest

from trt_llm_pipeline.errors import ModelSourceError
from trt_llm_pipeline.net.client import Client
from trt_llm_pipeline.net.stopping import StopSwitch


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "http://", "http://host:x/"])
def test_only_http_is_opened(url: str) -> None:
    with (
        Client(StopSwitch(), silence=1) as client,
        pytest.raises(ModelSourceError, match="address"),
    ):
        client.open(url, {})
