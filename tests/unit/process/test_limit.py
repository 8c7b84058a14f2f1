"""No more threads and processes are allowed: a real limit, in a process that then has to do without."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from trt_llm_pipeline.errors import ProcessLimit, add_note, notes_of
from trt_llm_pipeline.process import limit

#: The limit counts all of a user's threads and does not bind root, so root becomes a user who has this one.
LIMITED = """\
import os, resource, subprocess, sys, threading
from pathlib import Path
from trt_llm_pipeline import process
from trt_llm_pipeline.errors import ProcessLimit
from trt_llm_pipeline.files import FileSink
from trt_llm_pipeline.process import limit
from trt_llm_pipeline.redaction import Redactor

descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
if os.getuid() == 0:
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))

def told(work):
    try:
        with limit.translated():
            work()
    except ProcessLimit as error:
        print(error.kind, error.passing, error)
"""


def limited(tmp_path: Path, code: str) -> list[str]:
    """What a program prints that may start nothing."""
    program = LIMITED + textwrap.dedent(code)
    argv = [sys.executable, "-c", program, str(tmp_path / "file")]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def words(what: str) -> str:
    return (
        f"resources True {what} could not be started: no more threads and processes are allowed here "
        "(Resource temporarily unavailable). End other work, or raise the limit of the user (ulimit -u) or "
        "of the container (its pids limit), and try again"
    )


@pytest.mark.parametrize(
    ("start", "what"),
    [
        ("threading.Thread(target=print).start()", "another thread or process"),
        ("subprocess.Popen(['/bin/true'])", "another thread or process"),
        ("os.fork()", "another thread or process"),
        ("process.capture(['/bin/true'], cwd=Path('/'), env={}, timeout=5)", "/bin/true"),
        (
            "process.run(['/bin/true'], cwd=Path('/'), env={}, on_line=print, redactor=Redactor([]))",
            "/bin/true",
        ),
    ],
)
def test_each_way_of_starting_something_says_the_same(tmp_path: Path, start: str, what: str) -> None:
    assert limited(tmp_path, f"told(lambda: {start})") == [words(what)]


def test_a_file_is_written_without_the_thread_that_hurries_the_disk(tmp_path: Path) -> None:
    code = """
        sink = FileSink(descriptor)
        for _ in range(5):
            sink.write(bytes(20_000_000))
        sink.sync()
        print("written")
    """
    assert limited(tmp_path, code) == ["written"]
    assert (tmp_path / "file").stat().st_size == 100_000_000


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("threads can only be started once"),
        OSError(errno.EAGAIN, "Resource temporarily unavailable", "a file that is named"),
        OSError(errno.ENOENT, "No such file or directory"),
        ValueError("can't start new thread"),
    ],
)
def test_what_is_no_such_error_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, limit.translated():
        raise error
    assert caught.value is error


def test_notes_are_kept() -> None:
    error = RuntimeError("can't start new thread")
    add_note(error, "what has been downloaded is kept")
    with pytest.raises(ProcessLimit) as caught, limit.translated():
        raise error
    assert notes_of(caught.value) == ("what has been downloaded is kept",)
