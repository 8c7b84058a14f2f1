"""What a step prints: secrets, lines and progress bars, cut anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_llm_pipeline.process.lines import MAX_LINE_CHARS, TAIL_LINES, LineAssembler
from trt_llm_pipeline.redaction import Redactor

TOKEN = "hf_AbCdEfGhIjKl"


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Listener:
    """A line assembler with a clock that is moved by hand."""

    def __init__(self, *secrets: str) -> None:
        self.clock = FakeClock()
        self.lines: list[str] = []
        self.assembler = LineAssembler(self.lines.append, Redactor(secrets), self.clock)

    def feed(self, *pieces: bytes) -> Listener:
        for piece in pieces:
            self.assembler.feed(piece)
        return self

    def wait(self, seconds: float) -> Listener:
        """Time passes; the assembler is told ten times a second, as by `process.run`."""
        for _ in range(round(seconds * 10)):
            self.clock.now += 0.1
            self.assembler.tick()
        return self

    def close(self) -> list[str]:
        self.assembler.close()
        return self.lines


class TestLines:
    def test_lines_end_at_newlines_wherever_the_stream_is_cut(self) -> None:
        stream = "eins\n\nzwei ü\r\ndrei".encode()
        for first, second in itertools.combinations(range(len(stream) + 1), 2):
            listener = Listener().feed(stream[:first], stream[first:second], stream[second:])
            assert listener.close() == ["eins", "", "zwei ü", "drei"]

    def test_invalid_utf8_is_replaced_and_the_rest_kept(self) -> None:
        assert Listener().feed(b"a\xff\xfeb\n", b"\xe2\x82", b"\xac\n", b"\xe2").close() == ["a��b", "€", "�"]

    def test_a_line_of_a_megabyte_is_cut_and_says_so(self) -> None:
        listener = Listener().feed(*[b"x" * 65536] * 16, b"\nnext\n")
        cut = f"{'x' * MAX_LINE_CHARS} [... {16 * 65536 - MAX_LINE_CHARS} more characters]"
        assert listener.close() == [cut, "next"]

    def test_an_endless_line_takes_no_more_room_than_a_line(self) -> None:
        listener = Listener().feed(*[b"x" * 65536] * 100)
        assert len(listener.assembler._line) == MAX_LINE_CHARS
        assert listener.lines == []

    def test_a_secret_across_two_pieces_is_not_in_the_lines(self) -> None:
        listener = Listener(TOKEN).feed(b"token=" + TOKEN[:5].encode(), TOKEN[5:].encode() + b".\n")
        assert listener.close() == ["token=[secret]."]
        assert list(listener.assembler.tail) == ["token=[secret]."]

    def test_the_beginning_of_a_secret_is_shown_when_the_stream_ends(self) -> None:
        assert Listener(TOKEN).feed(b"hf_Ab").close() == ["hf_Ab"]

    def test_the_tail_keeps_the_last_lines(self) -> None:
        listener = Listener().feed(*[f"{n}\n".encode() for n in range(100)])
        assert list(listener.assembler.tail) == [str(n) for n in range(100 - TAIL_LINES, 100)]

    @given(st.lists(st.binary(max_size=30), max_size=10))
    def test_any_bytes_become_lines_without_line_ends(self, pieces: list[bytes]) -> None:
        lines = Listener().feed(*pieces).close()
        assert not any("\n" in line or "\r" in line for line in lines)
        whole = b"".join(pieces)
        if b"\r" not in whole:
            text = whole.decode(errors="replace")
            assert lines == text.removesuffix("\n").split("\n") if text else lines == []


class TestUnfinishedLines:
    def test_a_line_without_an_end_is_shown_after_a_moment(self) -> None:
        listener = Listener().feed(b"Loading...")
        assert listener.wait(0.2).lines == []
        assert listener.wait(0.2).lines == ["Loading..."]
        assert listener.wait(5).lines == ["Loading..."]

    def test_its_end_makes_no_empty_line_and_more_of_it_makes_another(self) -> None:
        assert Listener().feed(b"a").wait(1).feed(b"\nb").wait(1).feed(b"c\n\n").close() == [
            "a",
            "b",
            "c",
            "",
        ]

    def test_it_waits_for_the_last_byte(self) -> None:
        listener = Listener()
        for _ in range(10):
            listener.feed(b".").wait(0.2)
        assert listener.lines == []
        assert listener.wait(0.2).lines == [".........."]


class TestProgressBars:
    @pytest.mark.parametrize("shape", ["{}%\r", "\r{}%"])
    def test_of_a_bar_one_line_is_shown_every_two_seconds_and_its_end(self, shape: str) -> None:
        listener = Listener()
        for percent in range(101):
            listener.feed(shape.format(percent).encode()).wait(0.1)
        lines = listener.feed(b"\n").close()
        assert 5 <= len(lines) <= 7
        assert lines[-1] == "100%"

    @pytest.mark.parametrize("shape", ["{}%\r", "\r{}%"])
    def test_a_slow_bar_is_no_exception(self, shape: str) -> None:
        listener = Listener()
        for percent in range(20):
            listener.feed(shape.format(percent).encode()).wait(0.5)
        assert 5 <= len(listener.close()) <= 7

    def test_a_fast_bar_shows_its_first_and_last_state(self) -> None:
        listener = Listener().feed(*[f"\r{n} of 1000".encode() for n in range(1001)], b"\ndone\n")
        assert listener.close() == ["0 of 1000", "1000 of 1000", "done"]

    def test_the_state_of_a_bar_that_stops_is_shown(self) -> None:
        listener = Listener().feed(b"\r1%", b"\r2%").wait(0.1).feed(b"\r3%")
        assert listener.wait(3).lines == ["1%", "3%"]

    def test_windows_line_ends_are_no_bar(self) -> None:
        assert Listener().feed(b"a\r\nb\r\nc\r\r\nd\r", b"\n").close() == ["a", "b", "c", "d"]

    def test_a_windows_line_end_cut_in_two_makes_no_empty_line(self) -> None:
        assert Listener().feed(b"a\r").wait(1).feed(b"\nb\n").close() == ["a", "b"]
