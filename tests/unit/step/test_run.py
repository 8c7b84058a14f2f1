"""One step, with real scripts: its directory emptied, its results checked, its failures explained."""

from __future__ import annotations

import json
import os
import shlex
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from trt_llm_pipeline.config.reading import examine
from trt_llm_pipeline.errors import (
    StepFailed,
    StepOutOfMemory,
    StepOutputError,
    StepTimeout,
    WorkspaceError,
    notes_of,
)
from trt_llm_pipeline.plan import Plan, make_plan
from trt_llm_pipeline.process import UNCONFINED, Layers
from trt_llm_pipeline.process.gpus import GpuMonitor
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.step import (
    StepContext,
    StepReport,
    TimingCache,
    failure,
    log,
    prepare_imports,
    run,
    run_step,
)
from trt_llm_pipeline.step.failure import last_lines
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Ledger, Workspace

#: A script that runs its first argument, with what a script usually needs at hand.
SCRIPT = """
import argparse, json, os, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--do")
parser.add_argument("--out")
arguments = parser.parse_args()
def write(name, text="x"):
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
exec(arguments.do)
"""
ENGINE = {
    "builder_config": {"name": "gpt", "precision": "float16", "tensor_parallel": 2},
    "plugin_config": {},
}


class Bench:
    """Runs single steps in one workspace."""

    def __init__(self, toolchain: Toolchain, workspace: Workspace, logs: Path, layers: Layers) -> None:
        self.layers = layers
        for script in ("build.py", "hf_gpt_convert.py"):
            (toolchain.root / "examples/gpt" / script).write_text(SCRIPT)
        self.toolchain = toolchain
        self.workspace = workspace
        workspace.prepare()
        self.ledger = Ledger(workspace)
        self.logs = logs
        logs.mkdir()
        self.lines: list[str] = []
        self.log: Callable[[str], None] = self.lines.append
        self.usage: list[tuple[object, ...]] = []
        self.token: str | None = None
        self.default_timeout: float | None = 30
        self.timing: TimingCache | None = None
        self.options: frozenset[str] = frozenset()
        self.sets: list[str] = []
        self.lines_known = True

    def plan(self, text: str) -> Plan:
        loaded = examine(text, "c.yaml", self.sets)
        loaded = loaded if self.lines_known else loaded.without_lines()
        assert loaded.config is not None
        assert loaded.mistakes == ()
        planned, mistakes = make_plan(loaded.config, self.toolchain, self.workspace)
        assert mistakes == []
        return planned

    def run(
        self,
        do: str,
        *,
        name: str = "convert_to_ft",
        output_dir: str | None = "./out",
        timeout: str | None = None,
        out: str | None = None,
        allowed: str = "",
    ) -> StepReport:
        lines = ["model_id: m", "example_name: gpt"]
        if name != "build":
            lines.append("build: {script: build.py}")
        lines += [f"{name}:", f"  script: {'build.py' if name == 'build' else 'hf_gpt_convert.py'}"]
        lines += [f"  output_dir: {output_dir}"] if output_dir else []
        lines += [f"  timeout: {timeout}"] if timeout else []
        lines += [f"  {key}: true" for key in allowed.split()]
        lines += ["  args:", f"    do: {json.dumps(textwrap.dedent(do))}"]
        lines += [f"    out: {out}"] if out else []
        planned = self.plan("\n".join(lines))
        context = StepContext(
            plan=planned,
            ledger=self.ledger,
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "OTHER": "1"},
            token=self.token,
            redactor=Redactor([self.token]),
            log=lambda line: self.log(line),
            output=lambda line: self.log(line),
            usage=lambda *used: self.usage.append(used),
            logs=self.logs,
            gpus=GpuMonitor({}),
            default_timeout=self.default_timeout,
            layers=self.layers,
            timing=self.timing,
            options={name: self.options},
        )
        return run_step(context, next(s for s in planned.steps if s.name == name), {})

    def files(self) -> set[str]:
        return set(self.workspace.files())


@pytest.fixture
def bench(miniature: Toolchain, workspace: Workspace, tmp_path: Path, layers: Layers) -> Bench:
    return Bench(miniature, workspace, tmp_path / "logs", layers)


class TestASuccessfulStep:
    def test_reports_what_it_did(self, bench: Bench) -> None:
        report = bench.run("print('hello'); write('out/a')")
        assert report.name == "convert_to_ft"
        assert report.output_dir == bench.workspace.root / "out"
        assert report.argv[2:] == ("--do", "print('hello'); write('out/a')")
        assert report.wall_s > 0
        assert report.cpu_s > 0
        assert report.peak_memory_bytes > 1_000_000
        assert tuple(shlex.split(bench.lines[0].removeprefix("step convert_to_ft: "))) == report.argv
        assert bench.lines[1] == "hello"
        assert bench.lines[2].startswith("step convert_to_ft: done in ")
        assert (bench.logs / "convert_to_ft.log").read_text() == "hello\n"

    def test_runs_in_the_workspace_with_the_environment_of_steps(self, bench: Bench) -> None:
        bench.token = "hf_MARKED_token"
        bench.run("write('out/env', json.dumps(dict(os.environ))); print(os.getcwd())")
        env = json.loads((bench.workspace.root / "out/env").read_text())
        assert env.pop("LC_CTYPE", "C.UTF-8") == "C.UTF-8"
        own = Path(env.pop("HOME")).parent
        assert not own.exists()
        assert env == {
            "PATH": os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "NCCL_SOCKET_IFNAME": "lo",
            "TP_SOCKET_IFNAME": "lo",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(bench.workspace.state / "import"),
            "TMPDIR": str(own / "tmp"),
        }
        assert bench.lines[1] == str(bench.workspace.root)

    def test_gets_the_token_only_where_its_config_says_so(self, bench: Bench) -> None:
        bench.token = "hf_MARKED_token"
        bench.run("write('out/a'); print(os.environ['HF_TOKEN'])", allowed="token")
        assert bench.lines[1] == "[secret]"
        assert "MARKED" not in (bench.logs / "convert_to_ft.log").read_text()

    def test_can_import_examples_of_the_toolchain_and_not_its_root(self, bench: Bench) -> None:
        (bench.toolchain.root / "examples/shared.py").write_text("VALUE = 7")
        (bench.toolchain.root / "tensorrt_llm").mkdir()
        planned = bench.plan("model_id: m\nexample_name: gpt\nbuild: {script: build.py}")
        for _ in range(2):
            prepare_imports(planned)
        bench.run(
            """
            from examples import shared
            write('out/a', str(shared.VALUE))
            try:
                import tensorrt_llm
            except ImportError:
                write('out/b')
            """
        )
        assert (bench.workspace.root / "out/a").read_text() == "7"
        assert bench.files() == {"out/a", "out/b"}
        assert not list(bench.toolchain.root.rglob("__pycache__"))

    def test_an_earlier_builds_files_are_gone_before_it_starts(self, bench: Bench) -> None:
        bench.run("write('out/rank0'); write('out/rank1')")
        bench.run("assert not os.path.exists('out/rank1'); write('out/rank0')")
        assert bench.files() == {"out/rank0"}

    def test_its_results_need_not_be_declared(self, bench: Bench) -> None:
        first = bench.run(
            "write('c/1-gpu/a'); write('c/1-gpu/b'); write('model.cache')", output_dir=None, out="./c"
        )
        assert first.output_dir == bench.workspace.root / "c/1-gpu"
        assert f"step convert_to_ft: its new files are in {first.output_dir}" in bench.lines
        # The next build clears them away, also where it writes less.
        bench.run("write('c/1-gpu/a')", output_dir=None, out="./c")
        assert bench.files() == {"c/1-gpu/a", "model.cache"}


class TestResultsAreChecked:
    def test_nothing_written(self, bench: Bench) -> None:
        with pytest.raises(StepOutputError) as caught:
            bench.run("pass")
        assert str(caught.value) == (
            "step convert_to_ft: exited 0, but c.yaml:6: convert_to_ft.output_dir './out' does not exist: "
            f"it wrote no files below {bench.workspace.root}; "
            "check which of its options names the output directory"
        )
        assert caught.value.exit_code == 0

    def test_an_empty_directory(self, bench: Bench) -> None:
        with pytest.raises(StepOutputError, match=r"'\./out' is empty: it wrote no files"):
            bench.run("os.makedirs('out/deep')")

    def test_files_that_went_elsewhere(self, bench: Bench) -> None:
        with pytest.raises(StepOutputError) as caught:
            bench.run("write('c/1-gpu/a')")
        assert (
            "c.yaml:6: convert_to_ft.output_dir './out' does not exist: its files went to ./c/1-gpu; "
            in str(caught.value)
        )
        assert "change that line to output_dir: ./c/1-gpu, or leave it out" in str(caught.value)

    def test_files_that_went_elsewhere_than_a_text_without_lines_says(self, bench: Bench) -> None:
        bench.lines_known = False
        with pytest.raises(StepOutputError) as caught:
            bench.run("write('c/1-gpu/a')")
        told = str(caught.value)
        assert "but c.yaml: convert_to_ft.output_dir './out' does not exist: its files went to ./c/" in told
        assert "; give c.yaml output_dir: ./c/1-gpu, or leave it out" in told

    def test_files_that_went_elsewhere_than_the_command_line_says(self, bench: Bench) -> None:
        bench.sets = ["convert_to_ft.output_dir=./wrong"]
        with pytest.raises(StepOutputError) as caught:
            bench.run("write('c/1-gpu/a')")
        told = str(caught.value)
        assert "but --set: convert_to_ft.output_dir './wrong' does not exist: its files went to" in told
        assert "give --set convert_to_ft.output_dir=./c/1-gpu, or leave it out" in told

    @pytest.mark.parametrize("output_dir", [None, "./out"])
    def test_files_that_went_to_several_places(self, bench: Bench, output_dir: str | None) -> None:
        with pytest.raises(StepOutputError, match=r"several directories \(\./a, \./b\); name one of them"):
            bench.run("write('a/x'); write('b/x')", output_dir=output_dir)

    def test_nothing_written_where_nothing_was_declared(self, bench: Bench) -> None:
        with pytest.raises(
            StepOutputError, match=r"hf_gpt_convert\.py exited 0, but it wrote no files below"
        ):
            bench.run("write('model.cache')", output_dir=None)

    def test_older_files_of_others_among_what_was_found(self, bench: Bench) -> None:
        (bench.workspace.root / "c").mkdir()
        (bench.workspace.root / "c/rank1").write_text("mine")
        with pytest.raises(StepOutputError, match=r"also holds older files that no build made \(c/rank1\)"):
            bench.run("write('c/rank0')", output_dir=None, out="c")
        assert (bench.workspace.root / "c/rank1").read_text() == "mine"

    def test_a_link_in_place_of_the_directory(self, bench: Bench, tmp_path: Path) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/file").write_text("mine")
        with pytest.raises(
            StepOutputError, match=f"made a link of its output directory that leads to {tmp_path}"
        ):
            bench.run(f"os.symlink({str(tmp_path / 'precious')!r}, 'out')")
        with pytest.raises(WorkspaceError, match="now leads to") as caught:
            bench.ledger.empty(bench.workspace.root / "out", "./out")
        assert str(tmp_path) in str(caught.value)
        assert (tmp_path / "precious/file").read_text() == "mine"

    def test_a_rank_that_is_missing(self, bench: Bench) -> None:
        config = json.dumps(json.dumps(ENGINE))
        do = f"write('e/config.json', {config}); write('e/gpt_float16_tp2_rank0.engine')"
        with pytest.raises(StepOutputError, match=r"step build: exited 0, but .*rank1"):
            bench.run(do, name="build", output_dir="./e")
        complete = bench.run(f"{do}; write('e/gpt_float16_tp2_rank1.engine')", name="build", output_dir="./e")
        assert complete.output_dir == bench.workspace.root / "e"


class TestFailures:
    def test_an_exit_code_with_the_last_lines_and_what_is_left(self, bench: Bench) -> None:
        with pytest.raises(StepFailed) as caught:
            bench.run("write('out/a', 'x' * 1500); write('out/b'); print('one'); print('two'); sys.exit(3)")
        error = caught.value
        assert str(error) == (
            "step convert_to_ft: hf_gpt_convert.py exited with code 3; it left 2 files (1.5 kB) in out\n"
            "  | one\n  | two"
        )
        assert (error.exit_code, error.tail) == (3, ("one", "two"))
        # What it left is known as a build's, so that the next one can begin.
        assert bench.run("write('out/c')").output_dir is not None
        assert bench.files() == {"out/c"}

    def test_a_script_that_breaks_off(self, bench: Bench) -> None:
        with pytest.raises(
            StepFailed, match=r"(?s)exited with code 1; it left no files behind.*ZeroDivisionError"
        ):
            bench.run("1 / 0")

    def test_a_signal_by_name(self, bench: Bench) -> None:
        with pytest.raises(StepFailed) as caught:
            bench.run("os.kill(os.getpid(), signal.SIGKILL)")
        assert "was killed by SIGKILL; its process tree used " in str(caught.value)
        assert "probably out of memory" not in str(caught.value)
        assert caught.value.exit_code == -9

    def test_memory_is_blamed_only_where_the_figures_say_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(failure.resources, "machine_memory_bytes", lambda: 1000)
        assert not failure.was_memory(-9, 700, (), oom_killed=False)
        assert failure.was_memory(-9, 900, (), oom_killed=False)
        assert failure.was_memory(-9, 0, (), oom_killed=True)
        assert not failure.was_memory(-15, 999, (), oom_killed=True)
        assert "probably out of memory" not in failure.exit_in_words(-9, 700, memory=False)
        assert "probably out of memory" in failure.exit_in_words(-9, 900, memory=True)
        assert failure.exit_in_words(-15, 999, memory=False) == "was killed by SIGTERM"
        assert failure.exit_in_words(-64, 0, memory=False).startswith("was killed by ")

    @pytest.mark.parametrize(
        "line",
        [
            "MemoryError",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "[TRT] [E] 2: [virtualMemoryBuffer.cpp::resizePhysical::127] Error Code 2: OutOfMemory (no more)",
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "OSError: [Errno 12] Cannot allocate memory",
        ],
    )
    def test_a_script_that_says_itself_that_memory_is_short(self, bench: Bench, line: str) -> None:
        with pytest.raises(StepOutOfMemory, match="exited with code 1, out of memory") as caught:
            bench.run(f"print({line!r}); sys.exit(1)")
        assert (caught.value.kind, caught.value.exit_code) == ("resources", 1)

    def test_a_script_that_only_mentions_memory_is_to_blame_itself(self, bench: Bench) -> None:
        with pytest.raises(StepFailed) as caught:
            bench.run("print('peak memory 3 GB; no MemoryError'); sys.exit(1)")
        assert caught.value.kind == "step"

    @pytest.mark.parametrize(("timeout", "default"), [("5", 30), (None, 5)])
    def test_a_step_that_takes_too_long(self, bench: Bench, timeout: str | None, default: float) -> None:
        bench.default_timeout = default
        with pytest.raises(
            StepTimeout, match=r"(?s)its limit of 5 s and was ended; raise convert_to_ft.timeout.*begun"
        ):
            bench.run("write('out/a'); print('begun', flush=True); time.sleep(60)", timeout=timeout)
        assert bench.ledger.ours(bench.workspace.files()).keys() == {"out/a"}

    def test_files_of_the_user_in_its_directory(self, bench: Bench) -> None:
        bench.run("write('out/a')")
        planned = bench.plan("model_id: m\nexample_name: gpt\nbuild: {script: build.py, output_dir: ./out}")
        (bench.workspace.root / "out/notes.txt").write_text("mine")
        context = StepContext(
            plan=planned,
            ledger=bench.ledger,
            env={},
            token=None,
            redactor=Redactor(),
            log=bench.log,
            output=bench.log,
            usage=lambda *_used: None,
            logs=bench.logs,
            gpus=GpuMonitor({}),
            default_timeout=None,
        )
        with pytest.raises(
            WorkspaceError, match=r"'\./out' holds files that no build made \(out/notes\.txt\)"
        ):
            run_step(context, planned.steps[0], {})
        assert bench.files() == {"out/a", "out/notes.txt"}
        assert bench.lines[-1].startswith("step convert_to_ft: done")

    def test_a_cancelled_step_leaves_its_files_on_the_books(self, bench: Bench) -> None:
        def log(line: str) -> None:
            if line == "ready":
                raise KeyboardInterrupt

        bench.log = log
        with pytest.raises(KeyboardInterrupt):
            bench.run("write('out/half'); print('ready'); time.sleep(60)")
        assert bench.ledger.ours(bench.workspace.files()).keys() == {"out/half"}
        assert bench.ledger.recover() == ()

    def test_what_goes_wrong_after_a_cancellation_does_not_replace_it(self, bench: Bench) -> None:
        def log(line: str) -> None:
            if line == "ready":
                raise KeyboardInterrupt

        bench.log = log
        with pytest.raises(KeyboardInterrupt) as cancelled:
            bench.run(
                "os.rename('models', 'moved'); os.symlink('moved', 'models'); print('ready'); time.sleep(60)"
            )
        (note,) = notes_of(cancelled.value)
        assert "the script wrote where no step may write (models)" in note
        assert bench.ledger.recover() == ()

    def test_what_a_failed_script_has_moved_does_not_replace_its_failure(self, bench: Bench) -> None:
        with pytest.raises(StepFailed, match="exited with code 1") as failed:
            bench.run(
                "os.rename('models', 'moved'); os.symlink('moved', 'models'); sys.exit('its own words')"
            )
        assert failed.value.tail == ("its own words",)
        (note,) = notes_of(failed.value)
        assert "the script wrote where no step may write (models)" in note

    def test_what_is_found_moved_once_a_script_has_failed_does_not_replace_its_failure(
        self, bench: Bench
    ) -> None:
        """Without the sandbox, where a script reaches the service's own directories."""

        def log(line: str) -> None:
            if line.startswith("id "):
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(int(line.split()[1])).wait(60)
                time.sleep(1.1)  # the service looks each second: now it looks before it hears of the end

        bench.log, bench.layers = log, UNCONFINED
        with pytest.raises(StepFailed, match="exited with code 1") as failed:
            bench.run(
                "os.rename('models', 'moved'); os.symlink('moved', 'models'); "
                "print('id', os.getpid(), flush=True); sys.exit('its own words')"
            )
        assert failed.value.tail[-1] == "its own words"
        (note,) = notes_of(failed.value)
        assert "the script has changed the service's own directories" in note


class TestLastLines:
    """The end of a log, for the page of a build that has failed."""

    def test_as_many_as_are_asked_for(self, tmp_path: Path) -> None:
        log = tmp_path / "build.log"
        log.write_text("".join(f"line {number}\n" for number in range(80)))
        assert last_lines(log, 50) == [f"line {number}" for number in range(30, 80)]
        assert last_lines(log, 500) == [f"line {number}" for number in range(80)]

    def test_no_more_than_the_last_part_is_read_and_no_half_line(self, tmp_path: Path) -> None:
        log = tmp_path / "build.log"
        log.write_bytes(b"\xff" * 100_000 + b"\n" + b"x" * 40_000 + b"\n" + b"y" * 40_000 + b"\nend\n")
        assert [line[:3] for line in last_lines(log, 50)] == ["yyy", "end"]

    def test_a_link_or_nothing_has_none(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret\n")
        (tmp_path / "build.log").symlink_to(tmp_path / "secret")
        assert last_lines(tmp_path / "build.log", 5) == last_lines(tmp_path / "absent", 5) == []


class TestWhatIsShown:
    def test_a_flood_goes_to_the_file_and_its_end_to_the_log(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log, "_SHOWN_BYTES", 1000)
        monkeypatch.setattr(log, "_LOG_FILE_BYTES", 5000)
        bench.run("[print(f'line {n}') for n in range(2000)]; write('out/a')")
        shown = [line for line in bench.lines if line.startswith("line ")]
        assert shown[0] == "line 0"
        assert shown[-20:] == [f"line {number}" for number in range(1980, 2000)]
        assert len(shown) < 150
        hidden = 2000 - len(shown)
        assert f"[... {hidden} lines only in {bench.logs}/convert_to_ft.log]" in bench.lines
        kept = (bench.logs / "convert_to_ft.log").read_text()
        assert len(kept) < 5100
        assert kept.endswith("\n[the rest of the output is not kept]\n")

    def test_what_it_uses_is_told_each_second(self, bench: Bench) -> None:
        bench.run("time.sleep(2.5); write('out/a')")
        assert len(bench.usage) >= 2
        for stage, memory, most, gpus in bench.usage:
            assert (stage, gpus) == ("convert_to_ft", ())
            assert 0 <= memory <= most  # type: ignore[operator]  0: it has not been looked at yet
        assert bench.usage[-1][1] > 0  # type: ignore[operator]

    def test_samples_are_thinned_out_and_no_peak_is_lost(self) -> None:
        samples = [(float(n), n % 7, (n % 5, 10 - n % 5)) for n in range(601)]
        samples[600] = (600.0, 1, (99, 0))
        before = samples.copy()
        run._thin_out(samples)
        assert len(samples) == 301
        assert [at for at, _, _ in samples] == [float(n) for n in range(0, 601, 2)]
        assert max(used for _, used, _ in samples) == max(used for _, used, _ in before)
        assert run._gpu_peak(samples) == run._gpu_peak(before) == (99, 10)


class TestTimings:
    """What a script has measured is kept, and given to the next one that takes it."""

    LEGACY = frozenset({"--timing_cache", "--do", "--out"})
    UNIFIED = frozenset({"--input_timing_cache", "--output_timing_cache", "--do", "--out"})
    READS = (
        "import os; print('found', open('model.cache').read() if os.path.exists('model.cache') else 'none')"
    )

    @pytest.fixture
    def keeping(self, bench: Bench, tmp_path: Path) -> Bench:
        bench.timing = TimingCache(tmp_path / "timing" / "x.cache", "NVIDIA L4 8.9 and 0.9.0")
        return bench

    def test_the_next_step_starts_with_them(self, keeping: Bench) -> None:
        keeping.options = self.LEGACY
        keeping.run(f"{self.READS}; write('model.cache', 'one'); write('out/a')")
        assert "found none" in keeping.lines
        keeping.lines.clear()
        keeping.run(f"{self.READS}; write('model.cache', 'two'); write('out/a')")
        assert "found one" in keeping.lines
        told = "step convert_to_ft: given the timings of kernels that are kept for NVIDIA L4 8.9 and 0.9.0"
        assert told in keeping.lines
        assert keeping.timing is not None
        assert keeping.timing.path.read_text() == "two"

    def test_a_script_that_must_be_told_is_told_and_its_record_does_not_change(self, keeping: Bench) -> None:
        keeping.options = self.UNIFIED
        script = keeping.toolchain.root / "examples/gpt/hf_gpt_convert.py"
        script.write_text(
            SCRIPT.replace(
                "arguments =", "parser.add_argument('--input_timing_cache', default='none')\narguments ="
            )
        )
        do = "print('told', arguments.input_timing_cache); write('model.cache'); write('out/a')"
        first, second = keeping.run(do), keeping.run(do)
        assert [line for line in keeping.lines if line.startswith("told")] == [
            "told none",
            "told model.cache",
        ]
        assert first.argv == second.argv

    def test_nothing_is_kept_of_a_failure_nor_of_a_script_that_takes_none(self, keeping: Bench) -> None:
        keeping.options = self.LEGACY
        with pytest.raises(StepFailed):
            keeping.run("write('model.cache', 'bad'); sys.exit(1)")
        keeping.options = frozenset({"--do"})
        keeping.run("write('model.cache', 'other'); write('out/a')")
        assert keeping.timing is not None
        assert not keeping.timing.path.exists()

    def test_a_file_of_the_users_is_neither_replaced_nor_kept(self, keeping: Bench) -> None:
        keeping.options = self.LEGACY
        keeping.run("write('model.cache', 'one'); write('out/a')")
        mine = keeping.workspace.root / "model.cache"
        mine.unlink()
        Ledger(keeping.workspace).recover()
        mine.write_text("mine")
        keeping.run(f"{self.READS}; write('out/a')")
        assert "found mine" in keeping.lines
        assert mine.read_text() == "mine"
