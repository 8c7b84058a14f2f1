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

from trt_llm_pipeline.cli.edge import JsonOption, failures, print_json, say
from trt_llm_pipeline.cli.inputs import ConfigArgument, read_config, settings_of
from trt_llm_pipeline.printable import printable

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
        more = _more(inputs)
        from trt_llm_pipeline import submission
        from trt_llm_pipeline.delivery import check_output
        from trt_llm_pipeline.submission.api import Api, address_of

        check_output(output)
        settings = settings_of(None)
        api = Api(address_of(to))
        if name := token_env or (_TOKEN if api.is_replicate else None):
            token = os.environ.get(name)
            if not token:
                if token_env:
                    message = f"{name} is not set; set {name}, or leave --token-env out"
                    raise typer.BadParameter(message, param_hint="--token-env")
                raise typer.BadParameter(f"{api.url} wants a token; set {name}", param_hint="--to")
            api = api.with_token(token, name)
        sent, name = _config(config, settings)
        asked = submission.Submission(api, {"config": sent, **more}, model_version, listen, config_name=name)
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
            say(f"verified: {saved.size:,} bytes, sha256 {saved.sha256}", err=True)
            say(saved.path)
        else:
            told = (saved.record or {}).get("archive")
            archive = told if isinstance(told, dict) else {}
            address = archive.get("address")
            what = "has been sent to its destination" if address else "is on the server"
            say(f"the archive {what}, as follows; nothing was written to {output}", err=True)
            say(address or archive.get("path"))


@contextmanager
def _log(as_json: bool) -> Iterator[Callable[[str], None]]:
    """Takes pieces of the server's log, which may end within a line."""
    from trt_llm_pipeline.terminal.json_lines import JsonLines

    if not as_json:
        yield lambda text: say(text, nl=False, err=True)
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
        _check_text(source, "the address", "CONFIG")
        return source, None
    text, name = read_config(source, settings)
    return f"data:application/yaml;base64,{base64.b64encode(text.encode()).decode()}", name


def _more(inputs: list[str]) -> dict[str, str]:
    found = {}
    for each in inputs:
        key, equals, value = each.partition("=")
        if not equals:
            raise typer.BadParameter(f"{each!r} is not KEY=VALUE", param_hint="--input")
        if key == "config":
            raise typer.BadParameter("config is given as the argument CONFIG", param_hint="--input")
        _check_text(each, printable(key), "--input")
        found[key] = value
    return found


def _check_text(given: str, what: str, hint: str) -> None:
    """Refuses what no server can read; the message does not show it, as it may be a secret."""
    try:
        given.encode()
    except UnicodeEncodeError:
        message = f"{what} holds bytes that are no text (UTF-8); give it again"
        raise typer.BadParameter(message, param_hint=hint) from None
