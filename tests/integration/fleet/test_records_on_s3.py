"""What the records need of a store, asked of a real S3 server: one winner, one move, one listing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet.cluster import BUCKET, Store, faulty, s3_server
from trt_llm_pipeline.delivery.object_store import Bucket, DamagedObjectError, parse_root
from trt_llm_pipeline.errors import BadDestination


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(store: Store, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bucket:
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    return Bucket(parse_root(f"s3://{BUCKET}/{request.node.name}", "a test"))


def test_of_all_who_try_at_once_one_puts_the_object(bucket: Bucket) -> None:
    start = threading.Barrier(6)
    won: list[int] = []

    def put(number: int) -> None:
        start.wait()
        if bucket.put_new("cell.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert bucket.get("cell.json") == str(won[0]).encode()


@pytest.mark.parametrize("at_once", [5 * 1000**3, 10_000_000])
def test_an_archive_is_moved_whole_however_large(bucket: Bucket, at_once: int) -> None:
    """More than the store copies in one request is read and written again, in parts."""
    data = os.urandom(20_000_000)
    bucket.put("staged", data)
    bucket.put("there", b"an earlier archive")
    bucket.move("staged", "there", len(data), at_once=at_once)
    assert bucket.get("there") == data
    assert bucket.head("staged") is None


def test_a_listing_has_what_is_below_and_nothing_else(bucket: Bucket) -> None:
    for key in ("a/1", "a/2", "ab", "b/1"):
        bucket.put(key, b"x")
    assert sorted(found.key for found in bucket.objects("a/")) == ["a/1", "a/2"]
    assert sorted(found.key for found in bucket.objects()) == ["a/1", "a/2", "ab", "b/1"]


def test_what_is_downloaded_has_the_size_that_was_announced(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("x", b"12345")
    assert bucket.download("x", tmp_path / "good", size=5)
    for number, (key, size) in enumerate([("x", 4), ("x", 6), ("y", 5)]):
        with pytest.raises(DamagedObjectError):
            bucket.download(key, tmp_path / str(number), size=size)


def test_a_store_that_fails_now_and_then_is_asked_again(
    store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(store, lambda number: number % 3 == 0) as env:
        monkeypatch.setenv("AWS_ENDPOINT_URL", env["AWS_ENDPOINT_URL"])
        again = Bucket(bucket.root)
        assert again.put_new("x", b"1")
        assert not again.put_new("x", b"2")
        assert again.get("x") == b"1"
        assert [found.key for found in again.objects()] == ["x"]


@pytest.mark.parametrize(
    "address", ["file://host/x", "file:///", "file:///a/../b", "https://host/x", "s3://", "ftp://x/y", "x"]
)
def test_an_address_that_is_no_store_is_refused(address: str) -> None:
    with pytest.raises(BadDestination, match=r"TRT_LLM_CACHE_URL .*(; use s3://|; write file:)") as caught:
        parse_root(address, "TRT_LLM_CACHE_URL")
    assert "hf://" not in str(caught.value)
