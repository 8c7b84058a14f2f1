"""Mistakes in the words of a command, which typer finds before the command runs: as JSON too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, cast

import typer
from typer.core import TyperGroup

from trt_llm_pipeline.cli.edge import print_json

_JSON = "--json"
#: click's, of which `typer.BadParameter` is one; typer gives it no public name.
_UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])


class Commands(TyperGroup):
    """The commands. With `--json`, a missing or unknown option is told of in JSON, on stdout."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """As typer's own."""
        given = list(sys.argv[1:] if args is None else args)
        wants_json = _JSON in given[: given.index("--") if "--" in given else None]
        if not (standalone_mode and wants_json):
            return super().main(args, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        try:
            ended = super().main(given, prog_name, complete_var, False, windows_expand_args, **extra)
        except _UsageError as error:
            told = cast(Any, error)
            print_json(
                {
                    "error": told.format_message(),
                    "kind": "config",
                    "type": type(error).__name__,
                    "usage": told.ctx.get_usage() if told.ctx else None,
                }
            )
            sys.exit(told.exit_code)
        except typer.Abort:
            sys.exit(1)
        sys.exit(ended if isinstance(ended, int) else 0)
