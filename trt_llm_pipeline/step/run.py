"""One step: its directory emptied, its script run, its results found and checked."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from trt_llm_pipeline.cache.store import StepCache
from trt_llm_pipeline.engine import layout as engine_layout
from trt_llm_pipeline.errors import DiskFull, StepFailed, StepOutputError, StepTimeout
from trt_llm_pipeline.plan.command import shell_line
from trt_llm_pipeline.plan.plan import Plan, PlannedStep
from trt_llm_pipeline.process import resources
from trt_llm_pipeline.process import tree as process
from trt_llm_pipeline.process.lines import Redactor
from trt_llm_pipeline.process.resources import GpuMonitor, in_words
from trt_llm_pipeline.step import results as outputs
from trt_llm_pipeline.workspace import disk
from trt_llm_pipeline.workspace.ledger import Ledger
from trt_llm_pipeline.workspace.workspace import FileMark, Workspace

_SILENCE_S = 60.0
_MOST_SAMPLES = 600
_LOG_FILE_BYTES = 256 * 1024 * 1024
_SHOWN_BYTES = 4 * 1024 * 1024
_SHOWN_TAIL = 20


Sample = tuple[float, int, tuple[int, ...]]


@dataclass(frozen=True)
class StepReport:
    """What a step did.

    Attributes:
        name: the step's.
        argv: what was run.
        output_dir: where its results are; None where it failed.
        wall_s, cpu_s: seconds.
        peak_memory_bytes: of its whole process tree.
        peak_gpu_memory_bytes: in use on each GPU while it ran.
        cached: its results are those of an earlier build.
        samples: memory over time: seconds since it began, bytes of its tree, bytes in use on each GPU.
    """

    name: str
    argv: tuple[str, ...]
    output_dir: Path | None
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: tuple[int, ...] = ()
    cached: bool = False
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class StepContext:
    """What every step of a build shares."""

    plan: Plan
    ledger: Ledger
    env: Mapping[str, str]
    redactor: Redactor
    log: Callable[[str], None]
    logs: Path
    gpus: GpuMonitor
    default_timeout: float | None


def environment(plan: Plan, env: Mapping[str, str], token: str | None) -> dict[str, str]:
    """The environment of a step's process.

    Output is unbuffered so that it can be followed, no byte code is written into the toolchain, and
    `examples` of the toolchain's root can be imported, as 1.2's converters do. Not the root itself: its
    `tensorrt_llm` source folder would hide the installed package.
    """
    paths = [str(_import_root(plan)), *filter(None, [env.get("PYTHONPATH")])]
    extra = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    if token:
        extra["HF_TOKEN"] = token
    return {**env, **extra}


def _import_root(plan: Plan) -> Path:
    return plan.workspace.state / "import"


def prepare_imports(plan: Plan) -> None:
    """Makes the directory from which a script can import `examples`. Called with the workspace locked."""
    link = _import_root(plan) / "examples"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(plan.toolchain.examples, target_is_directory=True)


def run(context: StepContext, step: PlannedStep, found: Mapping[str, Path]) -> StepReport:
    """Runs one step.

    Args:
        context: the build's.
        step: which.
        found: the output directories of the steps before it.

    Raises:
        StepFailed: the script failed; with its exit code, its last lines and what it left behind.
        StepTimeout: it took longer than it was allowed to.
        StepOutputError: it exited 0 without what it promised.
        WorkspaceError: its directory holds files that no build made.
    """
    plan, ledger, workspace = context.plan, context.ledger, context.plan.workspace
    rendered = plan.render(step, found)
    argv = (*step.program, *rendered.argv)
    named = outputs.argument_dirs(workspace, rendered.argv)
    if step.output_dir is not None:
        ledger.empty(step.output_dir, step.config.output_dir or str(step.output_dir))
    else:
        ledger.empty_found(step.name, named, keep=found.values())
    context.log(f"step {step.name}: {shell_line(argv)}")
    before = workspace.files()
    ledger.begin(step.name, before)
    places = workspace.own_directories(plan.model_dir, context.logs)
    kills = resources.oom_kills()
    made: dict[str, FileMark] = {}
    try:
        with workspace.step_lock() as held:
            result, samples = _supervise(context, step, argv, places, held)
    finally:
        workspace.refuse_moved(places)
        made = outputs.changed(before, workspace.files())
        full = disk.is_full(workspace.root)
        if full:  # nothing can be noted, and no later build succeeds, unless what was written goes
            ledger.discard(name for name in set(made) - set(before) if _below(workspace, name, step, named))
        ledger.finish(step.name, outputs.changed(before, workspace.files()))
    report = StepReport(
        name=step.name,
        argv=argv,
        output_dir=None,
        wall_s=result.wall_s,
        cpu_s=result.cpu_s,
        peak_memory_bytes=result.peak_rss_bytes,
        peak_gpu_memory_bytes=_gpu_peak(samples),
        samples=tuple(samples),
    )
    left = _removed(made, workspace.root) if full else _left_behind(made)
    if result.timed_out:
        raise StepTimeout(
            step.name,
            f"took longer than its limit of {_limit(context, step):.0f} s and was ended; "
            f"raise {step.name}.timeout{left}",
            tail=result.tail,
        )
    if result.exit_code != 0:
        reason = _why(result.exit_code, result.peak_rss_bytes, resources.oom_kills() > kills)
        raise StepFailed(
            step.name,
            f"{Path(step.program[-1]).name} {reason}{left}",
            exit_code=result.exit_code,
            tail=result.tail,
        )
    if full:
        raise DiskFull(f"step {step.name}: {Path(step.program[-1]).name} exited 0{left}")
    output_dir = _results(context, step, made, named)
    ledger.found(step.name, output_dir)
    context.log(f"step {step.name}: done in {result.wall_s:.1f} s, {_cost(report)}, output in {output_dir}")
    return replace(report, output_dir=output_dir)


def restore(
    context: StepContext, step: PlannedStep, cache: StepCache, key: str, found: Mapping[str, Path]
) -> StepReport | None:
    """Puts the results that are cached under `key` in their place, instead of running the step.

    Returns:
        None where nothing usable is cached.

    Raises:
        WorkspaceError: the step's directory holds files that no build made.
    """
    plan, ledger, workspace = context.plan, context.ledger, context.plan.workspace
    output_dir = cache.has(key)
    if output_dir is None:
        return None
    argv = plan.render(step, found).argv
    if step.output_dir is not None:
        ledger.empty(output_dir, step.config.output_dir or str(output_dir))
    else:
        ledger.empty_found(step.name, outputs.argument_dirs(workspace, argv), keep=found.values())
        if workspace.files_in(output_dir):
            return None
    ledger.begin(step.name, workspace.files())
    if not cache.restore(key, output_dir):
        context.log(f"step {step.name}: its cached results are damaged; running it again")
        return None
    ledger.finish(step.name, workspace.files_in(output_dir))
    ledger.found(step.name, output_dir)
    context.log(f"step {step.name}: unchanged, its cached results are in {output_dir}")
    return StepReport(step.name, (*step.program, *argv), output_dir, 0.0, 0.0, 0, cached=True)


def _below(workspace: Workspace, name: str, step: PlannedStep, named: list[Path]) -> bool:
    """True for a file in the step's output directory or below a path that its arguments name."""
    places = [*named, *filter(None, [step.output_dir])]
    return any((workspace.root / name).is_relative_to(place) for place in places)


def _limit(context: StepContext, step: PlannedStep) -> float | None:
    return step.config.timeout or context.default_timeout


def _supervise(
    context: StepContext,
    step: PlannedStep,
    argv: tuple[str, ...],
    places: Mapping[Path, tuple[str, bool]],
    held: int,
) -> tuple[process.ProcessResult, list[Sample]]:
    started = time.monotonic()
    with _LogFile(context.logs / f"{step.name}.log") as file:
        voice = _Voice(context, step.name, file)
        samples: list[Sample] = []
        next_look = started

        def on_turn(usage: process.Usage) -> None:
            nonlocal next_look
            now = time.monotonic()
            if now < next_look:
                return
            next_look = now + 1.0
            context.plan.workspace.refuse_moved(places)
            context.ledger.heartbeat()
            used = context.gpus.used_bytes()
            samples.append((round(now - started, 1), usage.rss_bytes, used))
            if len(samples) > _MOST_SAMPLES:
                _thin_out(samples)
            voice.break_silence(now - started, usage, used)

        result = process.run(
            argv,
            cwd=context.plan.workspace.root,
            env=context.env,
            on_line=voice.line,
            redactor=context.redactor,
            timeout=_limit(context, step),
            on_turn=on_turn,
            hold=held,
        )
        voice.close()
    return result, samples


def _thin_out(samples: list[Sample]) -> None:
    """Halves the number of samples: of each two there stays one, with the more memory of the two."""
    last = samples[-1:] if len(samples) % 2 else []
    pairs = zip(samples[::2], samples[1::2], strict=False)
    samples[:] = [
        (at, max(used, more), resources.peak(gpu, gpus)) for (at, used, gpu), (_, more, gpus) in pairs
    ]
    samples.extend(last)


def _gpu_peak(samples: list[Sample]) -> tuple[int, ...]:
    peak: tuple[int, ...] = ()
    for _, _, used in samples:
        peak = resources.peak(peak, used)
    return peak


class _LogFile:
    """A step's output on disk, up to a limit. A full disk costs the rest of it and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._room = _LOG_FILE_BYTES
        self._file: TextIO | None = None

    def __enter__(self) -> _LogFile:
        self.path.unlink(missing_ok=True)  # an earlier step may have put a link there
        self._file = self.path.open("x", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def line(self, text: str) -> None:
        if self._file is None or self._room <= 0:
            return
        self._room -= len(text) + 1
        try:
            self._file.write(text + "\n")
            if self._room <= 0:
                self._file.write("[the rest of the output is not kept]\n")
        except OSError:
            self._room = 0


class _Voice:
    """A step's output: all of it to a file, as much as a person can read to the log."""

    def __init__(self, context: StepContext, step: str, file: _LogFile) -> None:
        self._context = context
        self._step = step
        self._file = file
        self._shown = 0
        self._hidden: list[str] = []
        self._hidden_count = 0
        self._last = time.monotonic()

    def line(self, text: str) -> None:
        self._last = time.monotonic()
        self._file.line(text)
        if self._shown < _SHOWN_BYTES:
            self._shown += len(text) + 1
            self._context.log(text)
            if self._shown >= _SHOWN_BYTES:
                self._context.log(
                    f"step {self._step}: more than {in_words(_SHOWN_BYTES)} of output; "
                    f"the rest goes to {self._file.path} only, but for the last lines"
                )
            return
        self._hidden_count += 1
        self._hidden = [*self._hidden[-_SHOWN_TAIL + 1 :], text]

    def break_silence(self, elapsed_s: float, usage: process.Usage, gpu_used: tuple[int, ...]) -> None:
        if time.monotonic() - self._last < _SILENCE_S:
            return
        self._last = time.monotonic()
        gpu = f", GPU memory in use {', '.join(map(in_words, gpu_used))}" if gpu_used else ""
        self._context.log(
            f"step {self._step}: still running after {elapsed_s:.0f} s, memory {in_words(usage.rss_bytes)} "
            f"(at most {in_words(usage.peak_rss_bytes)}){gpu}"
        )

    def close(self) -> None:
        if self._hidden_count > len(self._hidden):
            self._context.log(
                f"[... {self._hidden_count - len(self._hidden)} lines only in {self._file.path}]"
            )
        for text in self._hidden:
            self._context.log(text)


def _results(
    context: StepContext, step: PlannedStep, made: Mapping[str, FileMark], named: list[Path]
) -> Path:
    """The directory with the step's results, checked."""
    plan, workspace = context.plan, context.plan.workspace
    found = outputs.find(workspace, made, named)
    if step.output_dir is None:
        if found is None:
            message = f"{Path(step.program[-1]).name} exited 0, but {_nowhere(plan, made)}"
            raise StepOutputError(step.name, message, exit_code=0)
        context.log(f"step {step.name}: its new files are in {found}")
        context.ledger.drop_stale(step.name, found, made)
        output_dir = found
    else:
        output_dir = step.output_dir
        _check_declared(plan, step, output_dir, found, made)
    facts = None
    try:
        if step.name == "build":
            facts = engine_layout.check_engine(output_dir)
        else:
            engine_layout.check_checkpoint(output_dir)
    except engine_layout.LayoutError as error:
        raise StepOutputError(step.name, f"exited 0, but {error}", exit_code=0) from None
    for warning in getattr(facts, "warnings", ()):
        context.log(f"warning: {warning}")
    return output_dir


def _nowhere(plan: Plan, made: Mapping[str, FileMark]) -> str:
    """Why no directory was found, and what to do about it."""
    several = outputs.top_directories(made)
    if several:
        return f"its files went to several directories ({', '.join(several)}); name one of them as output_dir"
    root = plan.workspace.root
    return f"it wrote no files below {root}; check which of its options names the output directory"


def _check_declared(
    plan: Plan, step: PlannedStep, output_dir: Path, found: Path | None, made: Mapping[str, FileMark]
) -> None:
    real = Path(os.path.realpath(output_dir))
    written = step.config.output_dir
    line = plan.config.source.line(step.name, "output_dir")
    where = f"{plan.config.source.name}:{line}: {step.name}.output_dir {written!r}"
    if real != output_dir or not real.is_relative_to(plan.workspace.root):
        message = f"exited 0, but made a link of its output directory that leads to {real} ({where})"
        raise StepOutputError(step.name, message, exit_code=0)
    if output_dir.is_dir() and any(path.is_file() for path in output_dir.rglob("*")):
        return
    state = "is empty" if output_dir.is_dir() else "does not exist"
    if found is None:
        advice = _nowhere(plan, made)
    else:
        relative = found.relative_to(plan.workspace.root)
        advice = (
            f"its files went to ./{relative}; change that line to output_dir: ./{relative}, or leave it out"
        )
    raise StepOutputError(step.name, f"exited 0, but {where} {state}: {advice}", exit_code=0)


def _why(exit_code: int, peak_bytes: int, oom_killed: bool) -> str:
    """An exit code in words."""
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    name = f"signal {-exit_code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-exit_code).name
    text = f"was killed by {name}"
    if -exit_code != signal.SIGKILL:
        return text
    total = resources.machine_memory_bytes()
    text += f"; its process tree used {in_words(peak_bytes)} of the machine's {in_words(total)} of memory"
    if oom_killed or peak_bytes > 0.8 * total:
        text += ": probably out of memory; use a machine with more, or fewer workers"
    return text


def _left_behind(made: Mapping[str, FileMark]) -> str:
    if not made:
        return "; it left no files behind"
    size = sum(mark.size for mark in made.values())
    parent = os.path.commonpath([str(Path(name).parent) for name in made]) or "."
    return f"; it left {len(made)} files ({in_words(size)}) in {parent}"


def _removed(made: Mapping[str, FileMark], root: Path) -> str:
    size = sum(mark.size for mark in made.values())
    return (
        f"; the disk of {root} is full, so the {len(made)} files ({in_words(size)}) that it had written are "
        "removed: free some, or name another TRT_LLM_WORKSPACE, and build again"
    )


def _cost(report: StepReport) -> str:
    gpu = report.peak_gpu_memory_bytes
    more = f", GPU memory at most {', '.join(map(in_words, gpu))}" if gpu else ""
    return f"CPU {report.cpu_s:.1f} s, memory at most {in_words(report.peak_memory_bytes)}{more}"
