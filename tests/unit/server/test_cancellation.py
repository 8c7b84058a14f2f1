"""A cancellation reaches the thread that runs the prediction, whatever starts or ends in that moment."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time

import pytest

from trt_llm_pipeline.server.cancellation import delivered

ROUNDS = 300  # without `delivered`, one in fifty is lost up to Python 3.11

STARTS_THREADS = textwrap.dedent(
    f"""
    import ctypes, faulthandler, sys, threading, time
    from trt_llm_pipeline.server.cancellation import delivered

    class Cancelled(BaseException):
        pass

    faulthandler.dump_traceback_later(120, exit=True)
    meant_for = threading.get_ident()
    wanted = threading.Semaphore(0)

    def cancel():
        for n in range({ROUNDS}):
            wanted.acquire()
            time.sleep(n % 200 * 1e-6)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(meant_for), ctypes.py_object(Cancelled)
            )

    def start_threads():
        try:
            wanted.release()
            while True:
                threading.Thread(target=int, daemon=True).start()
        except Cancelled:
            return True

    threading.Thread(target=cancel, daemon=True).start()
    with delivered(Cancelled):
        print(sum(start_threads() for _ in range({ROUNDS})))
    """
)


class Cancelled(BaseException):
    """As Cog's, no `Exception`."""


class Dying:
    """Something whose destructor is interrupted."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


def test_a_thread_that_is_being_started_does_not_swallow_it() -> None:
    asked = subprocess.run(
        [sys.executable, "-c", STARTS_THREADS], capture_output=True, text=True, timeout=180, check=False
    )
    assert asked.stdout.strip() == str(ROUNDS), asked.stderr


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
