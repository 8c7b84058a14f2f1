"""A partial file and the record of its ranges."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_llm_pipeline.model_source import partial
from trt_llm_pipeline.model_source.partial import PartialFile, read_pieces, record_of, recorded_bytes

SIZE = 100


@pytest.fixture(autouse=True)
def _record_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "LEAST_RECORDED", 10)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def write(path: Path, *pieces: tuple[int, bytes], validator: str | None = '"tag"') -> None:
    part = PartialFile(path, SIZE)
    part.validator = validator
    for start, data in pieces:
        part.write(memoryview(data), start)
    part.retire()


def spans(path: Path) -> list[tuple[int, int]]:
    return [(start, end) for start, end, _ in read_pieces(path, SIZE)[1]]


def test_pieces_come_back_in_order_with_their_validator(tmp_path: Path) -> None:
    path = tmp_path / "part"
    write(path, (50, b"x" * 20), (0, b"y" * 10))
    part = PartialFile(path, SIZE)
    assert [(start, end) for start, end, _ in part.pieces] == [(0, 10), (50, 70)]
    assert part.validator == '"tag"'
    buffer = memoryview(bytearray(20))
    assert part.read(buffer, 50) == 20
    assert bytes(buffer) == b"x" * 20
    part.retire()
    assert recorded_bytes(path, SIZE) == 30


def test_a_line_that_was_cut_off_costs_its_piece_only(tmp_path: Path) -> None:
    path = tmp_path / "part"
    write(path, (0, b"a" * 10), (10, b"b" * 10))
    record = record_of(path)
    record.write_bytes(record.read_bytes()[:-4])
    assert spans(path) == [(0, 10)]
    write(path, (20, b"c" * 10))
    assert spans(path) == [(0, 10), (20, 30)]


def test_what_was_fetched_again_replaces_what_it_overlaps(tmp_path: Path) -> None:
    path = tmp_path / "part"
    write(path, (0, b"a" * 20), (20, b"b" * 20), (10, b"c" * 20))
    assert spans(path) == [(10, 30)]


def test_a_record_without_its_file_is_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "part"
    write(path, (0, b"a" * 20))
    path.unlink()
    assert spans(path) == []
    path.write_bytes(b"a" * 5)  # shorter than the record says
    assert spans(path) == []


def test_a_small_file_has_no_record(tmp_path: Path) -> None:
    part = PartialFile(tmp_path / "part", 10)
    part.write(memoryview(b"0123456789"), 0)
    part.move_to(tmp_path / "folder/file")
    assert (tmp_path / "folder/file").read_bytes() == b"0123456789"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


def test_it_is_closed_when_its_last_user_is_done(tmp_path: Path) -> None:
    part = PartialFile(tmp_path / "part", SIZE)
    opened = descriptors()
    part.users = 2
    part.discard()
    part.release()
    part.write(memoryview(b"still possible, into the void"), 0)
    assert descriptors() >= opened
    part.release()
    assert descriptors() < opened
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize("what", ["link", "FIFO", "folder"])
def test_what_was_put_in_its_place_is_removed_and_not_followed(tmp_path: Path, what: str) -> None:
    path, victim = tmp_path / "part", tmp_path / "victim"
    victim.write_text("precious")
    for place in (path, record_of(path)):
        if what == "link":
            place.symlink_to(victim)
        elif what == "FIFO":
            os.mkfifo(place)
        else:
            (place / "inside").mkdir(parents=True)
    write(path, (0, b"a" * 20))
    assert victim.read_text() == "precious"
    assert spans(path) == [(0, 20)]


@given(st.binary(max_size=200))
def test_no_record_is_too_strange(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("strange") / "part"
    write(path, (0, b"a" * 40))
    head = record_of(path).read_bytes().split(b"\n")[0]
    for text in (content, head + b"\n" + content + b"\n"):
        record_of(path).write_bytes(text)
        found = spans(path)
        assert all(0 <= start < end <= SIZE for start, end in found)
        assert all(one[1] <= other[0] for one, other in pairwise(found))


def test_a_new_file_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was cut to nothing ext4 writes to the disk when it is closed, while the verifier waits."""
    monkeypatch.setattr(os, "ftruncate", lambda *_: pytest.fail("it was cut"))
    write(tmp_path / "part", (0, b"a" * 10))


def test_what_is_longer_than_the_file_will_be_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "part"
    write(path, (0, b"a" * 10))
    with path.open("ab") as file:
        file.write(b"b" * 2 * SIZE)
    part = PartialFile(path, SIZE)
    part.retire()
    assert path.stat().st_size == SIZE
