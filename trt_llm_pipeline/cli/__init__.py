"""The command line: the same functions as the prediction server's, at a terminal.

Nothing is imported here that takes time: Ctrl-C may come while the rest is imported.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trt_llm_pipeline.cli.commands import app

__all__ = [
    "app",
    "end_at_once",
    "main",
]

_INTERRUPTED = 130  # as a shell has it for SIGINT


def main() -> None:
    """The command's entry point."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, end_at_once)
    from trt_llm_pipeline.cli import streams

    streams.prepare()
    from trt_llm_pipeline.cli.commands import app

    app()


def end_at_once(*_: object) -> None:
    """Ctrl-C before a command has begun, when there is nothing to clean up; see `edge.failures`."""
    os._exit(_INTERRUPTED)


def __getattr__(name: str) -> Any:
    if name == "app":
        from trt_llm_pipeline.cli.commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
