"""What of a build is cached, here or in the shared cache, without building it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trt_llm_pipeline import model_source
from trt_llm_pipeline.cache import FileHashes, StepCache, StepKey, StepKeys, remote
from trt_llm_pipeline.model_source import DownloadPlan, ModelRequest
from trt_llm_pipeline.preflight.absent import located
from trt_llm_pipeline.preflight.validation import Validated
from trt_llm_pipeline.process.gpus import GpuMonitor
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.workspace import Ledger


@dataclass(frozen=True)
class CachedStep:
    """A step, and where its results would come from.

    Attributes:
        name: the step's.
        key: what they depend on; None where that cannot be told before an earlier step has run.
        place: `here` or `shared`; None where it would run.
        changed: what has changed since results of it were kept, as a clause; empty where that is not known.
    """

    name: str
    key: str | None
    place: Literal["here", "shared"] | None
    changed: str = ""


def foreseen(
    validated: Validated,
    settings: Settings,
    download: DownloadPlan,
    cache: StepCache,
    datasets: Mapping[str, DownloadPlan],
) -> tuple[dict[str, StepKey], dict[str, Path]]:
    """The keys and output directories of as many steps as can be told before anything has run.

    Args:
        validated: the config.
        settings: where, and with what environment.
        download: which model it would be.
        cache: is asked where results would be put back.
        datasets: which datasets, by their names in the config.
    """
    hashes = FileHashes(settings.workspace.state / "hashes.json")
    with GpuMonitor(settings.env) as gpus:
        try:
            ledger = Ledger(settings.workspace)
            known = validated.plan, download.source, download.revision, ledger, gpus.gpus, hashes
            commits = {name: dataset.revision for name, dataset in datasets.items()}
            return StepKeys(*known, layers=validated.layers, env=settings.env, datasets=commits).foresee(
                cache
            )
        except OSError:  # what cannot be read is not cached either
            return {}, {}


def look_up(
    validated: Validated,
    settings: Settings,
    *,
    download: DownloadPlan | None = None,
    datasets: Mapping[str, DownloadPlan] | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[CachedStep, ...]:
    """Where the results of each step would come from, on this machine with its GPUs.

    Args:
        validated: the config.
        settings: where the caches are.
        download: from `model_source.plan`, if that has been asked already: which revision it would be.
        datasets: likewise, by their names in the config.
        warn: is told what of the shared cache cannot be read.

    Raises:
        NoSuchModel: a source has no such model or dataset.
        ModelSourceError: it cannot be asked.
        PipelineError: a variable of the shared cache makes no sense.
    """
    plan = validated.plan
    nothing = tuple(CachedStep(step.name, None, None) for step in plan.steps)
    if not plan.config.cache:
        return nothing
    token = settings.hub_token(None, plan.config.hf_token)

    def asked(request: ModelRequest) -> DownloadPlan:
        folder = plan.workspace.downloads(request.kind)
        with located(plan, request):
            return model_source.plan(request, folder, token=token, env=settings.env)

    if download is None:
        download = asked(plan.model_request)
    if download.source == "tar":  # its revision is known once it is here
        return nothing
    shared = remote.from_env(settings.env, warn=warn)
    cache = StepCache(settings.workspace, 0, settings.cache_folder, shared)
    if datasets is None:
        datasets = {name: asked(request) for name, request in plan.dataset_requests.items()}
    by_step, _ = foreseen(validated, settings, download, cache, datasets)
    found = []
    for step in plan.steps:
        key = by_step.get(step.name)
        value = key.value if key else None
        place = cache.place(value) if value else None
        missed = key is not None and place is None
        changed = key.changed(cache, step.name, plan.config.model_id) if key and missed else ""
        found.append(CachedStep(step.name, value, place, changed))
    return tuple(found)
