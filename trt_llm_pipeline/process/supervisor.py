"""The process between the service and a step: whatever happens to the service, the step's tree dies with it.

Started by `tree.py` as a program of its own, in isolated mode, so it imports nothing of this package; what
the step gives up is made by `sandbox.py` beside it, in the step's process alone. It starts for each program
that is run, so on Linux it needs the standard library only.

    fd 0   one JSON line {"argv", "cwd", "env", "sandbox"}; after it, the line of life: when it closes,
           because the service asked for an end or because it is gone, everything below this process is killed
    fd 1,2 handed to the step as they are
    fd N   (first argument) reports, JSON lines: samples of the tree's memory, then one with the exit code

As a child subreaper (prctl(2), PR_SET_CHILD_SUBREAPER) this process inherits every orphan below it, so a
grandchild that made its own session is still found.

It is two processes, because a step may signal its parent where no sandbox keeps it from that: an inner one
with the step below it, and an outer one that inherits what is below the inner one, should that be killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

if sys.platform != "linux":
    import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SAMPLE_EVERY_S = 0.5
_LOOK_EVERY_MS = 20
_GRACE_S = 0.4  # between SIGTERM and SIGKILL, when the end was asked for
_WATCH_EVERY_MS = 100
_STOPPED_S = 2.0  # how long the inner process may be stopped: somebody may have paused a whole tree


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _default_signals() -> None:
    """Default dispositions, none blocked: under an inherited, ignored SIGCHLD exit codes are lost."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _preparation(wanted: Mapping[str, Any] | None, complain: int) -> Callable[[], None]:
    """What happens in the step's process before its program is run.

    Args:
        wanted: the sandbox, as `sandbox.apply` takes it; None for none.
        complain: where to write why it could not be made.
    """
    make = None
    if wanted is not None:
        sys.path.append(str(Path(__file__).parent))
        import sandbox  # type: ignore[import-not-found,unused-ignore]

        make = partial(sandbox.apply, wanted)

    def prepare() -> None:
        # As if this process had never been between.
        _default_signals()
        if make is not None:
            try:
                make()
            except BaseException as error:
                os.write(complain, f"{type(error).__name__}: {error}".encode(errors="replace")[:4096])
                raise
        # Last, because a change of user undoes it.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return prepare


def _below() -> list[int]:
    """The ids of all processes below this one, zombies included.

    On Linux from one quick look at /proc: the slower the look, the more a tree that is still forking has
    changed by its end. See proc(5) for the format of /proc/<pid>/stat.
    """
    if sys.platform != "linux":
        return [process.pid for process in psutil.Process().children(recursive=True)]
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdecimal():
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"/proc/{name}/stat", "rb") as file,  # noqa: PTH123  runs thousands of times a second
            ):
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    pending = [os.getpid()]
    while pending:
        for child in children.pop(pending.pop(), ()):
            found.append(child)
            pending.append(child)
    return found


def _resident_bytes() -> int:
    if sys.platform != "linux":
        total = 0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total
    pages = 0
    for pid in _below():
        with (
            contextlib.suppress(OSError, IndexError),  # it may be gone by now
            open(f"/proc/{pid}/statm", "rb") as file,  # noqa: PTH123
        ):
            pages += int(file.read().split()[1])  # proc(5): resident set size
    return pages * resource.getpagesize()


def _signal_all(number: int) -> None:
    for pid in _below():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _kill_all() -> None:
    """Kills everything below this process, once.

    Process groups first: the kernel kills all of a group at once and lets none of it fork meanwhile, so a
    chain of processes that each fork their successor and end is caught.
    """
    own = os.getpgrp()
    groups = set()
    for pid in _below():
        with contextlib.suppress(ProcessLookupError):
            groups.add(os.getpgid(pid))
    for group in groups - {own, 0, 1}:
        # The step's groups begin below this process, in the session of the step or in one of its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    _signal_all(signal.SIGKILL)


def _reap(main: int, statuses: dict[int, int]) -> bool:
    """Collects every child that has ended; True while any child is left."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        if pid == main:
            statuses[pid] = status


def _end_tree(main: int, statuses: dict[int, int], grace_s: float) -> None:
    """Ends everything below this process, also a tree that goes on forking."""
    if grace_s:
        _signal_all(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while _reap(main, statuses) and time.monotonic() < deadline:
            time.sleep(0.02)
    while _reap(main, statuses):
        _kill_all()
        time.sleep(0.002)


def _report(descriptor: int, **fields: Any) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(descriptor, json.dumps(fields).encode() + b"\n")


def _let_go_of_output() -> None:
    """From here only the step holds the output open, so the reader sees its end."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)


def _report_not_started(descriptor: int, error: OSError) -> None:
    """Says why there is no process; `limit` where no more processes are allowed, as fork(2) has it."""
    where = f": {error.filename}" if error.filename else ""
    limit = {"limit": True} if error.errno == errno.EAGAIN else {}
    _report(descriptor, start_error=f"{error.strerror or error}{where}", **limit)


def main() -> int:
    """Runs one step; the exit code of this process is 0 whenever a report was written."""
    report_fd = int(sys.argv[1])
    os.set_inheritable(report_fd, False)
    parent = os.getppid()
    _default_signals()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    outer = os.getpid()
    try:
        inner = os.fork()
    except OSError as error:
        _report_not_started(report_fd, error)
        return 0
    return _watch(inner, parent, report_fd) if inner else _supervise(outer, report_fd)


def _wake_at_end(waiting: select.poll, pid: int) -> None:
    """Lets a poll return as soon as a child has ended, where the kernel can: pidfd_open(2), Linux 5.3."""
    with contextlib.suppress(AttributeError, OSError):
        waiting.register(os.pidfd_open(pid), select.POLLIN)


def _watch(inner: int, parent: int, report_fd: int) -> int:
    """The outer process: ends what is left when the inner one was killed or stopped; the exit code."""
    _let_go_of_output()
    stopped_since: float | None = None
    waiting = select.poll()
    _wake_at_end(waiting, inner)
    while os.getppid() == parent:  # otherwise the inner process sees that this one goes, and ends the step
        pid, status = os.waitpid(inner, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        if pid and os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        if pid and os.WIFSTOPPED(status):
            stopped_since = time.monotonic()
        elif pid and os.WIFCONTINUED(status):
            stopped_since = None
        killed = bool(pid) and os.WIFSIGNALED(status)
        if killed or (stopped_since is not None and time.monotonic() - stopped_since > _STOPPED_S):
            _end_tree(inner, {}, 0.0)
            _report(report_fd, lost=os.WTERMSIG(status) if killed else int(signal.SIGSTOP))
            return 0
        waiting.poll(_WATCH_EVERY_MS)
    return 0


def _supervise(parent: int, report_fd: int) -> int:
    """The inner process, with the step below it; the exit code."""
    request_line = b""
    while not request_line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            return 1
        request_line += piece
    request: dict[str, Any] = json.loads(request_line)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # a fork does not inherit that
    report = partial(_report, report_fd)
    started = time.monotonic()
    complaint, complain = os.pipe()
    try:
        step = subprocess.Popen(
            request["argv"],
            cwd=request["cwd"],
            env=request["env"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a step that signals its own group must not reach this process
            preexec_fn=_preparation(request.get("sandbox"), complain),
        )
    except OSError as error:
        _report_not_started(report_fd, error)
        return 0
    except (ValueError, subprocess.SubprocessError) as error:
        os.close(complain)
        told = os.read(complaint, 4096).decode(errors="replace")
        report(start_error=f"its sandbox could not be made: {told}" if told else str(error))
        return 0
    os.close(complain)
    os.close(complaint)
    _let_go_of_output()

    statuses: dict[int, int] = {}
    peak = 0
    next_sample = 0.0
    waiting = select.poll()
    waiting.register(0, select.POLLIN | select.POLLHUP)  # the line of life
    _wake_at_end(waiting, step.pid)
    asked = alone = False
    while step.pid not in statuses:
        now = time.monotonic()
        if now >= next_sample:
            resident = _resident_bytes()
            peak = max(peak, resident)
            report(rss=resident, peak_rss=peak)
            next_sample = time.monotonic() + _SAMPLE_EVERY_S
        # The outer process goes with the service, also where some other process holds the line's other end.
        asked = any(descriptor == 0 for descriptor, _ in waiting.poll(_LOOK_EVERY_MS))
        alone = os.getppid() != parent
        _reap(step.pid, statuses)
        if asked or alone:
            break
    by_itself = step.pid in statuses  # also where an end is asked for in the same moment
    _end_tree(step.pid, statuses, 0.0 if by_itself else _GRACE_S)
    if (hold := request.get("hold")) is not None:
        with contextlib.suppress(OSError):
            os.utime(hold)
    if alone and not asked:
        report(lost=int(signal.SIGKILL))
        return 0

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    status = statuses.get(step.pid)
    report(
        exit_code=None if status is None else os.waitstatus_to_exitcode(status),
        wall_s=time.monotonic() - started,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_rss=max(peak, usage.ru_maxrss * 1024),
        ended=not by_itself,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
