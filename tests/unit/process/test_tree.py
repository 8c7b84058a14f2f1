"""The one door for subprocesses, with real processes: what they print, and that all of them end."""

from __future__ import annotations

import _thread
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trt_llm_pipeline import process
from trt_llm_pipeline.errors import PipelineError, WorkspaceError, notes_of
from trt_llm_pipeline.process import ProcessResult, Usage
from trt_llm_pipeline.process.lines import TAIL_LINES
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.server.cancellation import delivered

PATIENCE_S = 10.0


class Cancelled(BaseException):
    """What arrives while a step runs; like Cog's cancellation, no `Exception`."""


class Tree:
    """Runs Python programs and finds every process that they started by a mark in its environment."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.mark = f"tree-{uuid.uuid4().hex}"
        self.env = {"PATH": os.environ["PATH"], "TREE_MARK": self.mark}
        self.lines: list[str] = []
        self.may_leave_fds = 0

    def argv(self, program: str) -> list[str]:
        return [sys.executable, "-u", "-c", textwrap.dedent(program)]

    def run(
        self,
        program: str,
        *,
        on_line: Callable[[str], None] | None = None,
        redactor: Redactor | None = None,
        timeout: float | None = None,
        on_turn: Callable[[Usage], None] | None = None,
    ) -> ProcessResult:
        return process.run(
            self.argv(program),
            cwd=self.cwd,
            env=self.env,
            on_line=on_line or self.lines.append,
            redactor=redactor or Redactor(),
            timeout=timeout,
            on_turn=on_turn,
        )

    def living(self) -> list[psutil.Process]:
        """The processes with the mark; zombies have no environment any more."""
        found = []
        for candidate in psutil.process_iter():
            try:
                if candidate.environ().get("TREE_MARK") == self.mark:
                    found.append(candidate)
            except psutil.Error:
                continue
        return found

    def wait_for(self, count: int) -> None:
        assert within(PATIENCE_S, lambda: len(self.living()) == count), self.living()


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def has_ended(process_: psutil.Process) -> bool:
    """Whether its parent can be told of its end; the kernel takes its memory, and its environment, before."""
    try:
        return process_.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    made = Tree(tmp_path)
    fds = open_fds()
    yield made
    left = made.living()
    for survivor in left:
        survivor.kill()
    assert left == []
    assert open_fds() - fds <= made.may_leave_fds


class TestHowItEnds:
    def test_the_exit_code_is_told_where_the_service_ignores_its_childrens_end(self, tree: Tree) -> None:
        """Docker's and some shells' children inherit an ignored SIGCHLD, and would pass it on."""
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            program = """
                import signal, subprocess, sys
                assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
                assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
                sys.exit(subprocess.run([sys.executable, "-c", "raise SystemExit(7)"]).returncode)
                """
            assert tree.run(program).exit_code == 7, tree.lines
        finally:
            signal.signal(signal.SIGCHLD, before)

    @pytest.mark.parametrize("code", [0, 1, 2, 255])
    def test_the_exit_code_is_the_programs(self, tree: Tree, code: int) -> None:
        assert tree.run(f"raise SystemExit({code})").exit_code == code

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGINT])
    def test_a_signal_is_a_negative_exit_code(self, tree: Tree, number: signal.Signals) -> None:
        program = f"""
            import os, resource, signal
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal({int(number)}, signal.SIG_DFL) if {int(number)} != 9 else None
            os.kill(os.getpid(), {int(number)})
            """
        assert tree.run(program).exit_code == -number

    def test_a_program_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(PipelineError, match="/no/such/program could not be started: No such file"):
            process.capture(["/no/such/program"], cwd=tmp_path, env={}, timeout=10)

    def test_a_program_that_may_not_be_run_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("no program")
        with pytest.raises(PipelineError, match="data could not be started: Permission denied"):
            process.capture([str(tmp_path / "data")], cwd=tmp_path, env={}, timeout=10)

    def test_a_directory_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(PipelineError, match=r"No such file or directory: .*/gone"):
            process.capture([sys.executable, "-V"], cwd=tmp_path / "gone", env={}, timeout=10)

    def test_an_argument_that_no_program_can_be_given_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PipelineError, match="null byte"):
            process.capture([sys.executable, "a\0b"], cwd=tmp_path, env={}, timeout=10)

    def test_too_many_arguments_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PipelineError, match="Argument list too long"):
            process.capture([sys.executable, "x" * 3_000_000], cwd=tmp_path, env={}, timeout=10)

    def test_a_program_that_is_too_slow_is_ended(self, tree: Tree) -> None:
        result = tree.run("import time; print('begun'); time.sleep(60)", timeout=5)
        assert result.timed_out
        assert result.exit_code == -signal.SIGTERM
        assert result.tail == ("begun",)
        assert result.wall_s < 30

    def test_what_it_started_and_left_running_is_ended_with_it(self, tree: Tree) -> None:
        program = """
            import subprocess, sys
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
            """
        assert tree.run(program).exit_code == 0
        assert tree.living() == []

    @pytest.mark.parametrize(
        ("which", "number", "what"),
        [
            ("inner", "SIGKILL", "killed"),
            ("outer", "SIGKILL", "killed"),
            ("inner", "SIGSTOP", "stopped"),
            pytest.param("outer", "SIGSTOP", "stopped", marks=pytest.mark.slow),
        ],
    )
    def test_a_supervisor_that_is_killed_or_stopped_is_reported_and_its_tree_ended(
        self, tree: Tree, which: str, number: str, what: str
    ) -> None:
        program = f"""
            import os, signal, subprocess, sys, time
            sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
            subprocess.Popen(sleep, start_new_session=True)
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.execv(sys.executable, sleep)
                os._exit(0)
            of = os.getppid()
            if {which!r} == "outer":
                of = int(open(f"/proc/{{of}}/stat").read().rpartition(")")[2].split()[1])
            os.kill(of, signal.{number})
            time.sleep(60)
            """
        with pytest.raises(PipelineError, match=rf"supervisor of .* was {what} \({number}\): by the program"):
            tree.run(program)
        tree.wait_for(0)

    def test_a_supervisor_that_is_paused_for_a_moment_goes_on(self, tree: Tree) -> None:
        program = """
            import os, signal, time
            os.kill(os.getppid(), signal.SIGSTOP)
            time.sleep(0.2)
            os.kill(os.getppid(), signal.SIGCONT)
            """
        assert tree.run(program).exit_code == 0

    def test_a_program_that_stops_its_supervisor_can_be_cancelled(self, tree: Tree) -> None:
        def cancel(_: str) -> None:
            raise Cancelled

        program = """
            import os, signal, time
            os.kill(os.getppid(), signal.SIGSTOP)
            print("stopped", flush=True)
            time.sleep(60)
            """
        with pytest.raises(Cancelled):
            tree.run(program, on_line=cancel)
        tree.wait_for(0)

    def test_a_program_that_ends_its_own_group_ends_only_itself(self, tree: Tree) -> None:
        assert tree.run("import os, signal; os.killpg(0, signal.SIGKILL)").exit_code == -signal.SIGKILL


class TestWhatItIsGiven:
    def test_the_environment_is_exactly_the_one_given(self, tree: Tree) -> None:
        tree.env.update({"A": "", "B": "x=y z\n", "C": "ü\udcff"})
        tree.run("import json, os; print(json.dumps(dict(os.environ)))")
        assert json.loads(tree.lines[0]) == {**tree.env, "LC_CTYPE": "C.UTF-8"}

    def test_the_arguments_arrive_as_they_are(self, tmp_path: Path) -> None:
        given = ["", " ", "a b", "'\"`$(id)\\", "*", "~", "--x=-1", "ü€", "\n", "\udcff"]
        program = "import json, sys; print(json.dumps(sys.argv[1:]))"
        answer = process.capture(
            [sys.executable, "-c", program, *given], cwd=tmp_path, env={}, timeout=PATIENCE_S
        )
        assert json.loads(answer.stdout) == given

    def test_it_runs_where_it_should_with_nothing_to_read_and_nothing_inherited(self, tree: Tree) -> None:
        read, write = os.pipe()
        os.set_inheritable(write, True)
        try:
            tree.run(
                """
                import os, sys
                print(os.getcwd())
                print(repr(sys.stdin.read()))
                print(sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1])
                """
            )
        finally:
            os.close(read)
            os.close(write)
        assert tree.lines == [str(tree.cwd), "''", "[0, 1, 2]"]

    def test_a_secret_of_the_environment_is_in_no_command_line(self, tree: Tree) -> None:
        secret = f"hf_{uuid.uuid4().hex}"
        tree.env["HF_TOKEN"] = secret
        seen: list[str] = []

        def look(_: Usage) -> None:
            if len(tree.living()) == 2:
                for command in Path("/proc").glob("[0-9]*/cmdline"):
                    try:
                        seen.append(command.read_bytes().decode(errors="replace"))
                    except OSError:
                        continue

        program = """
            import os, subprocess, sys
            print(os.environ["HF_TOKEN"])
            subprocess.run([sys.executable, "-c", "import time; time.sleep(3)"])
            """
        result = tree.run(program, redactor=Redactor([secret]), on_turn=look)
        assert result.exit_code == 0
        assert any("supervisor.py" in command for command in seen)
        assert not any(secret in command for command in seen)
        assert tree.lines == ["[secret]"]
        assert result.tail == ("[secret]",)


class TestWhatItPrints:
    def test_both_streams_arrive_in_their_order(self, tree: Tree) -> None:
        tree.run(
            """
            import sys
            for number in range(3):
                print(number, file=sys.stdout if number % 2 else sys.stderr, flush=True)
            """
        )
        assert tree.lines == ["0", "1", "2"]

    def test_a_line_arrives_while_the_program_is_still_running(self, tree: Tree) -> None:
        running: list[int] = []
        tree.run(
            "import time; print('now'); time.sleep(4)",
            on_line=lambda _: running.append(len(tree.living())),
        )
        assert running == [1]

    def test_the_last_lines_are_kept(self, tree: Tree) -> None:
        result = tree.run("print(*range(1000), sep='\\n')")
        assert result.tail == tuple(str(number) for number in range(1000 - TAIL_LINES, 1000))

    def test_bytes_of_any_kind_are_lines(self, tree: Tree) -> None:
        tree.run(r"import os; os.write(1, b'\xff\x00\xe2\x82\xac\n\r\n')")
        assert tree.lines == ["�\0€", ""]

    def test_a_flood_stays_out_of_memory(self, tree: Tree) -> None:
        program = """
            import os
            line, endless = b"x" * 120 + b"\\n", b"y" * 65536
            for _ in range(50):
                os.write(1, line * 4096)
            for _ in range(2000):
                os.write(2, endless)
            """
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        told = {"x": 0, "more characters": 0}

        def on_line(line: str) -> None:  # on a busy machine a line is shown in parts
            for text in told:
                told[text] += line.count(text)

        assert tree.run(program, on_line=on_line).exit_code == 0
        assert told["x"] == 50 * 4096 * 120
        assert told["more characters"] > 0
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 30 * 1024

    def test_an_answer_is_cut_at_its_limit_and_the_program_goes_on(self, tree: Tree) -> None:
        program = "import sys; print('o' * 10**6); print('e' * 10**6, file=sys.stderr); sys.exit(3)"
        answer = process.capture(
            tree.argv(program), cwd=tree.cwd, env=tree.env, timeout=PATIENCE_S, stdout_limit=1000
        )
        assert (answer.exit_code, answer.stdout, answer.stderr) == (3, "o" * 1000, "e" * 1000)
        assert not answer.timed_out

    def test_an_answer_that_takes_too_long_is_cut_off(self, tree: Tree) -> None:
        program = "import time; print('first'); time.sleep(60)"
        answer = process.capture(tree.argv(program), cwd=tree.cwd, env=tree.env, timeout=5)
        assert answer.timed_out
        assert answer.stdout == "first\n"

    def test_output_held_open_by_a_stranger_does_not_hold_up_the_end(self, tree: Tree) -> None:
        # The program hands its output to a process outside its tree, which lives on.
        import socket

        address = tree.cwd / "socket"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(address))
        server.listen()
        kept: list[int] = []

        def keep() -> None:
            connection, _ = server.accept()
            with connection:
                kept.extend(socket.recv_fds(connection, 1, 1)[1])

        stranger = threading.Thread(target=keep)
        stranger.start()
        result = tree.run(
            f"""
            import socket
            print("said")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect({str(address)!r})
                socket.send_fds(client, [b"x"], [1])
            """
        )
        stranger.join()
        server.close()
        for fd in kept:
            os.close(fd)
        assert len(kept) == 1
        assert result.exit_code == 0
        assert tree.lines == ["said"]


class TestWhatItUses:
    def test_time_and_memory_of_the_whole_tree(self, tree: Tree) -> None:
        program = """
            import subprocess, sys
            hungry = "import time; block = b'x' * 60_000_000; time.sleep(4)"
            busy = "import time\\nwhile time.process_time() < 0.5: pass"
            children = [subprocess.Popen([sys.executable, "-c", hungry]) for _ in range(2)]
            subprocess.run([sys.executable, "-c", busy])
            [child.wait() for child in children]
            """
        usages: list[Usage] = []
        result = tree.run(program, on_turn=usages.append)
        assert result.exit_code == 0
        assert result.peak_rss_bytes > 120_000_000
        assert max(usage.rss_bytes for usage in usages) > 120_000_000
        assert all(usage.rss_bytes <= usage.peak_rss_bytes <= result.peak_rss_bytes for usage in usages)
        assert result.cpu_s > 0.5
        assert result.wall_s > 4

    def test_the_peak_of_a_short_program_is_not_missed(self, tree: Tree) -> None:
        assert tree.run("block = b'x' * 80_000_000").peak_rss_bytes > 80_000_000


SURVIVORS = {
    "a child": "import time; time.sleep(60)",
    "one that ignores requests to end": """
        import signal, time
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)
        """,
    "a stopped one": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "one in a session of its own": "import os, time; os.setsid(); time.sleep(60)",
    "a daemon": """
        import os, time
        if os.fork():
            os._exit(0)
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(60)
        """,
}


class TestAnEndThatWasAskedFor:
    def cancel_when(self, tree: Tree, program: str, ready: Callable[[], bool]) -> None:
        def on_turn(_: Usage) -> None:
            if ready():
                raise Cancelled

        with pytest.raises(Cancelled):
            tree.run(program, on_turn=on_turn, timeout=PATIENCE_S)
        assert tree.living() == []

    @pytest.mark.parametrize("kind", SURVIVORS)
    def test_reaches_every_kind_of_process(self, tree: Tree, kind: str) -> None:
        survivor = textwrap.dedent(SURVIVORS[kind])
        program = f"""
            import subprocess, sys, time
            subprocess.Popen([sys.executable, "-c", {survivor!r}])
            time.sleep(60)
            """
        self.cancel_when(tree, program, lambda: len(tree.living()) == 2)

    def test_reaches_all_workers_of_a_pool(self, tree: Tree) -> None:
        program = """
            import multiprocessing, time
            if __name__ == "__main__":
                with multiprocessing.get_context("fork").Pool(8) as pool:
                    pool.map(time.sleep, [60] * 8)
            """
        self.cancel_when(tree, program, lambda: len(tree.living()) == 9)

    def test_lets_a_program_put_its_things_away(self, tree: Tree) -> None:
        program = """
            import pathlib, signal, sys, time
            def end(*_):
                pathlib.Path("put-away").touch()
                sys.exit(0)
            signal.signal(signal.SIGTERM, end)
            pathlib.Path("ready").touch()
            time.sleep(60)
            """
        self.cancel_when(tree, program, (tree.cwd / "ready").exists)
        assert (tree.cwd / "put-away").exists()

    def test_catches_a_chain_of_processes_that_each_start_their_successor(self, tree: Tree) -> None:
        program = """
            import os, signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork():
                time.sleep(60)
            for link in range(10_000):
                if os.fork():
                    time.sleep(0.001)
                    os._exit(0)
                os.setsid()
            """
        self.cancel_when(tree, program, Count(5))

    def test_catches_one_that_goes_on_forking(self, tree: Tree) -> None:
        program = """
            import os, signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            while True:
                if os.fork() == 0:
                    time.sleep(0.2)
                    os._exit(0)
                time.sleep(0.005)
            """
        self.cancel_when(tree, program, Count(5))

    def test_may_come_with_any_line(self, tree: Tree) -> None:
        def on_line(_: str) -> None:
            raise Cancelled

        with pytest.raises(Cancelled):
            tree.run("import time; print('line'); time.sleep(60)", on_line=on_line)

    def test_does_not_wait_for_output_that_nobody_reads(self, tree: Tree) -> None:
        program = "import os\nwhile True: os.write(1, b'x' * 65536)"
        self.cancel_when(tree, program, Count(3))

    def test_may_come_at_any_moment_of_the_start(self, tree: Tree) -> None:
        """As Cog does it: the exception is raised in the thread, between any two bytecodes.

        Also between those of what Python calls and whose exceptions it drops, such as hypothesis's callback
        of the garbage collector; so it is delivered as in the server.
        """
        cancelled = 0
        tree.may_leave_fds = 2  # nothing can be done between the making of a pipe and the note of it
        delays_ms = (0.3, 0.6, 1, 1.5, 2, 3, 4, 5, 6, 8, 12, 20, 40)
        for delay_ms in delays_ms:
            signal.signal(signal.SIGALRM, _raise_cancelled)
            try:
                with delivered(Cancelled):
                    signal.setitimer(signal.ITIMER_REAL, delay_ms / 1000)
                    tree.run("import time; time.sleep(60)", timeout=PATIENCE_S)
            except Cancelled:
                cancelled += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
            assert tree.living() == []
        assert cancelled == len(delays_ms)
        assert psutil.Process().children() == []

    def test_may_strike_the_thread_that_was_to_start_the_program(
        self, tree: Tree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before that begins; the exception, if it is not lost with the thread, comes later."""
        start, started = _thread.start_new_thread, []

        def first_dies(function: Callable[[], None], arguments: tuple[()]) -> int:
            started.append(function)
            return start(function, arguments) if len(started) > 1 else 0

        monkeypatch.setattr(_thread, "start_new_thread", first_dies)
        assert tree.run("print('once')").exit_code == 0
        assert (tree.lines, len(started)) == (["once"], 2)
        started[0]()  # it was not dead but slow
        assert tree.living() == []

    def test_starts_no_program_after_it(self, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        started = []

        def too_slow(function: Callable[[], None], _: tuple[()]) -> int:
            started.append(function)
            if len(started) > 1:
                raise Cancelled
            return 0

        monkeypatch.setattr(_thread, "start_new_thread", too_slow)
        with pytest.raises(Cancelled):
            tree.run("print('never')")
        started[0]()
        assert tree.living() == []


class TestALookThatFindsSomething:
    """`on_turn` raises an error of this package's, and the program runs, has failed or has succeeded."""

    FOUND = WorkspaceError("something is where it should not be")
    #: What a program does before it ends.
    AWAITS_THE_LOOK = "import os, time\nwhile not os.path.exists('end'): time.sleep(0.01)\n"

    def look_at_the_end(self, tree: Tree) -> Callable[[Usage], None]:
        """Lets a program end that has printed its words, and finds something once it has ended."""

        def on_turn(_: Usage) -> None:
            if tree.lines:
                (program,) = tree.living()
                (tree.cwd / "end").touch()
                assert within(PATIENCE_S, lambda: has_ended(program))
                raise self.FOUND

        return on_turn

    def test_ends_the_program(self, tree: Tree) -> None:
        def on_turn(_: Usage) -> None:
            if tree.lines:
                raise self.FOUND

        with pytest.raises(WorkspaceError) as raised:
            tree.run("import time; print('begun'); time.sleep(60)", on_turn=on_turn)
        assert raised.value is self.FOUND
        assert tree.living() == []

    def test_does_not_replace_a_failure_that_came_first(self, tree: Tree) -> None:
        program = f"print('last words')\n{self.AWAITS_THE_LOOK}raise SystemExit(3)"
        result = tree.run(program, on_turn=self.look_at_the_end(tree))
        assert (result.exit_code, result.tail, result.refused) == (3, ("last words",), self.FOUND)

    def test_is_told_of_a_program_that_has_succeeded(self, tree: Tree) -> None:
        with pytest.raises(WorkspaceError) as raised:
            tree.run(f"print('done')\n{self.AWAITS_THE_LOOK}", on_turn=self.look_at_the_end(tree))
        assert raised.value is self.FOUND

    def test_is_told_before_what_is_wrong_with_the_supervisor(self, tree: Tree) -> None:
        def on_turn(_: Usage) -> None:
            if tree.lines:
                (supervisor,) = psutil.Process().children()
                all_of_it = [supervisor, *supervisor.children(recursive=True)]
                for process_ in all_of_it:
                    process_.suspend()  # so that none reports the end of another
                for process_ in all_of_it:
                    process_.kill()
                raise WorkspaceError("found first")

        with pytest.raises(WorkspaceError, match="found first") as raised:
            tree.run("import time; print('begun'); time.sleep(60)", on_turn=on_turn)
        (note,) = notes_of(raised.value)
        assert "the supervisor of" in note


class Count:
    """Is true when it has been asked often enough."""

    def __init__(self, turns: int) -> None:
        self._left = turns

    def __call__(self) -> bool:
        self._left -= 1
        return self._left < 0


def _raise_cancelled(*_: object) -> None:
    raise Cancelled


class TestAServiceThatIsGone:
    CALLER = """
        import os, sys
        from pathlib import Path
        from trt_llm_pipeline import process
        from trt_llm_pipeline.process.lines import Redactor
        process.run(
            [sys.executable, "-c", os.environ["STEP"]], cwd=Path.cwd(), env=dict(os.environ),
            on_line=lambda line: print(line, flush=True), redactor=Redactor(),
        )
        """
    STEP = """
        import os, subprocess, sys, time
        daemon = "import os, time; os.setsid(); print('daemon', flush=True); time.sleep(60)"
        subprocess.Popen([sys.executable, "-c", daemon])
        time.sleep(60)
        """

    def start(self, tree: Tree, caller: str = CALLER) -> subprocess.Popen[str]:
        root = Path(process.__file__).parents[2]
        started = subprocess.Popen(
            tree.argv(caller),
            cwd=root,
            env={**tree.env, "STEP": textwrap.dedent(self.STEP)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert started.stdout is not None
        assert started.stdout.readline() == "daemon\n"
        assert len(tree.living()) == 5  # the caller, the supervisor's two processes, the step and the daemon
        return started

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_takes_the_whole_tree_with_it(self, tree: Tree, number: signal.Signals) -> None:
        caller = self.start(tree)
        caller.send_signal(number)
        caller.communicate()
        assert within(5, lambda: tree.living() == [])

    def test_the_file_that_is_held_says_when_the_last_process_had_ended(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        held = tmp_path / "held"
        held.touch()
        os.utime(held, (1, 1))
        holds = self.CALLER.replace(
            "redactor=Redactor(),", f"redactor=Redactor(), hold=os.open({str(held)!r}, os.O_RDWR),"
        )
        caller = self.start(tree, holds)
        assert held.stat().st_mtime == 1
        before = time.time()
        caller.kill()
        caller.communicate()
        assert within(30, lambda: held.stat().st_mtime != 1)
        assert held.stat().st_mtime >= before - 0.1
        assert tree.living() == [] or within(5, lambda: tree.living() == [])

    def test_takes_the_whole_tree_with_it_though_a_copy_of_it_lives_on(self, tree: Tree) -> None:
        """A fork of the service holds copies of all its pipes open."""
        forks = textwrap.dedent(self.CALLER).replace(
            "on_line=lambda line: print(line, flush=True)",
            "on_line=lambda line: print(line, flush=True) if os.fork() else __import__('time').sleep(60)",
        )
        root = Path(process.__file__).parents[2]
        with subprocess.Popen(
            tree.argv(forks),
            cwd=root,
            env={**tree.env, "STEP": textwrap.dedent(self.STEP)},
            stdout=subprocess.PIPE,
            text=True,
        ) as caller:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "daemon\n"
            copy = next(
                child
                for child in psutil.Process(caller.pid).children()
                if "supervisor" not in " ".join(child.cmdline())
            )
            try:
                caller.kill()
                assert within(5, lambda: tree.living() == [copy])
            finally:
                copy.kill()
        tree.wait_for(0)
