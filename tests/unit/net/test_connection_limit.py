"""How many connections are used at once."""

from __future__ import annotations

import pytest

from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.net.connection_limit import ConnectionLimit, most_connections


def run(limit: ConnectionLimit, seconds: float, rate_of, now: float = 0.0) -> float:
    """Lets bytes come at the rate that the level brings; returns the time."""
    end = now + seconds
    while now < end:
        now += 0.05
        limit.came(int(rate_of(limit.level) * 0.05), now)
    return now


def test_it_grows_while_each_connection_brings_more() -> None:
    limit = ConnectionLimit(16, 0.0)
    assert limit.level == 4
    run(limit, 1.0, lambda level: level * 60e6)
    assert limit.level == 16


def test_it_stays_where_more_connections_bring_nothing() -> None:
    limit = ConnectionLimit(64, 0.0)
    run(limit, 30.0, lambda level: min(level, 12) * 60e6)
    assert 12 <= limit.level <= 20


def test_a_server_that_refuses_halves_it_and_it_grows_slowly_again() -> None:
    limit = ConnectionLimit(16, 0.0)
    now = run(limit, 1.0, lambda level: level * 60e6)
    for _ in range(16):  # all connections hear of the same overload
        limit.refused(now)
    assert limit.level == 8
    limit.refused(now + 1)
    assert limit.level == 4
    now = run(limit, 4.0, lambda level: level * 60e6, now + 1)
    assert limit.level == 4
    run(limit, 3.0, lambda level: level * 60e6, now)
    assert 4 < limit.level <= 16


def test_it_never_falls_below_one_nor_rises_above_the_most() -> None:
    limit = ConnectionLimit(2, 0.0)
    assert limit.level == 2
    for number in range(10):
        limit.refused(float(number))
    assert limit.level == 1
    run(limit, 60.0, lambda level: level * 60e6, 10.0)
    assert limit.level == 2


def test_the_environment_says_how_many() -> None:
    assert most_connections({}) == 16
    assert most_connections({"TRT_LLM_DOWNLOAD_CONNECTIONS": ""}) == 16
    assert most_connections({"TRT_LLM_DOWNLOAD_CONNECTIONS": "4"}) == 4
    for text in ("0", "65", "-1", "many", "4.0", "٤"):
        with pytest.raises(PipelineError, match="TRT_LLM_DOWNLOAD_CONNECTIONS"):
            most_connections({"TRT_LLM_DOWNLOAD_CONNECTIONS": text})
