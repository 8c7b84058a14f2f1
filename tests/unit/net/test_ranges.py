"""Which bytes are there, which are on their way, and which are still to be asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_llm_pipeline.net.ranges import Claim, Ranges, parse_content_range, strong_etag

SIZE = 60
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["claim", "advance", "drop", "split", "add", "remove", "reset"]),
        st.integers(0, SIZE),
        st.integers(1, SIZE),
    ),
    max_size=40,
)


def covered(spans: list[tuple[int, int]]) -> set[int]:
    return {byte for start, end in spans for byte in range(start, end)}


@given(MOVES)
def test_every_byte_is_there_or_on_its_way_once_or_still_to_be_asked_for(
    moves: list[tuple[str, int, int]],
) -> None:
    ranges, there = Ranges(SIZE), set[int]()
    for move, one, two in moves:
        if move == "claim":
            claim = ranges.claim(two)
            if claim is not None:
                assert 0 < claim.left <= two
        elif move == "advance" and ranges.claims:
            claim = ranges.claims[one % len(ranges.claims)]
            count = min(two, claim.left)
            there |= set(range(claim.position, claim.position + count))
            ranges.advance(claim, count)
        elif move == "drop" and ranges.claims:
            ranges.drop(ranges.claims[one % len(ranges.claims)])
        elif move == "split":
            before = max((claim.left for claim in ranges.claims), default=0)
            assert (ranges.split(two) is None) == (not ranges.claims or before < 2 * two)
        elif move == "add" and one < two and not ranges.claims:
            there |= set(range(one, two))
            ranges.add(one, two)
        elif move == "remove" and not ranges.claims:
            there -= set(range(one, two))
            ranges.remove(one, two)
        elif move == "reset":
            void = list(ranges.claims)
            there = set()
            ranges.reset()
            assert all(claim.void for claim in void)
        assert covered(ranges.intervals()) == there
        assert ranges.done == len(there)
        on_the_way = [byte for claim in ranges.claims for byte in range(claim.position, claim.end)]
        assert len(on_the_way) == len(set(on_the_way))
        assert not set(on_the_way) & there
        assert ranges.unclaimed == SIZE - len(there) - len(on_the_way)
        prefix = next((byte for byte in range(SIZE) if byte not in there), SIZE)
        assert ranges.prefix() == prefix


@given(MOVES)
def test_whoever_goes_on_claiming_gets_all_of_it(moves: list[tuple[str, int, int]]) -> None:
    ranges = Ranges(SIZE)
    for _, one, two in moves:
        ranges.add(one, max(one, two))
    while (claim := ranges.claim(7)) is not None:
        ranges.advance(claim, claim.left)
        ranges.drop(claim)
    assert ranges.intervals() == [(0, SIZE)]


def test_a_claim_can_be_kept_below_an_end() -> None:
    ranges = Ranges(100)
    first = ranges.claim(50, end=10)
    assert first is not None
    assert (first.start, first.end) == (0, 10)
    assert ranges.claim(50, end=10) is None


def test_the_second_half_of_the_longest_is_taken_over() -> None:
    ranges = Ranges(100)
    first, second = ranges.claim(80), ranges.claim(20)
    taken = ranges.split(10)
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert isinstance(taken, Claim)
    assert (first.end, taken.start, taken.end) == (40, 40, 80)
    assert (second.start, second.end) == (80, 100)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("bytes 0-9/100", (0, 10, 100)),
        (" bytes 5-5/6 ", (5, 6, 6)),
        ("bytes 0-9/*", (0, 10, None)),
        ("bytes 9-0/100", None),
        ("bytes 0-100/100", None),
        ("bytes */100", None),
        ("bytes 0-9", None),
        ("items 0-9/100", None),
        ("bytes -5-9/100", None),
        ("bytes ١-٢/٣", None),
        (f"bytes 0-{10**30}/*", None),
        ("", None),
    ],
)
def test_content_range(value: str, found: object) -> None:
    assert parse_content_range(value) == found


def test_only_a_strong_etag_vouches_for_bytes() -> None:
    assert strong_etag({"etag": '"abc"'}) == '"abc"'
    for etag in ('W/"abc"', "abc", '"', '""', ""):
        assert strong_etag({"etag": etag}) is None
    assert strong_etag({}) is None
