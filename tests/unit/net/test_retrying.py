"""When a source is asked again, and when it is given up."""

from __future__ import annotations

from trt_llm_pipeline.net.failures import Transient
from trt_llm_pipeline.net.retrying import Patience, RetryLimits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TestPatience:
    def test_waits_double_up_to_the_longest(self) -> None:
        patience = Patience(RetryLimits(attempts=8, first_wait=1, longest_wait=10, patience=1e9), Clock())
        waits = [patience.next_wait(Transient("x")) for _ in range(8)]
        assert waits == [1, 2, 4, 8, 10, 10, 10, None]

    def test_new_bytes_make_it_forget(self) -> None:
        patience = Patience(RetryLimits(attempts=3), Clock())
        assert [patience.next_wait(Transient("x")) for _ in range(3)] == [1, 2, None]
        patience.progressed()
        assert patience.next_wait(Transient("x")) == 1

    def test_time_without_a_byte_is_bounded_in_all(self) -> None:
        clock = Clock()
        patience = Patience(RetryLimits(attempts=100, patience=60), clock)
        assert patience.next_wait(Transient("x")) == 1
        clock.now = 59.5
        assert patience.next_wait(Transient("x")) is None

    def test_a_longer_wait_that_the_server_asks_for_is_granted(self) -> None:
        patience = Patience(RetryLimits(patience=60), Clock())
        assert patience.next_wait(Transient("x", retry_after=45)) == 45
        assert patience.next_wait(Transient("x", retry_after=61)) is None

    def test_the_defaults_end_within_a_few_minutes(self) -> None:
        clock = Clock()
        patience = Patience(RetryLimits(), clock)
        while (wait := patience.next_wait(Transient("stalled"))) is not None:
            clock.now += wait + RetryLimits().silence
        assert clock.now <= 360

    def test_a_source_that_was_never_reached_is_given_up_sooner(self) -> None:
        clock = Clock()
        patience = Patience(RetryLimits(), clock)
        while (wait := patience.next_wait(Transient("refused", unreachable=True))) is not None:
            clock.now += wait
        assert clock.now <= 10

    def test_one_that_answered_before_is_not(self) -> None:
        patience = Patience(RetryLimits(attempts=6, unreachable_attempts=2), Clock(), reached=True)
        waits = [patience.next_wait(Transient("refused", unreachable=True)) for _ in range(6)]
        assert waits == [1, 2, 4, 8, 16, None]
