"""What a fleet would do, before anything is started: cells, caches, nodes and downloads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trt_llm_pipeline import model_source
from trt_llm_pipeline.fleet.cells import Cell, Fleet, Resources
from trt_llm_pipeline.fleet.node import Node
from trt_llm_pipeline.fleet.nodes import NodeInfo, cannot_run, missing, this_machine, wanted
from trt_llm_pipeline.fleet.records import Records
from trt_llm_pipeline.model_source import DownloadPlan, ModelRequest
from trt_llm_pipeline.preflight.absent import located
from trt_llm_pipeline.preflight.lookup import look_up
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.units import counted, in_words

_SHOWN_NODES = 3
_SHOWN_CELLS = 3


@dataclass(frozen=True)
class PlannedCell:
    """A cell that has not been run.

    Attributes:
        delivered: there is nothing left to do.
        steps: its steps.
        cached: those of them whose results this machine would find: `here` or `shared`.
        nodes: which nodes could run it.
    """

    cell: Cell
    delivered: bool
    steps: tuple[str, ...]
    cached: Mapping[str, str]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class FleetPlan:
    """A fleet that has not been run.

    Attributes:
        cells: in order.
        models, datasets: each one once, with its bytes and what of them the fleet's own copies here do not
            have.
        infeasible: what no node has, by what of the cells that are left needs it.
        notes: what could not be checked, and which cells are the same engine, once each.
    """

    fleet: Fleet
    cells: tuple[PlannedCell, ...]
    models: tuple[DownloadPlan, ...]
    datasets: tuple[DownloadPlan, ...]
    infeasible: Mapping[Resources, str]
    notes: tuple[str, ...]

    @property
    def download_bytes(self) -> int:
        """What all models and datasets together have, each counted once."""
        return sum(each.total_bytes for each in (*self.models, *self.datasets))

    @property
    def missing_bytes(self) -> int:
        """What of that is not in the fleet's own copies on this machine, and would be downloaded."""
        return sum(each.missing_bytes for each in (*self.models, *self.datasets))

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values; sizes in bytes."""
        return {
            "id": self.fleet.fleet_id,
            "records": self.fleet.records.address,
            "cells": [
                {
                    **asdict(one.cell),
                    "address": f"{self.fleet.root.address}/{one.cell.key}",
                    "delivered": one.delivered,
                    "steps": list(one.steps),
                    "cached": dict(one.cached),
                    "nodes": list(one.nodes),
                }
                for one in self.cells
            ],
            "models": [_as_json(model, "model_id") for model in self.models],
            "datasets": [_as_json(dataset, "id") for dataset in self.datasets],
            "download_bytes": self.download_bytes,
            "missing_bytes": self.missing_bytes,
            "infeasible": [{**asdict(need), "reason": why} for need, why in self.infeasible.items()],
            "notes": list(self.notes),
        }

    def as_text(self) -> str:
        """All of it for people."""
        lines = [
            f"{self.fleet.fleet_id}: {counted(len(self.cells), 'cell')}",
            f"records {self.fleet.records.address}",
            "",
        ]
        for one in self.cells:
            state = "delivered" if one.delivered else self._state(one)
            lines.append(f"{one.cell.name}  {state}")
            lines.append(f"  needs {wanted(one.cell.resources)}; {_on(one.nodes)}")
            lines.append(f"  to {self.fleet.root.address}/{one.cell.key}")
        lines.append("")
        lines += [_as_text("model", model) for model in self.models]
        lines += [_as_text("dataset", dataset) for dataset in self.datasets]
        lines.append(
            f"downloads: {in_words(self.download_bytes)} for a node that has nothing, "
            f"{in_words(self.missing_bytes)} for this machine; each counted once"
        )
        lines += cannot_run([one.cell for one in self.cells if not one.delivered], self.infeasible)
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _state(self, one: PlannedCell) -> str:
        if not one.cached:
            return "to build"
        shown = ", ".join(f"{step} {place}" for step, place in one.cached.items())
        left = [step for step in one.steps if step not in one.cached]
        return f"to build, cached: {shown}" if left else f"to pack, every step is cached: {shown}"


def make(fleet: Fleet, settings: Settings, nodes: Sequence[NodeInfo] | None) -> FleetPlan:
    """Puts everything together. Starts and writes nothing.

    Args:
        fleet: with its validated configs.
        settings: this machine's.
        nodes: the cluster's; None for this machine alone.

    Raises:
        ModelSourceError: a model or a dataset is not there, or its source cannot be asked.
        DeliveryError: the records cannot be read.
    """
    there = [this_machine()] if nodes is None else list(nodes)
    listing = Records(fleet).listing()
    node = Node(settings)
    planning = node.planning()
    requests: dict[ModelRequest, DownloadPlan] = {}
    cached: dict[str, dict[str, str]] = {}
    notes: dict[str, None] = dict.fromkeys(_same_engines(fleet.cells))
    token = settings.hub_token(None, None)
    for config, validated in fleet.validated.items():
        plan = validated.plan
        for request in plan.requests:
            if request not in requests:
                with located(plan, request):
                    requests[request] = model_source.plan(
                        request, node.shared(request), token=token, env=settings.env
                    )
        places = look_up(
            validated,
            planning,
            download=requests[plan.model_request],
            datasets={name: requests[wanted] for name, wanted in plan.dataset_requests.items()},
            warn=lambda text: notes.update({text: None}),
        )
        cached[config] = {step.name: step.place for step in places if step.place is not None}
        notes.update(dict.fromkeys(validated.notes))
    needs = list(dict.fromkeys(cell.resources for cell in fleet.cells))
    able = {need: tuple(one.host for one in there if not one.lacks(need)) for need in needs}
    cells = tuple(
        PlannedCell(
            cell,
            listing.cell(cell.name).delivered,
            tuple(step.name for step in fleet.validated[cell.config].plan.steps),
            cached[cell.config],
            able[cell.resources],
        )
        for cell in fleet.cells
    )
    left = list(dict.fromkeys(one.cell.resources for one in cells if not one.delivered))
    models = tuple(found for request, found in requests.items() if request.kind == "model")
    datasets = tuple(found for request, found in requests.items() if request.kind == "dataset")
    return FleetPlan(fleet, cells, models, datasets, missing(there, left), tuple(notes))


def _same_engines(cells: Sequence[Cell]) -> Iterator[str]:
    """A sentence for all cells that are alike but for where they go, by the values that they differ in."""
    alike: dict[tuple[str, Resources], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((cell.config, cell.resources), []).append(cell)
    by_values: dict[tuple[str, ...], list[Cell]] = {}
    for group in alike.values():
        every = dict.fromkeys(name for cell in group for name in cell.values)
        differing = tuple(name for name in every if len({cell.values.get(name) for cell in group}) > 1)
        if differing:
            by_values.setdefault(differing, group)
    for names, example in by_values.items():
        some = ", ".join(cell.name for cell in example[:_SHOWN_CELLS])
        references = " and ".join(f"${{matrix.{name}}}" for name in names)
        it = "it" if len(names) == 1 else "them"
        yield (
            f"cells that differ in {' and '.join(names)} only have the same config and the same needs, so "
            f"each builds the same engine, such as {some}; say {references} in the config, or leave {it} out"
        )


def _as_json(found: DownloadPlan, key: str) -> dict[str, Any]:
    return {
        key: found.model_id,
        "revision": found.revision,
        "total_bytes": found.total_bytes,
        "missing_bytes": found.missing_bytes,
    }


def _as_text(what: str, found: DownloadPlan) -> str:
    return (
        f"{what} {found.model_id} at {found.revision or 'no known revision'}: "
        f"{in_words(found.total_bytes)}, {in_words(found.missing_bytes)} not in the fleet's own copies here"
    )


def _on(nodes: Sequence[str]) -> str:
    if not nodes:
        return "no node has it"
    more = f" and {len(nodes) - _SHOWN_NODES} more" if len(nodes) > _SHOWN_NODES else ""
    return f"could run on {', '.join(nodes[:_SHOWN_NODES])}{more}"
