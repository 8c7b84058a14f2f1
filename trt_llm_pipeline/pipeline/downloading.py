"""The model and the datasets: brought, or found to be there; whether all of it fits is asked before."""

from __future__ import annotations

from collections.abc import Callable

from trt_llm_pipeline import model_source
from trt_llm_pipeline.model_source import DownloadPlan, ModelRequest, Snapshot
from trt_llm_pipeline.pipeline.context import Context
from trt_llm_pipeline.preflight import fitting, preview
from trt_llm_pipeline.preflight.absent import located
from trt_llm_pipeline.workspace import disk


def download(context: Context) -> Snapshot:
    """Brings the model, or finds that it is there."""

    def make_room(to_come: DownloadPlan) -> None:
        if to_come.missing_bytes:
            if to_come.source == "hub":
                check_fit(context, to_come.revision)
            check_room(context, to_come.missing_bytes, to_come.total_bytes)

    with context.measure("download"):
        snapshot = _fetch(context, context.plan.model_request, make_room)
    for warning in snapshot.warnings:
        context.warn(warning)
    context.notes.snapshot = snapshot
    if not snapshot.downloaded_bytes or snapshot.source != "hub":  # not looked at before the download
        check_fit(context, snapshot.revision)
    return snapshot


def download_datasets(context: Context) -> None:
    """Brings the datasets that the config names, or finds that they are there."""

    def make_room(to_come: DownloadPlan) -> None:
        check_room(context, to_come.missing_bytes, 0)

    if not context.plan.config.datasets:
        return
    with context.measure("datasets"):
        for name, request in context.plan.dataset_requests.items():
            snapshot = _fetch(context, request, make_room)
            context.notes.datasets[name] = snapshot
            for warning in snapshot.warnings:
                context.warn(warning)


def _fetch(context: Context, request: ModelRequest, make_room: Callable[[DownloadPlan], None]) -> Snapshot:
    with located(context.plan, request):
        return model_source.fetch(
            request,
            context.settings.workspace.downloads(request.kind),
            token=context.token,
            log=context.voice.log,
            progress=context.received,
            before=make_room,
            env=context.settings.env,
            permission=preview.permission(context.plan, context.settings),
        )


def check_fit(context: Context, revision: str) -> None:
    """Refuses what cannot possibly be loaded or made on this machine, and says what might not fit."""
    found = fitting.fitting(
        context.plan,
        context.settings,
        token=context.token,
        revision=revision or None,
        gpus=context.gpus.gpus,
    )
    fitting.refuse(context.plan, found)
    context.notes.fit = found.assessment
    for note in found.notes:
        context.voice.log(f"note: {note}")


def check_room(context: Context, missing_bytes: int, model_bytes: int) -> None:
    """Makes room if need be: cached steps go first, then old archives, never the newest good one."""
    if not context.settings.disk_check:
        return
    root, steps = context.settings.workspace.root, len(context.plan.steps)
    need = disk.need(root, missing_bytes, model_bytes, steps)
    expendable = (("cached steps", context.cache.give_way), ("old archives", context.builds.give_way))
    for what, give_way in expendable:
        if need.short and give_way(need.short):
            context.voice.log(f"removed {what}, because the disk is short of space")
            need = disk.need(root, missing_bytes, model_bytes, steps)
    need.check(root)
