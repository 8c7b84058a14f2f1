"""What the commands that take a config share: its options, and how it is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trt_llm_pipeline.preflight import Validated
    from trt_llm_pipeline.settings import Settings

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A file, an http(s) address, or - for stdin.")
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", help="Where to build. [default: $TRT_LLM_WORKSPACE or ./workspace]"),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A value in place of the config's, such as build.args.max_batch_size=16.",
        default_factory=list,
        show_default=False,
    ),
]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Run every step, and keep nothing for later: cache=false.")
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Use the model that is in the workspace, and ask no Hub.")
]


def settings_of(workspace: Path | None, offline: bool = False) -> Settings:
    """The settings of this environment and these options."""
    from trt_llm_pipeline.settings import Settings

    more = {"HF_HUB_OFFLINE": "1"} if offline else {}
    return Settings.of_one_owner({**os.environ, **more}, workspace)


def read_config(source: str, settings: Settings) -> tuple[str, str]:
    """A config's text, and what to call it in messages.

    Raises:
        ConfigError: it cannot be read.
        BadArgument: stdin cannot be read.
    """
    from trt_llm_pipeline.config.source import read
    from trt_llm_pipeline.config.yaml_reader import MAX_BYTES, decode

    if source == "-":
        return decode(_standard_input(MAX_BYTES + 1), "stdin"), "stdin"
    return read(source, settings.reach, typed=True)


def _standard_input(limit_bytes: int) -> bytes:
    from trt_llm_pipeline.errors import BadArgument

    why = "it is closed"
    if sys.stdin is not None and not sys.stdin.closed:
        try:
            return sys.stdin.buffer.read(limit_bytes)
        except OSError as error:
            why = error.strerror or str(error)
    raise BadArgument(f"standard input cannot be read: {why}; send the config there, or name its file")


def read_validated(
    source: str, settings: Settings, sets: Sequence[str] = (), *, no_cache: bool = False
) -> Validated:
    """Reads a config and checks it.

    Args:
        source: a file, an address, or `-`.
        settings: the workspace and the environment.
        sets: of `--set`.
        no_cache: of `--no-cache`.

    Raises:
        TrtLlmPipelineError: as `preflight.validate`.
    """
    from trt_llm_pipeline.preflight import validate

    text, name = read_config(source, settings)
    return validate(text, name, settings, [*sets, *(["cache=false"] if no_cache else [])])
