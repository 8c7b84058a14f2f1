"""Mistakes in the words of a command, which typer finds before the command runs: for people, or as JSON."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any, cast

import typer
from typer.core import TyperGroup

from trt_llm_pipeline.cli.edge import outputs, print_json, say

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
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, False, windows_expand_args, **extra)
        wants_json = _JSON in given[: given.index("--") if "--" in given else None]
        try:
            with outputs():
                ended = self._main(given, wants_json, prog_name, complete_var, windows_expand_args, **extra)
        except typer.Exit as end:  # of `outputs`
            ended = end.exit_code
        except typer.Abort:
            ended = 1
        sys.exit(ended if isinstance(ended, int) else 0)

    def _main(self, given: list[str], wants_json: bool, *more: Any, **extra: Any) -> Any:
        """Runs the command; says what is wrong with its words, and returns its exit code."""
        prog_name, complete_var, windows_expand_args = more
        try:
            return super().main(given, prog_name, complete_var, False, windows_expand_args, **extra)
        except _UsageError as error:
            told = cast(Any, error)
            if wants_json:
                fields = {"error": told.format_message(), "kind": "config", "type": type(error).__name__}
                print_json({**fields, "usage": told.ctx.get_usage() if told.ctx else None})
            else:
                told.show(file=(shown := io.StringIO()))
                say(shown.getvalue(), err=True, nl=False)
            return told.exit_code
