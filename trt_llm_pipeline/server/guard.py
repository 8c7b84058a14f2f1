"""Starts a prediction server, watches it, and ends it with an error where it can no longer recover.

    python -m trt_llm_pipeline.server.guard [arguments of cog.server.http]

Cog's server stays UNHEALTHY once its worker has died, and BUSY for ever after some requests. Both are left to
whoever runs the container: this program ends with code 75, and a restart policy starts it again. Nothing of a
build is left then: the guard is a child subreaper (prctl(2)), so everything below it is ended first.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType

import psutil

from trt_llm_pipeline.files import replacing

#: "Try again later" of sysexits.h: neither the server's own codes nor a signal's.
EXIT_CODE = 75
#: What it ends with where the server could not listen: a restart would not help.
WRONG_PORT = 2
#: Names a file in which the worker notes when predict() begins and ends.
NOTE_VARIABLE = "TRT_LLM_GUARD_NOTE"

_LOOK_EVERY_S = 1.0
_ANSWER_WITHIN_S = 10.0
_END_WITHIN_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Limits:
    """How long the server may be in a state that it should leave by itself; all times in seconds.

    Attributes:
        unhealthy: UNHEALTHY or DEFUNCT, or its worker is stopped.
        not_begun: BUSY while predict() has not begun: an id or an input that Cog does not get past.
        not_ended: BUSY after predict() has returned; and for an answer with a file, as long as that takes
            at `inlined` bytes a second, or at `uploaded` where the server uploads its answers.
        silent: no answer to /health-check at all.
    """

    unhealthy: float = 3.0
    not_begun: float = 25.0
    not_ended: float = 25.0
    silent: float = 60.0
    inlined: float = 10e6
    uploaded: float = 1e6


@dataclass
class Note:
    """What the guard is told of a prediction.

    Attributes:
        event: `began` or `ended`.
        at: when that was, in seconds of the clock that all processes share.
        size: bytes of the file that is returned.
    """

    event: str
    at: float
    size: int = 0


@contextmanager
def noted(env: Mapping[str, str]) -> Iterator[Note]:
    """Tells the guard, where there is one, that predict() runs; `size` of what it yields is set by then."""
    path = env.get(NOTE_VARIABLE)
    note = Note("began", time.monotonic())
    _write(path, note)
    try:
        yield note
    except BaseException:
        note.size = 0
        raise
    finally:
        note.event, note.at = "ended", time.monotonic()
        _write(path, note)


def _write(path: str | None, note: Note) -> None:
    if path:
        with contextlib.suppress(OSError), replacing(Path(path)) as partial:  # it may be read at any moment
            partial.write_text(f"{note.event} {note.at} {note.size}")


class Judge:
    """Decides from what is seen of a server whether it is beyond help.

    Args:
        limits: see `Limits`.
        uploads: whether the server uploads its answers.
    """

    def __init__(self, limits: Limits, *, uploads: bool) -> None:
        self._limits = limits
        self._uploads = uploads
        self._status = ""
        self._since = 0.0

    def verdict(
        self, status: str | None, note: Note | None, now: float, *, stopped: bool = False
    ) -> str | None:
        """What is wrong, one sentence; None as long as there is hope.

        Args:
            status: what /health-check says; None where it does not answer.
            note: the last of predict(); None before the first.
            now: seconds, of the note's clock.
            stopped: whether the worker was sent SIGSTOP and not continued.
        """
        status = "STOPPED" if stopped else status or "silent"
        if status != self._status:
            self._status, self._since = status, now
        lasting = now - self._since
        if status == "silent":
            return self._late(lasting, self._limits.silent, "does not answer its health check")
        if status == "STOPPED":
            return self._late(lasting, self._limits.unhealthy, "has a worker that is stopped (SIGSTOP)")
        if status in ("UNHEALTHY", "DEFUNCT"):
            return self._late(lasting, self._limits.unhealthy, f"is {status}: its worker has died")
        if status != "BUSY" or (note is not None and note.event == "began"):
            return None
        if note is None or note.at < self._since - _LOOK_EVERY_S:
            return self._late(lasting, self._limits.not_begun, "is BUSY with a prediction that has not begun")
        rate = self._limits.uploaded if self._uploads else self._limits.inlined
        limit = self._limits.not_ended + note.size / rate
        return self._late(now - note.at, limit, "is still BUSY after its prediction has ended")

    @staticmethod
    def _late(lasting: float, limit: float, what: str) -> str | None:
        return f"the server {what}, for {lasting:.0f} s" if lasting > limit else None


def main(arguments: Sequence[str], limits: Limits = Limits()) -> int:
    """Runs a server until it ends, is told to end, or is beyond help; its exit code."""
    port = os.environ.get("PORT") or "5000"
    if unusable := _unusable(port, _host(arguments)):
        sys.stderr.write(f"error: {unusable}\n")
        return WRONG_PORT
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    url = f"http://127.0.0.1:{port}/health-check"
    with tempfile.TemporaryDirectory(prefix="trt-llm-guard-") as folder:
        note = Path(folder) / "note"
        env = {**os.environ, NOTE_VARIABLE: str(note)}
        server = subprocess.Popen([sys.executable, "-m", "cog.server.http", *arguments], env=env)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _pass_on(server))
        judge = Judge(limits, uploads=any(text.startswith("--upload-url") for text in arguments))
        try:
            while (code := _wait(server)) is None:
                health, stopped = _health(url), _has_stopped(server.pid)
                wrong = judge.verdict(health, _read(note), time.monotonic(), stopped=stopped)
                if wrong:
                    print(f"{wrong}; ending it with code {EXIT_CODE} so that it is restarted", flush=True)
                    return EXIT_CODE
            return code if code >= 0 else 128 - code
        finally:
            _end_all()


def _host(arguments: Sequence[str]) -> str:
    """Where Cog's server listens: at every address of this machine unless it is told one."""
    after = [value for name, value in pairwise(arguments) if name == "--host"]
    return (after or [text[7:] for text in arguments if text.startswith("--host=")] or [""])[-1]


def _unusable(port: str, host: str) -> str:
    """Why the server could not listen at a port, and what to do; or ""."""
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        return f"PORT is {port!r}; set it to a number from 1 to 65535, or unset it for 5000"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            tried.bind((host, int(port)))
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE:
                return f"port {port} is in use by another program; choose another: PORT=5001 script/server"
            return f"port {port} cannot be listened at: {problem.strerror}; choose another with PORT"
    return ""


def _pass_on(server: subprocess.Popen[bytes]) -> signal._HANDLER:
    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            server.send_signal(number)

    return pass_on


def _wait(server: subprocess.Popen[bytes]) -> int | None:
    """The server's exit code, or None after a moment in which it has gone on."""
    try:
        return server.wait(_LOOK_EVERY_S)
    except subprocess.TimeoutExpired:
        return None


def _health(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_WITHIN_S) as answer:  # noqa: S310  loopback
            return str(json.loads(answer.read(65536))["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _has_stopped(server: int) -> bool:
    with contextlib.suppress(psutil.Error):
        workers = psutil.Process(server).children()
        return any(worker.status() == psutil.STATUS_STOPPED for worker in workers)
    return False


def _read(path: Path) -> Note | None:
    try:
        event, at, size = path.read_text().split()
        return Note(event, float(at), int(size))
    except (OSError, ValueError):
        return None


def _end_all() -> None:
    """Ends everything below this process: politely, then for certain."""
    for end in (psutil.Process.terminate, psutil.Process.kill):
        below = psutil.Process().children(recursive=True)
        for process in below:
            with contextlib.suppress(psutil.Error):
                end(process)
        psutil.wait_procs(below, timeout=_END_WITHIN_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
