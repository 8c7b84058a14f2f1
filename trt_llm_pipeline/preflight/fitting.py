"""Will the engine of a plan fit: the model's `config.json` and the config's arguments, brought together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trt_llm_pipeline import fit
from trt_llm_pipeline.config.references import UnresolvedReferenceError
from trt_llm_pipeline.errors import DoesNotFit, ModelSourceError
from trt_llm_pipeline.fit import Assessment, Device, EngineArguments, Host, ModelShape, UnknownShape
from trt_llm_pipeline.model_source import peek_config, read_config
from trt_llm_pipeline.plan import Plan
from trt_llm_pipeline.preflight.families import unsuited
from trt_llm_pipeline.process.gpus import Gpu, GpuMonitor
from trt_llm_pipeline.process.resources import machine_memory_bytes
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.workspace import Builds

#: Options that say on how many ranks the weights are.
PARALLEL_KEYS = ("tp_size", "tensor_parallelism", "tensor-parallelism", "world_size")


@dataclass(frozen=True)
class Fitting:
    """Whether an engine fits, or why that is not known.

    Attributes:
        assessment: None where it could not be computed, or nobody wants to know.
        reason: why it could not be, as the end of a sentence; None where it was, or is not wanted.
        unasked: it could not be, because the model's source did not say.
        asked: a GPU was named, so that what this machine has is not what counts.
        unsuited: why the example's scripts seem to be for other models; None where nothing says so.
    """

    assessment: Assessment | None
    reason: str | None = None
    asked: bool = False
    unasked: bool = False
    unsuited: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell the user, a sentence each."""
        notes = [] if self.unsuited is None else [self.unsuited]
        if (found := self.assessment) is not None:
            told = (*found.errors, *found.warnings, *found.arguments.assumed)
            notes += [f"fit: {text}" for text in told]
        elif self.reason is not None:
            notes.append(f"whether it fits is not checked: {self.reason}")
        return tuple(notes)

    @property
    def possible(self) -> bool:
        """False where the engine cannot be loaded on the GPU that was named, or loaded or built here."""
        if self.assessment is None:
            return True
        if self.asked:
            return all(verdict.answer != "no" for verdict in self.assessment.verdicts)
        return not self.assessment.errors

    def as_json(self) -> dict[str, Any] | None:
        """As JSON values; None where nobody wants to know."""
        if self.assessment is not None:
            return self.assessment.as_json()
        return None if self.reason is None else {"not_checked": self.reason}


def fitting(
    plan: Plan,
    settings: Settings,
    *,
    token: str | None = None,
    gpu: Device | None = None,
    revision: str | None = None,
    gpus: Sequence[Gpu] | None = None,
) -> Fitting:
    """Works out whether the engine of a plan fits; asks the model's source for its `config.json` if need be.

    Args:
        plan: what would be built.
        settings: where, and with what environment.
        token: for the Hub.
        gpu: the GPU to load it on, instead of this machine's.
        revision: the commit to ask about; None for what the config says.
        gpus: this machine's, where they have been looked for.

    Raises:
        ConfigError: the toolchain's example takes no model of this type.
    """
    config = plan.config
    if not config.fit or not settings.fit_check:
        return Fitting(None)
    request = replace(plan.model_request, revision=revision or config.revision)
    used = settings.hub_token(token, config.hf_token)
    try:
        content = peek_config(request, plan.workspace.models, token=used, env=settings.env)
    except ModelSourceError as problem:
        return Fitting(None, f"{problem}", unasked=True)
    wrong = unsuited(plan, content)
    try:
        shape, arguments = _read(plan, content)
    except UnknownShape as problem:
        return Fitting(None, f"{problem}", unsuited=wrong)
    if gpus is None:
        with GpuMonitor(settings.env) as monitor:
            gpus = monitor.gpus
    memory = machine_memory_bytes()
    if gpu is not None:
        devices: list[Device] = [gpu]
    elif plan.toolchain.name == "cpu":
        share = memory // arguments.world_size
        devices = [Device("this machine", share, None, "its memory, shared by the ranks")]
    else:
        devices = list(_devices(gpus))
    peaks = fit.recorded_peaks(Builds(plan.workspace).records(), config.model_id, fit.facts(shape, arguments))
    host = Host(memory, sum(each.memory_bytes for each in gpus))
    assessment = fit.assess(shape, arguments, devices, host, peaks, steps=len(list(config.steps())))
    return Fitting(assessment, asked=gpu is not None, unsuited=wrong)


def refuse(plan: Plan, found: Fitting) -> None:
    """Refuses a build whose engine cannot possibly be loaded or made on this machine.

    Raises:
        DoesNotFit: it cannot; with what would be enough.
    """
    if found.assessment is None or not found.assessment.errors:
        return
    advice = " (fit: off in the config, or TRT_LLM_FIT_CHECK=off, builds it all the same)"
    mistakes = [plan.config.mistake(text + advice, *_blamed(plan)) for text in found.assessment.errors]
    raise DoesNotFit(mistakes, plan.config.source.name)


def facts_of(plan: Plan, model_dir: Path) -> dict[str, Any] | None:
    """What a manifest says of the engine's size, which is the same on every machine; None where unknown.

    Args:
        plan: what is built.
        model_dir: the model, downloaded.
    """
    try:
        return fit.facts(*_read(plan, read_config(model_dir)))
    except (ModelSourceError, UnknownShape):
        return None


def _read(plan: Plan, content: Mapping[str, Any]) -> tuple[ModelShape, EngineArguments]:
    shape = fit.shape_of(content)
    resolve = plan.resolver(plan.expected_dirs())
    steps: dict[str, dict[str, bool | str | list[str]]] = {}
    for name, step in plan.config.steps():
        steps[name] = {}
        for key, value in step.args.items():
            try:
                if isinstance(value, str):
                    steps[name][key] = resolve(value)
                elif isinstance(value, list):
                    steps[name][key] = [resolve(item) for item in value]
                else:
                    steps[name][key] = value
            except UnresolvedReferenceError:
                continue
    scripts = {name: step.script or step.executable for name, step in plan.config.steps()}
    return shape, fit.read_arguments(steps, scripts, shape.dtype)


def _devices(gpus: Sequence[Gpu]) -> Iterator[Device]:
    """This machine's GPUs, one of each kind."""
    kinds = Counter((gpu.name, gpu.memory_bytes, gpu.compute_capability) for gpu in gpus)
    for (name, memory, capability), count in kinds.items():
        yield Device(name, memory, capability, "NVML", count)


def _blamed(plan: Plan) -> tuple[str, ...]:
    """The key that decides on how many ranks share the weights."""
    for name, step in reversed([*plan.config.steps()]):
        for key in PARALLEL_KEYS:
            if key in step.args:
                return (name, "args", key)
    return ("model_id",)
