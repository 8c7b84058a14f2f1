"""The records of a fleet, in a directory that is used as a bucket."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trt_llm_pipeline.delivery.object_store import Root
from trt_llm_pipeline.errors import EXIT_CODES, BadArgument, BadDestination, DeliveryError
from trt_llm_pipeline.fleet.cells import Cell, Fleet, Resources
from trt_llm_pipeline.fleet.records import Records, open_records

CELL = Cell("a", {"x": "a"}, "0" * 64, "a/engine.tar.gz", Resources())
OTHER = Cell("b", {"x": "b"}, "0" * 64, "b/engine.tar.gz", Resources())


@pytest.fixture
def records(tmp_path: Path) -> Records:
    root = Root("file", f"file://{tmp_path}/bucket", "")
    return Records(Fleet("f-1", "fleet.yaml", root, (CELL, OTHER), {"0" * 64: "model_id: a/b\n"}))


def stage(records: Records, attempt: int, data: bytes) -> None:
    records.root.put(records.staging(CELL, attempt), data)


def at_destination(tmp_path: Path) -> bytes:
    return (tmp_path / "bucket" / "a" / "engine.tar.gz").read_bytes()


def test_the_plan_can_be_read_again_by_its_address(records: Records) -> None:
    records.write_plan()
    again = open_records(records.address)
    assert again.fleet == records.fleet
    assert again.listing().has_plan


@pytest.mark.parametrize("address", ["file://{tmp}/nowhere/fleet/x", "s3://bucket/x", "file:///fleet/"])
def test_an_address_without_a_plan_is_a_mistake_of_whoever_typed_it(address: str, tmp_path: Path) -> None:
    words = r"plan\.json|is no fleet's address|names no directory"
    with pytest.raises((BadArgument, BadDestination), match=words) as caught:
        open_records(address.format(tmp=tmp_path))
    assert EXIT_CODES[caught.value.kind] == 2
    assert not list(tmp_path.iterdir())  # whoever looks makes nothing


def test_a_plan_that_cannot_be_read_is_the_store_s(records: Records, tmp_path: Path) -> None:
    records.write_plan()
    plan = tmp_path / "bucket" / "fleet" / "f-1" / "plan.json"
    plan.write_text("{")
    with pytest.raises(DeliveryError, match="cannot read"):
        open_records(records.address)


def test_what_is_read_of_a_fleet_that_nobody_has_run(records: Records, tmp_path: Path) -> None:
    found = records.listing()
    assert (found.cells, found.has_plan, records.is_cancelled()) == ({}, False, False)
    assert not list(tmp_path.iterdir())


def test_one_listing_tells_what_is_there(records: Records) -> None:
    assert records.begin(CELL, 1, {"state": "running"})
    assert records.begin(CELL, 2, {"state": "running"})
    stage(records, 2, b"archive")
    records.write_log(CELL, 1, b"hello\n")
    assert records.win(CELL, {"attempt": 2})
    records.cancel("a test")
    found = records.listing()
    assert sorted(found.cell("a").attempts) == [1, 2]
    assert found.cell("a").staged == [2]
    assert found.cell("a").delivered
    assert found.cell("a").next_attempt == 3
    assert not found.cell("b").delivered
    assert found.cell("b").next_attempt == 1
    assert found.cancelled
    records.uncancel()
    assert not records.listing().cancelled
    assert records.log("a", 1) == "hello\n"


def test_of_all_who_try_at_once_one_wins(records: Records) -> None:
    start = threading.Barrier(8)
    won: list[int] = []

    def try_to_win(number: int) -> None:
        start.wait()
        if records.win(CELL, {"attempt": number}):
            won.append(number)

    threads = [threading.Thread(target=try_to_win, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert records.delivered("a") == {"attempt": won[0]}


def test_an_attempt_s_number_is_taken_once(records: Records) -> None:
    assert records.begin(CELL, 1, {"mark": "mine"})
    assert not records.begin(CELL, 1, {"mark": "theirs"})
    assert records.attempt("a", 1) == {"mark": "mine"}


def test_a_request_that_was_sent_twice_finds_what_it_wrote(records: Records) -> None:
    assert records.begin(CELL, 1, {"mark": "mine"})
    assert records.begin(CELL, 1, {"mark": "mine"})


def test_only_the_winner_s_archive_comes_to_the_destination(records: Records, tmp_path: Path) -> None:
    stage(records, 1, b"late")
    stage(records, 2, b"first")
    assert records.win(CELL, {"attempt": 2})
    assert not records.win(CELL, {"attempt": 1})
    records.withdraw(CELL, 1)
    records.publish(CELL, {"attempt": 2})
    assert at_destination(tmp_path) == b"first"
    assert records.listing().cell("a").staged == []


def test_the_statement_about_an_archive_goes_with_it(records: Records, tmp_path: Path) -> None:
    stage(records, 1, b"archive")
    records.publish(CELL, {"attempt": 1, "statement": "{}\n"})
    assert at_destination(tmp_path) == b"archive"
    assert (tmp_path / "bucket" / "a" / "engine.tar.gz.intoto.jsonl").read_text() == "{}\n"


def test_what_a_killed_winner_left_is_finished_later(records: Records, tmp_path: Path) -> None:
    stage(records, 1, b"late")
    stage(records, 2, b"first")
    assert records.win(CELL, {"attempt": 2})  # and then it was killed
    records.settle(CELL, records.listing().cell("a"))
    assert at_destination(tmp_path) == b"first"
    records.settle(CELL, records.listing().cell("a"))
    assert at_destination(tmp_path) == b"first"
    assert records.listing().cell("a").staged == []


def test_a_driver_that_is_not_heard_of_grows_silent(records: Records) -> None:
    assert records.claim_driver(1, {"pid": 1})
    assert not records.claim_driver(1, {"pid": 2})
    records.heartbeat(1)
    assert 0 <= records.silence(1) < 60
    assert records.silence(2) == float("inf")
    records.driver_done(1, {"pid": 1})
    assert "ended" in (records.driver(1) or {})
