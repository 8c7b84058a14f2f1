"""trt-llm-pipeline builds: what earlier builds of a workspace have left."""

from __future__ import annotations

import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trt_llm_pipeline.cli.edge import JsonOption, failures, print_json, say
from trt_llm_pipeline.cli.inputs import WorkspaceOption, settings_of
from trt_llm_pipeline.cli.tables import print_table
from trt_llm_pipeline.printable import near, printable

if TYPE_CHECKING:
    from trt_llm_pipeline.workspace import Build

app = typer.Typer(name="builds", rich_markup_mode=None)

BuildArgument = Annotated[
    str | None,
    typer.Argument(metavar="[BUILD]", help="A build's id, or the beginning of one. [default: the newest]"),
]


@app.callback(invoke_without_command=True)
def builds(context: typer.Context, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List what earlier builds have left, the newest first."""
    if context.invoked_subcommand is None:
        list_builds(workspace, as_json)


@app.command("list")
def list_builds(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List what earlier builds have left, the newest first."""
    with failures(as_json):
        found = _builds(workspace)
        if as_json:
            print_json([_in_short(build) for build in found])
            return
        print_table(
            ("BUILD", "STATE", "MODEL AND RESULT"),
            [(build.build_id, build.state, _result(build)) for build in found],
            nothing="no build has left anything in this workspace; --workspace names another",
        )


@app.command()
def show(build: BuildArgument = None, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Print what a build came to, and where its files are."""
    with failures(as_json):
        from trt_llm_pipeline.terminal.summary import facts

        chosen = _chosen(build, workspace)
        record = chosen.whole()
        if as_json:
            print_json(record if record is not None else _in_short(chosen))
            return
        if record is not None:
            rows = [("build", chosen.build_id), *facts(record, chosen.directory, chosen.archive)]
        else:
            rows = _of_unfinished(chosen)
        for name, value in rows:
            say(printable(f"{name + ':':9} {near(value)}"))


def _of_unfinished(build: Build) -> list[tuple[str, str]]:
    """What is known of a build that has made no archive."""
    from trt_llm_pipeline.plan.command import shell_line
    from trt_llm_pipeline.report import names_of
    from trt_llm_pipeline.units import in_time

    record, short = build.record, _in_short(build)
    state = build.state if build.process is None else f"{build.state} (process {build.process})"
    failed = record.get("failed")
    told = failed if isinstance(failed, Mapping) else {}
    argv = told.get("argv")
    rows = [
        ("build", build.build_id),
        ("state", state),
        ("model", short["model_id"]),
        ("time", in_time(short["seconds"]) if short["seconds"] else None),
        ("stage", names_of(record)(str(told["stage"])) if told.get("stage") else None),
        ("command", shell_line(list(map(str, argv))) if argv and isinstance(argv, list) else None),
        ("error", short["error"]),
        *((name, path) for name, path in build.files().items()),
    ]
    return [(name, str(value)) for name, value in rows if value]


@app.command()
def logs(
    build: BuildArgument = None,
    step: Annotated[str | None, typer.Option(help="Only what that step has printed.")] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Print what a build's scripts have printed."""
    with failures(False):
        from trt_llm_pipeline.errors import BadArgument

        chosen = _chosen(build, workspace)
        files = chosen.logs()
        if step is not None and step not in files:
            raise BadArgument(
                f"build {chosen.build_id} has no log of {step!r}; it has {', '.join(files) or 'none'}"
            )
        if not files:
            say(printable(f"build {chosen.build_id} has no logs: {_why_no_logs(chosen)}"), err=True)
        for name in files if step is None else [step]:
            if step is None:
                say(f"== {name}")
            with files[name].open(errors="replace") as lines:
                for line in lines:
                    say(printable(line.rstrip("\n")))


def _why_no_logs(build: Build) -> str:
    """Why none of a build's scripts has printed anything."""
    if build.process is not None:
        return f"it is running (process {build.process}), and no script has begun"
    if build.state != "succeeded":
        return f"it ended before a script ran; `trt-llm-pipeline builds show {build.build_id}` says why"
    why = "no script ran, everything came from the cache"
    if earlier := build.record.get("answered_from"):
        return f"{why}; its archive is that of build {earlier}"
    return why


@app.command("open")
def open_report(build: BuildArgument = None, workspace: WorkspaceOption = None) -> None:
    """Open a build's report in a browser, and print where it is."""
    with failures(False):
        from trt_llm_pipeline.errors import BadArgument

        chosen = _chosen(build, workspace)
        report = chosen.files().get("report")
        if report is None:
            why = " yet: it is running" if chosen.process is not None else f": {_in_short(chosen)['error']}"
            logs = "; `builds logs` prints what its scripts have printed" if chosen.logs() else ""
            raise BadArgument(f"build {chosen.build_id} has no report{why}{logs}")
        say(report)
        if not webbrowser.open(report.as_uri()):
            say("there is no browser here; open that file in one", err=True)


def _builds(workspace: Path | None) -> list[Build]:
    from trt_llm_pipeline.workspace import Builds

    return Builds(settings_of(workspace).workspace).listed()


def _chosen(wanted: str | None, workspace: Path | None) -> Build:
    from trt_llm_pipeline.errors import BadArgument

    found = _builds(workspace)
    if not found:
        raise BadArgument("no build has left anything in this workspace; --workspace names another")
    if wanted is None:
        return found[0]
    matching = [build for build in found if build.build_id.startswith(wanted)]
    if len(matching) != 1:
        what = "names no build" if not matching else f"begins the names of {len(matching)} builds"
        raise BadArgument(f"{wanted!r} {what}; `trt-llm-pipeline builds` lists them")
    return matching[0]


def _result(build: Build) -> str:
    """The model of a build, and its size and time or its error."""
    from trt_llm_pipeline.units import in_time, in_words

    short = _in_short(build)
    text = str(short["model_id"] or "")
    if build.process is not None:
        return f"{text}, process {build.process}"
    if short["error"]:
        error = str(short["error"]).strip().partition("\n")[0]
        return f"{text}: {error}" if text else error
    if short["archive_bytes"] is not None and short["seconds"] is not None:
        return f"{text}, {in_words(short['archive_bytes'])} in {in_time(short['seconds'])}"
    return text


def _in_short(build: Build) -> dict[str, Any]:
    from trt_llm_pipeline.report import figures

    record = build.record
    manifest = record.get("manifest")
    known = figures(record)
    killed = "it ended without a record, as a build that is killed does"
    return {
        "build_id": build.build_id,
        "state": build.state,
        "model_id": manifest.get("model_id") if isinstance(manifest, Mapping) else build.begun_for,
        "process": build.process,
        "seconds": known.get("seconds"),
        "archive_bytes": known.get("archive_bytes"),
        "error": killed if build.state == "unfinished" else record.get("error"),
        **{name: str(path) for name, path in build.files().items()},
    }
