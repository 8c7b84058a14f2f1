"""trt-llm-pipeline: the same functions as the prediction server's, at a terminal.

Results go to stdout, progress and errors to stderr. With --json both are JSON. Modules that are slow to
import are imported by the command that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import trt_llm_pipeline
from trt_llm_pipeline.cli import archives, beginning, submitting, trying
from trt_llm_pipeline.cli.builds import app as builds_app
from trt_llm_pipeline.cli.cache import app as cache_app
from trt_llm_pipeline.cli.edge import JsonOption, failures, leave, print_json, say, tell
from trt_llm_pipeline.cli.fleet import app as fleet_app
from trt_llm_pipeline.cli.inputs import (
    ConfigArgument,
    NoCacheOption,
    OfflineOption,
    SetOption,
    WorkspaceOption,
    read_validated,
    settings_of,
)
from trt_llm_pipeline.cli.usage import Commands

if TYPE_CHECKING:
    from trt_llm_pipeline.settings import Settings

app = typer.Typer(
    name="trt-llm-pipeline",
    cls=Commands,
    help="Builds TensorRT-LLM engines from a YAML config.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"trt-llm-pipeline {trt_llm_pipeline.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Builds TensorRT-LLM engines from a YAML config."""


app.command()(beginning.init)


@app.command()
def build(
    config: ConfigArgument,
    sets: SetOption,
    workspace: WorkspaceOption = None,
    destination: Annotated[
        str | None,
        typer.Option(help="Send the archive there instead: s3://, gs://, az://, hf://, https://, file://."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Put the archive there too, with its statement beside it."),
    ] = None,
    no_cache: NoCacheOption = False,
    offline: OfflineOption = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Keep every line that the scripts print on the screen.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build an engine. A token for gated models is taken from $HF_TOKEN."""
    with failures(as_json):
        from trt_llm_pipeline import delivery, pipeline
        from trt_llm_pipeline.terminal import show

        if output and destination:
            raise typer.BadParameter("an archive that is sent to --destination is not kept here for --output")
        if output:
            delivery.check_output(output)
        settings = settings_of(workspace, offline)
        validated = read_validated(config, settings, sets, no_cache=no_cache)
        if output:
            delivery.check_named(output, validated.plan.config.compression)
        with show(as_json, settings.workspace.root, verbose=verbose) as observer:
            result = pipeline.build(validated, settings, observer, destination=destination)
            observer.finished(result.record, result.directory, result.newest or result.archive)
        if output and result.archive:
            delivery.put_output(result.archive, output)
        if as_json:
            place = {"newest": str(result.newest) if result.newest else None}
            print_json({**result.record, **place, **({"output": str(output)} if output else {})})
        else:
            say(output or result.newest or result.archive or result.record["archive"]["address"])


@app.command()
def validate(
    configs: Annotated[
        list[str], typer.Argument(metavar="CONFIG", help="Files, http(s) addresses, or - for stdin.")
    ],
    sets: SetOption,
    workspace: WorkspaceOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Name every mistake of configs. Writes nothing.

    The exit code is 0 without any, 2 where a config is wrong, 3 where there is no such model or it has code
    of its own, 6 where the engine cannot fit.
    """
    with failures(as_json):
        from trt_llm_pipeline.errors import TrtLlmPipelineError

        settings = settings_of(workspace, offline)
        if len(configs) == 1:
            answer = _validate(configs[0], settings, sets, as_json)
            if as_json:
                print_json(answer)
            return
        answers, kinds = [], []
        for config in configs:
            try:
                answer = _validate(config, settings, sets, as_json)
            except TrtLlmPipelineError as error:
                answer = tell(error, quiet=as_json)
                kinds.append(error.kind)
            answers.append({"config": config, **answer})
        if as_json:
            print_json(answers)
        if kinds:
            leave(kinds[0])


def _validate(config: str, settings: Settings, sets: Sequence[str], as_json: bool) -> dict[str, Any]:
    """Checks one config and says how it stands; what `--json` prints of it."""
    from trt_llm_pipeline.preflight import fitting, preview

    validated = read_validated(config, settings, sets)
    fitted = fitting.fitting(validated.plan, settings)
    fitting.refuse(validated.plan, fitted)
    notes = [*validated.notes, *preview.look_for_code(validated, settings, fitted)]
    if not as_json:
        for note in notes:
            say(f"note: {note}", err=True)
        say(f"{validated.plan.config.source.name}: {validated.in_words()}")
    checked, fit = validated.as_json(), fitted.as_json()
    return {"valid": True, "mistakes": [], "checked": checked, "notes": notes, "fit": fit}


@app.command()
def plan(
    config: ConfigArgument,
    sets: SetOption,
    gpu: Annotated[
        str | None,
        typer.Option(help="The GPU to load the engine on, such as A100-80GB. [default: this machine's]"),
    ] = None,
    workspace: WorkspaceOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a build would do, and whether the engine fits.

    Commands, directories, downloads and disk space are shown, and nothing is run. The exit code is 6 where
    the engine cannot be loaded, 2 where the config is wrong.
    """
    with failures(as_json):
        from trt_llm_pipeline import check, fit
        from trt_llm_pipeline.preflight import preview
        from trt_llm_pipeline.process.gpus import GpuMonitor

        settings = settings_of(workspace, offline)
        try:
            device = None if gpu is None else fit.find_gpu(gpu)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--gpu") from None
        validated = read_validated(config, settings, sets)
        shown = preview.preview(validated, settings, gpu=device, log=lambda line: say(line, err=True))
        with GpuMonitor(settings.env) as gpus:
            intended = check.intention(validated.plan, len(gpus.gpus))
        if as_json:
            print_json({**shown.as_json(), "check": intended.as_json()})
        else:
            say(f"{shown.as_text()}\ncheck: {intended.reason}")
        if not shown.fitting.possible:
            leave("resources")


app.command()(archives.inspect)
app.command()(archives.verify)
app.command("try", short_help="Let an archive's engine write.")(trying.try_)
app.command(short_help="Build on a prediction server, and save the archive.")(submitting.submit)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    with failures(False):
        from trt_llm_pipeline.config.schema import json_schema

        print_json(json_schema())


app.add_typer(builds_app)
app.add_typer(cache_app)
app.add_typer(fleet_app)
