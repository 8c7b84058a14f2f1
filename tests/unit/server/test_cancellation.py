"""A cancellation reaches the thread that runs the prediction, whatever starts or ends in that moment."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time

import pytest

from trt_llm_pipeline.server.cancellation import delivered

#: Is given a way to start a thread, how often it is cancelled, and how many seconds after the start at most.
STARTS_THREADS = textwrap.dedent(
    """
    import ctypes, faulthandler, sys, threading, time
    from pathlib import Path
    from trt_llm_pipeline import process
    from trt_llm_pipeline.server.cancellation import delivered

    start, rounds, longest_s = compile(sys.argv[1], "start", "exec"), int(sys.argv[2]), float(sys.argv[3])

    class Cancelled(BaseException):
        pass

    faulthandler.dump_traceback_later(300, exit=True)
    meant_for = threading.get_ident()
    wanted = threading.Semaphore(0)

    def cancel():
        for n in range(rounds):
            wanted.acquire()
            time.sleep(n / rounds * longest_s)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(meant_for), ctypes.py_object(Cancelled)
            )

    def start_threads():
        try:
            wanted.release()
            while True:
                exec(start)
        except Cancelled:
            return True

    threading.Thread(target=cancel, daemon=True).start()
    with delivered(Cancelled):
        print(sum(start_threads() for _ in range(rounds)))
    """
)
#: Without what is tested, one in fifty is lost up to Python 3.11.
WAYS = [
    pytest.param("threading.Thread(target=int, daemon=True).start()", 300, 2e-4, id="thread"),
    pytest.param(
        'process.capture(["/bin/true"], cwd=Path("/"), env={}, timeout=60)',
        *(150, 2e-3),
        id="process",
        marks=pytest.mark.slow,
    ),
]


class Cancelled(BaseException):
    """As Cog's, no `Exception`."""


class Dying:
    """Something whose destructor is interrupted."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


@pytest.mark.parametrize(("start", "rounds", "longest_s"), WAYS)
def test_a_thread_that_is_being_started_does_not_swallow_it(
    start: str, rounds: int, longest_s: float
) -> None:
    argv = [sys.executable, "-c", STARTS_THREADS, start, str(rounds), str(longest_s)]
    asked = subprocess.run(argv, capture_output=True, text=True, timeout=360, check=False)
    assert asked.stdout.strip() == str(rounds), asked.stderr


def test_a_destructor_does_not_swallow_it() -> None:
    with delivered(Cancelled), pytest.raises(Cancelled):
        _lose_one_and_wait()


def test_a_machine_that_is_slow_to_start_a_thread_does_not_swallow_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def slowly(thread: threading.Thread) -> None:
        start(thread)
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            pass

    monkeypatch.setattr(threading.Thread, "start", slowly)
    with delivered(Cancelled), pytest.raises(Cancelled):
        _lose_one_and_wait()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_no_cancellation_is_reported_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reported.append(lost.exc_type))
    with delivered(Cancelled):
        thing = Dying(KeyError)
        del thing
    assert reported == [KeyError]
    thing = Dying(KeyError)
    del thing
    assert reported == [KeyError, KeyError]


def _lose_one_and_wait() -> None:
    thing = Dying(Cancelled)
    del thing
    for _ in range(600):  # a thread that waits is not interrupted; it is when it next runs
        time.sleep(0.05)
