"""Where the tests of the preflight ask their questions, and what each of them leaves untouched.

Every case checks three things beside its answer: the script's work was not done, nothing was written
anywhere, and no process is left. The work's mark is made through libc, where the probe's guard cannot see it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import FIXTURES
from trt_llm_pipeline.preflight import parser_check
from trt_llm_pipeline.preflight.parser_check import Checked, NotChecked

TOOLCHAIN = FIXTURES / "misbehaving_toolchain"
SCRIPTS = TOOLCHAIN / "examples" / "gpt"
PACKAGE = Path(parser_check.__file__).parent / "probe"
GOOD = ("--model_dir", "/src/models/gpt2")
Answer = Checked | NotChecked


@functools.cache
def _interpreters() -> tuple[str, ...]:
    """This interpreter, and one of each other version from 3.8 on that PATH offers."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for minor in range(8, 15):
        path = shutil.which(f"python3.{minor}")
        if path is not None and f"3.{minor}" not in found:
            asked = subprocess.run([path, "-c", "import sys; print(sys.executable)"], capture_output=True)
            if asked.returncode == 0:  # a version manager's stub exits with an error
                found[f"3.{minor}"] = asked.stdout.decode().strip()
    return tuple(found.values())


@pytest.fixture(params=_interpreters(), ids=lambda path: Path(path).name)
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _probe_files() -> list[str]:
    """The probe's own files, compiled ones included, in the package's folder."""
    return sorted(str(path) for path in PACKAGE.rglob("*prob*"))


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        # A folder's time tells of a file that came and went.
        found[str(path)] = (status.st_mtime_ns, status.st_size)
    return found


def _marked_processes(mark: str) -> list[list[str]]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TELLTALE") == mark:
                found.append(process.cmdline())
        except (psutil.Error, OSError):
            continue
    return found


class Place:
    """Where a case runs: an environment with marks, and folders that must stay as they are."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.work = folder / "work"
        self.home = folder / "home"
        self.scratch = folder / "scratch"
        for path in (self.work, self.home, self.scratch):
            path.mkdir()
        self.work_mark = self.work / "done"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TELLTALE": self.mark,
            "WORK_MARK": str(self.work_mark),
            "HF_TOKEN": "hf_secret_of_the_test",
        }

    def ask(
        self, command: list[str], *, python: str, time_limit: float = 20.0, root: Path = TOOLCHAIN
    ) -> Answer:
        return parser_check.probe(
            command,
            interpreter=python,
            toolchain_root=root,
            env=self.env,
            time_limit=time_limit,
            scratch=self.scratch,
        )

    def script(self, name: str, *args: str, python: str, time_limit: float = 20.0) -> Answer:
        return self.ask([python, str(SCRIPTS / name), *args], python=python, time_limit=time_limit)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Checks, after the test, that nothing was done, written or left running."""
    found = Place(tmp_path)
    before = [_tree(folder) for folder in (TOOLCHAIN, found.home, found.work)]
    probe_files = _probe_files()
    yield found
    assert not found.work_mark.exists(), "the script's work was done"
    assert [_tree(folder) for folder in (TOOLCHAIN, found.home, found.work)] == before
    assert _probe_files() == probe_files
    assert list(found.scratch.iterdir()) == []
    assert _marked_processes(found.mark) == []


def messages(answer: Answer) -> list[str]:
    assert isinstance(answer, Checked), answer
    return [mistake.message for mistake in answer.mistakes]


def reason(answer: Answer) -> str:
    assert isinstance(answer, NotChecked), answer
    return answer.reason
