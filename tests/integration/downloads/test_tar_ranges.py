"""A tar's address read over several connections, ahead of the extraction and in bounded memory."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ANYWHERE, INSIDE, PRINT_PEAK_KIB
from trt_llm_pipeline.artifact.reader import read_archive
from trt_llm_pipeline.errors import ArtifactError, ModelUnavailable
from trt_llm_pipeline.model_source import ModelRequest, Snapshot, fetch
from trt_llm_pipeline.net.client import Response
from trt_llm_pipeline.net.pool import Pool
from trt_llm_pipeline.net.ranges import Claim
from trt_llm_pipeline.net.retrying import RetryLimits
from trt_llm_pipeline.net.window import Window
from trt_llm_pipeline.testing.hub import Fault, HubServer, Link

QUICK = RetryLimits(attempts=5, first_wait=0.02, longest_wait=0.1, patience=20.0, silence=1.0)
WEIGHTS = os.urandom(1_000_000) * 40


def make_tar(path: Path, copies: int = 1) -> Path:
    weights = path.with_name("weights")
    weights.write_bytes(WEIGHTS)
    with tarfile.open(path, "w") as archive:
        for number in range(copies):
            archive.add(weights, f"model/model-{number}.safetensors")
    weights.unlink()
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_tar(tmp_path / "m.tar")


class Caller:
    def __init__(self, hub: HubServer, models: Path) -> None:
        self.hub, self.models = hub, models
        self.lines: list[str] = []

    def fetch(self, url: str, **options: object) -> Snapshot:
        request = ModelRequest("owner/model", tar_url=url)
        env = {**INSIDE, **options.pop("env", {})}  # type: ignore[dict-item]
        options = {"limits": QUICK, **options}
        return fetch(request, self.models, token=None, log=self.lines.append, env=env, **options)

    def weights(self) -> bytes:
        return (self.models / "owner/model/model-0.safetensors").read_bytes()

    def ranges(self) -> list[str | None]:
        return [request.headers.get("range") for request in self.hub.requests]


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    with HubServer() as hub:
        yield Caller(hub, tmp_path / "models")


def test_it_comes_over_several_connections_at_once(archive: Path, tmp_path: Path) -> None:
    with HubServer(link=Link(bytes_per_second=4e6)) as hub:
        caller = Caller(hub, tmp_path / "models")
        snapshot = caller.fetch(hub.add_file("m.tar", archive))
        assert hub.line.most > 1
    assert caller.weights() == WEIGHTS
    assert snapshot.revision == f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"


def test_a_compressed_one_as_well(archive: Path, caller: Caller) -> None:
    packed = archive.with_name("m.tar.gz")
    packed.write_bytes(gzip.compress(archive.read_bytes(), 1))
    caller.fetch(caller.hub.add_file("m.tar.gz", packed))
    assert caller.weights() == WEIGHTS


def test_ranges_that_break_off_are_resumed_one_by_one(archive: Path, tmp_path: Path) -> None:
    with HubServer(link=Link(cut_share=0.4, seed=5)) as hub:
        caller = Caller(hub, tmp_path / "models")
        snapshot = caller.fetch(hub.add_file("m.tar", archive))
    assert caller.weights() == WEIGHTS
    assert snapshot.downloaded_bytes == archive.stat().st_size


def test_a_server_without_ranges_is_read_over_one_connection(archive: Path, caller: Caller) -> None:
    url = caller.hub.add_file("m.tar", archive)
    caller.hub.faults.add(Fault("ignore_range", "/files/*", times=99))
    snapshot = caller.fetch(url)
    assert caller.weights() == WEIGHTS
    assert snapshot.downloaded_bytes == archive.stat().st_size


def test_a_server_without_ranges_may_answer_for_a_part_before_the_first_answer_is_read(
    archive: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Pool._attempt

    def slowly(pool: Pool, task: Any, *more: Any) -> None:
        if not task.claim.position:
            time.sleep(0.5)
        attempt(pool, task, *more)

    monkeypatch.setattr(Pool, "_attempt", slowly)
    url = caller.hub.add_file("m.tar", archive)
    caller.hub.faults.add(Fault("ignore_range", "/files/*", times=99))
    caller.fetch(url)
    assert caller.weights() == WEIGHTS


def test_one_connection_is_enough(archive: Path, caller: Caller) -> None:
    caller.fetch(caller.hub.add_file("m.tar", archive), env={"TRT_LLM_DOWNLOAD_CONNECTIONS": "1"})
    assert caller.weights() == WEIGHTS
    assert caller.ranges() == [None]


def test_progress_counts_up_to_the_whole(archive: Path, caller: Caller) -> None:
    told: list[tuple[int, int | None]] = []
    caller.fetch(
        caller.hub.add_file("m.tar", archive), progress=lambda done, total: told.append((done, total))
    )
    size = archive.stat().st_size
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_a_stall_does_not_hold_back_whoever_cancels(archive: Path, caller: Caller, seconds: float) -> None:
    url = caller.hub.add_file("m.tar", archive)
    caller.hub.faults.add(Fault("stall", "/files/*", times=99, after=100_000, seconds=60))
    started = time.monotonic()

    def cancel(done: int, total: int | None) -> None:
        if time.monotonic() - started > seconds:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caller.fetch(url, progress=cancel, limits=RetryLimits())
    assert time.monotonic() - started < 40  # of the stall's 60
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("model-")]


def test_an_archive_is_inspected_over_several_connections(archive: Path, caller: Caller) -> None:
    contents = read_archive(caller.hub.add_file("m.tar", archive), reach=ANYWHERE)
    assert contents.size == archive.stat().st_size
    assert contents.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert len([one for one in caller.ranges() if one and re.fullmatch(r"bytes=\d+-\d*", one)]) > 1


@pytest.mark.slow
def test_an_archive_at_an_address_that_refuses_is_an_error_in_words(caller: Caller) -> None:
    url = caller.hub.add_file("m.tar", b"")
    caller.hub.faults.add(Fault("status", "/files/*", times=99, status=503))
    with pytest.raises(ArtifactError, match=r"m\.tar could not be downloaded: HTTP 503, after 4 attempts"):
        read_archive(url, reach=ANYWHERE)


def test_a_chunk_that_fails_for_good_ends_it(archive: Path, caller: Caller) -> None:
    url = caller.hub.add_file("m.tar", archive)
    caller.hub.faults.add(Fault("reset", "/files/*", times=1, after=5_000_000))
    caller.hub.faults.add(Fault("status", "/files/*", times=999, status=503))
    with pytest.raises(ModelUnavailable, match="HTTP 503, after 5 attempts"):
        caller.fetch(url)
    assert not (caller.models / "owner/model").exists()


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    make_tar(tmp_path / "m.tar", copies=30)
    script = (
        "import sys, pathlib; from trt_llm_pipeline.model_source import *; "
        "fetch(ModelRequest('owner/model', tar_url=sys.argv[2]), pathlib.Path(sys.argv[1]), token=None, "
        "log=print)\n"
    )
    with HubServer() as hub:
        url = hub.add_file("m.tar", tmp_path / "m.tar")
        done = subprocess.run(
            [sys.executable, "-c", script + PRINT_PEAK_KIB, str(tmp_path / "models"), url],
            capture_output=True,
            text=True,
            check=True,
        )
    assert int(done.stdout.splitlines()[-1]) < 200_000


def test_the_first_range_may_be_asked_for_before_the_first_answer_is_looked_at(
    archive: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of two connections begins is chance; here the one with the open answer comes late."""
    take = Window.take_opened

    def late(self: Window, claim: Claim) -> Response | None:
        opened = take(self, claim)
        if opened is not None:
            deadline = time.monotonic() + 20
            while len(caller.hub.requests) < 2 and time.monotonic() < deadline:
                self._pool.ready.wait(0.05)  # lets go of the lock
        return opened

    monkeypatch.setattr(Window, "take_opened", late)
    caller.fetch(caller.hub.add_file("m.tar", archive))
    assert caller.weights() == WEIGHTS
    assert len(caller.ranges()) > 2
