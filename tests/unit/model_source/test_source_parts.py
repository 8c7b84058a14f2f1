"""When a source is asked again, what an error means, and what the books of a model say."""

from __future__ import annotations

import errno
import http.client
import json
import os
import ssl
import subprocess
import sys
import urllib.error
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from trt_llm_pipeline.errors import ModelSourceError, WorkspaceError
from trt_llm_pipeline.model_source.record import (
    Record,
    RecordedFile,
    check_no_links,
    check_path,
    digest_of,
    matches,
    read_record,
    record_path,
    remove_files,
    write_record,
)
from trt_llm_pipeline.net.retrying import Patience, RetryLimits
from trt_llm_pipeline.net.stream import (
    HttpStatusError,
    Stopped,
    StopSwitch,
    Transient,
    open_stream,
    parse_retry_after,
    run_interruptibly,
    transient_failure,
)


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


class TestTransient:
    @pytest.mark.parametrize(
        "error",
        [
            TimeoutError(),
            ConnectionResetError(),
            ConnectionRefusedError(),
            BrokenPipeError(),
            http.client.RemoteDisconnected(),
            http.client.IncompleteRead(b""),
            http.client.BadStatusLine(""),
            OSError(errno.ENETUNREACH, ""),
            ssl.SSLEOFError(),
            urllib.error.URLError(ConnectionRefusedError()),
            urllib.error.URLError(TimeoutError()),
            *(HttpStatusError(status, {}, "u") for status in (408, 429, 500, 502, 503, 504)),
        ],
        ids=repr,
    )
    def test_what_may_heal(self, error: Exception) -> None:
        assert isinstance(transient_failure(error), Transient)

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, ""),
            PermissionError(),
            ssl.SSLCertVerificationError(),
            urllib.error.URLError(ssl.SSLCertVerificationError()),
            urllib.error.URLError("unknown url type: x"),
            ValueError(),
            *(HttpStatusError(status, {}, "u") for status in (400, 401, 403, 404, 410, 416, 501)),
        ],
        ids=repr,
    )
    def test_what_cannot(self, error: Exception) -> None:
        assert transient_failure(error) is None

    def test_retry_after_is_read_as_seconds_or_as_a_date(self) -> None:
        assert parse_retry_after("120") == 120
        assert parse_retry_after(None) is None
        assert parse_retry_after("") is None
        assert parse_retry_after("soon") is None
        later = datetime.now(timezone.utc) + timedelta(seconds=90)
        assert parse_retry_after(format_datetime(later, usegmt=True)) == pytest.approx(90, abs=3)
        assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


class TestStopping:
    def test_a_thrown_switch_refuses_waits_and_connections(self) -> None:
        stop = StopSwitch()
        stop.throw()
        with pytest.raises(Stopped):
            stop.wait(60)
        with pytest.raises(Stopped):
            stop.check()

    def test_an_interruptible_call_hands_over_value_and_error(self) -> None:
        assert run_interruptibly(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            run_interruptibly(lambda: 1 // 0)

    def test_only_http_is_opened(self) -> None:
        with pytest.raises(ModelSourceError, match="http"):
            open_stream("file:///etc/passwd", {}, StopSwitch(), silence=1)


def record(*files: RecordedFile, **changes: object) -> Record:
    values = {
        "source": "hub",
        "origin": "https://hub",
        "model_id": "a/b",
        "requested_revision": None,
        "weight_format": None,
        "revision": "c" * 40,
        "complete": True,
        "files": files,
    }
    return Record(**{**values, **changes})


class TestRecord:
    def test_it_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        written = record(
            RecordedFile("a/b.json", 2, "git-sha1:abc", 5),
            RecordedFile("c", 3, ""),
            stale=("old",),
            validators={"etag": "x"},
        )
        write_record(tmp_path, written)
        assert read_record(tmp_path) == written
        assert [path.name for path in record_path(tmp_path).parent.iterdir()] == ["snapshot.json"]

    def test_no_record_is_none_and_a_damaged_one_is_of_nothing(self, tmp_path: Path) -> None:
        assert read_record(tmp_path) is None
        write_record(tmp_path, record())
        whole = record_path(tmp_path).read_text()
        for damage in (
            whole[:40],
            "",
            "[]",
            '{"schema": 2}',
            json.dumps({**json.loads(whole), "files": [1]}),
        ):
            record_path(tmp_path).write_text(damage)
            found = read_record(tmp_path)
            assert found is not None
            assert not found.complete
            assert found.files == ()

    def test_a_link_planted_in_its_place_is_not_followed(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        path = record_path(tmp_path / "model")
        path.parent.mkdir(parents=True)
        path.symlink_to(victim)
        path.with_suffix(".tmp").symlink_to(victim)
        write_record(tmp_path / "model", record())
        assert victim.read_text() == "precious"

    def test_a_file_matches_by_date_or_by_content(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"hello\n")
        git = "git-sha1:ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
        assert digest_of(path, git) == git
        found = matches(tmp_path, RecordedFile("x", 6, git))
        assert found is not None
        assert found.mtime_ns == path.stat().st_mtime_ns
        assert matches(tmp_path, found) == found
        assert matches(tmp_path, RecordedFile("x", 7, git)) is None
        assert matches(tmp_path, RecordedFile("x", 6, "sha256:00")) is None
        assert matches(tmp_path, RecordedFile("x", 6, "")) is None
        assert matches(tmp_path, RecordedFile("y", 6, git)) is None
        (tmp_path / "link").symlink_to("x")
        assert matches(tmp_path, RecordedFile("link", 6, git)) is None
        assert matches(tmp_path, RecordedFile("link", 0, "link:x")) is not None
        assert matches(tmp_path, RecordedFile("link", 0, "link:y")) is None

    @pytest.mark.parametrize("path", ["/a", "../a", "a/../../b", "", ".cache/a", "a\\b", "a\0b", ".."])
    def test_paths_that_lead_out_are_refused(self, path: str) -> None:
        with pytest.raises(ModelSourceError, match="does not stay inside"):
            check_path(path)

    def test_links_on_the_way_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "l").symlink_to("/")
        check_no_links(tmp_path, "l")
        with pytest.raises(WorkspaceError):
            check_no_links(tmp_path, "l/etc")

    def test_removal_takes_the_files_and_the_folders_that_it_empties(self, tmp_path: Path) -> None:
        for path in ("a/b/one", "a/b/two", "c/three", "c/users"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        remove_files(tmp_path, ("a/b/one", "a/b/two", "c/three", "gone"))
        left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
        assert left == ["c", "c/users"]


def test_importing_it_brings_neither_the_hub_client_nor_the_test_tools() -> None:
    program = (
        "import sys, trt_llm_pipeline.model_source; "
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('huggingface_hub', 'httpx2', 'numpy', 'isal') or 'testing' in name.split('.')])"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr
