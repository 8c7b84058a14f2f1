"""Of all the calls of a build one fails, each in its turn: an error in words or none, and the next one right.

They fail in the service's own processes, by a library that is loaded into them (`failing_disk.c`). A
step's processes do not get the variables that turn it on.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import MODEL_ID
from tests.integration.house import House, wait_for
from trt_llm_pipeline.errors import EXIT_CODES
from trt_llm_pipeline.testing.hub import HubServer

COMMAND = Path(sys.executable).with_name("trt-llm-pipeline")
SOURCE = Path(__file__).with_name("failing_disk.c")
WITHIN_S = 120
#: Which calls can fail with what: only one that opens something is short of descriptors.
ERRORS = {"ENOSPC": "writes", "EIO": "writes", "EMFILE": "opens", "EAGAIN": "starts"}
#: Fewer than so many calls of a kind, and the library has not seen the build.
FEWEST = {"writes": 50, "opens": 50, "starts": 10}
#: The slow half tries every call, in so many tests.
PARTS = 4
#: How many of a failing build's last calls, all after its script's end, fail in their turn.
LAST_CALLS = {"EMFILE": 20, "EIO": 12}
#: The machine is to blame, or the download or the step that could not go on; never the config.
EXPECTED_CODES = {EXIT_CODES[kind] for kind in ("internal", "resources", "model_source", "step")}
NOTE_BYTES = 4096
#: Where each step of the configs writes to.
FOLDERS = {"convert_to_ft": "checkpoint", "build": "engine"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler, cc or gcc, for the library that makes calls fail")
    library = tmp_path_factory.mktemp("library") / "failing_disk.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class Run:
    """One run of the command.

    Attributes:
        code: its exit code.
        told: what it printed on stderr.
        calls: how many calls it made that could have failed.
        failed: the one that has; empty for none.
    """

    code: int
    told: str
    calls: int
    failed: str


class Bench:
    """A workspace in which commands are run and single calls fail."""

    def __init__(self, house: House, library: Path) -> None:
        self.house = house
        self._library = library

    def config(self, *lines: str, script: str = "behaves.py", **seeds: int) -> str:
        """A config whose steps have these seeds, so that it gives the same bytes each time."""
        text = [f"model_id: {MODEL_ID}", "example_name: faults", *lines]
        for step, seed in seeds.items():
            text += [f"{step}:", f"  script: {script}", f"  output_dir: ./{FOLDERS[step]}", "  args:"]
            text += [f"    output_dir: ./{FOLDERS[step]}", f"    seed: {seed}"]
        return self.house.text("\n".join(text) + "\n")

    def run(self, config: str, error: str | None = None, at: int = 0) -> Run:
        """Builds; of the calls that can give `error`, that with the number `at` does so."""
        note = self.house.folder / "note"
        note.write_bytes(bytes(NOTE_BYTES))
        failing = {
            "LD_PRELOAD": str(self._library),
            "FAILING_DISK_ROOT": str(self.house.workspace),
            "FAILING_DISK_CALLS": ERRORS.get(error or "", ""),
            "FAILING_DISK_AT": str(at),
            "FAILING_DISK_ERROR": str(getattr(errno, error or "EIO")),
            "FAILING_DISK_NOTE": str(note),
        }
        env = {**os.environ, **self.house.env, "TRT_LLM_KEEP_BUILDS": "1", **(failing if error else {})}
        told = subprocess.run(
            [COMMAND, "build", config], env=env, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
        data = note.read_bytes()
        failed = data[16:].partition(b"\0")[0].decode(errors="replace")
        return Run(told.returncode, told.stderr, int.from_bytes(data[:8], sys.byteorder), failed)


class Trial:
    """One build in which each call fails in its turn, always from the same workspace."""

    def __init__(self, bench: Bench, config: str) -> None:
        self._bench = bench
        self._house = bench.house
        self._config = config
        self._before = bench.house.folder / "before"
        shutil.move(bench.house.workspace, self._before)
        #: How many calls of the build can fail, by their kind.
        self.calls = {ERRORS[error]: self._count(error) for error in ("EIO", "EMFILE", "EAGAIN")}
        self._right = self._archive()
        assert self._right is not None

    def _count(self, error: str) -> int:
        self._restore()
        counted = self._bench.run(self._config, error)
        assert counted.code == 0, counted.told
        assert counted.calls > FEWEST[ERRORS[error]], "hardly a call was seen"
        return counted.calls

    def wrong(self, error: str, at: int) -> str | None:
        """What is wrong where that call fails; None where all is as it should be."""
        self._restore()
        first = self._bench.run(self._config, error, at)
        wrong = self._wrong_with(first)
        wait_for(lambda: self._house.alive() == {}, "no process is left")
        if first.failed:
            second = self._bench.run(self._config)
            if second.code != 0:
                wrong.append(f"the next build fails:\n{second.told}")
            elif self._archive() != self._right:
                wrong.append("the next build's archive is another one")
        if (self._house.workspace / "mine.txt").read_text() != "mine":
            wrong.append("a file of the user's has changed")
        if left := self._house.partial_files():
            wrong.append(f"left: {left}")
        return f"{error} at call {at}, {first.failed}: " + "; ".join(wrong) if wrong else None

    def _wrong_with(self, run: Run) -> list[str]:
        wrong = []
        if "Traceback" in run.told:
            wrong.append(f"a traceback:\n{run.told}")
        if run.failed.endswith((" a thread", " a process")) and run.code not in (0, EXIT_CODES["resources"]):
            wrong.append(f"exit code {run.code} where no more processes are allowed")
        if run.code == 0:
            if self._archive() != self._right:
                wrong.append("it says that all is well, and its archive is another one")
        elif run.code not in EXPECTED_CODES or "\nerror: " not in f"\n{run.told}":
            wrong.append(f"exit code {run.code} without an error in words:\n{run.told}")
        return wrong

    def _restore(self) -> None:
        """The workspace is as it was before the build. Hard links stay hard links."""
        shutil.rmtree(self._house.workspace, ignore_errors=True)
        subprocess.run(["cp", "-a", self._before, self._house.workspace], check=True)

    def _archive(self) -> bytes | None:
        path = self._house.workspace / "engine.tar.gz"
        return path.read_bytes() if path.exists() else None


@pytest.fixture(scope="module")
def first_build(hub: HubServer, library: Path, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """In a workspace that has nothing but a file of the user's: everything is downloaded and made."""
    house = House(hub, tmp_path_factory.mktemp("first"))
    house.workspace.mkdir()
    (house.workspace / "mine.txt").write_text("mine")
    bench = Bench(house, library)
    return Trial(bench, bench.config("check: off", build=1))


@pytest.fixture(scope="module")
def later_build(hub: HubServer, library: Path, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """There is something to take from the cache, to check, to remove and to replace."""
    house = House(hub, tmp_path_factory.mktemp("later"))
    bench = Bench(house, library)
    assert bench.run(bench.config(convert_to_ft=1, build=1)).code == 0
    assert bench.run(bench.config(convert_to_ft=2, build=2)).code == 0
    (house.workspace / "mine.txt").write_text("mine")
    return Trial(bench, bench.config(convert_to_ft=1, build=3))


def test_a_call_that_fails_costs_one_build_at_most(first_build: Trial) -> None:
    wrong = []
    for at, (error, calls) in enumerate(ERRORS.items()):  # each error once, spread over the whole build
        number = 1 + first_build.calls[calls] * (2 * at + 1) // (2 * len(ERRORS))
        wrong.append(first_build.wrong(error, number))
    assert list(filter(None, wrong)) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("calls", ["writes", "opens", "starts"])
@pytest.mark.parametrize("build", ["first_build", "later_build"])
def test_each_call_that_fails_costs_one_build_at_most(
    request: pytest.FixtureRequest, build: str, calls: str, part: int
) -> None:
    trial: Trial = request.getfixturevalue(build)
    errors = [error for error, kind in ERRORS.items() if kind == calls]
    numbers = range(1 + part, trial.calls[calls] + 1, PARTS)
    wrong = [trial.wrong(errors[number // PARTS % len(errors)], number) for number in numbers]
    assert list(filter(None, wrong)) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_goes_wrong_after_a_steps_failure_does_not_replace_it(
    hub: HubServer, library: Path, tmp_path: Path
) -> None:
    house = House(hub, tmp_path)
    house.workspace.mkdir()
    bench = Bench(house, library)
    config = house.config("dies.py", "code: 3")
    assert bench.run(config).code == EXIT_CODES["step"]
    for error, last in LAST_CALLS.items():
        calls = bench.run(config, error).calls
        for at in range(calls - last + 1, calls + 1):
            run = bench.run(config, error, at)
            assert run.code == EXIT_CODES["step"]
            assert "\nerror: step build: dies.py exited with code 3" in run.told, f"{error}: {run.failed}"
            assert "Traceback" not in run.told
            wait_for(lambda: house.alive() == {}, "no process is left")
