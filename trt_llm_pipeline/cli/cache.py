"""trt-llm-pipeline cache: what is kept of earlier builds' steps."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from trt_llm_pipeline.cli.edge import JsonOption, failures, print_json, say
from trt_llm_pipeline.cli.inputs import (
    ConfigArgument,
    OfflineOption,
    SetOption,
    WorkspaceOption,
    read_validated,
    settings_of,
)
from trt_llm_pipeline.cli.tables import print_table

app = typer.Typer(name="cache", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def cache(
    context: typer.Context,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove every entry, so that every step runs again.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is cached of earlier builds' steps, or clear it."""
    if context.invoked_subcommand is not None:
        return
    with failures(as_json):
        from trt_llm_pipeline.cache import StepCache
        from trt_llm_pipeline.units import in_words
        from trt_llm_pipeline.workspace import Builds

        place = settings_of(workspace).workspace
        cached = StepCache(place, 0)
        if clear:
            place.prepare()
            with place.lock("trt-llm-pipeline cache --clear"):
                removed = cached.clear()
                Builds(place).forget()
            print_json({"removed_bytes": removed}) if as_json else say(f"{in_words(removed)} removed")
        elif as_json:
            print_json([asdict(entry) for entry in cached.entries()])
        else:
            print_table(
                ("KEY", "LAST USED (UTC)", "SIZE", "STEP", "MODEL, OUTPUT"),
                [
                    (
                        entry.key[:12],
                        time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.last_used)),
                        in_words(entry.size),
                        entry.step,
                        f"{entry.model_id}, {entry.output_dir}",
                    )
                    for entry in cached.entries()
                ],
                nothing="nothing is cached in this workspace; --workspace names another",
            )


@app.command("clear", hidden=True)
def clear_is_an_option() -> None:
    """Says what is meant: `clear` is an option here."""
    with failures(False):
        from trt_llm_pipeline.errors import BadArgument

        raise BadArgument("write `trt-llm-pipeline cache --clear` to remove what is cached")


@app.command()
def lookup(
    config: ConfigArgument,
    sets: SetOption,
    workspace: WorkspaceOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say of each step whether its results are cached.

    Here, or in the shared cache. Builds nothing.
    """
    with failures(as_json):
        from trt_llm_pipeline.preflight import lookup as lookups

        settings = settings_of(workspace, offline)
        validated = read_validated(config, settings, sets)
        found = lookups.look_up(validated, settings, warn=lambda line: say(f"warning: {line}", err=True))
        if as_json:
            print_json([asdict(step) for step in found])
            return
        places = {"here": "cached here", "shared": "in the shared cache", None: "would run"}
        for step in found:
            key = step.key[:12] if step.key else "no key yet"
            why = f", because {step.changed} since its results were cached" if step.changed else ""
            name = validated.plan.config.called(step.name)
            say(f"{name:18}  {key:12}  {places[step.place]}{why}")
