"""The one door for subprocesses: start, stream, cancel, kill.

Every process is started below a supervisor (`supervisor.py`) that ends the whole tree when this process asks
for it, dies, or is killed. Waiting is done in short turns, so that an exception raised between bytecodes
(Cog's cancellation, Ctrl-C) arrives at once instead of when the child ends.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trt_llm_pipeline.errors import PipelineError, TrtLlmPipelineError, add_note
from trt_llm_pipeline.files import write_all
from trt_llm_pipeline.process import limit
from trt_llm_pipeline.process.killing import is_stopped, kill_tree
from trt_llm_pipeline.process.lines import LineAssembler
from trt_llm_pipeline.redaction import Redactor

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
#: Nothing of the environment, and on Linux no site-packages, which take longer to find than all the rest.
_ISOLATED = ("-I", "-S") if sys.platform == "linux" else ("-I",)
_TURN_S = 0.1
_START_WITHIN_S = 5.0
_END_WITHIN_S = 1.8
_READ_BYTES = 1 << 16
_LOOK_EVERY_S = 1.0
_STOPPED_S = 2.0  # as in supervisor.py


@dataclass(frozen=True)
class Usage:
    """What a process tree has used so far: bytes of resident memory, now and at most."""

    rss_bytes: int = 0
    peak_rss_bytes: int = 0


@dataclass(frozen=True)
class ProcessResult:
    """How a process tree ended.

    Attributes:
        exit_code: the process's own; negative for a signal, as in `subprocess`.
        tail: the last lines that it printed.
        wall_s, cpu_s: seconds; `cpu_s` counts every process of the tree that has been waited for.
        peak_rss_bytes: most resident memory of the tree at any sample, in bytes.
        timed_out: it was ended because it ran longer than allowed.
        refused: what `on_turn` raised when the process had failed already.
    """

    exit_code: int
    tail: tuple[str, ...]
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    timed_out: bool = False
    refused: TrtLlmPipelineError | None = None


@dataclass(frozen=True)
class Captured:
    """A short process's outcome, with the beginning of what it printed (UTF-8, replaced where invalid)."""

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool


class Confinement(Protocol):
    """What a program and all that it starts may do; see `places.Sandbox`."""

    def request(self, cwd: Path) -> dict[str, Any] | None:
        """The same for the supervisor, of a program that runs in `cwd`; None for what this process may."""


class _Supervised:
    """A process tree below a supervisor, and the pipes to both. Use as a context manager."""

    def __init__(
        self,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        *,
        merge: bool,
        hold: int | None = None,
        sandbox: Confinement | None = None,
    ) -> None:
        self._kept_open = [] if hold is None else [hold]
        self._argv = list(argv)
        confined = sandbox.request(cwd) if sandbox is not None else None
        request = {"argv": self._argv, "cwd": str(cwd), "env": dict(env), "sandbox": confined, "hold": hold}
        self._request = json.dumps(request).encode() + b"\n"
        self._merge = merge
        self._report = b""
        self._life = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._selector = selectors.DefaultSelector()
        self._reporting = True
        self._theirs: list[int] = []
        self._next_look = 0.0
        self._stopped_since: float | None = None
        self.usage = Usage()
        self.final: dict[str, Any] | None = None

    def __enter__(self) -> _Supervised:
        try:
            with limit.translated(self._argv[0]):
                self._start()
        except OSError as error:
            self.__exit__()
            message = f"no process could be started for {self._argv[0]}: {error.strerror or error}"
            raise PipelineError(message) from None
        except BaseException:  # a cancellation, while the supervisor may run already
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        life_read, self._life = os.pipe()
        self._theirs.append(life_read)
        report_write = self._pipe("report")
        out_write = self._pipe("out")
        err_write = out_write if self._merge else self._pipe("err")

        def launch() -> None:
            self._process = subprocess.Popen(
                [sys.executable, *_ISOLATED, str(_SUPERVISOR), str(report_write)],
                stdin=life_read,
                stdout=out_write,
                stderr=err_write,
                pass_fds=[report_write, *self._kept_open],
                start_new_session=True,  # a signal to our group must not reach the step before we do
            )

        try:
            _uninterrupted(launch)
        finally:
            self._close_theirs()
        with contextlib.suppress(BrokenPipeError):
            write_all(self._life, self._request)

    def _pipe(self, name: str) -> int:
        """Makes a pipe that is read here; returns its other end."""
        read, write = os.pipe()
        self._theirs.append(write)
        self._selector.register(read, selectors.EVENT_READ, name)
        return write

    def _close_theirs(self) -> None:
        """Closes the ends of pipes that the supervisor has by now; again where that was broken off."""
        while self._theirs:
            os.close(self._theirs.pop())

    def __exit__(self, *_: object) -> None:
        try:
            self._close_theirs()
            self._end()
        finally:
            self._close_readers()
            self._selector.close()

    def read(self, timeout_s: float) -> list[tuple[str, bytes]]:
        """What came within `timeout_s` seconds: ("out" | "err", bytes). Reports are taken in on the way."""
        pieces = []
        ready = self._selector.select(timeout_s)
        if not ready and not self._reporting:
            # The supervisor has ended, so all that its tree has printed is read; whoever holds the pipe's
            # other end is no part of the tree.
            self._close_readers()
        for key, _ in ready:
            data = os.read(key.fd, _READ_BYTES)
            if not data:
                self._reporting = self._reporting and key.data != "report"
                self._selector.unregister(key.fd)
                os.close(key.fd)
            elif key.data == "report":
                self._take_report(data)
            else:
                pieces.append((str(key.data), data))
        return pieces

    @property
    def open(self) -> bool:
        """True until the tree has ended and everything it printed has been read."""
        return bool(self._selector.get_map())

    def ask_to_end(self) -> None:
        """Closes the line of life: the supervisor ends the tree and reports."""
        if self._life >= 0:
            life, self._life = self._life, -1
            os.close(life)

    def refuse_stopped(self) -> None:
        """Raises `PipelineError` where the supervisor has been stopped for some seconds; see `_end`."""
        now = time.monotonic()
        if self._process is None or now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_S
        if not is_stopped(self._process.pid):
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        elif now - self._stopped_since > _STOPPED_S:
            raise PipelineError(_lost(self._argv[0], "was stopped (SIGSTOP)"))

    def _take_report(self, data: bytes) -> None:
        *lines, self._report = (self._report + data).split(b"\n")
        for line in lines:
            fields = json.loads(line)
            if "rss" in fields:
                self.usage = Usage(fields["rss"], fields["peak_rss"])
            else:
                self.final = fields

    def _close_readers(self) -> None:
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fd)
            os.close(key.fd)

    def _end(self) -> None:
        self.ask_to_end()
        if self._process is None:
            return
        deadline = time.monotonic() + _END_WITHIN_S
        # Keep reading, or a tree blocked on a full pipe could not be told from one that does not end.
        while self.open and time.monotonic() < deadline:
            self.read(_TURN_S)
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill_tree(self._process.pid)
            self._process.wait()

    def outcome(self) -> dict[str, Any]:
        """The final report.

        Raises:
            PipelineError: the program could not be started, or the supervisor was killed.
        """
        if self.final is None:
            code = None if self._process is None else self._process.wait()
            raise PipelineError(_lost(self._argv[0], f"ended with code {code} before it could report"))
        if "lost" in self.final:
            number = signal.Signals(self.final["lost"])
            what = "stopped" if number == signal.SIGSTOP else "killed"
            raise PipelineError(_lost(self._argv[0], f"was {what} ({number.name})"))
        if "start_error" in self.final:
            if "limit" in self.final:
                raise limit.reached(self._argv[0])
            raise PipelineError(f"{self._argv[0]} could not be started: {self.final['start_error']}")
        return self.final


def _uninterrupted(launch: Callable[[], None]) -> None:
    """Calls `launch`, which either happens once and as a whole, or raises its own `OSError`.

    A cancellation is an exception that may strike this thread between any two bytecodes: also between a fork
    and the assignment that would let us know of the child. So the call is made in a thread of its own, which
    nothing strikes once it has begun. A bare thread and a queue, because an exception from outside may leave
    the locks of `threading` held.

    Up to Python 3.11 the exception may strike that thread before it begins, in the place of this one (see
    `server.cancellation`): then it dies without a word. So another is started as long as none has begun, and
    the first to begin takes the call; where this thread is struck meanwhile, none does any more.

    Raises:
        OSError: `launch` raised it.
        RuntimeError: no thread could be started for it.
        BaseException: what struck this thread meanwhile, after `launch` has returned, or instead of it.
    """
    to_call = [launch]
    problems: list[OSError] = []
    done: queue.SimpleQueue[None] = queue.SimpleQueue()

    def call() -> None:
        taken = _take(to_call)
        if taken is None:  # by a thread that has begun before, or not wanted any more
            return
        try:
            taken()
        except OSError as error:
            problems.append(error)
        finally:
            done.put(None)  # once for the wait below,
            done.put(None)  # and once more where that wait was broken off after it had taken the first

    try:
        while True:
            if to_call:
                _thread.start_new_thread(call, ())
            with contextlib.suppress(queue.Empty):
                done.get(timeout=_TURN_S)
                break
    finally:
        if _take(to_call) is None:
            with contextlib.suppress(queue.Empty):
                done.get(timeout=_START_WITHIN_S)
    if problems:
        raise problems[0]


def _take(to_call: list[Callable[[], None]]) -> Callable[[], None] | None:
    """What is to be called, unless somebody has taken it before; of many that ask at once, one gets it."""
    try:
        return to_call.pop()
    except IndexError:
        return None


def _lost(program: str, what: str) -> str:
    return (
        f"the supervisor of {program} {what}: by the program itself, or by something outside the service. "
        "What it had started has been ended. Have the program leave other processes alone, and build again"
    )


class _Look:
    """`on_turn` of a run, until it raises an error of this package's: then the tree is asked to end."""

    def __init__(self, on_turn: Callable[[Usage], None] | None) -> None:
        self._on_turn = on_turn
        self.refused: TrtLlmPipelineError | None = None

    def __call__(self, tree: _Supervised) -> None:
        if self._on_turn is None or self.refused is not None:
            return
        try:
            self._on_turn(tree.usage)
        except TrtLlmPipelineError as error:
            self.refused = error
            tree.ask_to_end()


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    redactor: Redactor,
    timeout: float | None = None,
    on_turn: Callable[[Usage], None] | None = None,
    hold: int | None = None,
    sandbox: Confinement | None = None,
) -> ProcessResult:
    """Runs a program to its end, passing on each line that it prints on stdout or stderr.

    Args:
        argv: program and arguments; no shell is involved.
        cwd, env: the program's directory and whole environment.
        on_line: called with each line, without its end and without secrets.
        redactor: knows the secrets.
        timeout: seconds after which the tree is ended; None for no limit.
        on_turn: called about ten times a second with the tree's memory, until it raises something. An error
            of this package's ends the tree, and is raised unless the program has failed by itself before.
        hold: a file's descriptor that stays open until the whole tree has ended, even if this process is
            killed; the file's mtime says then when that was.
        sandbox: what it and all that it starts may do; None for what this process may.

    Raises:
        PipelineError: the program could not be started.
        TrtLlmPipelineError: `on_turn` raised it while the program ran, or when it had succeeded.
        BaseException: whatever arrives while waiting is passed on, after the whole tree has ended.
    """
    lines = LineAssembler(on_line, redactor, time.monotonic)
    started = time.monotonic()
    timed_out = False
    look = _Look(on_turn)
    try:
        with _Supervised(argv, cwd, env, merge=True, hold=hold, sandbox=sandbox) as tree:
            while tree.open:
                for _, data in tree.read(_TURN_S):
                    lines.feed(data)
                lines.tick()
                tree.refuse_stopped()
                look(tree)
                if timeout is not None and not timed_out and time.monotonic() - started > timeout:
                    timed_out = True
                    tree.ask_to_end()
            lines.close()
            final = tree.outcome()
    except TrtLlmPipelineError as later:
        if look.refused is None:
            raise
        add_note(look.refused, str(later))
        raise look.refused from None
    if look.refused is not None and (final["ended"] or final["exit_code"] == 0):
        raise look.refused
    return ProcessResult(
        exit_code=final["exit_code"],
        tail=tuple(lines.tail),
        wall_s=final["wall_s"],
        cpu_s=final["cpu_s"],
        peak_rss_bytes=final["peak_rss"],
        timed_out=timed_out and final["ended"],
        refused=look.refused,
    )


def capture(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
    stdout_limit: int = 65536,
    sandbox: Confinement | None = None,
) -> Captured:
    """Runs a short program and returns the first `stdout_limit` bytes of each of its two streams.

    Raises:
        PipelineError: the program could not be started.
    """
    kept = {"out": bytearray(), "err": bytearray()}
    deadline = time.monotonic() + timeout
    timed_out = False
    with _Supervised(argv, cwd, env, merge=False, sandbox=sandbox) as tree:
        while tree.open:
            tree.refuse_stopped()
            for name, data in tree.read(_TURN_S):
                kept[name] += data[: max(0, stdout_limit - len(kept[name]))]
            if not timed_out and time.monotonic() > deadline:
                timed_out = True
                tree.ask_to_end()
        final = tree.outcome()
    return Captured(
        exit_code=final["exit_code"],
        stdout=kept["out"].decode(errors="replace"),
        stderr=kept["err"].decode(errors="replace"),
        timed_out=timed_out,
    )
