"""Whether a prediction returns the archive or the record of where it is."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_llm_pipeline.errors import DeliveryError
from trt_llm_pipeline.server.answer import (
    DEFAULT_INLINE_LIMIT,
    check_variables,
    decide_delivery,
    inline_limit,
    upload_url,
)

SERVER = ["/usr/bin/python", "-m", "cog.server.http", "--threads", "1"]
LARGE = DEFAULT_INLINE_LIMIT + 1


@pytest.mark.parametrize(
    ("size", "argv", "env", "returns", "why"),
    [
        (DEFAULT_INLINE_LIMIT, SERVER, {}, "archive", "the server was started without --upload-url"),
        (LARGE, SERVER, {}, "record", "the server was started without --upload-url"),
        (
            LARGE,
            [*SERVER, "--upload-url", "http://x/"],
            {},
            "archive",
            "the server was started with --upload-url",
        ),
        (
            LARGE,
            [*SERVER, "--upload-url=http://x/"],
            {},
            "archive",
            "the server was started with --upload-url",
        ),
        (LARGE, [*SERVER, "--upload-url="], {}, "record", "without --upload-url"),
        (LARGE, SERVER, {"TRT_LLM_DELIVERY": "upload"}, "archive", "TRT_LLM_DELIVERY=upload"),
        (
            LARGE,
            [*SERVER, "--upload-url", "x"],
            {"TRT_LLM_DELIVERY": "inline"},
            "record",
            "TRT_LLM_DELIVERY=inline",
        ),
        (10, SERVER, {"TRT_LLM_DELIVERY": " Inline "}, "archive", "TRT_LLM_DELIVERY=inline"),
        (LARGE, SERVER, {"TRT_LLM_INLINE_LIMIT": "1GiB"}, "archive", "within the limit of 1.1 GB"),
        (11, SERVER, {"TRT_LLM_INLINE_LIMIT": "10"}, "record", "the limit is 10 bytes"),
        (LARGE, SERVER, {"TRT_LLM_INLINE_LIMIT": "lots"}, "record", "TRT_LLM_INLINE_LIMIT is not a size, so"),
        (LARGE, [], {}, "record", "without --upload-url"),
    ],
)
def test_the_decision_and_its_reason(
    size: int, argv: list[str], env: dict[str, str], returns: str, why: str
) -> None:
    decision = decide_delivery(size, argv, env)
    assert decision.returns == returns
    assert why in decision.reason


def test_a_record_says_what_to_do_to_get_the_archive() -> None:
    reason = decide_delivery(10**12, SERVER, {}).reason
    assert "1.0 TB" in reason
    assert all(way in reason for way in ("destination", "--upload-url", "TRT_LLM_INLINE_LIMIT"))


@pytest.mark.parametrize(
    ("argv", "url"),
    [
        ([], None),
        (["--upload-url"], None),
        (["--upload-url", "u"], "u"),
        (["--upload-url=u=v"], "u=v"),
        (["--upload-url", "a", "--upload-url", "b"], "b"),
        (["--upload", "u"], "u"),  # argparse takes unambiguous beginnings
        (["--", "--unrelated", "u"], None),
    ],
)
def test_the_upload_url_is_read_as_argparse_reads_it(argv: list[str], url: str | None) -> None:
    assert upload_url(argv) == url


@given(st.text(max_size=30))
def test_any_text_is_decided_upon(text: str) -> None:
    assert decide_delivery(5, [text], {"TRT_LLM_DELIVERY": text, "TRT_LLM_INLINE_LIMIT": text}).reason


def test_mistyped_variables_are_refused_before_a_build() -> None:
    check_variables({"TRT_LLM_DELIVERY": "upload", "TRT_LLM_INLINE_LIMIT": "1GB"})
    with pytest.raises(
        DeliveryError, match="TRT_LLM_DELIVERY='both' means nothing; set it to inline or upload"
    ):
        check_variables({"TRT_LLM_DELIVERY": "both"})
    with pytest.raises(DeliveryError, match="TRT_LLM_INLINE_LIMIT='big' is not a size"):
        inline_limit({"TRT_LLM_INLINE_LIMIT": "big"})


def test_the_servers_command_line_is_found_above_the_worker() -> None:
    """Through real processes: a server by name, its worker, and the worker asking."""
    ask = (
        "from trt_llm_pipeline.server.answer import server_argv, upload_url\nprint(upload_url(server_argv()))"
    )
    worker = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    done = subprocess.run(
        [sys.executable, "-c", worker, "cog.server.http", "--upload-url", "http://127.0.0.1:1/"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "http://127.0.0.1:1/"
