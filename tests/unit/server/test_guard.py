"""When a server is beyond help, told from what is seen of it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from trt_llm_pipeline.server.guard import NOTE_VARIABLE, Judge, Limits, Note, _read, main, noted

LIMITS = Limits(unhealthy=3, not_begun=25, not_ended=20, inlined=10, uploaded=1, silent=60)


class TestPort:
    """A port that cannot be listened at is told before Cog's server is started."""

    @pytest.mark.parametrize("port", ["abc", "-1", "0", "65536", "80.5"])
    def test_that_is_none(self, port: str, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
        monkeypatch.setenv("PORT", port)
        assert main([]) == 2
        assert capfd.readouterr().err == (
            f"error: PORT is {port!r}; set it to a number from 1 to 65535, or unset it for 5000\n"
        )

    def test_that_another_program_has(self, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            monkeypatch.setenv("PORT", str(port))
            assert main(["--host", "127.0.0.1"]) == 2
        assert f"error: port {port} is in use by another program; choose another: PORT=" in (
            capfd.readouterr().err
        )


class Watched:
    """A server that is looked at once a second."""

    def __init__(self, *, uploads: bool = False) -> None:
        self.judge = Judge(LIMITS, uploads=uploads)
        self.now = 100.0
        self.stopped = False

    def stays(self, status: str | None, seconds: int, note: Note | None = None) -> str | None:
        """The first verdict while it is in one state for so long."""
        for _ in range(seconds):
            self.now += 1
            if wrong := self.judge.verdict(status, note, self.now, stopped=self.stopped):
                return wrong
        return None


def test_a_server_that_is_ready_or_sets_up_is_left_alone() -> None:
    assert Watched().stays("STARTING", 3600) is None
    assert Watched().stays("READY", 3600) is None


@pytest.mark.parametrize("status", ["UNHEALTHY", "DEFUNCT"])
def test_a_dead_worker(status: str) -> None:
    wrong = Watched().stays(status, 10)
    assert wrong == f"the server is {status}: its worker has died, for 4 s"


def test_a_worker_that_is_stopped_and_not_continued() -> None:
    server = Watched()
    server.stays("READY", 1)
    server.stopped = True
    wrong = server.stays("BUSY", 10, Note("began", server.now))
    assert wrong == "the server has a worker that is stopped (SIGSTOP), for 4 s"


def test_a_moment_of_bad_health_is_forgiven() -> None:
    server = Watched()
    for _ in range(100):
        assert server.stays("UNHEALTHY", 2) is None
        assert server.stays("READY", 1) is None


def test_a_build_may_take_days() -> None:
    server = Watched()
    server.stays("READY", 1)
    assert server.stays("BUSY", 3600 * 48, Note("began", server.now)) is None


@pytest.mark.parametrize("before", [None, Note("ended", 50.0)])
def test_a_prediction_that_does_not_begin(before: Note | None) -> None:
    server = Watched()
    server.stays("READY", 1)
    assert server.stays("BUSY", 20, before) is None
    wrong = server.stays("BUSY", 10, before)
    assert wrong == "the server is BUSY with a prediction that has not begun, for 26 s"


def test_an_answer_that_is_never_given_and_one_that_is_uploaded_for_long() -> None:
    for uploads, size, limit in ((False, 0, 20), (False, 1000, 120), (True, 1000, 1020)):
        server = Watched(uploads=uploads)
        server.stays("READY", 1)
        assert server.stays("BUSY", 50, Note("began", server.now + 1)) is None
        ended = Note("ended", server.now, size)
        assert server.stays("BUSY", limit - 1, ended) is None
        wrong = server.stays("BUSY", 10, ended)
        assert wrong is not None
        assert wrong.startswith("the server is still BUSY after its prediction has ended")


def test_silence() -> None:
    assert Watched().stays(None, 59) is None
    assert Watched().stays(None, 70) == "the server does not answer its health check, for 61 s"


def test_a_note_can_be_read_at_any_moment(tmp_path: Path) -> None:
    """Half a note would be none, and a server that is always busy would be taken for one that is stuck."""
    note = tmp_path / "note"
    done = threading.Event()

    def predict_often() -> None:
        for _ in range(500):
            with noted({NOTE_VARIABLE: str(note)}):
                pass
        done.set()

    with noted({NOTE_VARIABLE: str(note)}):
        worker = threading.Thread(target=predict_often)
        worker.start()
        while not done.is_set():
            assert _read(note) is not None
        worker.join()


def test_predict_is_noted_however_it_ends(tmp_path: Path) -> None:
    note = tmp_path / "note"
    seen = []

    def cancelled() -> None:
        with noted({NOTE_VARIABLE: str(note)}) as told:
            told.size = 5
            seen.append(_read(note))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancelled()
    began, ended = seen[0], _read(note)
    assert began is not None
    assert ended is not None
    assert (began.event, ended.event) == ("began", "ended")
    assert began.at <= ended.at
    assert ended.size == 0
    with noted({NOTE_VARIABLE: str(note)}) as told:
        told.size = 5
    answered = _read(note)
    assert answered is not None
    assert (answered.event, answered.size) == ("ended", 5)
    note.write_text("rubbish")
    assert _read(note) is None
    with noted({}):
        pass
