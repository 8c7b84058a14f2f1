"""What a build would do: exact commands, directories, downloads and room on the disk. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_llm_pipeline import fit, model_source
from trt_llm_pipeline.cache import StepCache
from trt_llm_pipeline.errors import ModelSourceError, NoSuchModel, RepositoryCodeRefused
from trt_llm_pipeline.fit import Device
from trt_llm_pipeline.model_source import DownloadPlan, ModelRequest, Permission
from trt_llm_pipeline.net.retrying import RetryLimits
from trt_llm_pipeline.plan import Plan
from trt_llm_pipeline.plan.command import shell_line
from trt_llm_pipeline.preflight.absent import located
from trt_llm_pipeline.preflight.fitting import Fitting, fitting
from trt_llm_pipeline.preflight.lookup import foreseen
from trt_llm_pipeline.preflight.validation import Validated
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.units import in_words
from trt_llm_pipeline.workspace import disk
from trt_llm_pipeline.workspace.disk import DiskNeed

_WARNING = "warning: "


@dataclass(frozen=True)
class StepPreview:
    """One step.

    Attributes:
        name: the step's.
        argv: the command as it would run.
        output_dir: where its results will be; None where that is to be found.
        cached: an earlier build's results will be used instead.
    """

    name: str
    argv: tuple[str, ...]
    output_dir: str | None
    cached: bool


@dataclass(frozen=True)
class Preview:
    """A build that has not been run."""

    validated: Validated
    steps: tuple[StepPreview, ...]
    download: DownloadPlan
    disk: DiskNeed
    fitting: Fitting
    datasets: Mapping[str, DownloadPlan] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values; sizes in bytes."""
        plan = self.validated.plan
        return {
            "toolchain": {
                "name": plan.toolchain.name,
                "version": plan.toolchain.version,
                "follows": list(plan.toolchain.follows),
                "root": str(plan.toolchain.root),
            },
            "checked": self.validated.as_json(),
            "workspace": str(plan.workspace.root),
            "model_dir": str(plan.model_dir),
            "model": {
                "model_id": self.download.model_id,
                "source": self.download.source,
                **_download_json(self.download),
            },
            "datasets": {
                name: {"id": each.model_id, "dir": str(plan.dataset_dirs[name]), **_download_json(each)}
                for name, each in self.datasets.items()
            },
            "steps": [
                {
                    "name": step.name,
                    "argv": list(step.argv),
                    "output_dir": step.output_dir,
                    "cached": step.cached,
                }
                for step in self.steps
            ],
            "disk": {"free_bytes": self.disk.free, "needed_bytes": self.disk.needed},
            "fit": self.fitting.as_json(),
            "notes": list(self.notes),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should read besides."""
        return (*self.validated.notes, *self.fitting.notes)

    def as_text(self) -> str:
        """All of it for people."""
        plan = self.validated.plan
        lines = [plan.toolchain.describe(), self.validated.in_words(), f"workspace {plan.workspace.root}", ""]
        source = self.download
        lines.append(f"model {source.model_id} at {source.revision or 'no known revision'} ({source.source})")
        lines += _download_text(source, plan.model_dir)
        for name, dataset in self.datasets.items():
            lines += ["", f"dataset {name}: {dataset.model_id} at {dataset.revision}"]
            lines += _download_text(dataset, plan.dataset_dirs[name])
        for step in self.steps:
            lines += [
                "",
                f"step {plan.config.called(step.name)}{' (cached)' if step.cached else ''}",
                f"  {shell_line(step.argv)}",
            ]
            lines.append(f"  output in {step.output_dir or 'the directory where its new files will be'}")
        needed = f"about {in_words(self.disk.needed)} needed" if self.disk.needed else "nothing needed"
        parts = f": {self.disk.parts}" if self.disk.parts else ""
        lines += ["", f"disk: {in_words(self.disk.free)} free, {needed}{parts}"]
        if self.fitting.assessment is not None:
            lines += ["", *fit.text_lines(self.fitting.assessment), ""]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def _download_json(download: DownloadPlan) -> dict[str, Any]:
    return {
        "revision": download.revision,
        "total_bytes": download.total_bytes,
        "missing_bytes": download.missing_bytes,
        "files": [{"path": file.path, "size": file.size} for file in download.files],
    }


def _download_text(download: DownloadPlan, into: Path) -> list[str]:
    files = [f"  {in_words(file.size):>10}  {file.path}" for file in download.files]
    sum_up = f"{in_words(download.missing_bytes):>10}  to download" if files else "nothing to download"
    return [f"  into {into}", *files, f"  {sum_up}"]


def permission(plan: Plan, settings: Settings) -> Permission:
    """Who allows that code of the model's is run."""
    return Permission(settings.repository_code, plan.config.allow_repository_code)


def look_for_code(
    validated: Validated, settings: Settings, fitted: Fitting, token: str | None = None
) -> tuple[str, ...]:
    """Asks the sources once for the model and the datasets: are they there, and without code of their own.

    Returns:
        Notes: why it could not be asked, and those of `fitted`. A source that did not answer either of the
        two questions is told of once. What is in a tar shows only while it is unpacked.

    Raises:
        RepositoryCodeRefused: one comes with such code.
        NoSuchModel: a source says that there is none, or not that revision.
    """
    plan = validated.plan
    notes, of_fit = [], fitted.notes
    told: list[str] = []
    for request in plan.requests:
        if request.tar_url is not None:
            continue
        try:
            with located(plan, request):
                model_source.plan(
                    request,
                    plan.workspace.downloads(request.kind),
                    token=settings.hub_token(token, plan.config.hf_token),
                    env=settings.env,
                    log=told.append,
                    limits=RetryLimits(attempts=1),
                    permission=permission(plan, settings),
                )
        except (RepositoryCodeRefused, NoSuchModel):
            raise
        except ModelSourceError as error:
            what = "the model" if request.kind == "model" else f"the dataset {request.model_id}"
            if request.kind == "model" and fitted.unasked:
                what, of_fit = "whether it fits is not checked, and the model", ()
            notes.append(f"{what} was not looked at for code of its own: {error}")
    # What is only tried again is no note.
    notes += [line.removeprefix(_WARNING) for line in told if line.startswith(_WARNING)]
    return (*notes, *of_fit)


def preview(
    validated: Validated,
    settings: Settings,
    token: str | None = None,
    *,
    gpu: Device | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Preview:
    """Asks the model's source what would be downloaded, and puts everything together.

    Args:
        validated, settings, token: as for `pipeline.build`.
        log: is told when the source does not answer and is asked again.

    Raises:
        RepositoryCodeRefused: the model comes with code that nobody has allowed.
        NoSuchModel: the source has no such model or dataset.
        ModelSourceError: it cannot be asked.
    """
    plan = validated.plan
    token = settings.hub_token(token, plan.config.hf_token)

    def asked(request: ModelRequest) -> DownloadPlan:
        folder = plan.workspace.downloads(request.kind)
        allowed = permission(plan, settings)
        with located(plan, request):
            return model_source.plan(
                request, folder, token=token, env=settings.env, log=log, permission=allowed
            )

    download = asked(plan.model_request)
    datasets = {name: asked(request) for name, request in plan.dataset_requests.items()}
    cached = _cached(validated, download, settings, datasets)
    expected = {**plan.expected_dirs(), **cached}
    steps = tuple(
        StepPreview(
            name=step.name,
            argv=(*step.program, *map(plan.without_stand_ins, plan.render(step, expected).argv)),
            output_dir=str(step.output_dir or cached.get(step.name) or "") or None,
            cached=step.name in cached,
        )
        for step in plan.steps
    )
    missing = sum(each.missing_bytes for each in (download, *datasets.values()))
    room = disk.need(plan.workspace.root, missing, download.total_bytes, len(steps) - len(cached))
    fitted = fitting(plan, settings, token=token, gpu=gpu, revision=download.revision or None)
    return Preview(validated, steps, download, room, fitted, datasets)


def _cached(
    validated: Validated, download: DownloadPlan, settings: Settings, datasets: Mapping[str, DownloadPlan]
) -> dict[str, Path]:
    """The output directories of the steps whose results are cached."""
    plan = validated.plan
    place = settings.cache_folder or settings.workspace.state
    if not plan.config.cache or download.source == "tar" or not place.is_dir():
        return {}
    cache = StepCache(settings.workspace, 0, settings.cache_folder)
    by_step, found = foreseen(validated, settings, download, cache, datasets)
    return {
        name: found[name]
        for name, key in by_step.items()
        if name in found and key.value is not None and cache.has(key.value)
    }
