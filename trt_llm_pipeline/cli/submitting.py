"""trt-llm-pipeline submit: a build on a prediction server."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from trt_llm_pipeline.cli.edge import JsonOption, failures, print_json
from trt_llm_pipeline.cli.inputs import ConfigArgument, read_config, settings_of

_TOKEN = "REPLICATE_API_TOKEN"  # noqa: S105  a variable's name


def submit(
    config: ConfigArgument,
    to: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="A Cog server (http://localhost:5000), or at Replicate "
            "https://api.replicate.com/v1/deployments/OWNER/NAME (token from $REPLICATE_API_TOKEN).",
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="KEY=VALUE",
            help="Another input of the prediction, such as destination=s3://bucket/key.",
            default_factory=list,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to put the archive; what is there is replaced.")
    ] = Path("engine.tar.gz"),
    model_version: Annotated[
        str | None,
        typer.Option(help="Replicate: the version to run, with --to https://api.replicate.com/v1."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="An address of this machine that the server can reach, to follow the log by webhook. "
            "[default: loopback, where the server is here]",
        ),
    ] = None,
    token_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The variable with the token. [default: REPLICATE_API_TOKEN at Replicate]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build on a prediction server: send the config, follow the log, save and verify the archive."""
    with failures(as_json, kept="the prediction has been cancelled"):
        from trt_llm_pipeline import submission
        from trt_llm_pipeline.delivery import check_output
        from trt_llm_pipeline.submission.api import Api, address_of

        check_output(output)
        settings = settings_of(None)
        api = Api(address_of(to))
        if name := token_env or (_TOKEN if api.is_replicate else None):
            token = os.environ.get(name)
            if not token:
                raise typer.BadParameter(f"{to} wants a token; set {name}", param_hint="--to")
            api = api.with_token(token, name)
        sent, name = _config(config, settings)
        asked = submission.Submission(
            api, {"config": sent, **_more(inputs)}, model_version, listen, config_name=name
        )
        with _log(as_json) as log:
            ended = submission.submit(asked, log)
        saved = submission.save(ended.get("output"), output, settings.reach)
        if as_json:
            place = str(saved.path) if saved.path else None
            answer: dict[str, Any] = {"id": ended.get("id"), "output": place, "record": saved.record}
            print_json(
                {**answer, "size": saved.size, "sha256": saved.sha256, "metrics": ended.get("metrics")}
            )
        elif saved.path is not None:
            typer.echo(f"verified: {saved.size:,} bytes, sha256 {saved.sha256}", err=True)
            typer.echo(saved.path)
        else:
            archive = (saved.record or {}).get("archive") or {}
            typer.echo("the server has not returned the archive; it is where build.json says", err=True)
            typer.echo(archive.get("address") or archive.get("path"))


@contextmanager
def _log(as_json: bool) -> Iterator[Callable[[str], None]]:
    """Takes pieces of the server's log, which may end within a line."""
    from trt_llm_pipeline.terminal.json_lines import JsonLines

    if not as_json:
        yield lambda text: typer.echo(text, nl=False, err=True)
        return
    lines, begun = JsonLines(sys.stderr), ""

    def take(text: str) -> None:
        nonlocal begun
        *whole, begun = (begun + text).split("\n")
        for line in whole:
            lines.log(line)

    try:
        yield take
    finally:
        if begun:
            lines.log(begun)


def _config(source: str, settings: Any) -> tuple[str, str | None]:
    """What the prediction is given: an address as it is, a file's text as a data: URI, with its name."""
    if source.startswith(("http://", "https://")):
        return source, None
    text, name = read_config(source, settings)
    return f"data:application/yaml;base64,{base64.b64encode(text.encode()).decode()}", name


def _more(inputs: list[str]) -> dict[str, str]:
    for each in inputs:
        if "=" not in each:
            raise typer.BadParameter(f"{each!r} is not KEY=VALUE", param_hint="--input")
    return {key: value for key, _, value in (each.partition("=") for each in inputs)}
