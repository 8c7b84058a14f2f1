"""One step: its directory emptied, its script run, its results found and checked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from trt_llm_pipeline.cache import FileHashes, StepCache
from trt_llm_pipeline.errors import (
    DiskFull,
    StepDiskFull,
    StepFailed,
    StepOutOfMemory,
    StepTimeout,
    TrtLlmPipelineError,
    WorkspaceError,
    add_note,
)
from trt_llm_pipeline.plan import Plan, PlannedStep
from trt_llm_pipeline.plan.command import argument_dirs, shell_line
from trt_llm_pipeline.process import UNCONFINED, Layers, ProcessResult, Usage, resources, run
from trt_llm_pipeline.process.gpus import GpuMonitor
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.step import failure, results, unpackable
from trt_llm_pipeline.step.confine import Confined, confined, import_root
from trt_llm_pipeline.step.log import LogFile, StepLog
from trt_llm_pipeline.step.timing import TimingCache
from trt_llm_pipeline.step.view import Seen, View
from trt_llm_pipeline.units import in_time, in_words
from trt_llm_pipeline.workspace import FileMark, Ledger, Workspace, disk

_MOST_SAMPLES = 600


Sample = tuple[float, int, tuple[int, ...]]


@dataclass(frozen=True)
class StepReport:
    """What a step did.

    Attributes:
        name: the step's.
        argv: what was run.
        output_dir: where its results are.
        wall_s, cpu_s: seconds.
        peak_memory_bytes: of its whole process tree.
        peak_gpu_memory_bytes: in use on each GPU while it ran.
        cached: its results are those of an earlier build.
        beside: what it wrote elsewhere in the workspace, by relative path.
        removed: whether it removed files that it had not made; that cannot be done again from the cache.
        foreign: what somebody else has put into its output directory meanwhile, by relative path.
        began: when its script was started, as `time.monotonic` tells it; None where it was not.
        samples: memory over time: seconds since it began, bytes of its tree, bytes in use on each GPU.
    """

    name: str
    argv: tuple[str, ...]
    output_dir: Path
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: tuple[int, ...] = ()
    cached: bool = False
    samples: tuple[Sample, ...] = ()
    beside: tuple[str, ...] = ()
    removed: bool = False
    foreign: tuple[str, ...] = ()
    began: float | None = None


@dataclass(frozen=True)
class StepContext:
    """What every step of a build shares.

    Attributes:
        plan, ledger: the build's.
        env: the service's environment, of which a step gets what is listed.
        token: for the Hub, for steps that ask for it.
        redactor: knows the secrets.
        log: is told what happens.
        output: is told what scripts print.
        usage: is told, each second, what the programs of a step use; see `Observer.usage`.
        logs: the directory for what scripts print.
        gpus: whose memory is watched.
        default_timeout: seconds, for steps that have no limit of their own; None for none.
        layers: what can be held of a sandbox here.
        timing: the timings of kernels that are kept; None where none are.
        options: what the parsers of the steps' scripts accept, by step, where that is known.
    """

    plan: Plan
    ledger: Ledger
    env: Mapping[str, str]
    token: str | None
    redactor: Redactor
    log: Callable[[str], None]
    logs: Path
    gpus: GpuMonitor
    default_timeout: float | None
    output: Callable[[str], None]
    usage: Callable[[str, int, int, Sequence[int]], None]
    layers: Layers = UNCONFINED
    timing: TimingCache | None = None
    options: Mapping[str, frozenset[str]] = field(default_factory=dict)


def prepare_imports(plan: Plan) -> None:
    """Makes the directory from which a script can import `examples`. Called with the workspace locked."""
    link = import_root(plan) / "examples"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(plan.toolchain.examples, target_is_directory=True)


def run_step(context: StepContext, step: PlannedStep, found: Mapping[str, Path]) -> StepReport:
    """Runs one step.

    Args:
        context: the build's.
        step: which.
        found: the output directories of the steps before it.

    Raises:
        StepFailed: the script failed; with its exit code, its last lines and what it left behind.
        StepOutOfMemory, StepDiskFull: likewise, and the machine was too small for it.
        StepTimeout: it took longer than it was allowed to.
        StepOutputError: it exited 0 without what it promised, or with what cannot be packed.
        WorkspaceError: its directory holds files that no build made, or the script has succeeded and written
            what is not its.
    """
    plan, workspace = context.plan, context.plan.workspace
    rendered = plan.render(step, found)
    argv = (*step.program, *rendered.argv)
    named = argument_dirs(workspace, rendered.argv)
    if step.output_dir is not None:
        context.ledger.empty(step.output_dir, step.config.output_dir or str(step.output_dir))
    else:
        context.ledger.empty_found(step.name, named, keep=found.values())
    context.log(f"step {step.shown}: {shell_line(argv)}")
    before = workspace.files()
    context.ledger.begin(step.name, before, lands=context.layers.files)
    kills = resources.oom_kills()
    seen = Seen(
        before=before,
        ours=context.ledger.ours(before),
        kept=tuple(found.values()),
        named=(*named, *filter(None, [step.output_dir])),
        model_dir=plan.model_dir,
        datasets=plan.dataset_dirs,
    )
    layers, env, token = context.layers, context.env, context.token
    with confined(plan, step, argv, seen, layers=layers, env=env, token=token) as how:
        how, timing = _with_timings(context, step, how, rendered.argv)
        places = workspace.own_directories(plan.model_dir, *plan.dataset_dirs.values(), context.logs)
        scene = _Scene(step, named, before, places, how.view)
        try:
            with workspace.step_lock() as held:
                began = time.monotonic()
                result, samples = _supervise(context, step, how, places, held)
        except BaseException as first:
            _settle_after(first, context, scene)
            raise
        oom_killed = resources.oom_kills() > kills
        if timing and result.exit_code == 0:
            timing.keep(how.cwd)
        try:
            made, full = _settle(context, scene)
            if result.refused is not None:
                raise result.refused
        except (OSError, TrtLlmPipelineError) as second:
            with _noting(second):
                _refuse_failure(context, step, result, None, full=False, oom_killed=oom_killed)
            raise
    # In a view a script cannot remove anything else; whoever has done it, the step has not.
    removed = how.view is None and any(not os.path.lexists(workspace.root / name) for name in before)
    _refuse_failure(context, step, result, made, full=full, oom_killed=oom_killed)
    output_dir = results.checked(plan, context.ledger, context.log, step, made, named)
    unpackable.refuse(step.name, workspace.root, made, output_dir)
    context.ledger.found(step.name, output_dir)
    foreign = tuple(sorted(set(workspace.files_in(output_dir)) - set(made)))
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        context.log(
            f"warning: {', '.join(foreign[:3])}{more} appeared in the output directory of {step.shown} while "
            "it ran, and the step has not made that; it goes where the step's results go"
        )
    report = StepReport(
        name=step.name,
        argv=argv,
        output_dir=output_dir,
        wall_s=result.wall_s,
        cpu_s=result.cpu_s,
        peak_memory_bytes=result.peak_rss_bytes,
        peak_gpu_memory_bytes=_gpu_peak(samples),
        samples=tuple(samples),
        beside=tuple(name for name in made if not (workspace.root / name).is_relative_to(output_dir)),
        removed=removed,
        foreign=foreign,
        began=began,
    )
    context.log(f"step {step.shown}: done in {result.wall_s:.1f} s, {_cost(report)}, output in {output_dir}")
    return report


def _with_timings(
    context: StepContext, step: PlannedStep, how: Confined, argv: Sequence[str]
) -> tuple[Confined, TimingCache | None]:
    """How a step is run that is given the timings of earlier builds; None where it takes none."""
    timing, options = context.timing, context.options.get(step.name, frozenset())
    if timing is None or not timing.takes_part(options, argv):
        return how, None
    more = timing.give(how.cwd, options)
    if more is None:
        return how, timing
    context.log(f"step {step.shown}: given the timings of kernels that are kept for {timing.about}")
    return replace(how, argv=(*how.argv, *more)), timing


@dataclass(frozen=True)
class _Scene:
    """What the workspace looked like before a script ran.

    Attributes:
        step: whose script.
        named: the paths that its arguments name.
        before: every file.
        places: where the service's own directories led.
        view: where everything lands that the script writes; None for the workspace itself.
    """

    step: PlannedStep
    named: list[Path]
    before: Mapping[str, FileMark]
    places: Mapping[Path, tuple[str, bool]]
    view: View | None


def _settle(context: StepContext, scene: _Scene) -> tuple[dict[str, FileMark], bool]:
    """Notes what a script has left, however it ended; the files it made, and whether the disk is full.

    Raises:
        WorkspaceError: it has replaced one of the service's own directories, or written what is not its.
    """
    workspace, ledger, step, view = context.plan.workspace, context.ledger, scene.step, scene.view
    moved: WorkspaceError | None = None
    full = disk.is_full(workspace.root)
    made = view.made() if view else {}
    try:
        workspace.refuse_moved(scene.places)
        if view and full:
            view.remove()
        elif view:
            ledger.land(made)
            view.settle()
    except WorkspaceError as error:
        moved = error
    there = results.changed(scene.before, workspace.files())
    if view:  # what else has appeared in the workspace meanwhile is the user's
        there = {} if full else {name: there[name] for name in view.placed(made) if name in there}
    if not (view and full):
        made = there
    if full and not view:  # nothing can be noted, and no later build succeeds, unless what was written goes
        fresh = set(made) - set(scene.before)
        ledger.discard(name for name in fresh if _below(workspace, name, step, scene.named))
        there = results.changed(scene.before, workspace.files())
    ledger.finish(step.name, there)
    if moved is not None:
        raise moved
    return made, full


def _settle_after(first: BaseException, context: StepContext, scene: _Scene) -> None:
    """`_settle` after an error: what goes wrong now is said beside it and does not replace it."""
    try:
        _settle(context, scene)
    except (TrtLlmPipelineError, OSError) as second:
        add_note(first, str(second))


@contextmanager
def _noting(second: Exception) -> Iterator[None]:
    """Says beside the error that the block raises what has gone wrong besides."""
    try:
        yield
    except TrtLlmPipelineError as first:
        add_note(first, str(second))
        raise first from None


def _refuse_failure(
    context: StepContext,
    step: PlannedStep,
    result: ProcessResult,
    made: Mapping[str, FileMark] | None,
    *,
    full: bool,
    oom_killed: bool,
) -> None:
    """Raises what a script's end means, unless it has succeeded as far as its exit code tells.

    `made` is None where it could not be told what it has left.
    """
    root = context.plan.workspace.root
    left = "" if made is None else failure.removed(made, root) if full else failure.left_behind(made)
    if result.timed_out:
        limit = in_time(_limit(context, step) or 0)
        raise StepTimeout(
            step.shown,
            f"took longer than its limit of {limit} and was ended; raise {step.shown}.timeout{left}",
            tail=result.tail,
        )
    script = Path(step.program[-1]).name
    if result.exit_code != 0:
        code, peak = result.exit_code, result.peak_rss_bytes
        memory = failure.was_memory(code, peak, result.tail, oom_killed=oom_killed)
        kind = StepDiskFull if full else StepOutOfMemory if memory else StepFailed
        reason = failure.exit_in_words(code, peak, memory=memory)
        raise kind(step.shown, f"{script} {reason}{left}", exit_code=code, tail=result.tail)
    if full:
        raise DiskFull(f"step {step.shown}: {script} exited 0{left}")


def restore_step(
    context: StepContext,
    step: PlannedStep,
    cache: StepCache,
    key: str,
    found: Mapping[str, Path],
    hashes: FileHashes,
) -> StepReport | None:
    """Puts the results that are cached under `key` in their place, instead of running the step.

    Args:
        context: the build's.
        step: which.
        cache, key: where the results are.
        found: the output directories of the steps before it.
        hashes: tells whether they are in their place already.

    Returns:
        None where nothing usable is cached.

    Raises:
        WorkspaceError: the step's directory holds files that no build made.
    """
    plan, ledger, workspace = context.plan, context.ledger, context.plan.workspace
    output_dir = cache.has(key)
    if output_dir is None:
        return None
    origin = "results from the shared cache" if cache.place(key) == "shared" else "cached results"
    argv = plan.render(step, found).argv
    report = StepReport(step.name, (*step.program, *argv), output_dir, 0.0, 0.0, 0, cached=True)
    if not cache.holds(key, output_dir, hashes):
        beside = cache.beside(key)
        if not all(ledger.may_replace(name) for name in beside):
            return None
        if step.output_dir is not None:
            ledger.empty(output_dir, step.config.output_dir or str(output_dir))
        else:
            ledger.empty_found(step.name, argument_dirs(workspace, argv), keep=found.values())
            if workspace.files_in(output_dir):
                return None
        ledger.begin(step.name, workspace.files())
        if not cache.restore(key, output_dir):
            context.log(f"step {step.shown}: its cached results are damaged; running it again")
            return None
        put_back = workspace.files_in(output_dir)
        for name in beside:
            put_back.update(workspace.files_in(workspace.root / name))
        ledger.finish(step.name, put_back)
    ledger.found(step.name, output_dir)
    context.log(f"step {step.shown}: unchanged, its {origin} are in {output_dir}")
    return report


def _below(workspace: Workspace, name: str, step: PlannedStep, named: list[Path]) -> bool:
    """True for a file in the step's output directory or below a path that its arguments name."""
    places = [*named, *filter(None, [step.output_dir])]
    return any((workspace.root / name).is_relative_to(place) for place in places)


def _limit(context: StepContext, step: PlannedStep) -> float | None:
    return step.config.timeout or context.default_timeout


def _supervise(
    context: StepContext,
    step: PlannedStep,
    how: Confined,
    places: Mapping[Path, tuple[str, bool]],
    held: int,
) -> tuple[ProcessResult, list[Sample]]:
    started = time.monotonic()
    with LogFile(context.logs / f"{step.name}.log") as file:
        voice = StepLog(context.output, step.shown, file)
        samples: list[Sample] = []
        next_look = started

        def on_turn(usage: Usage) -> None:
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
            context.usage(step.shown, usage.rss_bytes, usage.peak_rss_bytes, used)

        shown = how.view.as_shown if how.view else str
        result = run(
            how.argv,
            cwd=how.cwd,
            env=how.env,
            sandbox=how.sandbox,
            on_line=lambda line: voice.line(shown(line)),
            redactor=context.redactor,
            timeout=_limit(context, step),
            on_turn=on_turn,
            hold=held,
        )
        voice.close()
    return replace(result, tail=tuple(map(shown, result.tail))), samples


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


def _cost(report: StepReport) -> str:
    gpu = report.peak_gpu_memory_bytes
    more = f", GPU memory at most {', '.join(map(in_words, gpu))}" if gpu else ""
    return f"CPU {report.cpu_s:.1f} s, memory at most {in_words(report.peak_memory_bytes)}{more}"
