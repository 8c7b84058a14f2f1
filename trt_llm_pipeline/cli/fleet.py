"""trt-llm-pipeline fleet: a matrix of builds, on this machine or on a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trt_llm_pipeline.cli.edge import JsonOption, failures, leave, print_json, say, tell
from trt_llm_pipeline.cli.inputs import WorkspaceOption
from trt_llm_pipeline.printable import printable_lines

if TYPE_CHECKING:
    from trt_llm_pipeline.fleet.cells import Fleet
    from trt_llm_pipeline.fleet.drive import Result, Runner
    from trt_llm_pipeline.fleet.records import Records
    from trt_llm_pipeline.fleet.show import Show

app = typer.Typer(
    name="fleet",
    help="Build a matrix of engines, on this machine or on a Ray cluster.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MatrixArgument = Annotated[str, typer.Argument(metavar="FILE", help="A matrix file, or its address.")]
FleetArgument = Annotated[
    str,
    typer.Argument(
        metavar="FLEET", help="A matrix file, the address of the records, or the id, where it was run here."
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(help="The cluster: ray://HOST:10001. [default: $RAY_ADDRESS, or Ray in this machine]"),
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Let cells that no node can run wait for an autoscaler.")
]
TakeOverOption = Annotated[
    bool, typer.Option("--take-over", help="Replace another process that runs the same fleet.")
]


@app.command()
def plan(
    file: MatrixArgument,
    address: AddressOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every cell, and what a run would do.

    What is delivered or cached, which nodes could run it, and what is downloaded.

    The exit code is 6 where no node can run some of the cells.
    """
    with failures(as_json):
        from trt_llm_pipeline.fleet import cells, fleet_plan
        from trt_llm_pipeline.settings import Settings

        settings = Settings.of_one_owner(workspace=workspace)
        found = cells.load(file, settings)
        nodes = None
        if address or os.environ.get("RAY_ADDRESS"):
            from trt_llm_pipeline.fleet import ray_runner

            with ray_runner.connected(address) as runner:
                nodes = runner.nodes()
        shown = fleet_plan.make(found, settings, nodes)
        print_json(shown.as_json()) if as_json else say(shown.as_text())
        if shown.infeasible:
            leave("resources")


@app.command()
def run(
    file: MatrixArgument,
    address: AddressOption = None,
    wait: WaitOption = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave it running as a job of the cluster and return.")
    ] = False,
    take_over: TakeOverOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build every cell that is not delivered yet."""
    with failures(as_json):
        from trt_llm_pipeline.fleet import cells
        from trt_llm_pipeline.settings import Settings

        settings = Settings.of_one_owner(workspace=workspace)
        found = cells.load(file, settings)
        _run(found, address, wait, detach, take_over, workspace, as_json)


@app.command()
def resume(
    fleet: FleetArgument,
    address: AddressOption = None,
    wait: WaitOption = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave it running as a job of the cluster and return.")
    ] = False,
    take_over: TakeOverOption = False,
    unless_cancelled: Annotated[
        bool, typer.Option("--unless-cancelled", hidden=True, help="What the job of --detach runs with.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a fleet that died or was cancelled.

    Its driver, its head or its cluster may have died.
    """
    with failures(as_json):
        records = _records(fleet, workspace)
        _run(records.fleet, address, wait, detach, take_over, workspace, as_json, unless_cancelled)


@app.command()
def status(
    fleet: FleetArgument,
    serve: Annotated[bool, typer.Option("--serve", help="Show it as a live page on this machine.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The page's port; 0 takes a free one.")] = 8265,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a fleet stands, from its records."""
    with failures(as_json):
        from trt_llm_pipeline.fleet.overview import overview
        from trt_llm_pipeline.fleet.show import print_overview

        records = _records(fleet, workspace)
        if serve:
            from trt_llm_pipeline.fleet.status_page import StatusServer

            with StatusServer(records, port) as server:
                say(server.url)
                server.wait()
            return
        found = overview(records)
        print_json(found.as_json()) if as_json else print_overview(found)


@app.command()
def cancel(fleet: FleetArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Stop a fleet. What is delivered stays.

    Every process of every cell ends within seconds.
    """
    with failures(as_json):
        import getpass
        import platform

        from trt_llm_pipeline.fleet import known
        from trt_llm_pipeline.settings import Settings
        from trt_llm_pipeline.units import counted

        records = _records(fleet, workspace)
        fleet_id = records.fleet.fleet_id
        listing = records.listing()
        if all(listing.cell(cell.name).delivered for cell in records.fleet.cells):
            count = len(records.fleet.cells)
            which = "its cell is" if count == 1 else f"all {counted(count, 'cell')} are"
            said = f"{fleet_id}: {which} delivered; there is nothing to cancel"
            print_json({"cancelled": None, "why": said}) if as_json else say(said)
            return
        records.write_plan()  # what `resume` reads; a fleet that has never run has none yet
        records.cancel(f"{getpass.getuser()} on {platform.node()}")
        known.remember(Settings.of_one_owner(workspace=workspace).workspace, records.fleet)
        if as_json:
            print_json({"cancelled": fleet_id})
        else:
            say(f"{fleet_id} is cancelled; `fleet resume` goes on with it")


@app.command()
def logs(
    fleet: FleetArgument,
    cell: Annotated[str, typer.Argument(metavar="CELL", help="The cell's name, as `fleet status` shows it.")],
    attempt: Annotated[int | None, typer.Option(min=1, help="Which try. [default: the last]")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a cell's build has said."""
    with failures(as_json):
        from trt_llm_pipeline.errors import BadArgument, FleetError

        records = _records(fleet, workspace)
        tries = records.listing().cell(cell).attempts
        if cell not in {each.name for each in records.fleet.cells}:
            raise BadArgument(f"{records.fleet.fleet_id} has no cell {cell!r}; `fleet status` lists them")
        number = attempt or max(tries, default=0)
        text = records.log(cell, number) if number else None
        if text is None:
            if not tries:
                raise BadArgument(f"{cell} has not begun: there is no log yet")
            if number not in tries:
                had = f"{'try' if len(tries) == 1 else 'tries'} {', '.join(map(str, sorted(tries)))}"
                raise BadArgument(f"--attempt: {cell} has no try {number}; it has had {had}")
            raise FleetError(f"{cell} has no log of try {number} yet")
        print_json({"cell": cell, "attempt": number, "log": text}) if as_json else say(text, nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the matrix file, for editors."""
    with failures(False):
        from trt_llm_pipeline.fleet.matrix import json_schema

        print_json(json_schema())


def _run(
    found: Fleet,
    address: str | None,
    wait: bool,
    detach: bool,
    take_over: bool,
    workspace: Path | None,
    as_json: bool,
    unless_cancelled: bool = False,
) -> None:
    from trt_llm_pipeline import pipeline
    from trt_llm_pipeline.errors import add_note
    from trt_llm_pipeline.fleet import drive, known
    from trt_llm_pipeline.settings import Settings

    settings = Settings.of_one_owner(workspace=workspace)
    known.remember(settings.workspace, found)
    local = not (address or os.environ.get("RAY_ADDRESS"))
    if detach:
        from trt_llm_pipeline.fleet.ray_runner import submit_driver

        job = submit_driver(found, address, wait=wait, take_over=take_over)
        fields = {"id": found.fleet_id, "records": found.records.address, "job": job}
        text = f"{found.records.address} runs as {job}; `trt-llm-pipeline fleet status` shows how it stands"
        print_json(fields) if as_json else say(text)
        return
    with ExitStack() as stack:
        show: Show = stack.enter_context(_show(as_json))
        tell_show = show.tell if as_json else lambda event: show.tell(_for_people(event))

        def start() -> Runner:
            there = address or os.environ.get("RAY_ADDRESS")
            begun = f"connecting to the cluster at {there}" if there else "starting Ray"
            tell_show({"event": "log", "line": f"{begun}, which takes some seconds"})
            try:
                from trt_llm_pipeline.fleet import ray_runner
            except ImportError:
                from trt_llm_pipeline.errors import FleetError

                raise FleetError(
                    "Ray is not installed; run script/setup fleet, or pip install -r requirements/fleet.txt"
                ) from None

            return stack.enter_context(ray_runner.connected(address))

        try:
            result = drive.run(
                found,
                pipeline.build,
                start,
                tell_show,
                workspace=str(settings.workspace.root) if local else None,
                wait=wait,
                take_over=take_over,
                unless_cancelled=unless_cancelled,
            )
        except KeyboardInterrupt as interrupted:
            add_note(interrupted, f"`trt-llm-pipeline fleet resume {found.records.address}` goes on with it")
            raise
    _end_with(found, result, as_json)


def _end_with(found: Fleet, result: Result, as_json: bool) -> None:
    """Says what has become of a fleet, as one answer; where cells have failed, with that one's exit code."""
    done = {*result.already, *result.delivered}
    addresses = {cell.name: f"{found.root.address}/{cell.key}" for cell in found.cells if cell.name in done}
    failure = result.failure(found)
    if as_json:
        failed = {name: {"kind": end.kind, "message": end.message} for name, end in result.failed.items()}
        print_json(
            {
                "id": found.fleet_id,
                "records": found.records.address,
                "already": len(result.already),
                "delivered": addresses,
                "failed": failed,
                **(tell(failure, quiet=True) if failure else {}),
            }
        )
    else:
        for address in addresses.values():
            say(address)
        if failure:
            tell(failure)
    if failure:
        leave(failure.kind)


def _for_people(event: Any) -> Any:
    """An event whose texts do nothing to a terminal, wherever in it they are."""
    if isinstance(event, Mapping):
        return {_for_people(key): _for_people(value) for key, value in event.items()}
    if isinstance(event, list | tuple):
        return [_for_people(value) for value in event]
    return printable_lines(event) if isinstance(event, str) else event


def _show(as_json: bool) -> Show:
    from trt_llm_pipeline.fleet.show import JsonShow, LineShow, TableShow

    if as_json:
        return JsonShow(sys.stderr)
    return TableShow() if sys.stderr.isatty() else LineShow()


def _records(text: str, workspace: Path | None) -> Records:
    """The records of a fleet that is named by its file, its records' address or its id."""
    from trt_llm_pipeline.fleet import cells, known
    from trt_llm_pipeline.fleet.records import Records, open_records
    from trt_llm_pipeline.settings import Settings

    settings = Settings.of_one_owner(workspace=workspace)
    if "://" in text and not text.startswith(("http://", "https://")):
        return open_records(text)
    if (address := known.address(settings.workspace, text)) is not None:
        return open_records(address)
    return Records(cells.load(text, settings))
