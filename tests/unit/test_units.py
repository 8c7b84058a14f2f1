"""Counts, bytes and seconds in words, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_llm_pipeline.units import counted, in_words, parse_duration, parse_size


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 cells"), (1, "1 cell"), (2, "2 cells"), (20_000, "20,000 cells")]
)
def test_things_are_counted(count: int, words: str) -> None:
    assert counted(count, "cell") == words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (999.6, "1.0 kB"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_960, "1.0 MB"),
        (2_500_000, "2.5 MB"),
        (3_250_000, "3.2 MB"),
        (1.5e9, "1.5 GB"),
        (140e9, "140.0 GB"),
        (999_999_999_999, "1.0 TB"),
        (2e12, "2.0 TB"),
        (3e15, "3000.0 TB"),
        (-999_960, "-1.0 MB"),
    ],
)
def test_bytes_in_words(size: float, words: str) -> None:
    assert in_words(size) == words


@given(st.integers(min_value=0, max_value=10**18))
def test_bytes_in_words_are_never_a_thousand_of_a_smaller_unit(size: int) -> None:
    number, unit = in_words(size).split()
    assert float(number) < 1000 or unit == "TB"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("268435456", 268435456),
        ("256MB", 256 * 10**6),
        ("256mb", 256 * 10**6),
        ("256 M", 256 * 10**6),
        ("1GiB", 1 << 30),
        ("1.5 GiB", 3 << 29),
        ("2TB", 2 * 10**12),
        ("7B", 7),
        ("", None),
        ("-1", None),
        ("1e9", None),
        ("1 XB", None),
        ("GB", None),
        ("1.2.3MB", None),
        ("\u0661MB", None),
        ("9" * 5000, None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_none(text: str) -> None:
    size = parse_size(text)
    assert size is None or size >= 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5m", 90),
        ("2 h", 7200),
        ("", None),
        ("-1", None),
        ("1d", None),
        ("1e3", None),
        (" 5", None),
        ("\u0661", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds
