"""A large file over several connections: from a loopback Hub with limits, faults and a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PRINT_PEAK_KIB
from trt_llm_pipeline.errors import ModelUnavailable, PipelineError
from trt_llm_pipeline.model_source import ModelRequest, Snapshot, fetch, plan
from trt_llm_pipeline.model_source.partial import record_of
from trt_llm_pipeline.net.retrying import RetryLimits
from trt_llm_pipeline.testing.hub import Fault, HubServer, Link

QUICK = RetryLimits(attempts=6, first_wait=0.02, longest_wait=0.1, patience=20.0, silence=1.0)
SIZE = 40_000_000
CONTENT = os.urandom(1_000_000) * 40
NAME = "model.safetensors"
STORED = "/storage/*"


class House:
    """A Hub with one large file, and who asks for it."""

    def __init__(self, models: Path, link: Link) -> None:
        self.models = models
        self.lines: list[str] = []
        self.hub = HubServer(link=link)
        self.hub.add_repository("owner/model", {NAME: CONTENT, "config.json": b"{}"})

    def fetch(self, **options) -> Snapshot:
        env = {"HF_ENDPOINT": self.hub.url, **options.pop("env", {})}
        options.setdefault("limits", QUICK)
        return fetch(
            ModelRequest("owner/model"), self.models, token=None, log=self.lines.append, env=env, **options
        )

    @property
    def file(self) -> Path:
        return self.models / "owner/model" / NAME

    @property
    def partial(self) -> Path:
        folder = self.models / "owner/model/.cache/trt-llm-pipeline/partial"
        return next(path for path in folder.iterdir() if path.suffix != ".ranges")

    def ranges(self) -> list[tuple[int, int]]:
        """What was asked of the storage since the log was cleared."""
        found = []
        for request in self.hub.requests:
            if request.path.startswith("/storage/"):
                match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", "bytes=0-"))
                assert match
                found.append((int(match[1]), int(match[2]) + 1 if match[2] else SIZE))
        return sorted(found)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "models", Link())
    with house.hub:
        yield house


def interrupt_at(house: House, share: float) -> None:
    """Fetches as much of the file and stops."""

    def progress(done: int, total: int | None) -> None:
        if total and done >= share * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        house.fetch(progress=progress)


def test_a_file_comes_in_ranges_that_do_not_overlap(house: House) -> None:
    snapshot = house.fetch()
    assert house.file.read_bytes() == CONTENT
    assert snapshot.downloaded_bytes == SIZE + 2
    ranges = house.ranges()
    assert len(ranges) > 4
    assert [start for start, _ in ranges] == [0, *(end for _, end in ranges[:-1])]


def test_it_comes_over_several_connections_at_once(tmp_path: Path) -> None:
    house = House(tmp_path / "models", Link(bytes_per_second=4e6))
    with house.hub:
        house.fetch()
    assert house.hub.line.most > 1
    assert house.file.read_bytes() == CONTENT


def test_as_many_connections_as_the_environment_says(tmp_path: Path) -> None:
    house = House(tmp_path / "models", Link(most_requests=2))
    with house.hub:
        house.fetch(env={"TRT_LLM_DOWNLOAD_CONNECTIONS": "2"})
        assert not [line for line in house.lines if "503" in line]
        with pytest.raises(PipelineError, match="TRT_LLM_DOWNLOAD_CONNECTIONS is 'many'"):
            house.fetch(env={"TRT_LLM_DOWNLOAD_CONNECTIONS": "many"})


def test_a_server_that_allows_few_connections_is_downloaded_from_all_the_same(tmp_path: Path) -> None:
    house = House(tmp_path / "models", Link(bytes_per_second=20e6, most_requests=2))
    with house.hub:
        house.fetch(limits=RetryLimits(first_wait=0.05))
    assert house.file.read_bytes() == CONTENT
    assert any("HTTP 503" in line for line in house.lines)


def test_connections_that_are_cut_cost_only_what_was_missing(tmp_path: Path) -> None:
    house = House(tmp_path / "models", Link(cut_share=0.3, seed=149))  # the first connections are
    with house.hub:
        snapshot = house.fetch()
    assert house.file.read_bytes() == CONTENT
    assert snapshot.downloaded_bytes == SIZE + 2
    assert any("; attempt 2 of " in line for line in house.lines), house.lines


def test_only_what_is_missing_is_asked_for_again(tmp_path: Path) -> None:
    house = House(tmp_path / "models", Link(bytes_per_second=4e6))
    with house.hub:
        interrupt_at(house, 0.5)
        kept = sum(int(end) - int(start) for start, end, _ in _record_lines(house.partial))
        assert kept >= 0.5 * SIZE
        env = {"HF_ENDPOINT": house.hub.url}
        planned = plan(ModelRequest("owner/model"), house.models, token=None, env=env, limits=QUICK)
        assert planned.missing_bytes == SIZE - kept
        house.hub.clear_requests()
        snapshot = house.fetch()
        assert snapshot.downloaded_bytes == SIZE - kept
        assert sum(end - start for start, end in house.ranges()) == SIZE - kept
    assert house.file.read_bytes() == CONTENT


def _record_lines(partial: Path) -> list[tuple[int, int, int]]:
    return [tuple(map(int, re.findall(r"\d+", line))) for line in _lines(partial)[1:]]


def _lines(partial: Path) -> list[str]:
    return record_of(partial).read_text().splitlines()


def test_what_is_damaged_on_the_disk_is_fetched_again_and_nothing_else(tmp_path: Path) -> None:
    house = House(tmp_path / "models", Link(bytes_per_second=4e6))
    with house.hub:
        interrupt_at(house, 0.5)
        start, _, _ = min(_record_lines(house.partial))
        with house.partial.open("r+b") as file:
            file.seek(start)
            byte = file.read(1)
            file.seek(start)
            file.write(bytes([byte[0] ^ 1]))
        house.hub.clear_requests()
        house.fetch()
        assert any("damaged on the disk" in line for line in house.lines)
        assert start in [begin for begin, _ in house.ranges()]
    assert house.file.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), marks=pytest.mark.slow),
        lambda path: path.write_bytes(os.urandom(5000)),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-7]), marks=pytest.mark.slow),
        pytest.param(
            lambda path: path.write_text(path.read_text().replace("[", "[0, ")), marks=pytest.mark.slow
        ),
        pytest.param(lambda path: path.unlink(), marks=pytest.mark.slow),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), marks=pytest.mark.slow),
        lambda path: (path.unlink(), os.mkfifo(path)),
        pytest.param(lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), marks=pytest.mark.slow),
        lambda path: path.write_text(path.read_text() + "[0, 40000000, 0]\n[-5, 3, 1]\n[1e9, 2, 3]\n"),
    ],
    ids=["empty", "garbage", "cut", "wrong", "gone", "folder", "FIFO", "link", "lies"],
)
def test_a_record_that_makes_no_sense_costs_time_and_nothing_else(tmp_path: Path, damage) -> None:
    house = House(tmp_path / "models", Link(bytes_per_second=5e6))
    with house.hub:
        interrupt_at(house, 0.3)
        record = record_of(house.partial)
        damage(record)
        house.fetch()
    assert house.file.read_bytes() == CONTENT
    assert not record.exists()


def test_a_signed_address_that_runs_out_in_the_middle_is_asked_for_anew(tmp_path: Path) -> None:
    asked = []

    def run_out(done: int, total: int | None) -> None:
        if not asked and done > 1000:
            asked.append(done)
            house.hub.faults.add(Fault("status", STORED, status=403, times=3))

    house = House(tmp_path / "models", Link(bytes_per_second=10e6))
    with house.hub:
        house.fetch(progress=run_out, env={"TRT_LLM_DOWNLOAD_CONNECTIONS": "2"})
    assert house.file.read_bytes() == CONTENT
    assert any("HTTP 403 from" in line for line in house.lines)


def test_a_server_that_answers_a_range_with_everything_is_read_over_one_connection(house: House) -> None:
    house.hub.faults.add(Fault("ignore_range", STORED, times=99))
    snapshot = house.fetch()
    assert house.file.read_bytes() == CONTENT
    assert snapshot.downloaded_bytes == SIZE + 2


def test_what_changed_for_good_is_never_put_together(house: House) -> None:
    house.hub.faults.add(Fault("corrupt", STORED, times=999, after=20_000_000))
    with pytest.raises(ModelUnavailable, match="another content than announced"):
        house.fetch()
    assert not house.file.exists()
    house.hub.faults.clear()
    house.fetch()
    assert house.file.read_bytes() == CONTENT


def test_many_small_files_are_fetched_over_kept_connections(tmp_path: Path) -> None:
    files = {f"part-{number:04d}.json": os.urandom(500) for number in range(300)}
    with HubServer() as hub:
        hub.add_repository("owner/many", {**files, NAME: b"w"})
        snapshot = fetch(
            ModelRequest("owner/many"),
            tmp_path / "models",
            token=None,
            log=[].append,
            env={"HF_ENDPOINT": hub.url},
        )
        assert all((snapshot.path / name).read_bytes() == content for name, content in files.items())
        gets = [request for request in hub.requests if "/resolve/" in request.path]
        assert len(gets) >= 301
        assert hub.connections_opened < 60


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    with (big / NAME).open("wb") as file:
        for _ in range(1500):
            file.write(os.urandom(1_000_000))
    script = (
        "import sys, pathlib; from trt_llm_pipeline.model_source import *; "
        "fetch(ModelRequest('owner/big'), pathlib.Path(sys.argv[1]), token=None, log=print)\n"
    )
    with HubServer() as hub:
        hub.add_repository("owner/big", big)
        done = subprocess.run(
            [sys.executable, "-c", script + PRINT_PEAK_KIB, str(tmp_path / "models")],
            env={**os.environ, "HF_ENDPOINT": hub.url},
            capture_output=True,
            text=True,
            check=True,
        )
    assert int(done.stdout.splitlines()[-1]) < 200_000
