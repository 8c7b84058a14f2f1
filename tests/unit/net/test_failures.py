"""What an error of the network means."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from trt_llm_pipeline.net.failures import (
    BrokenAnswer,
    EndedEarly,
    HttpStatusError,
    Transient,
    parse_retry_after,
    transient_failure,
)


class TestTransient:
    @pytest.mark.parametrize(
        "error",
        [
            TimeoutError(),
            ConnectionResetError(),
            ConnectionRefusedError(),
            BrokenPipeError(),
            http.client.RemoteDisconnected(),
            http.client.IncompleteRead(b""),
            http.client.BadStatusLine(""),
            OSError(errno.ENETUNREACH, ""),
            ssl.SSLEOFError(),
            EndedEarly(),
            BrokenAnswer(""),
            socket.gaierror(),
            *(HttpStatusError(status, {}, "u") for status in (408, 429, 500, 502, 503, 504)),
        ],
        ids=repr,
    )
    def test_what_may_heal(self, error: Exception) -> None:
        assert isinstance(transient_failure(error), Transient)

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, ""),
            PermissionError(),
            ssl.SSLCertVerificationError(),
            ValueError(),
            *(HttpStatusError(status, {}, "u") for status in (400, 401, 403, 404, 410, 416, 501)),
        ],
        ids=repr,
    )
    def test_what_cannot(self, error: Exception) -> None:
        assert transient_failure(error) is None

    def test_retry_after_is_read_as_seconds_or_as_a_date(self) -> None:
        assert parse_retry_after("120") == 120
        assert parse_retry_after(None) is None
        assert parse_retry_after("") is None
        assert parse_retry_after("soon") is None
        later = datetime.now(timezone.utc) + timedelta(seconds=90)
        assert parse_retry_after(format_datetime(later, usegmt=True)) == pytest.approx(90, abs=3)
        assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0

    @pytest.mark.parametrize(
        "value",
        [
            "Mon, 99999999999999999999 Jan 2024 00:00:00 GMT",
            "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
            "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
            "9" * 5000,
            "-5",
            ",",
        ],
    )
    def test_a_retry_after_that_cannot_be_read_counts_as_absent(self, value: str) -> None:
        assert parse_retry_after(value) is None
