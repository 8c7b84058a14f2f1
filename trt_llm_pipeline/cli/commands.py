"""trt-llm-pipeline: the same functions as the prediction server's, at a terminal.

Results go to stdout, progress and errors to stderr. With --json both are JSON. Modules that are slow to
import are imported by the command that needs them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trt_llm_pipeline.cli.edge import JsonOption, WorkspaceOption, failures, leave, print_json
from trt_llm_pipeline.cli.fleet import app as fleet_app

app = typer.Typer(
    name="trt-llm-pipeline",
    help="Builds TensorRT-LLM engines from a YAML config.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(fleet_app)
cache_app = typer.Typer(name="cache", rich_markup_mode=None)
app.add_typer(cache_app)

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="A file, or an http(s) address.")]


@app.command()
def build(
    config: ConfigArgument,
    workspace: WorkspaceOption = None,
    destination: Annotated[
        str | None,
        typer.Option(help="Send the archive there instead: s3://, gs://, az://, https://, file://."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build an engine. A token for gated models is taken from $HF_TOKEN."""
    with failures(as_json, kept="what has been downloaded is kept"):
        from trt_llm_pipeline import pipeline
        from trt_llm_pipeline.config.source import read
        from trt_llm_pipeline.preflight import validation
        from trt_llm_pipeline.settings import Settings
        from trt_llm_pipeline.terminal import JsonLines, Terminal

        settings = Settings.of_one_owner(workspace=workspace)
        text, name = read(config, settings.reach)
        validated = validation.validate(text, name, settings)
        with JsonLines(sys.stderr) if as_json else Terminal() as observer:
            result = pipeline.build(validated, settings, observer, destination=destination)
        if as_json:
            print_json({**result.record, "newest": str(result.newest) if result.newest else None})
        else:
            typer.echo(result.newest or result.archive or result.record["archive"]["address"])


@app.command()
def validate(config: ConfigArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Name every mistake of a config: exit code 0 without any, else 2. Writes nothing."""
    with failures(as_json):
        from trt_llm_pipeline.config.source import read
        from trt_llm_pipeline.preflight import fitting, preview, validation
        from trt_llm_pipeline.settings import Settings

        settings = Settings.of_one_owner(workspace=workspace)
        text, name = read(config, settings.reach)
        validated = validation.validate(text, name, settings)
        fitted = fitting.fitting(validated.plan, settings)
        fitting.refuse(validated.plan, fitted)
        notes = [*validated.notes, *preview.look_for_code(validated, settings), *fitted.notes]
        if as_json:
            checked = validated.as_json()
            fit = fitted.as_json()
            print_json({"valid": True, "mistakes": [], "checked": checked, "notes": notes, "fit": fit})
            return
        for note in notes:
            typer.echo(f"note: {note}", err=True)
        typer.echo(f"{name}: {validated.in_words()}")


@app.command()
def plan(
    config: ConfigArgument,
    gpu: Annotated[
        str | None,
        typer.Option(help="The GPU to load the engine on, such as A100-80GB. [default: this machine's]"),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a build would do: commands, directories, downloads, disk space, and whether the engine fits.

    Runs nothing. The exit code is 6 where the engine cannot be loaded, 2 where the config is wrong.
    """
    with failures(as_json):
        from trt_llm_pipeline import check, fit
        from trt_llm_pipeline.config.source import read
        from trt_llm_pipeline.preflight import preview, validation
        from trt_llm_pipeline.process.gpus import GpuMonitor
        from trt_llm_pipeline.settings import Settings

        settings = Settings.of_one_owner(workspace=workspace)
        text, name = read(config, settings.reach)
        try:
            device = None if gpu is None else fit.find_gpu(gpu)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--gpu") from None
        validated = validation.validate(text, name, settings)
        shown = preview.preview(validated, settings, gpu=device, log=lambda line: typer.echo(line, err=True))
        with GpuMonitor(settings.env) as gpus:
            intended = check.intention(validated.plan, len(gpus.gpus))
        if as_json:
            print_json({**shown.as_json(), "check": intended.as_json()})
        else:
            typer.echo(f"{shown.as_text()}\ncheck: {intended.reason}")
        if not shown.fitting.possible:
            leave("resources")


@cache_app.callback(invoke_without_command=True)
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
        from trt_llm_pipeline.settings import Settings
        from trt_llm_pipeline.units import in_words
        from trt_llm_pipeline.workspace import Builds

        place = Settings.of_one_owner(workspace=workspace).workspace
        cached = StepCache(place, 0)
        if clear:
            place.prepare()
            with place.lock("trt-llm-pipeline cache --clear"):
                removed = cached.clear()
                Builds(place).forget()
            print_json({"removed_bytes": removed}) if as_json else typer.echo(f"{in_words(removed)} removed")
        elif as_json:
            print_json([asdict(entry) for entry in cached.entries()])
        else:
            for entry in cached.entries():
                key, size = entry.key[:12], in_words(entry.size)
                typer.echo(f"{key}  {size:>10}  {entry.step:13}  {entry.model_id}  {entry.output_dir}")


@cache_app.command()
def lookup(config: ConfigArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Say of each step whether its results are cached here or in the shared cache. Builds nothing."""
    with failures(as_json):
        from trt_llm_pipeline.config.source import read
        from trt_llm_pipeline.preflight import lookup as lookups
        from trt_llm_pipeline.preflight import validation
        from trt_llm_pipeline.settings import Settings

        settings = Settings.of_one_owner(workspace=workspace)
        text, name = read(config, settings.reach)
        validated = validation.validate(text, name, settings)
        found = lookups.look_up(
            validated, settings, warn=lambda line: typer.echo(f"warning: {line}", err=True)
        )
        if as_json:
            print_json([asdict(step) for step in found])
            return
        places = {"here": "cached here", "shared": "in the shared cache", "nowhere": "would run"}
        for step in found:
            key = step.key[:12] if step.key else "no key yet"
            typer.echo(f"{step.name:13}  {key:12}  {places[step.place]}")


@app.command()
def inspect(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="An archive: a file, or an address.")],
    serve_on: Annotated[
        str | None, typer.Option(help="Compute capability of the GPUs that will serve it: sm90 or 9.0.")
    ] = None,
    trt_llm: Annotated[
        str | None, typer.Option(help="The TensorRT-LLM release that will serve it: 0.9.0.")
    ] = None,
    world_size: Annotated[int | None, typer.Option(min=1, help="WORLD_SIZE there.")] = None,
    write_config: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write what serving needs there: config.yaml, fill_template_values."
        ),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Fill the backend's all_models/inflight_batcher_llm as a whole, too."
        ),
    ] = None,
    engine_dir: Annotated[
        str | None,
        typer.Option(help="Where the server has the engine. [default: where cog-triton unpacks it]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is in an archive and whether cog-triton can serve it: ready, not ready or unverified.

    The exit code is 5 where it is not ready. --serve-on and --trt-llm settle most of what is unverified.
    """
    with failures(as_json):
        from trt_llm_pipeline import inspection
        from trt_llm_pipeline.net.addresses import Reach
        from trt_llm_pipeline.settings import one_owner

        if write_config is None and (templates or engine_dir):
            raise typer.BadParameter("--templates and --engine-dir say what --write-config writes; add it")
        python = os.environ.get("TRTLLM_PYTHON") or sys.executable
        try:
            found = inspection.inspect(
                engine,
                serve_on=serve_on,
                trt_llm=trt_llm,
                world_size=world_size,
                python=python,
                env=os.environ,
                reach=Reach.from_env(one_owner()),
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        written = None
        if write_config is not None:
            written = inspection.write_configs(
                found, write_config, engine_dir=engine_dir, templates=templates
            )
        if as_json:
            print_json({**found.as_json(), "written": written.as_json() if written else None})
        else:
            typer.echo(found.as_text())
            for path in written.files if written else ():
                typer.echo(f"wrote {path}")
        for note in written.notes if written and not as_json else ():
            typer.echo(f"note: {note}", err=True)
        if found.verdict == "not ready":
            leave("check")


@app.command()
def verify(
    archive: Annotated[
        str, typer.Argument(metavar="ARCHIVE", help="A file, or an https://, s3://, gs:// or az:// address.")
    ],
    key: Annotated[
        Path | None, typer.Option(help="Demand a signature by this public key (PEM).", metavar="PUBLIC_KEY")
    ] = None,
    statement: Annotated[
        str | None,
        typer.Option(help="The statement, where it does not lie beside the archive: a file or an address."),
    ] = None,
    any_compression: Annotated[
        bool, typer.Option("--any-compression", help="Accept the same content in other compressed bytes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check an archive against the statement of how it was built: exit code 0 if all holds, else 5."""
    with failures(as_json):
        from trt_llm_pipeline.artifact.dsse import load_verifying_key
        from trt_llm_pipeline.delivery import collect
        from trt_llm_pipeline.inspection.verify import verify as verify_archive
        from trt_llm_pipeline.net.addresses import Reach
        from trt_llm_pipeline.settings import one_owner

        reach = Reach.from_env(one_owner())
        public = load_verifying_key(key) if key else None
        envelope = collect.read_statement(archive, reach, statement)
        with collect.opened(archive, reach) as stream:
            found = verify_archive(
                stream,
                envelope,
                label=collect.shown(archive),
                key=public,
                any_compression=any_compression,
            )
        print_json(found.as_json()) if as_json else typer.echo(found.as_text())
        if not found.holds:
            leave("check")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    from trt_llm_pipeline.config import json_schema

    print_json(json_schema())


def main() -> None:
    """The command's entry point."""
    app()
